//! Pins, and removing content.

use std::collections::HashSet;

use super::entry::EntryKind;
use super::errors::no_content;
use super::store::{Found, canonical, forms};
use super::{Attempt, AttemptError, AttemptStatus, LocalBackend, Outcome, stop_if_asked};
use crate::backend::errors::{Result, ours};
use crate::backend::unixfs::Cid;
use crate::disk::{Access, DiskResult, FileKind};

impl LocalBackend {
    pub(super) fn pin(&self, attempt: &Attempt, cid: &Cid) -> Result<Outcome> {
        let _lock = self.lock(attempt)?;
        let found = self.find(cid).map_err(ours)?.ok_or_else(|| no_content(cid))?;
        if let Found::Directory { cid, .. } = &found {
            // A pin promises all of it.
            self.walk(attempt, cid, &mut HashSet::new(), true, &mut |_| Ok(()))?;
        }
        let pins = self.pins_dir();
        self.ensure_dir(&pins).map_err(ours)?;
        let name = pins.join(found.cid().to_string());
        self.disk
            .open(&name, Access::OpenOrCreate)
            .and_then(|file| file.sync_all())
            .map_err(ours)?;
        self.disk.sync_dir(&pins).map_err(ours)?;
        Ok(Outcome { cid: Some(cid.to_string()), ..Outcome::default() })
    }

    pub(super) fn unpin(&self, attempt: &Attempt, cid: &Cid) -> Result<Outcome> {
        let _lock = self.lock(attempt)?;
        let pins = self.pins_dir();
        self.ensure_dir(&pins).map_err(ours)?;
        for cid in forms(cid) {
            self.disk.remove_if_present(&pins.join(cid.to_string())).map_err(ours)?;
        }
        self.disk.sync_dir(&pins).map_err(ours)?;
        Ok(Outcome { cid: Some(cid.to_string()), ..Outcome::default() })
    }

    /// Whether this very CID is pinned.
    pub(super) fn has_pin(&self, cid: &Cid) -> DiskResult<bool> {
        for cid in forms(cid) {
            if self.disk.exists(&self.pins_dir().join(cid.to_string()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn remove_content(
        &self,
        attempt: &Attempt,
        cid: &Cid,
        recursive: bool,
    ) -> Result<Outcome> {
        let _lock = self.lock(attempt)?;
        let found = self.find(cid).map_err(ours)?.ok_or_else(|| no_content(cid))?;
        let root = canonical(cid);
        let doomed = match &found {
            Found::File { .. } => vec![root],
            Found::Directory { .. } if !recursive => {
                let message = format!(
                    "{cid} is a directory; pass `recursive=true` to remove it with its entries"
                );
                return Err(AttemptError::permanent("is_directory", message));
            }
            Found::Directory { .. } => self.tree(attempt, &root)?,
        };
        let mut kept = self.protected_by_pins(attempt, &doomed)?;
        if kept.contains(&root) {
            let message = format!(
                "{cid} is pinned, by itself or as part of a pinned directory; `unpin` it first"
            );
            return Err(AttemptError::permanent("pinned", message));
        }
        if doomed.len() > 1 {
            self.keep_what_others_need(attempt, &root, &doomed, &mut kept)?;
        }
        // The directory itself goes last: until then the operation can be done again.
        for cid in doomed.iter().filter(|cid| !kept.contains(*cid)) {
            stop_if_asked(attempt)?;
            self.delete(cid).map_err(ours)?;
        }
        Ok(Outcome { cid: Some(cid.to_string()), ..Outcome::default() })
    }

    pub(super) fn query_remove_content(&self, cid: &Cid) -> Result<AttemptStatus> {
        if self.find(cid).map_err(ours)?.is_some() {
            return Ok(AttemptStatus::NotDone);
        }
        self.sync_absence(cid).map_err(ours)?;
        Ok(AttemptStatus::Done(Outcome { cid: Some(cid.to_string()), ..Outcome::default() }))
    }

    /// All content that a directory leads to, what is in it before itself.
    fn tree(&self, attempt: &Attempt, root: &Cid) -> Result<Vec<Cid>> {
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        let seen_files = &mut HashSet::new();
        self.walk(attempt, root, &mut seen, false, &mut |cid| {
            if seen_files.insert(*cid) {
                all.push(*cid);
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Which of these are pinned, or part of something that is.
    fn protected_by_pins(&self, attempt: &Attempt, doomed: &[Cid]) -> Result<HashSet<Cid>> {
        let doomed: HashSet<&Cid> = doomed.iter().collect();
        let mut kept = HashSet::new();
        let mut seen = HashSet::new();
        let pins = self.pins_dir();
        self.ensure_dir(&pins).map_err(ours)?;
        for entry in self.disk.list(&pins).map_err(ours)? {
            let Some(pin) = entry.name.to_str().and_then(|name| Cid::try_from(name).ok()) else {
                continue;
            };
            self.walk(attempt, &pin, &mut seen, false, &mut |cid| {
                if doomed.contains(cid) {
                    kept.insert(*cid);
                }
                Ok(())
            })?;
        }
        Ok(kept)
    }

    /// Adds to `kept` what directories other than those to be removed refer to.
    fn keep_what_others_need(
        &self,
        attempt: &Attempt,
        root: &Cid,
        doomed: &[Cid],
        kept: &mut HashSet<Cid>,
    ) -> Result<()> {
        let removed: HashSet<&Cid> = doomed.iter().collect();
        let mut needed = Vec::new();
        self.each_content(&mut |cid, kind, _| {
            stop_if_asked(attempt)?;
            if kind == FileKind::Directory && !removed.contains(&canonical(cid)) {
                for entry in self.read_listing(cid)?.entries {
                    let cid = canonical(&entry.cid);
                    if cid != *root && removed.contains(&cid) {
                        needed.push(cid);
                    }
                }
            }
            Ok(())
        })?;
        let mut seen = HashSet::new();
        for cid in needed {
            self.walk(attempt, &cid, &mut seen, false, &mut |cid| {
                kept.insert(*cid);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Calls `visit` with the canonical form of a CID and of all content that it leads to, what is
    /// in a directory before the directory. Directories in `seen` are passed over, and so is what
    /// is not there, unless it is `required`.
    fn walk(
        &self,
        attempt: &Attempt,
        cid: &Cid,
        seen: &mut HashSet<Cid>,
        required: bool,
        visit: &mut dyn FnMut(&Cid) -> Result<()>,
    ) -> Result<()> {
        stop_if_asked(attempt)?;
        match self.find(cid).map_err(ours)? {
            Some(Found::Directory { cid, .. }) => {
                if !seen.insert(canonical(&cid)) {
                    return Ok(());
                }
                for entry in self.read_listing(&cid)?.entries {
                    if !matches!(entry.kind, EntryKind::Symlink { .. }) {
                        self.walk(attempt, &entry.cid, seen, required, visit)?;
                    }
                }
                visit(&canonical(&cid))
            }
            Some(Found::File { cid, .. }) => visit(&canonical(&cid)),
            None if required => Err(no_content(cid)),
            None => Ok(()),
        }
    }
}
