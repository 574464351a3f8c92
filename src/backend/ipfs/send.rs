//! Sending files and directories: `add`.

use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::rpc::{Lines, Movement, RpcError, RpcResult};
use super::{Session, same};
use crate::backend::errors::Result;
use crate::backend::files::{
    Expected, UserFile, check_depth, directory_node, entries_on_disk, find_user_file, link_target,
    read_user_file, stop_if_asked, unsupported_file,
};
use crate::backend::http::{Call, Trouble};
use crate::backend::parameters::Name;
use crate::backend::unixfs::{self, Child, Cid, CidVersion, Node, Options};
use crate::backend::{AttemptError, AttemptStatus};
use crate::disk::{Disk, FileKind};
use crate::operation::Outcome;

/// Bytes that are sent at a time.
const PIECE: usize = 128 << 10;

impl Session<'_> {
    pub(super) fn add(&self, path: &Path, recursive: bool, options: Options) -> Result<Outcome> {
        let file =
            find_user_file(&*self.backend.disk, self.attempt, path, recursive, self.request)?;
        let pin = self.parameter("pin").unwrap_or("true");
        let mut more = vec![("pin", pin)];
        more.extend(self.parameter("pin_name").map(|name| ("pin-name", name)));
        more.extend(self.parameter("to_files").map(|name| ("to-files", name)));
        let node = self.send(&file, path, options, &more)?;
        Ok(Outcome { cid: Some(node.cid.to_string()), size: Some(node.size), ..Outcome::default() })
    }

    pub(super) fn upload(
        &self,
        path: &Path,
        destination: &Name,
        recursive: bool,
        options: Options,
    ) -> Result<Outcome> {
        let file =
            find_user_file(&*self.backend.disk, self.attempt, path, recursive, self.request)?;
        // Found out now, it costs less than after everything was sent.
        self.check_place(destination, file.kind == FileKind::Directory)?;
        // The name holds it; a pin beside it would outlive that.
        let node = self.send(&file, path, options, &[("pin", "false")])?;
        let outcome = Outcome {
            cid: Some(node.cid.to_string()),
            size: Some(node.size),
            destination: Some(destination.display()),
            ..Outcome::default()
        };
        self.put_name(&node.cid, destination).inspect_err(|error| {
            if matches!(error, AttemptError::UnknownOutcome(_)) {
                self.backend.remember(self.request.id, outcome.clone());
            }
        })?;
        Ok(outcome)
    }

    /// A parameter of Kubo's own.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.request.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn ask_added(&self) -> Result<AttemptStatus> {
        let Some(outcome) = self.backend.recall(self.request.id) else {
            return Ok(AttemptStatus::NotDone);
        };
        let Some(cid) = outcome.cid.as_deref().and_then(|cid| Cid::try_from(cid).ok()) else {
            return Ok(AttemptStatus::NotDone);
        };
        let is_pinned = self.parameter("pin") == Some("false") || self.pin_of(&cid)?.is_some();
        let is_named = match self.parameter("to_files") {
            // In a directory it has a name that Kubo chose.
            Some(name) if name.ends_with('/') => false,
            Some(name) => self.stat(name)?.is_some_and(|stat| same(&stat.cid, &cid)),
            None => true,
        };
        Ok(if is_pinned && is_named && self.has_block(&cid)? {
            AttemptStatus::Done(outcome)
        } else {
            AttemptStatus::NotDone
        })
    }

    pub(super) fn ask_uploaded(&self, destination: &Name) -> Result<AttemptStatus> {
        let Some(outcome) = self.backend.recall(self.request.id) else {
            return Ok(AttemptStatus::NotDone);
        };
        let there = self.stat(&destination.display())?.map(|stat| stat.cid.to_string());
        Ok(if there == outcome.cid { AttemptStatus::Done(outcome) } else { AttemptStatus::NotDone })
    }

    /// Sends a file or a directory with all that is in it, and compares the CID that Kubo gives it.
    fn send(
        &self,
        file: &UserFile<'_>,
        path: &Path,
        options: Options,
        more: &[(&str, &str)],
    ) -> Result<Node> {
        // All that decides a CID is said, whatever the node is configured to do by itself.
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
        query.extend(more);
        let boundary = format!("wal-cli-{}", self.request.id);
        let body_type = format!("multipart/form-data; boundary={boundary}");
        let mut call = self.acted("add", self.rpc.start("add", &query, Some(&body_type)))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if name.is_empty() { "root".to_owned() } else { name };

        let mut body = Body {
            session: self,
            call: &mut call,
            boundary,
            buffer: Vec::new(),
            answer: Added::default(),
            end: None,
        };
        let sent =
            body.entry(&file.path, &name, file.kind, file.expected, options, 0).and_then(|node| {
                body.finish()?;
                Ok(node)
            });
        let Body { mut answer, end, .. } = body;
        let node = match (sent, end) {
            (Ok(node), _) => node,
            // It ends before it was whole, so nothing came of it.
            (Err(_), Some(BodyEnd::Trouble(trouble))) => {
                return Err(self.backend.fail("add", trouble.into(), false));
            }
            (Err(_), Some(BodyEnd::Unwanted)) => {
                let refused = self.rpc.receive(&mut call, &mut |_| Ok(Movement::Some));
                let early =
                    || RpcError::Odd("it says that it has all before everything was sent".into());
                return Err(self.backend.fail("add", refused.err().unwrap_or_else(early), false));
            }
            (Err(error), None) => return Err(error),
        };
        let received =
            self.rpc.receive(&mut call, &mut |data| answer.push(data).map(|()| Movement::Some));
        let received = received.and_then(|()| answer.finish());
        let root = self.acted("add", received).inspect_err(|error| {
            if matches!(error, AttemptError::UnknownOutcome(_)) {
                let outcome = Outcome {
                    cid: Some(node.cid.to_string()),
                    size: Some(node.size),
                    ..Outcome::default()
                };
                self.backend.remember(self.request.id, outcome);
            }
        })?;
        if same(&root, &node.cid) {
            return Ok(node);
        }
        let message = format!(
            "{} made {root} of what is {} by our reckoning: something on the way changed it, or the node does not know \
             the options that were asked for; see its version, and `Import` in its settings",
            self.backend.node, node.cid
        );
        Err(AttemptError::permanent("cid_mismatch", message))
    }
}

