//! Checks the spool: each operation that needs content has its link, and the content matches its
//! name.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::journal::Journal;
use super::{FOREIGN, Finding, Verified, Verifier, into_finding};
use crate::disk::Access;
use crate::operation::OperationId;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::sha256_hex;
use crate::wal::read::view::View;
use crate::wal::schema::Spooled;
use crate::wal::spool::hash_of;

/// The largest number of links without an operation that are reported one by one.
const REPORTED_MAX: usize = 20;

/// Returns the value, or `None` if it is damaged or unreadable.
fn readable<T>(read: WalResult<T>) -> WalResult<Option<T>> {
    match read {
        Err(WalError::Damaged(_)) => Ok(None),
        Err(WalError::Disk(error)) if error.is_medium_error() => Ok(None),
        read => read.map(Some),
    }
}

impl Verifier<'_> {
    pub(super) fn spool(&self, journal: &Journal, found: &mut Verified) -> WalResult<()> {
        let needed = journal.needed_content();
        let mut missing = Vec::new();
        let mut hashed: BTreeMap<u64, bool> = BTreeMap::new();
        for content in &needed {
            let path = self.layout.spooled_for(&content.name, content.id);
            let relative = self.layout.relative(&path);
            let opened =
                self.disk.open(&path, Access::Read).and_then(|file| Ok((file.metadata()?, file)));
            let (metadata, file) = match opened {
                Ok(opened) => opened,
                Err(error) if error.is_not_found() => {
                    missing.push(content);
                    continue;
                }
                Err(error) => {
                    found.findings.push(into_finding(self.layout, error.into())?);
                    continue;
                }
            };
            if metadata.len != content.size {
                let what = format!(
                    "the content has {} bytes, but operation {} needs {}",
                    metadata.len, content.number, content.size
                );
                found.findings.push(Finding::damage(relative, None, what));
                continue;
            }
            let is_right = match hashed.get(&metadata.inode) {
                Some(known) => *known,
                // A name of 32 digits is random: the content was cloned without being read.
                None if content.name.len() != sha256_hex(b"").len() => true,
                None => match hash_of(&*file) {
                    Ok(hash) => hash == content.name,
                    Err(error) => {
                        found.findings.push(into_finding(self.layout, error.into())?);
                        continue;
                    }
                },
            };
            hashed.insert(metadata.inode, is_right);
            if !is_right {
                let what = format!(
                    "the content does not match its name; operation {} needs it",
                    content.number
                );
                found.findings.push(Finding::damage(relative, None, what));
            }
        }
        self.missing_content(&missing, found)?;
        // An operation whose record cannot be read may need content.
        if found.is_valid() { self.without_operation(&needed, found) } else { Ok(()) }
    }

    /// Reports missing content, unless a drain loop has completed its operation meanwhile.
    fn missing_content(&self, missing: &[&Spooled], found: &mut Verified) -> WalResult<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let view = readable(View::open((*self.disk).clone(), self.layout.clone()))?;
        for content in missing {
            let now = match &view {
                Some(view) => readable(view.operation_by_id(content.id))?,
                None => None,
            };
            // If the operation cannot be read, it is assumed to need the content.
            if now.is_none_or(|now| now.as_ref().and_then(Spooled::of).is_some()) {
                let path =
                    self.layout.relative(&self.layout.spooled_for(&content.name, content.id));
                let what = format!("missing content; operation {} needs it", content.number);
                found.findings.push(Finding::damage(path, None, what));
            }
        }
        Ok(())
    }

    /// Reports content that no operation needs.
    fn without_operation(&self, needed: &[Spooled], found: &mut Verified) -> WalResult<()> {
        let entries = match self.disk.list(&self.layout.spool()) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let ids: HashSet<OperationId> = needed.iter().map(|content| content.id).collect();
        let names: BTreeSet<&str> = needed.iter().map(|content| content.name.as_str()).collect();
        let mut reported = 0u64;
        let mut report = |name: &str, what: &str| {
            reported += 1;
            if reported <= REPORTED_MAX as u64 {
                let advice = "a later checkpoint removes it";
                found.findings.push(Finding::note(format!("spool/{name}"), None, what, advice));
            }
        };
        for entry in &entries {
            let name = entry.name.to_string_lossy();
            match Layout::parse_spooled(&name) {
                Some((_, Some(id))) if ids.contains(&id) => {}
                Some((_, Some(_))) => report(&name, "no operation needs this content any longer"),
                Some((content, None)) if names.contains(content) => {}
                Some((_, None)) => report(&name, "content without an operation that needs it"),
                None => report(&name, FOREIGN),
            }
        }
        Ok(())
    }
}
