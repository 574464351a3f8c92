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

/// One target that an operation touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The target in a canonical form: equal targets are equal strings, and a target that lies
    /// below another one begins with it and a `/`.
    pub target: String,
    /// The change that the operation makes to the target.
    pub kind: EffectKind,
    /// The extent of the effect beyond the target.
    pub reach: Reach,
}

impl Effect {
    /// Returns the effect of an operation that leaves something at the target, which an audit
    /// compares.
    pub fn writes(target: impl Into<String>, reach: Reach) -> Effect {
        Effect { target: target.into(), kind: EffectKind::Write, reach }
    }

    /// Returns the effect of an operation that removes the target.
    pub fn removes(target: impl Into<String>, reach: Reach) -> Effect {
        Effect { target: target.into(), kind: EffectKind::Remove, reach }
    }

    /// Returns the effect of an operation whose result depends on the target, such as the source of
    /// a copy.
    pub fn reads(target: impl Into<String>, reach: Reach) -> Effect {
        Effect { target: target.into(), kind: EffectKind::Read, reach }
    }

    /// Returns whether the operation leaves something at the target.
    pub fn is_write(&self) -> bool {
        self.kind == EffectKind::Write
    }
}

/// The change that an operation makes to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectKind {
    /// Creates or replaces the target.
    Write,
    /// Removes the target.
    Remove,
    /// Depends on the target without changing it.
    Read,
}

/// The extent of an effect beyond its target.
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

#[cfg(test)]
pub(super) mod tests {
    use super::{Effect, EffectKind, Reach};
    use crate::backend::Request;
    use crate::operation::{BackendName, Number, OperationId, OperationType, Time};

    /// Returns a request with these parameters.
    pub(in crate::backend) fn request(
        operation_type: &str,
        parameters: &[(&str, &str)],
    ) -> Request {
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Request {
            id: OperationId::new(Time::from_millis(0), 0, 1),
            number: Number::FIRST,
            operation_type: OperationType::new(operation_type).unwrap(),
            backend: BackendName::new("x").unwrap(),
            parameters: parameters.iter().map(text).collect(),
            source: None,
            content: None,
        }
    }

    /// Formats effects in one line: `+` writes, `-` removes, `<` reads.
    pub(in crate::backend) fn words(effects: &[Effect]) -> String {
        let word = |effect: &Effect| {
            let sign = match effect.kind {
                EffectKind::Write => '+',
                EffectKind::Remove => '-',
                EffectKind::Read => '<',
            };
            let reach = match effect.reach {
                Reach::Exact => "",
                Reach::Tree => "/?",
                Reach::Prefix => "?",
                Reach::Removed => "/*",
                Reach::Ensured => "/",
            };
            format!("{sign}{}{reach}", effect.target)
        };
        effects.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}
