//! Checksums of content, compared with those that the service reports.

use aws_sdk_s3::types::ServerSideEncryption;
use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest as _, Md5};

/// A checksum over content, computed while the content is read.
#[derive(Clone)]
pub(super) enum ContentDigest {
    /// For services that support checksums.
    Crc32(crc32fast::Hasher),
    /// For other services, which use it as the etag of objects that were put in one request.
    Md5(Box<Md5>),
}

/// The checksums that a service reports for content.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReportedChecksum<'a> {
    /// The CRC-32 in base64.
    pub(super) crc32: Option<&'a str>,
    pub(super) etag: Option<&'a str>,
    pub(super) encryption: Option<&'a ServerSideEncryption>,
}

/// The result of comparing content with a checksum that the service reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Match,
    Mismatch,
    /// The service reports no checksum of this kind.
    NotComparable,
}

impl Comparison {
    fn of(is_equal: Option<bool>) -> Comparison {
        match is_equal {
            Some(true) => Comparison::Match,
            Some(false) => Comparison::Mismatch,
            None => Comparison::NotComparable,
        }
    }
}

impl ContentDigest {
    pub(super) fn crc32() -> ContentDigest {
        ContentDigest::Crc32(crc32fast::Hasher::new())
    }

    pub(super) fn md5() -> ContentDigest {
        ContentDigest::Md5(Box::default())
    }

    /// Returns the digest for a service that supports checksums, or for one that does not.
    pub(super) fn for_service(has_checksums: bool) -> ContentDigest {
        if has_checksums { ContentDigest::crc32() } else { ContentDigest::md5() }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            ContentDigest::Crc32(hasher) => hasher.update(data),
            ContentDigest::Md5(hasher) => hasher.update(data),
        }
    }

    /// Returns a CRC-32 in base64, as services write it; `None` for an MD5.
    pub(super) fn to_crc32(&self) -> Option<String> {
        match self {
            ContentDigest::Crc32(hasher) => {
                Some(BASE64.encode(&hasher.clone().finalize().to_be_bytes()))
            }
            ContentDigest::Md5(_) => None,
        }
    }

    pub(super) fn compare(&self, reported: ReportedChecksum<'_>) -> Comparison {
        Comparison::of(match self {
            ContentDigest::Crc32(_) => {
                let own = self.to_crc32().unwrap_or_default();
                reported.crc32.filter(|crc32| !crc32.contains('-')).map(|crc32| crc32 == own)
            }
            ContentDigest::Md5(hasher) => {
                let own = HEXLOWER.encode(&hasher.clone().finalize());
                reported.md5().map(|md5| md5.eq_ignore_ascii_case(&own))
            }
        })
    }
}

/// The checksums that a service may report for an object, put in one request or in parts.
pub(super) struct ObjectDigest {
    part_size: u64,
    /// The number of bytes of the current part.
    filled: u64,
    whole: (crc32fast::Hasher, Md5),
    part: (crc32fast::Hasher, Md5),
    /// The digests of the parts that are complete, one after the other.
    crc32s: Vec<u8>,
    md5s: Vec<u8>,
    parts: usize,
}

impl ObjectDigest {
    /// Returns the digest of nothing; `part_size` is the length of all parts but the last.
    pub(super) fn new(part_size: u64) -> ObjectDigest {
        let (whole, part) = Default::default();
        let (crc32s, md5s) = (Vec::new(), Vec::new());
        ObjectDigest { part_size: part_size.max(1), filled: 0, whole, part, crc32s, md5s, parts: 0 }
    }

    pub(super) fn update(&mut self, mut data: &[u8]) {
        self.whole.0.update(data);
        self.whole.1.update(data);
        while !data.is_empty() {
            let left = usize::try_from(self.part_size - self.filled).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(data.len().min(left));
            self.part.0.update(now);
            self.part.1.update(now);
            self.filled += now.len() as u64;
            data = later;
            if self.filled == self.part_size {
                self.end_part();
            }
        }
    }

    fn end_part(&mut self) {
        let (crc32, md5) = std::mem::take(&mut self.part);
        self.crc32s.extend(crc32.finalize().to_be_bytes());
        self.md5s.extend(md5.finalize());
        self.filled = 0;
        self.parts += 1;
    }

    /// Compares with what a service reports. Only a checksum of the whole shows that content
    /// differs: not every etag is an MD5, and the object may have had parts of another size.
    pub(super) fn compare(mut self, reported: ReportedChecksum<'_>) -> Comparison {
        if self.filled > 0 {
            self.end_part();
        }
        let (crc32, md5) = self.whole;
        let crc32 = BASE64.encode(&crc32.finalize().to_be_bytes());
        if let Some(reported) = reported.crc32.filter(|crc32| !crc32.contains('-')) {
            return Comparison::of(Some(reported == crc32));
        }
        let parts = self.parts;
        let crc32_of_parts = BASE64.encode(&crc32fast::hash(&self.crc32s).to_be_bytes());
        let md5_of_parts = HEXLOWER.encode(&Md5::digest(&self.md5s));
        let etag = reported.etag.map(|etag| etag.trim_matches('"').to_ascii_lowercase());
        let is_equal = reported.crc32 == Some(&format!("{crc32_of_parts}-{parts}"))
            || etag.is_some_and(|etag| {
                etag == HEXLOWER.encode(&md5.finalize())
                    || etag == format!("{md5_of_parts}-{parts}")
            });
        if is_equal { Comparison::Match } else { Comparison::NotComparable }
    }
}

