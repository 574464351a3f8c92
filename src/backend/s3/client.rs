//! The SDK's client, made when it is first needed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_async::time::TimeSource;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::S3Options;
use super::errors::Trouble;
use crate::backend::runtime::{BlockingRuntime, LazyClient};
use crate::clock::Clock;

/// A client, made when it is first needed.
pub(super) struct Caller {
    options: S3Options,
    clock: Arc<dyn Clock>,
    engine: LazyClient<Client>,
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

impl Caller {
    pub(super) fn new(options: S3Options, clock: Arc<dyn Clock>) -> Caller {
        Caller { options, clock, engine: LazyClient::new() }
    }

    /// The client and the threads that its calls run on.
    pub(super) fn engine(&self) -> Result<(&BlockingRuntime, &Client), Trouble> {
        self.engine.get_or_start(|| self.start())
    }

    fn start(&self) -> Result<(BlockingRuntime, Client), Trouble> {
        let options = &self.options;
        let threads = BlockingRuntime::start("s3", 2).map_err(Trouble::NoNetwork)?;
        let http: SharedHttpClient = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let region = Region::new(options.region.clone());
        let (calculation, validation) = match options.checksums {
            true => (
                RequestChecksumCalculation::WhenSupported,
                ResponseChecksumValidation::WhenSupported,
            ),
            false => {
                (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
            }
        };
        let mut config = match &options.keys {
            Some(keys) => {
                let credentials =
                    Credentials::new(&keys.id, &keys.secret, keys.token.clone(), None, "settings");
                Builder::new()
                    .behavior_version(BehaviorVersion::latest())
                    .credentials_provider(credentials)
            }
            // The usual places: the environment, the files of AWS's own tools, the machine.
            None => {
                let loader = aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
                let found = threads.block_on(loader.http_client(http.clone()).load());
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
        Ok((threads, Client::from_conf(config.build())))
    }
}
