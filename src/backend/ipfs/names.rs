//! The node's tree of names, which Kubo calls MFS.

use serde_json::Value;

use super::rpc::{Refused, RpcError};
use super::{Session, same};
use crate::backend::errors::Result;
use crate::backend::parameters::{Name, refuse_into_itself};
use crate::backend::unixfs::Cid;
use crate::backend::{AttemptError, AttemptStatus};
use crate::operation::Outcome;

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Stat {
    pub(super) cid: Cid,
    pub(super) is_directory: bool,
    pub(super) size: u64,
}

impl Session<'_> {
    /// What a name stands for, if there is such a name.
    pub(super) fn stat(&self, name: &str) -> Result<Option<Stat>> {
        let found = match self.rpc.object("files/stat", &[("arg", name)]) {
            Err(RpcError::Refused(Refused { message, .. }))
                if message.contains("does not exist") =>
            {
                return Ok(None);
            }
            found => self.read("files/stat", found)?,
        };
        let text = |name| found.get(name).and_then(Value::as_str);
        let cid = text("Hash").and_then(|hash| Cid::try_from(hash).ok());
        let size = found.get("Size").and_then(Value::as_u64).unwrap_or(0);
        match (cid, text("Type")) {
            (Some(cid), Some(kind)) => {
                Ok(Some(Stat { cid, is_directory: kind == "directory", size }))
            }
            _ => self
                .read("files/stat", Err(RpcError::Odd(format!("`{found}` tells no CID and type")))),
        }
    }

    /// What a name stands for; there must be one.
    pub(super) fn named(&self, name: &Name) -> Result<Stat> {
        self.stat(&name.display())?.ok_or_else(|| {
            let message =
                format!("there is no `{}` on the node; `list` shows what there is", name.display());
            AttemptError::permanent("not_found", message)
        })
    }

    /// Whether something may be put there: a file is replaced, a directory is not.
    pub(super) fn check_place(&self, name: &Name, puts_directory: bool) -> Result<Option<Stat>> {
        let there = self.stat(&name.display())?;
        match &there {
            Some(stat) if stat.is_directory && !puts_directory => {
                Err(exists(name, "it is a directory"))
            }
            Some(stat) if !stat.is_directory && puts_directory => Err(exists(name, "it is a file")),
            _ => Ok(there),
        }
    }

    /// Gives content a name, in place of a file that may have it.
    pub(super) fn put_name(&self, cid: &Cid, name: &Name) -> Result<()> {
        match self.stat(&name.display())? {
            Some(stat) if same(&stat.cid, cid) => return Ok(()),
            Some(stat) if stat.is_directory => {
                return Err(exists(name, "it is a directory with something else in it"));
            }
            _ => {}
        }
        let (source, destination) = (format!("/ipfs/{cid}"), name.display());
        let options =
            [("arg", &source[..]), ("arg", &destination), ("parents", "true"), ("force", "true")];
        self.acted("files/cp", self.rpc.order("files/cp", &options))?;
        match self.stat(&destination)? {
            Some(stat) if same(&stat.cid, cid) => Ok(()),
            _ => {
                let message =
                    format!("`{}` is something else than was just put there", name.display());
                Err(AttemptError::transient("changed_meanwhile", message))
            }
        }
    }

    pub(super) fn make_directory(&self, name: &Name) -> Result<Outcome> {
        if let Some(stat) = self.stat(&name.display())?.filter(|stat| !stat.is_directory) {
            return Err(exists(name, &format!("it is a file of {} bytes", stat.size)));
        }
        let display = name.display();
        self.acted(
            "files/mkdir",
            self.rpc.order("files/mkdir", &[("arg", &display), ("parents", "true")]),
        )?;
        Ok(at(name))
    }

    pub(super) fn copy(&self, source: &Name, destination: &Name) -> Result<Outcome> {
        let stat = self.named(source)?;
        refuse_into_itself(source, destination)?;
        self.check_place(destination, stat.is_directory)?;
        self.put_name(&stat.cid, destination)?;
        let size = (!stat.is_directory).then_some(stat.size);
        Ok(Outcome { cid: Some(stat.cid.to_string()), size, ..at(destination) })
    }

    pub(super) fn ask_copied(&self, source: &Name, destination: &Name) -> Result<AttemptStatus> {
        let stat = self.named(source)?;
        let there = self.stat(&destination.display())?.filter(|there| same(&there.cid, &stat.cid));
        let size = (!stat.is_directory).then_some(stat.size);
        let outcome = Outcome { cid: Some(stat.cid.to_string()), size, ..at(destination) };
        Ok(if there.is_some() { AttemptStatus::Done(outcome) } else { AttemptStatus::NotDone })
    }

    pub(super) fn move_name(&self, source: &Name, destination: &Name) -> Result<Outcome> {
        let stat = self.named(source)?;
        refuse_into_itself(source, destination)?;
        let (from, to) = (source.display(), destination.display());
        match self.stat(&to)? {
            // Kubo adds the new name before it takes the old one away: that may be all that is left to do.
            Some(there) if same(&there.cid, &stat.cid) => {
                self.take_away(&from)?;
                return Ok(at(destination));
            }
            Some(there) if there.is_directory => {
                return Err(exists(destination, "it is a directory"));
            }
            Some(_) if stat.is_directory => return Err(exists(destination, "it is a file")),
            _ => {}
        }
        if let Some((parent, _)) = to.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            let options = [("arg", parent), ("parents", "true")];
            // Does no harm however often it is done.
            self.read("files/mkdir", self.rpc.order("files/mkdir", &options))?;
        }
        match self.acted("files/mv", self.rpc.order("files/mv", &[("arg", &from), ("arg", &to)])) {
            // What a dead process had sent may have come to pass only now.
            Err(error) if is_not_found(&error) => match self.ask_moved(source, destination)? {
                AttemptStatus::Done(outcome) => Ok(outcome),
                _ => Err(error),
            },
            moved => moved.map(|()| at(destination)),
        }
    }

    pub(super) fn ask_moved(&self, source: &Name, destination: &Name) -> Result<AttemptStatus> {
        let there = |name: &Name| self.stat(&name.display());
        Ok(match (there(source)?, there(destination)?) {
            (Some(_), _) => AttemptStatus::NotDone,
            (None, Some(_)) => AttemptStatus::Done(at(destination)),
            (None, None) => AttemptStatus::Unknown(format!(
                "neither `{}` nor `{}` is on the node",
                source.display(),
                destination.display()
            )),
        })
    }

    pub(super) fn remove_name(&self, name: &Name, recursive: bool) -> Result<Outcome> {
        if self.named(name)?.is_directory && !recursive {
            let message =
                format!("`{}` is a directory; remove it with `recursive=true`", name.display());
            return Err(AttemptError::permanent("is_directory", message));
        }
        self.take_away(&name.display())?;
        Ok(Outcome::default())
    }

    fn take_away(&self, name: &str) -> Result<()> {
        match self
            .acted("files/rm", self.rpc.order("files/rm", &[("arg", name), ("recursive", "true")]))
        {
            // It was there a moment ago: what a dead process had sent may have come to pass.
            Err(error) if is_not_found(&error) => Ok(()),
            removed => removed,
        }
    }

    pub(super) fn ask_removed(&self, name: &Name) -> Result<AttemptStatus> {
        let there = self.stat(&name.display())?.is_some();
        Ok(if there { AttemptStatus::NotDone } else { AttemptStatus::Done(Outcome::default()) })
    }
}

fn is_not_found(error: &AttemptError) -> bool {
    matches!(error, AttemptError::Failed { failure, .. } if failure.error_type == "not_found")
}

fn at(name: &Name) -> Outcome {
    Outcome { destination: Some(name.display()), ..Outcome::default() }
}

fn exists(name: &Name, why: &str) -> AttemptError {
    let message =
        format!("`{}` cannot be written on the node: {why}; choose another name", name.display());
    AttemptError::permanent("destination_exists", message)
}
