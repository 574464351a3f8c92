//! Sending a range of a file as the body of a request, in constant memory.

use std::ops::Range;
use std::result::Result as StdResult;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::CallContext;
use super::body::{PieceSender, file_body};
use super::checksum::{Comparison, ContentDigest, ReportedChecksum};
use super::errors::S3Error;
use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::files::{ContentHash, Opened, stop_if_asked};

/// The number of bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// The result of a request that sent content.
pub(super) struct SendResult<T> {
    pub(super) response: StdResult<T, S3Error>,
    pub(super) sent: SentDigests,
}

/// The digests of content that was sent.
pub(super) struct SentDigests {
    /// The one to compare with what the service reports.
    pub(super) reported: ContentDigest,
    /// A CRC-32, whatever the service reports.
    pub(super) crc32: ContentDigest,
}

/// The headers of a request that describe its content. Not every service accepts a checksum in the
/// trailer of a stream, and some accept it only if the content is not signed.
pub(super) struct ContentHeaders {
    /// The CRC-32, if the service supports checksums.
    pub(super) crc32: Option<String>,
    pub(super) signing: PayloadSigning,
}

/// The SHA-256 of the content in hexadecimal, which the signature of the request covers; `None` if
/// the content is not signed.
#[derive(Debug)]
pub(super) struct PayloadSigning(Option<String>);

impl Intercept for PayloadSigning {
    fn name(&self) -> &'static str {
        "PayloadSigning"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> StdResult<(), BoxError> {
        let payload = self
            .0
            .clone()
            .map_or(PayloadSigningOverride::UnsignedPayload, PayloadSigningOverride::Precomputed);
        config.interceptor_state().store_put(payload);
        Ok(())
    }
}

/// The reason why content was not sent to its end.
enum SendError {
    /// The call ended before all of it was sent; its response says why.
    CallEnded,
    Call(S3Error),
    /// Reading the file failed.
    Read(AttemptError),
}

