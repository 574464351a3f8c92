//! The node's mutable tree of names, which Kubo calls MFS.

use serde_json::Value;

use super::rpc::{RpcError, RpcRejection};
use super::{KuboSession, is_same_block};
use crate::backend::errors::Result;
use crate::backend::parameters::{Name, refuse_into_itself};
use crate::backend::unixfs::Cid;
use crate::backend::{AttemptError, AttemptStatus};
use crate::operation::Outcome;

/// The file or directory that a name refers to.
#[derive(Debug)]
pub(super) struct Stat {
    pub(super) cid: Cid,
    pub(super) is_directory: bool,
    pub(super) size: u64,
}

impl Stat {
    /// Returns the outcome of an operation that gave this content another name.
    fn outcome_at(&self, name: &Name) -> Outcome {
        let size = (!self.is_directory).then_some(self.size);
        Outcome { cid: Some(self.cid.to_string()), size, ..outcome_at(name) }
    }
}

/// The tree of names of the node of a session.
#[derive(Clone, Copy)]
pub(super) struct Mfs<'a>(pub(super) KuboSession<'a>);

impl Mfs<'_> {
    /// Returns the entry of a name, if it exists.
    pub(super) fn stat(&self, name: &str) -> Result<Option<Stat>> {
        let session = &self.0;
        let found = match session.rpc.json("files/stat", &[("arg", name)]) {
            Err(RpcError::Rejected(RpcRejection { message, .. }))
                if message.contains("does not exist") =>
            {
                return Ok(None);
            }
            found => session.after_read("files/stat", found)?,
        };
        let text = |name| found.get(name).and_then(Value::as_str);
        let cid = text("Hash").and_then(|hash| Cid::try_from(hash).ok());
        let size = found.get("Size").and_then(Value::as_u64).unwrap_or(0);
        match (cid, text("Type")) {
            (Some(cid), Some(kind)) => {
                Ok(Some(Stat { cid, is_directory: kind == "directory", size }))
            }
            _ => {
                let message = format!("the response has no CID and type: `{found}`");
                session.after_read("files/stat", Err(RpcError::Unexpected(message)))
            }
        }
    }

    /// Returns the entry of a name. Fails if it does not exist.
    pub(super) fn existing(&self, name: &Name) -> Result<Stat> {
        self.stat(&name.display())?.ok_or_else(|| {
            let name = name.display();
            let message =
                format!("`{name}` does not exist on the node; `list` shows the existing names");
            AttemptError::permanent("not_found", message)
        })
    }

    /// Fails if a name cannot be written: a file may be replaced, a directory may not.
    pub(super) fn check_destination(&self, name: &Name, puts_directory: bool) -> Result<()> {
        match self.stat(&name.display())? {
            Some(stat) if stat.is_directory && !puts_directory => {
                Err(destination_exists(name, "it is a directory"))
            }
            Some(stat) if !stat.is_directory && puts_directory => {
                Err(destination_exists(name, "it is a file"))
            }
            _ => Ok(()),
        }
    }

    /// Gives content a name. Replaces a file of that name.
    pub(super) fn put_name(&self, cid: &Cid, name: &Name) -> Result<()> {
        match self.stat(&name.display())? {
            Some(stat) if is_same_block(&stat.cid, cid) => return Ok(()),
            Some(stat) if stat.is_directory => {
                return Err(destination_exists(name, "it is a directory with other content"));
            }
            _ => {}
        }
        let (source, destination) = (format!("/ipfs/{cid}"), name.display());
        let options =
            [("arg", &source[..]), ("arg", &destination), ("parents", "true"), ("force", "true")];
        self.0.after_change("files/cp", self.0.rpc.execute("files/cp", &options))?;
        match self.stat(&destination)? {
            Some(stat) if is_same_block(&stat.cid, cid) => Ok(()),
            _ => {
                let message = format!("`{destination}` was changed right after it was written");
                Err(AttemptError::transient("changed_meanwhile", message))
            }
        }
    }

    pub(super) fn make_directory(&self, name: &Name) -> Result<Outcome> {
        let path = name.display();
        if let Some(stat) = self.stat(&path)?.filter(|stat| !stat.is_directory) {
            return Err(destination_exists(name, &format!("it is a file of {} bytes", stat.size)));
        }
        let options = [("arg", &path[..]), ("parents", "true")];
        self.0.after_change("files/mkdir", self.0.rpc.execute("files/mkdir", &options))?;
        Ok(outcome_at(name))
    }

    pub(super) fn copy(&self, source: &Name, destination: &Name) -> Result<Outcome> {
        let stat = self.existing(source)?;
        refuse_into_itself(source, destination)?;
        self.check_destination(destination, stat.is_directory)?;
        self.put_name(&stat.cid, destination)?;
        Ok(stat.outcome_at(destination))
    }

    pub(super) fn query_copy(&self, source: &Name, destination: &Name) -> Result<AttemptStatus> {
        let stat = self.existing(source)?;
        let copy = self.stat(&destination.display())?;
        Ok(match copy.filter(|copy| is_same_block(&copy.cid, &stat.cid)) {
            Some(_) => AttemptStatus::Done(stat.outcome_at(destination)),
            None => AttemptStatus::NotDone,
        })
    }

    pub(super) fn move_name(&self, source: &Name, destination: &Name) -> Result<Outcome> {
        let stat = self.existing(source)?;
        refuse_into_itself(source, destination)?;
        let (from, to) = (source.display(), destination.display());
        match self.stat(&to)? {
            // Kubo adds the new name before it removes the old one, so an interrupted move may have
            // left only the removal to do.
            Some(present) if is_same_block(&present.cid, &stat.cid) => {
                self.remove_path(&from)?;
                return Ok(outcome_at(destination));
            }
            Some(present) if present.is_directory => {
                return Err(destination_exists(destination, "it is a directory"));
            }
            Some(_) if stat.is_directory => {
                return Err(destination_exists(destination, "it is a file"));
            }
            _ => {}
        }
        if let Some((parent, _)) = to.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            let options = [("arg", parent), ("parents", "true")];
            // Idempotent, so a lost response leaves nothing to query.
            self.0.after_read("files/mkdir", self.0.rpc.execute("files/mkdir", &options))?;
        }
        let options = [("arg", &from[..]), ("arg", &to)];
        match self.0.after_change("files/mv", self.0.rpc.execute("files/mv", &options)) {
            // The request of a killed process may have taken effect only now.
            Err(error) if is_not_found(&error) => match self.query_move(source, destination)? {
                AttemptStatus::Done(outcome) => Ok(outcome),
                _ => Err(error),
            },
            moved => moved.map(|()| outcome_at(destination)),
        }
    }

    pub(super) fn query_move(&self, source: &Name, destination: &Name) -> Result<AttemptStatus> {
        let stat = |name: &Name| self.stat(&name.display());
        Ok(match (stat(source)?, stat(destination)?) {
            (Some(_), _) => AttemptStatus::NotDone,
            (None, Some(_)) => AttemptStatus::Done(outcome_at(destination)),
            (None, None) => AttemptStatus::Unknown(format!(
                "neither `{}` nor `{}` exists on the node",
                source.display(),
                destination.display()
            )),
        })
    }

    pub(super) fn remove_name(&self, name: &Name, recursive: bool) -> Result<Outcome> {
        if self.existing(name)?.is_directory && !recursive {
            let message =
                format!("`{}` is a directory; remove it with `recursive=true`", name.display());
            return Err(AttemptError::permanent("is_directory", message));
        }
        self.remove_path(&name.display())?;
        Ok(Outcome::default())
    }

    fn remove_path(&self, path: &str) -> Result<()> {
        let options = [("arg", path), ("recursive", "true")];
        match self.0.after_change("files/rm", self.0.rpc.execute("files/rm", &options)) {
            // It existed a moment ago: the request of a killed process took effect meanwhile.
            Err(error) if is_not_found(&error) => Ok(()),
            removed => removed,
        }
    }

    pub(super) fn query_remove(&self, name: &Name) -> Result<AttemptStatus> {
        Ok(match self.stat(&name.display())? {
            Some(_) => AttemptStatus::NotDone,
            None => AttemptStatus::Done(Outcome::default()),
        })
    }
}

fn is_not_found(error: &AttemptError) -> bool {
    matches!(error, AttemptError::Failed { failure, .. } if failure.error_type == "not_found")
}

fn outcome_at(name: &Name) -> Outcome {
    Outcome { destination: Some(name.display()), ..Outcome::default() }
}

fn destination_exists(name: &Name, reason: &str) -> AttemptError {
    let name = name.display();
    let message = format!("cannot write `{name}` on the node: {reason}; choose another name");
    AttemptError::permanent("destination_exists", message)
}
