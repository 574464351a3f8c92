//! Content of a file on its way to the service, in constant memory.

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

use super::Session;
use super::checks::{Digest, Said};
use super::errors::Trouble;
use super::send;
use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::files::{Opened, stop_if_asked};

/// What is read at a time.
const PIECE: usize = 256 << 10;

/// What came of a call that sent content.
pub(super) struct Sent<T> {
    /// What the service said.
    pub(super) answer: StdResult<T, Trouble>,
    /// Of what was sent.
    pub(super) digest: Digest,
}

/// What is said of content in the head of the call that sends it. Behind it, in the trailer of a stream, not every service
/// takes it, and some take only what is not signed.
pub(super) struct Announced {
    /// Where the service takes checksums.
    pub(super) crc32: Option<String>,
    /// How the call is to be signed.
    pub(super) signed: SignedContent,
}

/// What a signature says of content: its SHA-256, in hexadecimal; none: nothing.
#[derive(Debug)]
pub(super) struct SignedContent(Option<String>);

impl Intercept for SignedContent {
    fn name(&self) -> &'static str {
        "SignedContent"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> StdResult<(), BoxError> {
        let how = self
            .0
            .clone()
            .map_or(PayloadSigningOverride::UnsignedPayload, PayloadSigningOverride::Precomputed);
        config.interceptor_state().store_put(how);
        Ok(())
    }
}

/// Why what was read was not sent.
enum Unsent {
    /// The call has ended before all of it was sent.
    Unwanted,
    /// It does not move, or is to stop.
    Trouble(Trouble),
    /// Reading failed.
    Unread(AttemptError),
}

impl Session<'_> {
    /// Sends a part of a file as the body of a call; the error is one of ours.
    pub(super) fn streamed<T, E, F>(
        &self,
        opened: &Opened,
        range: Range<u64>,
        start: impl FnOnce(ByteStream, Announced) -> F,
    ) -> Result<Sent<T>>
    where
        F: Future<Output = StdResult<T, SdkError<E>>> + Send + 'static,
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let mut digest = Digest::new(self.backend.options.checksums);
        let threads = match self.backend.caller.engine() {
            Ok((threads, _)) => threads,
            Err(trouble) => return Ok(Sent { answer: Err(trouble), digest }),
        };
        let announced = self.announced(opened, range.clone())?;
        let expected = announced.crc32.clone();
        let (pieces, body) = send::body(range.end - range.start);
        let mut call = threads.spawn(start(body, announced));
        match self.feed(opened, range, &pieces, &mut digest, expected) {
            Ok(()) | Err(Unsent::Unwanted) => {}
            Err(Unsent::Trouble(trouble)) => return Ok(Sent { answer: Err(trouble), digest }),
            Err(Unsent::Unread(error)) => return Err(error),
        }
        let answer = match threads.wait(self.attempt, self.spell, None, call.output()) {
            Ok(Ok(answer)) => answer.map_err(Trouble::from),
            Ok(Err(ended)) => Err(Trouble::NoAnswer(ended)),
            Err(unfinished) => Err(unfinished.into()),
        };
        Ok(Sent { answer, digest })
    }

    /// Reads a part of a file and hands its pieces on.
    fn feed(
        &self,
        opened: &Opened,
        range: Range<u64>,
        pieces: &send::Pieces,
        digest: &mut Digest,
        announced: Option<String>,
    ) -> StdResult<(), Unsent> {
        let (threads, _) = self.backend.caller.engine().map_err(Unsent::Trouble)?;
        let mut offset = range.start;
        while offset < range.end {
            stop_if_asked(self.attempt).map_err(|_| Unsent::Trouble(Trouble::Stopped))?;
            let wanted = PIECE.min(usize::try_from(range.end - offset).unwrap_or(PIECE));
            let mut buffer = vec![0; wanted];
            let read = opened.read_at(&mut buffer, offset).map_err(Unsent::Unread)?;
            if read == 0 {
                // It has become shorter: the call cannot succeed, and what is said of it is that.
                let changed = opened.check_read(offset).err();
                return Err(changed.map_or(Unsent::Trouble(Trouble::Stopped), Unsent::Unread));
            }
            buffer.truncate(read);
            digest.update(&buffer);
            offset += read as u64;
            if offset == range.end {
                // What was written to meanwhile must not become an object: without its end it does not.
                opened.check_read(opened.len()).map_err(Unsent::Unread)?;
                if announced.is_some() && digest.clone().crc32() != announced {
                    return Err(Unsent::Unread(opened.changed()));
                }
            }
            match threads.wait(self.attempt, self.spell, None, pieces.send(Bytes::from(buffer))) {
                Ok(Ok(())) => {}
                // What the call says is what counts.
                Ok(Err(_)) => return Err(Unsent::Unwanted),
                Err(unfinished) => return Err(Unsent::Trouble(unfinished.into())),
            }
            self.attempt.add_bytes(read as u64);
        }
        Ok(())
    }

    /// Reads what will be sent, to say what it is before it is.
    fn announced(&self, opened: &Opened, range: Range<u64>) -> Result<Announced> {
        let mut crc32 = self.backend.options.checksums.then(|| Digest::new(true));
        let mut sha256 =
            (!is_closed(&self.backend.options.endpoint, self.backend.options.keys.is_some()))
                .then(Sha256::new);
        self.read_over(opened, range, |piece| {
            crc32.iter_mut().for_each(|crc32| crc32.update(piece));
            sha256.iter_mut().for_each(|sha256| sha256.update(piece));
        })?;
        let signed = SignedContent(sha256.map(|sha256| HEXLOWER.encode(&sha256.finalize())));
        Ok(Announced { crc32: crc32.and_then(Digest::crc32), signed })
    }

    /// Whether that is what the service has, by whatever it says of it; none: it says nothing that could be compared.
    pub(super) fn agrees(
        &self,
        opened: &Opened,
        range: Range<u64>,
        digest: Digest,
        said: Said<'_>,
    ) -> Result<Option<bool>> {
        match digest.agrees(said) {
            // It takes no notice of checksums, and nobody has said so in the settings.
            None if self.backend.options.checksums => {
                let mut md5 = Digest::new(false);
                self.read_over(opened, range, |piece| md5.update(piece))?;
                Ok(md5.agrees(said))
            }
            known => Ok(known),
        }
    }

    /// Reads a part of a file for what goes over it alone.
    pub(super) fn read_over(
        &self,
        opened: &Opened,
        range: Range<u64>,
        mut over: impl FnMut(&[u8]),
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
            over(&buffer[..read]);
            offset += read as u64;
        }
        Ok(())
    }
}

/// Whether nobody can change what passes: over TLS. Where AWS's own places say who we are, they may name another address.
fn is_closed(endpoint: &Option<String>, has_keys: bool) -> bool {
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
            // AWS's own address, or one that AWS's own places name.
            (None, true, true),
            (None, false, false),
        ] {
            assert_eq!(
                is_closed(&endpoint.map(str::to_owned), has_keys),
                expected,
                "{endpoint:?} {has_keys}"
            );
        }
    }
}
