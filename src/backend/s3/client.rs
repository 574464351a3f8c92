//! The AWS SDK's client, created on first use.

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
use super::errors::S3Error;
use crate::backend::runtime::{BlockingRuntime, LazyClient};
use crate::clock::Clock;

/// The SDK's client and the runtime of its calls.
pub(super) struct SdkClient {
    options: S3Options,
    clock: Arc<dyn Clock>,
    client: LazyClient<Client>,
}

/// The clock whose time is part of request signatures.
#[derive(Debug)]
struct SigningClock(Arc<dyn Clock>);

impl TimeSource for SigningClock {
    fn now(&self) -> SystemTime {
        let since = Duration::from_millis(u64::try_from(self.0.now().as_millis()).unwrap_or(0));
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl SdkClient {
    pub(super) fn new(options: S3Options, clock: Arc<dyn Clock>) -> SdkClient {
        SdkClient { options, clock, client: LazyClient::new() }
    }

    /// Returns the runtime and the client, started if this is the first call.
    pub(super) fn get(&self) -> Result<(&BlockingRuntime, &Client), S3Error> {
        self.client.get_or_start(|| self.start())
    }

    fn start(&self) -> Result<(BlockingRuntime, Client), S3Error> {
        let options = &self.options;
        let runtime = BlockingRuntime::start("s3", 2).map_err(S3Error::NoNetwork)?;
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
            // The standard chain: environment, files of the AWS tools, instance metadata.
            None => {
                let loader = aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
                let found = runtime.block_on(loader.http_client(http.clone()).load());
                Builder::from(&found)
            }
        };
        config = config
            .http_client(http)
            .region(region)
            .time_source(SigningClock(self.clock.clone()))
            .force_path_style(options.path_style)
            .request_checksum_calculation(calculation)
            .response_checksum_validation(validation)
            // The log decides about retries, because it remembers them.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok((runtime, Client::from_conf(config.build())))
    }
}
