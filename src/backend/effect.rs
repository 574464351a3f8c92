//! The targets that an operation touches at its backend, and the result of auditing one of them.

/// The result of comparing the effect of a completed operation with what its backend has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditResult {
    /// The effect exists and is unchanged.
    Intact,
    /// The effect no longer exists; the text names what is missing.
    Missing(String),
    /// The effect exists but differs from what the operation stored; the text says how.
    Altered(String),
    /// The operation leaves nothing that could be compared.
    NotApplicable,
}

/// A target that an operation writes to, or removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The target in a canonical form: equal targets are equal strings, and a target that lies
    /// below another one begins with it and a `/`.
    pub place: String,
    /// How far it reaches.
    pub reach: Reach,
    /// Whether something is there afterwards, at which an audit looks.
    pub puts: bool,
}

/// How far an effect extends beyond its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The target alone.
    Exact,
    /// The target, and possibly targets below it.
    Tree,
    /// Every key that begins with the target, in a store without directories: the target exists
    /// only while a key below it does.
    Prefix,
    /// The target and everything below it, with certainty: all of it was removed.
    Removed,
    /// The target was created if it was missing; an existing one was left as it was.
    Ensured,
}
