//! Content in the spool: each operation that still needs it has its link, and the content is what its name says.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::journal::Journal;
use super::{Finding, Look, Verified, into_finding};
use crate::disk::Access;
use crate::operation::OperationId;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;
use crate::wal::manifest::sha256_hex;
use crate::wal::read::view::View;
use crate::wal::schema::Spooled;
use crate::wal::spool::hash_of;

/// Links without an operation that are told one by one.
const TOLD_MAX: usize = 20;

/// What was read; none if it is damaged, or the medium does not give it.
fn readable<T>(read: WalResult<T>) -> WalResult<Option<T>> {
    match read {
        Err(WalError::Damaged(_)) => Ok(None),
        Err(WalError::Disk(error)) if error.is_medium_error() => Ok(None),
        read => read.map(Some),
    }
}

impl Look<'_> {
    pub(super) fn spool(&self, journal: &Journal, found: &mut Verified) -> WalResult<()> {
        let needed = journal.needed_content();
        let mut missing = Vec::new();
        let mut hashed: BTreeMap<u64, bool> = BTreeMap::new();
        for content in &needed {
            let path = self.layout.spooled_for(&content.name, content.id);
            let relative = self.layout.relative(&path);
            let looked =
                self.disk.open(&path, Access::Read).and_then(|file| Ok((file.metadata()?, file)));
            let (metadata, file) = match looked {
                Ok(looked) => looked,
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
                    "it has {} bytes; operation {} needs {}",
                    metadata.len, content.number, content.size
                );
                found.findings.push(Finding::damage(relative, None, what));
                continue;
            }
            let is_right = match hashed.get(&metadata.inode) {
                Some(known) => *known,
                // A name of 32 digits is random: its content was cloned without being read.
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
                    "the content that operation {} needs is not the one of this name",
                    content.number
                );
                found.findings.push(Finding::damage(relative, None, what));
            }
        }
        self.really_missing(&missing, found)?;
        // Whose record cannot be read may need it.
        if found.is_sound() { self.without_operation(&needed, found) } else { Ok(()) }
    }

    /// A drain loop may have completed them meanwhile.
    fn really_missing(&self, missing: &[&Spooled], found: &mut Verified) -> WalResult<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let view = readable(View::open((*self.disk).clone(), self.layout.clone()))?;
        for content in missing {
            let now = match &view {
                Some(view) => readable(view.operation_by_id(content.id))?,
                None => None,
            };
            // Who cannot be asked is taken to need it still.
            if now.is_none_or(|now| now.as_ref().and_then(Spooled::of).is_some()) {
                let path =
                    self.layout.relative(&self.layout.spooled_for(&content.name, content.id));
                let what =
                    format!("the content that operation {} needs is missing", content.number);
                found.findings.push(Finding::damage(path, None, what));
            }
        }
        Ok(())
    }

    fn without_operation(&self, needed: &[Spooled], found: &mut Verified) -> WalResult<()> {
        let entries = match self.disk.list(&self.layout.spool()) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let ids: HashSet<OperationId> = needed.iter().map(|content| content.id).collect();
        let names: BTreeSet<&str> = needed.iter().map(|content| content.name.as_str()).collect();
        let mut told = 0u64;
        let mut tell = |name: &str, what: &str| {
            told += 1;
            if told <= TOLD_MAX as u64 {
                let advice = "checkpoints remove it once it is old enough";
                found.findings.push(Finding::note(format!("spool/{name}"), None, what, advice));
            }
        };
        for entry in &entries {
            let name = entry.name.to_string_lossy();
            match Layout::parse_spooled(&name) {
                Some((_, Some(id))) if ids.contains(&id) => {}
                Some((_, Some(_))) => tell(&name, "no operation needs this content any more"),
                Some((content, None)) if names.contains(content) => {}
                Some((_, None)) => tell(&name, "content without an operation that needs it"),
                None => tell(&name, "nothing of ours"),
            }
        }
        Ok(())
    }
}
