//! Whether the service has what we have read: checksums at both ends.

use aws_sdk_s3::types::ServerSideEncryption;
use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest as _, Md5};

/// What goes over pieces of content as they are read.
#[derive(Clone)]
pub(super) enum Digest {
    /// The service takes and gives this one.
    Crc32(crc32fast::Hasher),
    /// It is what a service without checksums calls an object that was put at once.
    Md5(Box<Md5>),
}

/// What a service says of something that it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    /// CRC-32, in base64.
    pub(super) crc32: Option<&'a str>,
    pub(super) etag: Option<&'a str>,
    pub(super) encryption: Option<&'a ServerSideEncryption>,
}

impl Digest {
    /// The one that goes with a service that takes checksums, or with one that does not.
    pub(super) fn new(checksums: bool) -> Digest {
        if checksums {
            Digest::Crc32(crc32fast::Hasher::new())
        } else {
            Digest::Md5(Box::default())
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Digest::Crc32(hasher) => hasher.update(data),
            Digest::Md5(hasher) => hasher.update(data),
        }
    }

    /// A CRC-32 as services write it; none: it is something else.
    pub(super) fn crc32(self) -> Option<String> {
        match self {
            Digest::Crc32(hasher) => Some(BASE64.encode(&hasher.finalize().to_be_bytes())),
            Digest::Md5(_) => None,
        }
    }

    /// Whether that is what the service has; none: what it says cannot be compared.
    pub(super) fn agrees(self, said: Said<'_>) -> Option<bool> {
        match self {
            Digest::Crc32(_) => {
                let ours = self.crc32().unwrap_or_default();
                said.crc32.filter(|theirs| !theirs.contains('-')).map(|theirs| theirs == ours)
            }
            Digest::Md5(hasher) => {
                let ours = HEXLOWER.encode(&hasher.finalize());
                md5_of(said).map(|theirs| theirs.eq_ignore_ascii_case(&ours))
            }
        }
    }
}

/// Whether two etags are the same: some answers give them without their quotes.
pub(super) fn same_etag(one: Option<&str>, other: Option<&str>) -> bool {
    let bare = |etag: Option<&str>| etag.map(|etag| etag.trim_matches('"').to_owned());
    bare(one) == bare(other)
}

/// The MD5 in an etag, where it is one: not of what was put in parts, or is encrypted with a key of its own.
fn md5_of(said: Said<'_>) -> Option<&str> {
    let plain =
        said.encryption.is_none_or(|encryption| *encryption == ServerSideEncryption::Aes256);
    let etag = said.etag?.trim_matches('"');
    let is_md5 = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    (plain && is_md5).then_some(etag)
}

/// The CRC-32 of those of parts, as services write it; none: it is not known of each of them.
pub(super) fn crc32_of_parts<'a>(parts: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    let (mut hasher, mut count) = (crc32fast::Hasher::new(), 0);
    for part in parts {
        hasher.update(&BASE64.decode(part?.as_bytes()).ok()?);
        count += 1;
    }
    Some(format!("{}-{count}", BASE64.encode(&hasher.finalize().to_be_bytes())))
}

/// The CRC-32 of an object, of those of its parts and their lengths; none: it is not known of each of them.
pub(super) fn crc32_of_whole<'a>(
    parts: impl Iterator<Item = (Option<&'a str>, u64)>,
) -> Option<String> {
    let mut whole = crc32fast::Hasher::new();
    for (part, length) in parts {
        let crc32 = BASE64.decode(part?.as_bytes()).ok()?.try_into().ok()?;
        whole.combine(&crc32fast::Hasher::new_with_initial_len(u32::from_be_bytes(crc32), length));
    }
    Some(BASE64.encode(&whole.finalize().to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Said<'_> = Said { crc32: None, etag: None, encryption: None };

    fn digest(checksums: bool, data: &[u8]) -> Digest {
        let mut digest = Digest::new(checksums);
        digest.update(data);
        digest
    }

    #[test]
    fn what_services_say_of_content_is_compared_where_it_can_be() {
        // By `printf 'hello world\n' | gzip -c | tail -c8`, and `md5sum`.
        let (crc32, etag) = (Some("rwg7LQ=="), Some("\"6f5902ac237024bdd0c176cb93063dc4\""));
        let hello = |checksums, said| digest(checksums, b"hello world\n").agrees(said);
        assert_eq!(hello(true, Said { crc32, ..NOTHING }), Some(true));
        assert_eq!(digest(true, b"hello World\n").agrees(Said { crc32, ..NOTHING }), Some(false));
        assert_eq!(hello(true, Said { crc32: Some("rwg7LQ==-2"), ..NOTHING }), None);
        assert_eq!(hello(true, Said { etag, ..NOTHING }), None);
        assert_eq!(hello(false, Said { etag, ..NOTHING }), Some(true));
        assert_eq!(digest(false, b"").agrees(Said { etag, ..NOTHING }), Some(false));
        assert_eq!(
            hello(false, Said { etag: Some("\"6f5902ac237024bdd0c176cb93063dc4-2\""), ..NOTHING }),
            None
        );
        let (kms, own) = (ServerSideEncryption::AwsKms, ServerSideEncryption::Aes256);
        assert_eq!(hello(false, Said { etag, encryption: Some(&kms), ..NOTHING }), None);
        assert_eq!(hello(false, Said { etag, encryption: Some(&own), ..NOTHING }), Some(true));
    }

    #[test]
    fn the_checksum_of_parts_is_one_of_their_checksums() {
        let one = crc32_of_parts([Some("rwg7LQ==")].into_iter()).unwrap();
        assert_eq!(
            one,
            format!(
                "{}-1",
                BASE64.encode(&crc32fast::hash(&[0xaf, 0x08, 0x3b, 0x2d]).to_be_bytes())
            )
        );
        assert_eq!(crc32_of_parts([Some("rwg7LQ=="), None].into_iter()), None);
        assert_eq!(crc32_of_parts([Some("?")].into_iter()), None);
    }

    #[test]
    fn the_checksum_of_the_whole_comes_of_those_of_its_parts() {
        let crc32 = |data: &[u8]| digest(true, data).crc32().unwrap();
        let (one, other, none) = (crc32(b"hello "), crc32(b"world\n"), crc32(b""));
        let parts = [(Some(&one[..]), 6), (Some(&other), 6), (Some(&none), 0)];
        assert_eq!(crc32_of_whole(parts.into_iter()), Some(crc32(b"hello world\n")));
        let turned = [(Some(&other[..]), 6), (Some(&one), 6)];
        assert_ne!(crc32_of_whole(turned.into_iter()), Some(crc32(b"hello world\n")));
        for bad in [None, Some("?"), Some("AAAA"), Some("rwg7LQ==-2")] {
            assert_eq!(
                crc32_of_whole([(Some(&one[..]), 6), (bad, 6)].into_iter()),
                None,
                "{bad:?}"
            );
        }
    }
}
