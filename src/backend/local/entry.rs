//! Entries of stored directories.

use serde::{Deserialize, Serialize};

use crate::backend::unixfs::{Cid, Node};

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum EntryKind {
    File,
    Directory,
    Symlink { target: String },
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) kind: EntryKind,
    #[serde(with = "cid_text")]
    pub(super) cid: Cid,
    pub(super) size: u64,
    pub(super) dag_size: u64,
}

impl Entry {
    /// Returns an entry for content that is known by its CID alone.
    pub(super) fn unnamed(cid: Cid, kind: EntryKind, size: u64, dag_size: u64) -> Entry {
        Entry { name: String::new(), kind, cid, size, dag_size }
    }

    pub(super) fn node(&self) -> Node {
        Node { cid: self.cid, size: self.size, dag_size: self.dag_size }
    }
}

mod cid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Cid;

    pub(super) fn serialize<S: Serializer>(cid: &Cid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(cid)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        let text = String::deserialize(deserializer)?;
        Cid::try_from(text).map_err(D::Error::custom)
    }
}
