use super::node::Node;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The name of the entry.
    pub name: String,
    /// The root node of its content.
    pub node: Node,
}

/// The reason why a directory has no CID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Two names have the same hash, so no shard can hold both.
    #[error("`{0}` and `{1}` have the same hash in a sharded directory; rename one of them")]
    SameHash(String, String),
}
