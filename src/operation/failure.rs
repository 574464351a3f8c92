//! Error types that the log itself assigns; backends add their own.

/// Cancelled by a user.
pub const CANCELLED: &str = "cancelled";
/// Abandoned by a user: marked as one that will never succeed.
pub const PERMANENT: &str = "permanent_failure";
/// A dependency failed.
pub const DEPENDENCY: &str = "dependency_failed";
/// Redirected: logged again as another operation.
pub const REDIRECTED: &str = "redirected";
/// Unknown outcome: it may have taken effect, and repeating it may do harm.
pub const IN_DOUBT: &str = "in_doubt";
/// Abandoned because its drain loop died during attempt after attempt.
pub const CRASHES_DRAIN: &str = "crashes_drain";