impl CallContext<'_> {
    /// Sends a range of a file as the body of a request. Errors of the service are in the result;
    /// this fails only if the file cannot be read.
    pub(super) fn send_range<T, E, F>(
        &self,
        opened: &Opened<'_>,
        range: Range<u64>,
        start: impl FnOnce(ByteStream, ContentHeaders) -> F,
    ) -> Result<SendResult<T>>
    where
        F: Future<Output = StdResult<T, SdkError<E>>> + Send + 'static,
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let mut sent = SentDigests {
            reported: ContentDigest::for_service(self.backend.options.checksums),
            crc32: ContentDigest::crc32(),
        };
        let runtime = match self.backend.client.get() {
            Ok((runtime, _)) => runtime,
            Err(error) => return Ok(SendResult { response: Err(error), sent }),
        };
        let headers = self.content_headers(opened, range.clone())?;
        let expected_crc32 = headers.crc32.clone();
        let (pieces, body) = file_body(range.end - range.start);
        let mut call = runtime.spawn(start(body, headers));
        match self.send_pieces(opened, range, &pieces, &mut sent, expected_crc32) {
            Ok(()) | Err(SendError::CallEnded) => {}
            Err(SendError::Call(error)) => {
                return Ok(SendResult { response: Err(error), sent });
            }
            Err(SendError::Read(error)) => return Err(error),
        }
        let response = match runtime.wait(self.attempt, self.deadline, None, call.output()) {
            Ok(Ok(response)) => response.map_err(S3Error::from),
            Ok(Err(aborted)) => Err(S3Error::ConnectionLost(aborted)),
            Err(error) => Err(error.into()),
        };
        Ok(SendResult { response, sent })
    }

    fn send_pieces(
        &self,
        opened: &Opened<'_>,
        range: Range<u64>,
        pieces: &PieceSender,
        sent: &mut SentDigests,
        expected_crc32: Option<String>,
    ) -> StdResult<(), SendError> {
        let (runtime, _) = self.backend.client.get().map_err(SendError::Call)?;
        // A part alone has no noted hash: `PartUpload::check_content` compares the whole.
        let mut hash = (range == (0..opened.len())).then(|| opened.content_hash());
        let mut offset = range.start;
        while offset < range.end {
            stop_if_asked(self.attempt).map_err(|_| SendError::Call(S3Error::Cancelled))?;
            let wanted = PIECE.min(usize::try_from(range.end - offset).unwrap_or(PIECE));
            let mut buffer = vec![0; wanted];
            let read = opened.read_at(&mut buffer, offset).map_err(SendError::Read)?;
            if read == 0 {
                // The file became shorter, so the request cannot succeed.
                let changed = opened.check_read(offset).err();
                return Err(changed.map_or(SendError::Call(S3Error::Cancelled), SendError::Read));
            }
            buffer.truncate(read);
            sent.reported.update(&buffer);
            sent.crc32.update(&buffer);
            hash.iter_mut().for_each(|hash| hash.update(&buffer));
            offset += read as u64;
            if offset == range.end {
                // Checked before the last piece is sent: without it other content than was logged
                // does not become an object.
                opened.check_read(opened.len()).map_err(SendError::Read)?;
                if expected_crc32.is_some() && sent.crc32.to_crc32() != expected_crc32 {
                    return Err(SendError::Read(opened.changed()));
                }
                hash.take().map_or(Ok(()), ContentHash::check).map_err(SendError::Read)?;
            }
            let piece = pieces.send(Bytes::from(buffer));
            match runtime.wait(self.attempt, self.deadline, None, piece) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(SendError::CallEnded),
                Err(error) => return Err(SendError::Call(error.into())),
            }
            self.attempt.add_bytes(read as u64);
        }
        Ok(())
    }

    /// Reads the content once before it is sent, because its checksums are in the headers.
    fn content_headers(&self, opened: &Opened<'_>, range: Range<u64>) -> Result<ContentHeaders> {
        let options = &self.backend.options;
        let mut crc32 = options.checksums.then(ContentDigest::crc32);
        let is_encrypted = is_encrypted(&options.endpoint, options.keys.is_some());
        let mut sha256 = (!is_encrypted).then(Sha256::new);
        self.read_range(opened, range, |piece| {
            crc32.iter_mut().for_each(|crc32| crc32.update(piece));
            sha256.iter_mut().for_each(|sha256| sha256.update(piece));
        })?;
        let signing = PayloadSigning(sha256.map(|sha256| HEXLOWER.encode(&sha256.finalize())));
        Ok(ContentHeaders { crc32: crc32.and_then(|crc32| crc32.to_crc32()), signing })
    }

    /// Compares content that was sent with any checksum that the service reports for it.
    pub(super) fn compare_sent(
        &self,
        opened: &Opened<'_>,
        range: Range<u64>,
        digest: &ContentDigest,
        reported: ReportedChecksum<'_>,
    ) -> Result<Comparison> {
        match digest.compare(reported) {
            // The service ignores checksums although the settings say that it supports them.
            Comparison::NotComparable if self.backend.options.checksums => {
                let mut md5 = ContentDigest::md5();
                self.read_range(opened, range, |piece| md5.update(piece))?;
                Ok(md5.compare(reported))
            }
            comparison => Ok(comparison),
        }
    }

    /// Passes a range of a file to `sink`, piece by piece.
    pub(super) fn read_range(
        &self,
        opened: &Opened<'_>,
        range: Range<u64>,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut offset = range.start;
        while offset < range.end {
            stop_if_asked(self.attempt)?;
            let wanted = PIECE.min(usize::try_from(range.end - offset).unwrap_or(PIECE));
            let read = opened.read_at(&mut buffer[..wanted], offset)?;
            if read == 0 {
                break;
            }
            sink(&buffer[..read]);
            offset += read as u64;
        }
        Ok(())
    }
}

/// Returns whether all requests use TLS, so that content cannot be changed in transit. The standard
/// credential chain may also set another endpoint.
fn is_encrypted(endpoint: &Option<String>, has_keys: bool) -> bool {
    match endpoint {
        Some(endpoint) => endpoint.starts_with("https:"),
        None => has_keys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_signed_wherever_it_may_go_without_tls() {
        for (endpoint, has_keys, expected) in [
            (Some("https://a"), false, true),
            (Some("http://a"), true, false),
            // AWS's own endpoint, or one from the standard credential chain.
            (None, true, true),
            (None, false, false),
        ] {
            assert_eq!(
                is_encrypted(&endpoint.map(str::to_owned), has_keys),
                expected,
                "{endpoint:?} {has_keys}"
            );
        }
    }
}
