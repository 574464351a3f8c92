use crate::config::UnixFsSettings;
use crate::operation::Fields;

/// The form of CIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CidVersion {
    /// `Qm…`: dag-pb and SHA-256, nothing else.
    V0,
    /// `bafy…`, `bafk…`.
    V1,
}

/// The measure of a directory's size, which decides whether it is sharded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharding {
    /// Bytes of all names and CIDs: Kubo's default.
    ByLinks,
    /// Bytes of the encoded block: the profile `unixfs-v1-2025`.
    ByBlock,
}

/// The options that decide, together with the content, a CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The form of CIDs.
    pub cid_version: CidVersion,
    /// True if the chunks of a file are raw blocks instead of dag-pb nodes.
    pub raw_leaves: bool,
    /// The size of a chunk in bytes.
    pub chunk_size: usize,
    /// The most links in one node of a file.
    pub max_links: usize,
    /// The measure that decides whether a directory is sharded.
    pub sharding: Sharding,
}

/// The largest chunk that Kubo accepts, in bytes: a block must be smaller than 2 MiB.
const CHUNK_SIZE_MAX: usize = 2_096_896;

/// The most links in one node of a file. With more, its block would approach the same limit.
const LINKS_MAX: usize = 16_384;

impl Default for Options {
    /// Returns the defaults of `ipfs add`: the profile `unixfs-v0-2015`.
    fn default() -> Options {
        Options {
            cid_version: CidVersion::V0,
            raw_leaves: false,
            chunk_size: 256 << 10,
            max_links: 174,
            sharding: Sharding::ByLinks,
        }
    }
}

impl From<&UnixFsSettings> for Options {
    fn from(settings: &UnixFsSettings) -> Options {
        Options {
            cid_version: if settings.cid_version == 1 { CidVersion::V1 } else { CidVersion::V0 },
            raw_leaves: settings.raw_leaves.unwrap_or(settings.cid_version == 1),
            chunk_size: usize::try_from(settings.chunk_size).unwrap_or(usize::MAX),
            max_links: settings.max_links as usize,
            ..Options::default()
        }
    }
}

impl Options {
    /// Returns the options of a profile: `unixfs-v0-2015`, `unixfs-v1-2025`, or a short form such
    /// as `v1-raw-1m-1024` (version, leaves, chunk size, links).
    pub fn profile(name: &str) -> Option<Options> {
        let short = match name {
            "unixfs-v0-2015" | "legacy-cid-v0" => "v0-256k-174",
            "unixfs-v1-2025" => "v1-raw-1m-1024",
            other => other,
        };
        let (cid_version, raw_leaves, sizes) = if let Some(sizes) = short.strip_prefix("v0-raw-") {
            (CidVersion::V0, true, sizes)
        } else if let Some(sizes) = short.strip_prefix("v0-") {
            (CidVersion::V0, false, sizes)
        } else if let Some(sizes) = short.strip_prefix("v1-raw-") {
            (CidVersion::V1, true, sizes)
        } else {
            (CidVersion::V1, false, short.strip_prefix("v1-noraw-")?)
        };
        let (chunk_size, max_links) = match sizes {
            "256k-174" => (256 << 10, 174),
            "256k-1024" => (256 << 10, 1024),
            "1m-1024" => (1 << 20, 1024),
            "1m-174" => (1 << 20, 174),
            "1k-174" => (1 << 10, 174),
            _ => return None,
        };
        // Only the profile as a whole measures by block: Kubo has no request parameter for it.
        let sharding =
            if short == "v1-raw-1m-1024" { Sharding::ByBlock } else { Sharding::ByLinks };
        Some(Options { cid_version, raw_leaves, chunk_size, max_links, sharding })
    }

    /// Returns these options, overridden by the parameters `profile`, `cid_version`, `raw_leaves`,
    /// `chunk_size` (or Kubo's `chunker`) and `max_links` of an operation. The error names the
    /// parameter that is invalid.
    pub fn overridden(mut self, parameters: &Fields) -> Result<Options, String> {
        if let Some(name) = parameters.get("profile") {
            self = Options::profile(name).ok_or_else(|| {
                format!(
                    "profile `{name}` is unknown; known are `unixfs-v0-2015` and `unixfs-v1-2025`"
                )
            })?;
        }
        if let Some(text) = parameters.get("cid_version") {
            let version = match text.as_str() {
                "0" => CidVersion::V0,
                "1" => CidVersion::V1,
                _ => return Err(format!("cid_version must be 0 or 1, not `{text}`")),
            };
            // As in Kubo, version 1 implies raw leaves unless `raw_leaves` is given.
            if version != self.cid_version {
                self.cid_version = version;
                self.raw_leaves = version == CidVersion::V1;
            }
        }
        if let Some(text) = parameters.get("raw_leaves") {
            self.raw_leaves = match text.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(format!("raw_leaves must be `true` or `false`, not `{text}`")),
            };
        }
        self.chunk_size =
            number(parameters, "chunk_size", 1, CHUNK_SIZE_MAX)?.unwrap_or(self.chunk_size);
        if let Some(text) = parameters.get("chunker") {
            let size = text.strip_prefix("size-").and_then(|size| size.parse().ok());
            self.chunk_size =
                size.filter(|size| (1..=CHUNK_SIZE_MAX).contains(size)).ok_or_else(|| {
                    format!(
                        "chunker must be `size-N` with N from 1 to {CHUNK_SIZE_MAX}, not `{text}`; \
                     others give no lasting CIDs"
                    )
                })?;
        }
        self.max_links = number(parameters, "max_links", 2, LINKS_MAX)?.unwrap_or(self.max_links);
        Ok(self)
    }
}

fn number(
    parameters: &Fields,
    name: &str,
    min: usize,
    max: usize,
) -> Result<Option<usize>, String> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    match text.parse::<usize>() {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => Err(format!("{name} must be a number from {min} to {max}, not `{text}`")),
    }
}
