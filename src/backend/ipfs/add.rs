//! Sending files and directories: `add` and `upload`.

use std::path::Path;

use super::form::{BodyError, MultipartBody};
use super::mfs::Mfs;
use super::pins::Pins;
use super::rpc::{Activity, RpcError};
use super::{KuboSession, SideEffect, is_same_block};
use crate::backend::errors::Result;
use crate::backend::files::{UserFile, find_user_file};
use crate::backend::parameters::Name;
use crate::backend::unixfs::{Cid, CidVersion, Node, Options};
use crate::backend::{AttemptError, AttemptStatus};
use crate::disk::FileKind;
use crate::operation::Outcome;

pub(super) fn add(
    session: KuboSession<'_>,
    path: &Path,
    recursive: bool,
    options: Options,
) -> Result<Outcome> {
    let disk = &*session.backend.disk;
    let file = find_user_file(disk, session.attempt, path, recursive, session.request)?;
    let mut extra = vec![("pin", session.parameter("pin").unwrap_or("true"))];
    extra.extend(session.parameter("pin_name").map(|name| ("pin-name", name)));
    extra.extend(session.parameter("to_files").map(|name| ("to-files", name)));
    Ok(outcome_of(&send(session, &file, path, options, &extra)?))
}

pub(super) fn upload(
    session: KuboSession<'_>,
    path: &Path,
    destination: &Name,
    recursive: bool,
    options: Options,
) -> Result<Outcome> {
    let (disk, mfs) = (&*session.backend.disk, Mfs(session));
    let file = find_user_file(disk, session.attempt, path, recursive, session.request)?;
    // Checked before the content is sent, not after.
    mfs.check_destination(destination, file.kind == FileKind::Directory)?;
    // The name keeps the content; a pin would outlive the name.
    let node = send(session, &file, path, options, &[("pin", "false")])?;
    let outcome = Outcome { destination: Some(destination.display()), ..outcome_of(&node) };
    mfs.put_name(&node.cid, destination).inspect_err(|error| {
        if matches!(error, AttemptError::UnknownOutcome(_)) {
            session.backend.remember_sent(session.request.id, outcome.clone());
        }
    })?;
    Ok(outcome)
}

pub(super) fn query_add(session: KuboSession<'_>) -> Result<AttemptStatus> {
    let Some(outcome) = session.backend.take_sent(session.request.id) else {
        return Ok(AttemptStatus::NotDone);
    };
    let Some(cid) = outcome.cid.as_deref().and_then(|cid| Cid::try_from(cid).ok()) else {
        return Ok(AttemptStatus::NotDone);
    };
    let pins = Pins(session);
    let is_pinned = session.parameter("pin") == Some("false") || pins.kind_of(&cid)?.is_some();
    let has_name = match session.parameter("to_files") {
        // For a directory Kubo chooses the name within it.
        Some(name) if name.ends_with('/') => false,
        Some(name) => Mfs(session).stat(name)?.is_some_and(|stat| is_same_block(&stat.cid, &cid)),
        None => true,
    };
    Ok(if is_pinned && has_name && pins.has_block(&cid)? {
        AttemptStatus::Done(outcome)
    } else {
        AttemptStatus::NotDone
    })
}

pub(super) fn query_upload(session: KuboSession<'_>, destination: &Name) -> Result<AttemptStatus> {
    let Some(outcome) = session.backend.take_sent(session.request.id) else {
        return Ok(AttemptStatus::NotDone);
    };
    let cid = Mfs(session).stat(&destination.display())?.map(|stat| stat.cid.to_string());
    Ok(if cid == outcome.cid { AttemptStatus::Done(outcome) } else { AttemptStatus::NotDone })
}

/// Sends a file, or a directory and everything below it, and compares Kubo's CID with the computed
/// one.
fn send(
    session: KuboSession<'_>,
    file: &UserFile<'_>,
    path: &Path,
    options: Options,
    extra: &[(&str, &str)],
) -> Result<Node> {
    let backend = session.backend;
    // Every option that affects the CID is set, so that the node's own defaults do not matter.
    let (chunker, max_links) =
        (format!("size-{}", options.chunk_size), options.max_links.to_string());
    let mut query = vec![
        ("cid-version", if options.cid_version == CidVersion::V0 { "0" } else { "1" }),
        ("raw-leaves", if options.raw_leaves { "true" } else { "false" }),
        ("chunker", &chunker),
        ("max-file-links", &max_links),
        ("hash", "sha2-256"),
        ("trickle", "false"),
        ("inline", "false"),
        ("progress", "false"),
    ];
    query.extend(extra);
    let boundary = format!("wal-cli-{}", session.request.id);
    let body_type = format!("multipart/form-data; boundary={boundary}");
    let mut call =
        session.after_change("add", session.rpc.start("add", &query, Some(&body_type)))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = if name.is_empty() { "root".to_owned() } else { name };

    let mut body = MultipartBody::new(&session, &mut call, boundary);
    let sent = body
        .entry(&file.path, &name, file.kind, file.expected, options, 0)
        .and_then(|node| body.finish().map(|()| node));
    let MultipartBody { mut response, error, .. } = body;
    let node = match (sent, error) {
        (Ok(node), _) => node,
        // The body is incomplete, so nothing was stored.
        (Err(_), Some(BodyError::Call(error))) => {
            return Err(backend.attempt_error("add", error.into(), SideEffect::None));
        }
        (Err(_), Some(BodyError::EarlyResponse)) => {
            let received = session.rpc.receive(&mut call, &mut |_| Ok(Activity::Progress));
            let error = received.err().unwrap_or_else(|| {
                RpcError::Unexpected("the response came before everything was sent".into())
            });
            return Err(backend.attempt_error("add", error, SideEffect::None));
        }
        (Err(error), None) => return Err(error),
    };
    let received = session
        .rpc
        .receive(&mut call, &mut |data| response.push(data).map(|()| Activity::Progress))
        .and_then(|()| response.finish());
    let root = session.after_change("add", received).inspect_err(|error| {
        if matches!(error, AttemptError::UnknownOutcome(_)) {
            backend.remember_sent(session.request.id, outcome_of(&node));
        }
    })?;
    if is_same_block(&root, &node.cid) {
        return Ok(node);
    }
    let message = format!(
        "{} returned {root} for content whose CID is {}: the content was changed in transit, or \
         the node does not support the requested options; check its version, and `Import` in its \
         configuration",
        backend.node, node.cid
    );
    Err(AttemptError::permanent("cid_mismatch", message))
}

fn outcome_of(node: &Node) -> Outcome {
    Outcome { cid: Some(node.cid.to_string()), size: Some(node.size), ..Outcome::default() }
}
