use super::node::Node;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// The root of its content.
    pub node: Node,
}

/// The reason for which a directory has no CID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The hashes of two names are equal, so no shard can hold both.
    #[error("`{0}` and `{1}` have the same hash in a sharded directory; rename one of them")]
    SameHash(String, String),
}
