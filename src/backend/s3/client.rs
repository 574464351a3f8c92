//! The SDK's client, and how its calls are waited for: no longer than the limits and the attempt allow.
#![expect(clippy::disallowed_methods, reason = "limits of calls are in time of the real network")]

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_async::time::TimeSource;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tokio::runtime::Runtime;

use super::S3Options;
use super::errors::Trouble;
use crate::backend::Attempt;
use crate::clock::Clock;

/// How often a call that is waited for looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// A client, made when it is first needed.
pub(super) struct Caller {
    options: S3Options,
    clock: Arc<dyn Clock>,
    engine: OnceLock<Engine>,
}

/// The time that calls are signed with.
#[derive(Debug)]
struct SignedAt(Arc<dyn Clock>);

impl TimeSource for SignedAt {
    fn now(&self) -> SystemTime {
        let since = Duration::from_millis(u64::try_from(self.0.now().as_millis()).unwrap_or(0));
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

struct Engine {
    runtime: Option<Runtime>,
    client: Client,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What still runs there was given up; nobody waits for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How long one call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spell {
    idle: Duration,
    until: Option<Instant>,
}

impl Spell {
    /// No longer than `idle` with nothing moving, and no longer than `total` in all, from now on.
    pub(super) fn begin(idle: Duration, total: Option<Duration>) -> Spell {
        Spell { idle, until: total.map(|total| Instant::now() + total) }
    }
}

impl Caller {
    pub(super) fn new(options: S3Options, clock: Arc<dyn Clock>) -> Caller {
        Caller { options, clock, engine: OnceLock::new() }
    }

    /// The client and the threads that its calls run on.
    pub(super) fn engine(&self) -> Result<(&Runtime, &Client), Trouble> {
        let engine = match self.engine.get() {
            Some(engine) => engine,
            None => {
                let started = self.start()?;
                self.engine.get_or_init(|| started)
            }
        };
        let runtime = engine.runtime.as_ref().ok_or_else(|| Trouble::Unusable("it has ended".into()))?;
        Ok((runtime, &engine.client))
    }

    fn start(&self) -> Result<Engine, Trouble> {
        let options = &self.options;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| Trouble::Unusable(format!("there are no means for the network: {error}")))?;
        let http: SharedHttpClient =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let region = Region::new(options.region.clone());
        let (calculation, validation) = match options.checksums {
            true => (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported),
            false => (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired),
        };
        let mut config = match &options.keys {
            Some(keys) => {
                let credentials = Credentials::new(&keys.id, &keys.secret, keys.token.clone(), None, "settings");
                Builder::new().behavior_version(BehaviorVersion::latest()).credentials_provider(credentials)
            }
            // The usual places: the environment, the files of AWS's own tools, the machine.
            None => {
                let loader = aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
                let found = runtime.block_on(loader.http_client(http.clone()).load());
                Builder::from(&found)
            }
        };
        config = config
            .http_client(http)
            .region(region)
            .time_source(SignedAt(self.clock.clone()))
            .force_path_style(options.path_style)
            .request_checksum_calculation(calculation)
            .response_checksum_validation(validation)
            // Whether to try again is for the log to decide, which remembers it.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok(Engine { runtime: Some(runtime), client: Client::from_conf(config.build()) })
    }
}

/// Waits for something; what an attempt has moved counts as movement.
pub(super) fn wait<T>(
    runtime: &Runtime,
    attempt: &Attempt,
    spell: Spell,
    what: impl Future<Output = T>,
) -> Result<T, Trouble> {
    runtime.block_on(async {
        let mut what = pin!(what);
        let (mut since, mut moved) = (Instant::now(), attempt.progress().0);
        loop {
            let now = Instant::now();
            if attempt.is_cancelled() {
                return Err(Trouble::Stopped);
            }
            if spell.until.is_some_and(|until| now >= until) {
                return Err(Trouble::TimedOut("it took longer in all than it may".into()));
            }
            let done = attempt.progress().0;
            if done != moved {
                (since, moved) = (now, done);
            }
            if now.duration_since(since) >= spell.idle {
                return Err(Trouble::TimedOut(format!("nothing moved for {:?}", spell.idle)));
            }
            tokio::select! {
                biased;
                out = &mut what => return Ok(out),
                () = tokio::time::sleep(PATIENCE) => {}
            }
        }
    })
}
