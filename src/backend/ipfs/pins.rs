//! Pins: what a node keeps.

use serde_json::Value;

use super::rpc::{Movement, Refused, RpcError};
use super::{Session, same};
use crate::backend::errors::Result;
use crate::backend::http::Trouble;
use crate::backend::unixfs::Cid;
use crate::backend::{AttemptError, AttemptStatus};
use crate::operation::Outcome;

/// What Kubo says where there is no pin.
const NOT_PINNED: [&str; 2] = ["is not pinned", "not pinned or pinned indirectly"];

fn says_not_pinned(error: &RpcError) -> bool {
    matches!(error, RpcError::Refused(Refused { message, .. }) if NOT_PINNED.iter().any(|text| message.contains(text)))
}

impl Session<'_> {
    pub(super) fn pin(&self, cid: &Cid) -> Result<Outcome> {
        let text = cid.to_string();
        let mut options = vec![("arg", &text[..]), ("recursive", "true"), ("progress", "true")];
        let name = self.request.parameters.get("pin_name").filter(|name| !name.is_empty());
        options.extend(name.map(|name| ("name", name.as_str())));
        let (mut pinned, mut figures) = (false, None);
        // Lines keep coming, also while nobody has what is asked for: only what they tell shows whether it comes.
        let result = self.rpc.lines("pin/add", &options, &mut |line| {
            let pins = line.get("Pins").and_then(Value::as_array).into_iter().flatten();
            pinned |= pins
                .filter_map(Value::as_str)
                .any(|pin| Cid::try_from(pin).is_ok_and(|pin| same(&pin, cid)));
            // Kubo leaves a figure out where it is 0.
            let now = ["Progress", "Bytes"]
                .map(|name| line.get(name).and_then(Value::as_u64).unwrap_or(0));
            let before = figures.replace(now).unwrap_or_default();
            Ok(if now == before && !pinned { Movement::None } else { Movement::Some })
        });
        let result = result.map_err(|error| match error {
            RpcError::Trouble(Trouble::TimedOut(what)) => RpcError::Trouble(Trouble::TimedOut(format!(
                "{what}, while it fetched {cid}: find somebody who has all of it and can be reached, or raise \
                 `idle_timeout` (or `total_timeout`) of this backend"
            ))),
            error => error,
        });
        let result = result.and_then(|()| match pinned {
            true => Ok(()),
            false => Err(RpcError::Odd("it ended without saying that it is pinned".into())),
        });
        self.acted("pin/add", result)?;
        Ok(done(cid))
    }

    pub(super) fn unpin(&self, cid: &Cid) -> Result<Outcome> {
        let Some(kind) = self.pin_of(cid)? else { return Ok(done(cid)) };
        let recursive = if kind == "direct" { "false" } else { "true" };
        match self.rpc.object("pin/rm", &[("arg", &cid.to_string()), ("recursive", recursive)]) {
            Err(error) if says_not_pinned(&error) => Ok(done(cid)),
            result => self.acted("pin/rm", result).map(|_| done(cid)),
        }
    }

    /// Removing content is removing its pin: what nothing holds any more goes when the node next collects garbage.
    pub(super) fn remove_content(&self, cid: &Cid) -> Result<Outcome> {
        if self.pin_of(cid)?.is_some() {
            return self.unpin(cid);
        }
        if let Some(holder) = self.held_by(cid)? {
            let message = format!("{cid} is part of {holder}, which is pinned; `unpin` that first");
            return Err(AttemptError::permanent("pinned", message));
        }
        if self.has_block(cid)? {
            return Ok(done(cid));
        }
        Err(AttemptError::permanent(
            "not_found",
            format!("{} has no {cid}: there is nothing to remove", self.backend.node),
        ))
    }

    /// How a CID itself is pinned, `recursive` or `direct`, if it is.
    pub(super) fn pin_of(&self, cid: &Cid) -> Result<Option<String>> {
        for kind in ["recursive", "direct"] {
            if self.pins_of_kind(cid, kind)?.is_some() {
                return Ok(Some(kind.to_owned()));
            }
        }
        Ok(None)
    }

    /// The pinned CID that holds another one, if any does.
    fn held_by(&self, cid: &Cid) -> Result<Option<String>> {
        let found = self.pins_of_kind(cid, "indirect")?;
        Ok(found.map(|found| found.rsplit(' ').next().unwrap_or_default().to_owned()))
    }

    fn pins_of_kind(&self, cid: &Cid, kind: &str) -> Result<Option<String>> {
        let found = match self.rpc.object("pin/ls", &[("arg", &cid.to_string()), ("type", kind)]) {
            Err(error) if says_not_pinned(&error) => return Ok(None),
            found => self.read("pin/ls", found)?,
        };
        let keys = found.get("Keys").and_then(Value::as_object);
        let pin = keys
            .and_then(|keys| keys.values().next())
            .and_then(|pin| pin.get("Type"))
            .and_then(Value::as_str);
        match pin {
            Some(pin) => Ok(Some(pin.to_owned())),
            None => self.read("pin/ls", Err(RpcError::Odd("it names no pin".into()))),
        }
    }

    /// Whether the node has the block of a CID, without asking others for it.
    pub(super) fn has_block(&self, cid: &Cid) -> Result<bool> {
        match self.rpc.object("block/stat", &[("arg", &cid.to_string()), ("offline", "true")]) {
            Err(RpcError::Refused(Refused { message, .. }))
                if message.contains("could not find") =>
            {
                Ok(false)
            }
            found => self.read("block/stat", found).map(|_| true),
        }
    }

    pub(super) fn ask_pinned(&self, cid: &Cid) -> Result<AttemptStatus> {
        let pinned = self.pins_of_kind(cid, "recursive")?.is_some();
        // A name of the pin is given again.
        let named = self.request.parameters.contains_key("pin_name");
        Ok(if pinned && !named { AttemptStatus::Done(done(cid)) } else { AttemptStatus::NotDone })
    }

    pub(super) fn ask_removed_content(&self, cid: &Cid) -> Result<AttemptStatus> {
        // Part of something that is pinned: it has to be refused, not taken for removed.
        if self.held_by(cid)?.is_some() {
            Ok(AttemptStatus::NotDone)
        } else {
            self.ask_unpinned(cid)
        }
    }

    pub(super) fn ask_unpinned(&self, cid: &Cid) -> Result<AttemptStatus> {
        Ok(if self.pin_of(cid)?.is_none() {
            AttemptStatus::Done(done(cid))
        } else {
            AttemptStatus::NotDone
        })
    }
}

fn done(cid: &Cid) -> Outcome {
    Outcome { cid: Some(cid.to_string()), ..Outcome::default() }
}