impl<'a> ReportedChecksum<'a> {
    /// Returns the MD5 in an etag. The etag of an object that was put in parts, or is encrypted
    /// with a key of its own, is not an MD5.
    fn md5(&self) -> Option<&'a str> {
        let is_plain =
            self.encryption.is_none_or(|encryption| *encryption == ServerSideEncryption::Aes256);
        let etag = self.etag?.trim_matches('"');
        let is_md5 = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_plain && is_md5).then_some(etag)
    }
}

/// Returns whether two etags are equal; some responses omit the quotes.
pub(super) fn is_same_etag(one: Option<&str>, other: Option<&str>) -> bool {
    let bare = |etag: Option<&str>| etag.map(|etag| etag.trim_matches('"').to_owned());
    bare(one) == bare(other)
}

/// Returns the CRC-32 of the CRC-32s of parts, as services write it; `None` if one is missing.
pub(super) fn crc32_of_parts<'a>(parts: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    let (mut hasher, mut count) = (crc32fast::Hasher::new(), 0);
    for part in parts {
        hasher.update(&BASE64.decode(part?.as_bytes()).ok()?);
        count += 1;
    }
    Some(format!("{}-{count}", BASE64.encode(&hasher.finalize().to_be_bytes())))
}

/// Returns the CRC-32 of a whole object, from the CRC-32 and the length of each part; `None` if one
/// is missing.
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

    const NOTHING: ReportedChecksum<'_> =
        ReportedChecksum { crc32: None, etag: None, encryption: None };

    fn digest(checksums: bool, data: &[u8]) -> ContentDigest {
        let mut digest = ContentDigest::for_service(checksums);
        digest.update(data);
        digest
    }

    #[test]
    fn content_is_compared_with_reported_checksums() {
        // From `printf 'hello world\n' | gzip -c | tail -c8`, and `md5sum`.
        let (crc32, etag) = (Some("rwg7LQ=="), Some("\"6f5902ac237024bdd0c176cb93063dc4\""));
        let hello = |checksums, reported| digest(checksums, b"hello world\n").compare(reported);
        assert_eq!(hello(true, ReportedChecksum { crc32, ..NOTHING }), Comparison::Match);
        assert_eq!(
            digest(true, b"hello World\n").compare(ReportedChecksum { crc32, ..NOTHING }),
            Comparison::Mismatch
        );
        assert_eq!(
            hello(true, ReportedChecksum { crc32: Some("rwg7LQ==-2"), ..NOTHING }),
            Comparison::NotComparable
        );
        assert_eq!(hello(true, ReportedChecksum { etag, ..NOTHING }), Comparison::NotComparable);
        assert_eq!(hello(false, ReportedChecksum { etag, ..NOTHING }), Comparison::Match);
        assert_eq!(
            digest(false, b"").compare(ReportedChecksum { etag, ..NOTHING }),
            Comparison::Mismatch
        );
        assert_eq!(
            hello(
                false,
                ReportedChecksum {
                    etag: Some("\"6f5902ac237024bdd0c176cb93063dc4-2\""),
                    ..NOTHING
                }
            ),
            Comparison::NotComparable
        );
        let (kms, own) = (ServerSideEncryption::AwsKms, ServerSideEncryption::Aes256);
        assert_eq!(
            hello(false, ReportedChecksum { etag, encryption: Some(&kms), ..NOTHING }),
            Comparison::NotComparable
        );
        assert_eq!(
            hello(false, ReportedChecksum { etag, encryption: Some(&own), ..NOTHING }),
            Comparison::Match
        );
    }

    #[test]
    fn an_object_is_compared_however_it_was_put() {
        let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let compare = |content: &[u8], reported| {
            let mut digest = ObjectDigest::new(400);
            content.chunks(7).for_each(|piece| digest.update(piece));
            digest.compare(reported)
        };
        let md5 = |data: &[u8]| Md5::digest(data).to_vec();
        let plain = HEXLOWER.encode(&md5(&content));
        let parts = md5(&content.chunks(400).flat_map(md5).collect::<Vec<u8>>());
        let parts = format!("\"{}-3\"", HEXLOWER.encode(&parts));
        let crc32 = |data: &[u8]| digest(true, data).to_crc32().unwrap();
        let (first, second, third) =
            (crc32(&content[..400]), crc32(&content[400..800]), crc32(&content[800..]));
        let crc32s = [Some(&first[..]), Some(&second[..]), Some(&third[..])];
        let crc32s = crc32_of_parts(crc32s.into_iter()).unwrap();
        let whole = crc32(&content);
        let etag = |etag| ReportedChecksum { etag: Some(etag), ..NOTHING };
        let crc = |crc32| ReportedChecksum { crc32: Some(crc32), ..NOTHING };
        for reported in [etag(&plain[..]), etag(&parts), crc(&crc32s), crc(&whole)] {
            assert_eq!(compare(&content, reported), Comparison::Match, "{reported:?}");
        }
        let mut other = content.clone();
        other[500] ^= 1;
        assert_eq!(compare(&other, crc(&whole)), Comparison::Mismatch);
        for reported in [etag(&plain[..]), etag(&parts), crc(&crc32s), NOTHING] {
            assert_eq!(compare(&other, reported), Comparison::NotComparable, "{reported:?}");
        }
    }

    #[test]
    fn the_checksum_of_parts_covers_their_checksums() {
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
    fn the_checksum_of_the_whole_is_computed_from_its_parts() {
        let crc32 = |data: &[u8]| digest(true, data).to_crc32().unwrap();
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
