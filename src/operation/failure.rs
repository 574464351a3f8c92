//! The words that the log itself gives to failures; backends have words of their own.

/// Cancelled by hand.
pub const CANCELLED: &str = "cancelled";
/// Marked by hand as one that will never succeed.
pub const PERMANENT: &str = "permanent_failure";
/// An operation that it waited for has failed.
pub const DEPENDENCY: &str = "dependency_failed";
/// It goes on as another operation.
pub const REDIRECTED: &str = "redirected";
/// It may have been done, and repeating it may do harm.
pub const IN_DOUBT: &str = "in_doubt";
/// Its drain loop died again and again.
pub const CRASHES_DRAIN: &str = "crashes_drain";
