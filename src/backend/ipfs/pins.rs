//! The pins of a node, and whether it has a block.

use serde_json::Value;

use super::http::CallError;
use super::rpc::{Activity, RpcError, RpcRejection};
use super::{KuboSession, is_same_block};
use crate::backend::errors::Result;
use crate::backend::unixfs::Cid;
use crate::backend::{AttemptError, AttemptStatus};
use crate::operation::Outcome;

/// Fragments of the errors that Kubo reports for content without a pin.
const NOT_PINNED: [&str; 2] = ["is not pinned", "not pinned or pinned indirectly"];

fn is_not_pinned_error(error: &RpcError) -> bool {
    matches!(error, RpcError::Rejected(RpcRejection { message, .. })
        if NOT_PINNED.iter().any(|text| message.contains(text)))
}

/// The pins of the node of a session.
#[derive(Clone, Copy)]
pub(super) struct Pins<'a>(pub(super) KuboSession<'a>);

impl Pins<'_> {
    pub(super) fn pin(&self, cid: &Cid) -> Result<Outcome> {
        let session = &self.0;
        let text = cid.to_string();
        let mut options = vec![("arg", &text[..]), ("recursive", "true"), ("progress", "true")];
        options.extend(session.parameter("pin_name").map(|name| ("name", name)));
        let (mut is_pinned, mut counts) = (false, None);
        // Kubo keeps sending lines while it finds no provider; only their counts show progress.
        let result = session.rpc.json_lines("pin/add", &options, &mut |line| {
            let pins = line.get("Pins").and_then(Value::as_array).into_iter().flatten();
            is_pinned |= pins
                .filter_map(Value::as_str)
                .any(|pin| Cid::try_from(pin).is_ok_and(|pin| is_same_block(&pin, cid)));
            // Kubo omits counts that are 0.
            let now = ["Progress", "Bytes"]
                .map(|name| line.get(name).and_then(Value::as_u64).unwrap_or(0));
            let before = counts.replace(now).unwrap_or_default();
            Ok(if now == before && !is_pinned { Activity::Idle } else { Activity::Progress })
        });
        let result = result.map_err(|error| match error {
            RpcError::Call(CallError::TimedOut(reason)) => {
                RpcError::Call(CallError::TimedOut(format!(
                    "{reason} while fetching {cid}; connect the node to a peer that has all of \
                     it, or raise `idle_timeout` (or `total_timeout`) of this backend"
                )))
            }
            error => error,
        });
        let result = result.and_then(|()| match is_pinned {
            true => Ok(()),
            false => Err(RpcError::Unexpected("the response ended without a pin".into())),
        });
        session.after_change("pin/add", result)?;
        Ok(outcome_of(cid))
    }

    pub(super) fn unpin(&self, cid: &Cid) -> Result<Outcome> {
        let Some(kind) = self.kind_of(cid)? else { return Ok(outcome_of(cid)) };
        let recursive = if kind == "direct" { "false" } else { "true" };
        let options = [("arg", &cid.to_string()[..]), ("recursive", recursive)];
        match self.0.rpc.json("pin/rm", &options) {
            Err(error) if is_not_pinned_error(&error) => Ok(outcome_of(cid)),
            result => self.0.after_change("pin/rm", result).map(|_| outcome_of(cid)),
        }
    }

    /// Removes the pin of content; the node's next garbage collection removes unpinned blocks.
    pub(super) fn remove_content(&self, cid: &Cid) -> Result<Outcome> {
        if self.kind_of(cid)?.is_some() {
            return self.unpin(cid);
        }
        if let Some(holder) = self.holder_of(cid)? {
            let message = format!("{cid} is part of {holder}, which is pinned; `unpin` that first");
            return Err(AttemptError::permanent("pinned", message));
        }
        if self.has_block(cid)? {
            return Ok(outcome_of(cid));
        }
        let message = format!("cannot remove {cid}: {} does not have it", self.0.backend.node);
        Err(AttemptError::permanent("not_found", message))
    }

    /// Returns how a CID itself is pinned: `recursive`, `direct` or not at all.
    pub(super) fn kind_of(&self, cid: &Cid) -> Result<Option<String>> {
        for kind in ["recursive", "direct"] {
            if self.lookup(cid, kind)?.is_some() {
                return Ok(Some(kind.to_owned()));
            }
        }
        Ok(None)
    }

    /// Returns the pinned CID that contains this one, if there is one.
    fn holder_of(&self, cid: &Cid) -> Result<Option<String>> {
        let found = self.lookup(cid, "indirect")?;
        Ok(found.map(|found| found.rsplit(' ').next().unwrap_or_default().to_owned()))
    }

    fn lookup(&self, cid: &Cid, kind: &str) -> Result<Option<String>> {
        let options = [("arg", &cid.to_string()[..]), ("type", kind)];
        let found = match self.0.rpc.json("pin/ls", &options) {
            Err(error) if is_not_pinned_error(&error) => return Ok(None),
            found => self.0.after_read("pin/ls", found)?,
        };
        let keys = found.get("Keys").and_then(Value::as_object);
        let pin = keys
            .and_then(|keys| keys.values().next())
            .and_then(|pin| pin.get("Type"))
            .and_then(Value::as_str);
        match pin {
            Some(pin) => Ok(Some(pin.to_owned())),
            None => {
                let error = RpcError::Unexpected("the response names no pin".into());
                self.0.after_read("pin/ls", Err(error))
            }
        }
    }

    /// Returns whether the node itself has the block of a CID, without asking its peers.
    pub(super) fn has_block(&self, cid: &Cid) -> Result<bool> {
        let options = [("arg", &cid.to_string()[..]), ("offline", "true")];
        match self.0.rpc.json("block/stat", &options) {
            Err(RpcError::Rejected(RpcRejection { message, .. }))
                if message.contains("could not find") =>
            {
                Ok(false)
            }
            found => self.0.after_read("block/stat", found).map(|_| true),
        }
    }

    pub(super) fn query_pin(&self, cid: &Cid) -> Result<AttemptStatus> {
        let is_pinned = self.lookup(cid, "recursive")?.is_some();
        // The existing pin may have another name; pinning again sets it.
        let has_name = self.0.request.parameters.contains_key("pin_name");
        Ok(status(cid, is_pinned && !has_name))
    }

    pub(super) fn query_remove_content(&self, cid: &Cid) -> Result<AttemptStatus> {
        // Part of pinned content: repeating the removal reports the refusal.
        if self.holder_of(cid)?.is_some() {
            return Ok(AttemptStatus::NotDone);
        }
        self.query_unpin(cid)
    }

    pub(super) fn query_unpin(&self, cid: &Cid) -> Result<AttemptStatus> {
        Ok(status(cid, self.kind_of(cid)?.is_none()))
    }
}

fn status(cid: &Cid, is_done: bool) -> AttemptStatus {
    if is_done { AttemptStatus::Done(outcome_of(cid)) } else { AttemptStatus::NotDone }
}

fn outcome_of(cid: &Cid) -> Outcome {
    Outcome { cid: Some(cid.to_string()), ..Outcome::default() }
}
