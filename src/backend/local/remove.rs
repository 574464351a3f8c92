//! Pins, and the removal of content that nothing protects.

use std::collections::HashSet;

use super::entry::EntryKind;
use super::errors::no_content;
use super::store::{ContentStore, Found, canonical, forms};
use super::{Attempt, AttemptError, AttemptStatus, Outcome, stop_if_asked};
use crate::backend::errors::{Result, ours};
use crate::backend::unixfs::Cid;
use crate::disk::{Access, DiskResult, FileKind};

impl ContentStore {
    pub(super) fn pin(&self, attempt: &Attempt, cid: &Cid) -> Result<Outcome> {
        let _lock = self.directory.lock(attempt)?;
        let found = self.find(cid).map_err(ours)?.ok_or_else(|| no_content(cid))?;
        if let Found::Directory { cid, .. } = &found {
            // A pin protects the entries as well, so all of them must exist.
            self.walk(attempt, cid, &mut HashSet::new(), true, &mut |_| Ok(()))?;
        }
        let pins = self.directory.pins();
        self.directory.ensure(&pins).map_err(ours)?;
        let name = pins.join(found.cid().to_string());
        self.disk()
            .open(&name, Access::OpenOrCreate)
            .and_then(|file| file.sync_all())
            .map_err(ours)?;
        self.disk().sync_dir(&pins).map_err(ours)?;
        Ok(Outcome { cid: Some(cid.to_string()), ..Outcome::default() })
    }

    pub(super) fn unpin(&self, attempt: &Attempt, cid: &Cid) -> Result<Outcome> {
        let _lock = self.directory.lock(attempt)?;
        let pins = self.directory.pins();
        self.directory.ensure(&pins).map_err(ours)?;
        for cid in forms(cid) {
            self.disk().remove_if_present(&pins.join(cid.to_string())).map_err(ours)?;
        }
        self.disk().sync_dir(&pins).map_err(ours)?;
        Ok(Outcome { cid: Some(cid.to_string()), ..Outcome::default() })
    }

    /// Returns whether the CID itself is pinned, in either version.
    pub(super) fn has_pin(&self, cid: &Cid) -> DiskResult<bool> {
        for cid in forms(cid) {
            if self.disk().exists(&self.directory.pins().join(cid.to_string()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn remove(&self, attempt: &Attempt, cid: &Cid, recursive: bool) -> Result<Outcome> {
        let _lock = self.directory.lock(attempt)?;
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
            Found::Directory { .. } => self.tree_of(attempt, &root)?,
        };
        let mut kept = self.pinned_of(attempt, &doomed)?;
        if kept.contains(&root) {
            let message = format!(
                "{cid} is pinned, by itself or as part of a pinned directory; `unpin` it first"
            );
            return Err(AttemptError::permanent("pinned", message));
        }
        if doomed.len() > 1 {
            kept.extend(self.shared_of(attempt, &root, &doomed)?);
        }
        // The directory itself is removed last: until then the operation can be repeated.
        for cid in doomed.iter().filter(|cid| !kept.contains(*cid)) {
            stop_if_asked(attempt)?;
            self.delete(cid).map_err(ours)?;
        }
        Ok(Outcome { cid: Some(cid.to_string()), ..Outcome::default() })
    }

    pub(super) fn query_remove(&self, cid: &Cid) -> Result<AttemptStatus> {
        if self.find(cid).map_err(ours)?.is_some() {
            return Ok(AttemptStatus::NotDone);
        }
        self.sync_absence(cid).map_err(ours)?;
        Ok(AttemptStatus::Done(Outcome { cid: Some(cid.to_string()), ..Outcome::default() }))
    }

    /// Returns a directory and all content below it, entries before their directory.
    fn tree_of(&self, attempt: &Attempt, root: &Cid) -> Result<Vec<Cid>> {
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        let mut listed = HashSet::new();
        self.walk(attempt, root, &mut seen, false, &mut |cid| {
            if listed.insert(*cid) {
                all.push(*cid);
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Returns those of these CIDs that are pinned, by themselves or as part of a pinned directory.
    fn pinned_of(&self, attempt: &Attempt, doomed: &[Cid]) -> Result<HashSet<Cid>> {
        let doomed: HashSet<&Cid> = doomed.iter().collect();
        let mut pinned = HashSet::new();
        let mut seen = HashSet::new();
        let pins = self.directory.pins();
        self.directory.ensure(&pins).map_err(ours)?;
        for entry in self.disk().list(&pins).map_err(ours)? {
            let Some(pin) = entry.name.to_str().and_then(|name| Cid::try_from(name).ok()) else {
                continue;
            };
            self.walk(attempt, &pin, &mut seen, false, &mut |cid| {
                if doomed.contains(cid) {
                    pinned.insert(*cid);
                }
                Ok(())
            })?;
        }
        Ok(pinned)
    }

    /// Returns the content below `root` that directories outside of `doomed` refer to.
    fn shared_of(&self, attempt: &Attempt, root: &Cid, doomed: &[Cid]) -> Result<HashSet<Cid>> {
        let removed: HashSet<&Cid> = doomed.iter().collect();
        let mut referenced = Vec::new();
        self.visit_all(&mut |cid, kind, _| {
            stop_if_asked(attempt)?;
            if kind == FileKind::Directory && !removed.contains(&canonical(cid)) {
                for entry in self.read_listing(cid)?.entries {
                    let cid = canonical(&entry.cid);
                    if cid != *root && removed.contains(&cid) {
                        referenced.push(cid);
                    }
                }
            }
            Ok(())
        })?;
        let (mut shared, mut seen) = (HashSet::new(), HashSet::new());
        for cid in referenced {
            self.walk(attempt, &cid, &mut seen, false, &mut |cid| {
                shared.insert(*cid);
                Ok(())
            })?;
        }
        Ok(shared)
    }

    /// Calls `visit` with the canonical form of a CID and of all content below it, entries before
    /// their directory. Skips directories in `seen`. Missing content is an error if `required` is
    /// true, and skipped otherwise.
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
