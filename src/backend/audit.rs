//! Looking again at what was completed: what a look finds, and which places an operation touches, so that what a later
//! one replaced or took away is not taken for lost.

use super::effect::{Effect, Reach};
use super::parameters::{Name, Task};
#[cfg(feature = "s3")]
use super::s3;
use super::unixfs::{Cid, Options};
use crate::config::{BackendSettings, BackendType};
use crate::operation::{Fields, OperationType, Outcome};

/// Types of operations that leave nothing which could be looked at: they read, or take away.
const NOTHING_LEFT: [&str; 6] = ["get", "cat", "download", "list", "rm", "unpin"];

/// Whether an operation of this type may leave something to look at.
pub fn is_looked_at(operation_type: &OperationType) -> bool {
    !NOTHING_LEFT.contains(&operation_type.as_str())
}

/// The places that a completed operation touches, on a backend with these settings, if it is a configured one.
pub fn effects(
    backend: Option<&BackendSettings>,
    operation_type: &OperationType,
    parameters: &Fields,
    outcome: &Outcome,
) -> Vec<Effect> {
    let kind = backend.map(|backend| backend.backend_type);
    #[cfg(feature = "s3")]
    if kind == Some(BackendType::S3) {
        let bucket = backend.and_then(|backend| backend.bucket.as_deref());
        return s3::audit::effects(bucket, operation_type.as_str(), parameters, outcome);
    }
    // What it may do with types of its own, nobody but such a backend knows.
    let Ok(task) = Task::read(operation_type.as_str(), parameters, Options::default()) else {
        return Vec::new();
    };
    let is_ipfs = kind == Some(BackendType::Ipfs);
    // There, what was added is kept by its pin.
    let pin = |cid: &Cid| if is_ipfs { content(cid) } else { format!("pin/{}", canonical(cid)) };
    let put = |place: String, reach: Reach| Effect { place, reach, puts: true };
    let taken = |place: String, reach: Reach| Effect { place, reach, puts: false };
    match task {
        Task::Add { path, .. } => {
            let cid = outcome.cid.as_deref().and_then(|cid| Cid::try_from(cid).ok());
            let mut effects: Vec<Effect> =
                cid.iter().map(|cid| put(content(cid), Reach::Exact)).collect();
            if let Some(name) =
                parameters.get("to_files").filter(|name| is_ipfs && !name.is_empty())
            {
                let own = path
                    .file_name()
                    .filter(|_| name.ends_with('/'))
                    .unwrap_or_default()
                    .to_string_lossy();
                effects.extend(
                    Name::parse(&format!("{name}{own}"))
                        .ok()
                        .map(|name| put(named(&name), Reach::Tree)),
                );
            }
            effects
        }
        Task::Upload { destination, .. } | Task::Copy { destination, .. } => {
            vec![put(named(&destination), Reach::Tree)]
        }
        Task::Move { source, destination } => {
            vec![taken(named(&source), Reach::Removed), put(named(&destination), Reach::Tree)]
        }
        Task::MakeDirectory { name } => vec![put(named(&name), Reach::Ensured)],
        Task::Pin { cid } => vec![put(pin(&cid), Reach::Ensured)],
        Task::Unpin { cid } => vec![taken(pin(&cid), Reach::Exact)],
        Task::RemoveContent { cid, recursive } => {
            let mut effects = vec![taken(content(&cid), Reach::Exact)];
            if recursive && !is_ipfs {
                // What was in it may have gone with it, and nobody has noted what that was.
                effects.push(taken("content".into(), Reach::Tree));
            }
            effects
        }
        Task::RemoveName { name, .. } => vec![taken(named(&name), Reach::Removed)],
        Task::Get { .. } | Task::Cat { .. } | Task::List { .. } => Vec::new(),
    }
}