/// What Kubo says of what was added.
#[derive(Debug, Default)]
struct Added {
    lines: Lines,
    last: Option<String>,
    failed: Option<RpcError>,
}

impl Added {
    fn take(&mut self, data: &[u8]) {
        let Added { lines, last, failed } = self;
        lines.push(data, &mut |line| match line {
            Ok(line) => {
                if let Some(hash) = line.get("Hash").and_then(Value::as_str) {
                    *last = Some(hash.to_owned());
                }
            }
            Err(error) => {
                failed.get_or_insert(error);
            }
        });
    }

    fn push(&mut self, data: &[u8]) -> RpcResult<()> {
        self.take(data);
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The root: it comes last.
    fn finish(&mut self) -> RpcResult<Cid> {
        self.push(&[])?;
        self.lines.finish()?;
        let last = self
            .last
            .take()
            .ok_or_else(|| RpcError::Odd("it ended without naming what was added".into()))?;
        Cid::try_from(last.as_str()).map_err(|_| RpcError::Odd(format!("`{last}` is no CID")))
    }
}

/// How a body ended before its end.
enum BodyEnd {
    /// An answer came early.
    Unwanted,
    /// Nothing can be sent any more.
    Trouble(Trouble),
}

/// A body of several parts, written as its content is read: each path is a part, directories before what is in them.
///
/// Written here, since what is at hand for this wants to know all parts before the first one is sent.
struct Body<'s, 'c, 'a> {
    session: &'s Session<'s>,
    call: &'c mut Call<'a>,
    boundary: String,
    buffer: Vec<u8>,
    answer: Added,
    end: Option<BodyEnd>,
}

impl Body<'_, '_, '_> {
    fn entry(
        &mut self,
        path: &Path,
        name: &str,
        kind: FileKind,
        expected: Expected<'_>,
        options: Options,
        depth: usize,
    ) -> Result<Node> {
        stop_if_asked(self.session.attempt)?;
        let disk: &dyn Disk = &*self.session.backend.disk;
        match kind {
            FileKind::File => {
                let attempt = self.session.attempt;
                let mut begun = false;
                let node = read_user_file(disk, attempt, path, expected, options, &mut |data| {
                    if !std::mem::replace(&mut begun, true) {
                        self.part(name, "application/octet-stream")?;
                    }
                    self.write(data)
                })?;
                if !begun {
                    self.part(name, "application/octet-stream")?;
                }
                Ok(node)
            }
            FileKind::Symlink => {
                let target = link_target(disk, path)?;
                self.part(name, "application/symlink")?;
                self.write(target.as_bytes())?;
                Ok(unixfs::symlink(target.as_bytes(), options.cid_version))
            }
            FileKind::Directory => {
                check_depth(path, depth)?;
                self.part(name, "application/x-directory")?;
                let mut children = Vec::new();
                for (child, kind) in entries_on_disk(disk, path)? {
                    let below = format!("{name}/{child}");
                    let node = self.entry(
                        &path.join(&child),
                        &below,
                        kind,
                        Expected::Anything,
                        options,
                        depth + 1,
                    )?;
                    children.push(Child { name: child, node });
                }
                Ok(directory_node(&children, options)?.node)
            }
            FileKind::Other => Err(unsupported_file(path)),
        }
    }

    fn part(&mut self, name: &str, content_type: &str) -> Result<()> {
        let head = format!(
            "\r\n--{}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\nContent-Type: {content_type}\r\n\r\n",
            self.boundary,
            escaped(name)
        );
        self.write(head.as_bytes())
    }

    fn write(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(PIECE - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() == PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE)));
        let answer = &mut self.answer;
        let end = match self.call.send(piece, &mut |data| answer.take(data)) {
            Ok(true) => return Ok(()),
            Ok(false) => BodyEnd::Unwanted,
            Err(trouble) => BodyEnd::Trouble(trouble),
        };
        self.end = Some(end);
        // How it ended says more than this.
        Err(AttemptError::Stopped)
    }

    fn finish(&mut self) -> Result<()> {
        let last = format!("\r\n--{}--\r\n", self.boundary);
        self.write(last.as_bytes())?;
        self.flush()?;
        let answer = &mut self.answer;
        if let Err(trouble) = self.call.finish_body(&mut |data| answer.take(data)) {
            self.end = Some(BodyEnd::Trouble(trouble));
            return Err(AttemptError::Stopped);
        }
        Ok(())
    }
}

/// A path as Kubo reads it back: it undoes percents, and takes a plus for a space.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_what_kubo_does_to_them() {
        assert_eq!(escaped("a/b c+d%\"ä.txt"), "a/b%20c%2Bd%25%22%C3%A4.txt");
    }
}
