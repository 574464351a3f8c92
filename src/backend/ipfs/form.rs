//! The multipart body of `add`.

use std::path::Path;

use bytes::Bytes;

use super::KuboSession;
use super::add_response::AddResponse;
use super::http::{BodyState, Call, CallError};
use crate::backend::AttemptError;
use crate::backend::errors::Result;
use crate::backend::files::{
    Expected, check_depth, directory_node, entries_on_disk, link_target, read_user_file,
    stop_if_asked, unsupported_file,
};
use crate::backend::unixfs::{self, Child, Node, Options};
use crate::disk::{Disk, FileKind};

/// The number of bytes that are sent at a time.
const PIECE: usize = 128 << 10;

/// The reason why a body was not sent to its end.
pub(super) enum BodyError {
    /// The server responded before the end.
    EarlyResponse,
    Call(CallError),
}

/// A multipart body, written while its content is read: each path is a part, and directories come
/// before their entries.
///
/// `reqwest`'s own multipart forms must know all parts before the first one is sent.
pub(super) struct MultipartBody<'s, 'c, 'a> {
    session: &'s KuboSession<'s>,
    call: &'c mut Call<'a>,
    boundary: String,
    buffer: Vec<u8>,
    /// The part of the response that arrived while the body was sent.
    pub(super) response: AddResponse,
    pub(super) error: Option<BodyError>,
}

impl<'s, 'c, 'a> MultipartBody<'s, 'c, 'a> {
    pub(super) fn new(
        session: &'s KuboSession<'s>,
        call: &'c mut Call<'a>,
        boundary: String,
    ) -> MultipartBody<'s, 'c, 'a> {
        let (buffer, response) = (Vec::new(), AddResponse::default());
        MultipartBody { session, call, boundary, buffer, response, error: None }
    }

    /// Sends a path under a name, with everything below it, and returns its UnixFS node.
    pub(super) fn entry(
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
                let mut has_part = false;
                let node = read_user_file(disk, attempt, path, expected, options, &mut |data| {
                    if !std::mem::replace(&mut has_part, true) {
                        self.part(name, "application/octet-stream")?;
                    }
                    self.write(data)
                })?;
                if !has_part {
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
                    let path = path.join(&child);
                    let node =
                        self.entry(&path, &below, kind, Expected::Anything, options, depth + 1)?;
                    children.push(Child { name: child, node });
                }
                Ok(directory_node(&children, options)?.node)
            }
            FileKind::Other => Err(unsupported_file(path)),
        }
    }

    fn part(&mut self, name: &str, content_type: &str) -> Result<()> {
        let head = format!(
            "\r\n--{}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: {content_type}\r\n\r\n",
            self.boundary,
            escape_name(name)
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
        let response = &mut self.response;
        let error = match self.call.send(piece, &mut |data| response.record(data)) {
            Ok(BodyState::Open) => return Ok(()),
            Ok(BodyState::Closed) => BodyError::EarlyResponse,
            Err(error) => BodyError::Call(error),
        };
        self.error = Some(error);
        // A placeholder: the caller reports `self.error`.
        Err(AttemptError::Stopped)
    }

    /// Sends the end of the body.
    pub(super) fn finish(&mut self) -> Result<()> {
        let last = format!("\r\n--{}--\r\n", self.boundary);
        self.write(last.as_bytes())?;
        self.flush()?;
        let response = &mut self.response;
        if let Err(error) = self.call.finish_body(&mut |data| response.record(data)) {
            self.error = Some(BodyError::Call(error));
            return Err(AttemptError::Stopped);
        }
        Ok(())
    }
}

/// Returns a path as Kubo decodes it: it resolves percent escapes, and reads a plus as a space.
fn escape_name(name: &str) -> String {
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
    fn names_are_escaped_for_kubo() {
        assert_eq!(escape_name("a/b c+d%\"ä.txt"), "a/b%20c%2Bd%25%22%C3%A4.txt");
    }
}