/// One way to write a CID, whatever its version.
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
    use crate::config::Settings;
    use crate::operation::BackendName;

    const V0: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    const V1: &str = "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby";

    fn effects_on(
        backend: &str,
        operation_type: &str,
        parameters: &[(&str, &str)],
        outcome: &Outcome,
    ) -> String {
        let mut settings = Settings::at("/wal".into()).backends;
        if let Some(s3) = settings.get_mut(&BackendName::new("s3").unwrap()) {
            s3.bucket = Some("own".into());
        }
        let parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let kind = OperationType::new(operation_type).unwrap();
        let found =
            effects(settings.get(&BackendName::new(backend).unwrap()), &kind, &parameters, outcome);
        let word = |effect: &Effect| {
            let sign = if effect.puts { '+' } else { '-' };
            let reach = match effect.reach {
                Reach::Exact => "",
                Reach::Tree => "/?",
                Reach::Prefix => "?",
                Reach::Removed => "/*",
                Reach::Ensured => "/",
            };
            format!("{sign}{}{reach}", effect.place)
        };
        found.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_places_that_operations_touch_are_read_from_their_parameters() {
        let content = format!("content/{V1}");
        let added = Outcome { cid: Some(V0.into()), ..Outcome::default() };
        let at = |place: &str| Outcome { destination: Some(place.into()), ..Outcome::default() };
        let mut parts = added.clone();
        parts.receipt.insert("objects".into(), "3".into());
        let nothing = Outcome::default();
        for (backend, operation_type, parameters, outcome, expected) in [
            ("local", "add", &[("path", "/x/f")][..], &added, format!("+{content}")),
            ("local", "add", &[("path", "/x/f")], &nothing, String::new()),
            ("local", "rm", &[("cid", V0)], &nothing, format!("-{content}")),
            (
                "local",
                "rm",
                &[("cid", V1), ("recursive", "true")],
                &nothing,
                format!("-{content} -content/?"),
            ),
            ("ipfs", "rm", &[("cid", V1), ("recursive", "true")], &nothing, format!("-{content}")),
            ("local", "pin", &[("cid", V0)], &nothing, format!("+pin/{V1}/")),
            ("ipfs", "pin", &[("cid", V1)], &nothing, format!("+{content}/")),
            ("ipfs", "unpin", &[("cid", V0)], &nothing, format!("-{content}")),
            (
                "ipfs",
                "add",
                &[("path", "/x/f"), ("to_files", "/a")],
                &added,
                format!("+{content} +name/a/?"),
            ),
            (
                "ipfs",
                "add",
                &[("path", "/x/f"), ("to_files", "/a/")],
                &added,
                format!("+{content} +name/a/f/?"),
            ),
            (
                "local",
                "upload",
                &[("path", "/x/f"), ("destination", "a//./b/")],
                &added,
                "+name/a/b/?".into(),
            ),
            (
                "local",
                "copy",
                &[("source", "/a"), ("destination", "/b")],
                &added,
                "+name/b/?".into(),
            ),
            (
                "local",
                "move",
                &[("source", "/a"), ("destination", "b")],
                &added,
                "-name/a/* +name/b/?".into(),
            ),
            ("local", "mkdir", &[("path", "/a/b")], &nothing, "+name/a/b/".into()),
            ("local", "rm", &[("path", "/a"), ("recursive", "true")], &nothing, "-name/a/*".into()),
            ("local", "get", &[("cid", V0), ("destination", "/x")], &added, String::new()),
            ("local", "dance", &[], &added, String::new()),
            (
                "s3",
                "upload",
                &[("path", "/x/f"), ("destination", "s3://b/k")],
                &nothing,
                "+key/b/k".into(),
            ),
            (
                "s3",
                "upload",
                &[("path", "/x/f"), ("destination", "/k/f")],
                &nothing,
                "+key/own/k/f".into(),
            ),
            // What it was when it was put counts, whatever the settings say now.
            (
                "s3",
                "upload",
                &[("path", "/x/f"), ("destination", "k")],
                &at("s3://old/k"),
                "+key/old/k".into(),
            ),
            ("s3", "add", &[("path", "/x/f")], &nothing, "+key/own/f".into()),
            (
                "s3",
                "add",
                &[("path", "/x"), ("destination", "d/")],
                &nothing,
                "+key/own/d/x".into(),
            ),
            (
                "s3",
                "upload",
                &[("path", "/x"), ("destination", "d/"), ("recursive", "true")],
                &parts,
                "+key/own/d?".into(),
            ),
            ("s3", "mkdir", &[("path", "d/")], &nothing, "+key/own/d/".into()),
            ("s3", "rm", &[("path", "d"), ("recursive", "true")], &nothing, "-key/own/d?".into()),
            (
                "s3",
                "copy",
                &[("source", "a"), ("destination", "s3://b/c")],
                &nothing,
                "+key/b/c?".into(),
            ),
            (
                "s3",
                "move",
                &[("source", "a"), ("destination", "c")],
                &nothing,
                "-key/own/a? +key/own/c?".into(),
            ),
            ("s3", "list", &[], &nothing, String::new()),
        ] {
            let found = effects_on(backend, operation_type, parameters, outcome);
            assert_eq!(found, expected, "{backend} {operation_type} {parameters:?}");
        }
    }
}
