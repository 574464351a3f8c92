//! The effects of the standard operations at a backend that stores content by CID and keeps a tree
//! of names.

use super::Request;
use super::effect::{Effect, Reach};
use super::parameters::{Name, StandardOperation};
use super::unixfs::{Cid, Options};
use crate::operation::{OperationType, Outcome};

/// The types that read or remove, and leave nothing to compare.
const NOT_AUDITABLE: [&str; 6] = ["get", "cat", "download", "list", "rm", "unpin"];

/// Returns whether operations of this type may leave something to compare.
pub(super) fn is_auditable(operation_type: &OperationType) -> bool {
    !NOT_AUDITABLE.contains(&operation_type.as_str())
}

/// The time for which a backend retains added content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retention {
    /// Until it is removed; a pin is a separate target.
    UntilRemoved,
    /// While it is pinned: the pin and the content are one target.
    WhilePinned,
}

/// Returns the targets that a standard operation touches. Nothing is known about other types.
pub(super) fn effects(retention: Retention, request: &Request, outcome: &Outcome) -> Vec<Effect> {
    let parameters = &request.parameters;
    let Ok(operation) =
        StandardOperation::read(request.operation_type.as_str(), parameters, Options::default())
    else {
        return Vec::new();
    };
    let pins_keep = retention == Retention::WhilePinned;
    let pin = |cid: &Cid| match retention {
        Retention::WhilePinned => content(cid),
        Retention::UntilRemoved => format!("pin/{}", canonical(cid)),
    };
    match operation {
        StandardOperation::Add { path, .. } => {
            let cid = outcome.cid.as_deref().and_then(|cid| Cid::try_from(cid).ok());
            let mut effects: Vec<Effect> =
                cid.iter().map(|cid| Effect::writes(content(cid), Reach::Exact)).collect();
            if let Some(name) =
                parameters.get("to_files").filter(|name| pins_keep && !name.is_empty())
            {
                let own = path
                    .file_name()
                    .filter(|_| name.ends_with('/'))
                    .unwrap_or_default()
                    .to_string_lossy();
                effects.extend(
                    Name::parse(&format!("{name}{own}"))
                        .ok()
                        .map(|name| Effect::writes(named(&name), Reach::Tree)),
                );
            }
            effects
        }
        StandardOperation::Upload { destination, .. } => {
            vec![Effect::writes(named(&destination), Reach::Tree)]
        }
        StandardOperation::Copy { source, destination } => vec![
            Effect::reads(named(&source), Reach::Tree),
            Effect::writes(named(&destination), Reach::Tree),
        ],
        StandardOperation::Move { source, destination } => vec![
            Effect::removes(named(&source), Reach::Removed),
            Effect::writes(named(&destination), Reach::Tree),
        ],
        StandardOperation::MakeDirectory { name } => {
            vec![Effect::writes(named(&name), Reach::Ensured)]
        }
        StandardOperation::Pin { cid } => vec![Effect::writes(pin(&cid), Reach::Ensured)],
        StandardOperation::Unpin { cid } => vec![Effect::removes(pin(&cid), Reach::Exact)],
        StandardOperation::RemoveContent { cid, recursive } => {
            let mut effects = vec![Effect::removes(content(&cid), Reach::Exact)];
            if recursive && !pins_keep {
                // The entries of the directory may have been removed with it, and are not recorded.
                effects.push(Effect::removes("content", Reach::Tree));
            }
            effects
        }
        StandardOperation::RemoveName { name, .. } => {
            vec![Effect::removes(named(&name), Reach::Removed)]
        }
        StandardOperation::Get { .. }
        | StandardOperation::Cat { .. }
        | StandardOperation::List { .. } => Vec::new(),
    }
}

/// Returns the CID in one form for all its versions.
fn canonical(cid: &Cid) -> Cid {
    Cid::new_v1(cid.codec(), *cid.hash())
}

fn content(cid: &Cid) -> String {
    format!("content/{}", canonical(cid))
}

fn named(name: &Name) -> String {
    format!("name{}", name.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::effect::tests::{request, words};

    const V0: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    const V1: &str = "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby";

    #[test]
    fn effects_are_read_from_parameters() {
        use Retention::{UntilRemoved, WhilePinned};
        let content = format!("content/{V1}");
        let added = Outcome { cid: Some(V0.into()), ..Outcome::default() };
        let nothing = Outcome::default();
        for (retention, operation_type, parameters, outcome, expected) in [
            (UntilRemoved, "add", &[("path", "/x/f")][..], &added, format!("+{content}")),
            (UntilRemoved, "add", &[("path", "/x/f")], &nothing, String::new()),
            (UntilRemoved, "rm", &[("cid", V0)], &nothing, format!("-{content}")),
            (
                UntilRemoved,
                "rm",
                &[("cid", V1), ("recursive", "true")],
                &nothing,
                format!("-{content} -content/?"),
            ),
            (
                WhilePinned,
                "rm",
                &[("cid", V1), ("recursive", "true")],
                &nothing,
                format!("-{content}"),
            ),
            (UntilRemoved, "pin", &[("cid", V0)], &nothing, format!("+pin/{V1}/")),
            (WhilePinned, "pin", &[("cid", V1)], &nothing, format!("+{content}/")),
            (WhilePinned, "unpin", &[("cid", V0)], &nothing, format!("-{content}")),
            (
                WhilePinned,
                "add",
                &[("path", "/x/f"), ("to_files", "/a")],
                &added,
                format!("+{content} +name/a/?"),
            ),
            (
                WhilePinned,
                "add",
                &[("path", "/x/f"), ("to_files", "/a/")],
                &added,
                format!("+{content} +name/a/f/?"),
            ),
            (
                UntilRemoved,
                "upload",
                &[("path", "/x/f"), ("destination", "a//./b/")],
                &added,
                "+name/a/b/?".into(),
            ),
            (
                UntilRemoved,
                "copy",
                &[("source", "/a"), ("destination", "/b")],
                &added,
                "<name/a/? +name/b/?".into(),
            ),
            (
                UntilRemoved,
                "move",
                &[("source", "/a"), ("destination", "b")],
                &added,
                "-name/a/* +name/b/?".into(),
            ),
            (UntilRemoved, "mkdir", &[("path", "/a/b")], &nothing, "+name/a/b/".into()),
            (
                UntilRemoved,
                "rm",
                &[("path", "/a"), ("recursive", "true")],
                &nothing,
                "-name/a/*".into(),
            ),
            (UntilRemoved, "get", &[("cid", V0), ("destination", "/x")], &added, String::new()),
            (UntilRemoved, "dance", &[], &added, String::new()),
        ] {
            let found = effects(retention, &request(operation_type, parameters), outcome);
            assert_eq!(words(&found), expected, "{retention:?} {operation_type} {parameters:?}");
        }
    }
}
