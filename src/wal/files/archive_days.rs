//! The days of archives, and the selection of archives of past days to be rewritten.

use std::collections::{BTreeMap, BTreeSet};

use crate::operation::{Number, Time};
use crate::wal::manifest::FileEntry;

/// Archives of one day that are rewritten together.
#[derive(Debug)]
pub(in crate::wal) struct RewriteGroup {
    pub(super) day: Time,
    pub(super) files: Vec<FileEntry>,
}

impl RewriteGroup {
    /// Returns the number of archives that are merged with others.
    pub(super) fn merged(&self) -> u64 {
        if self.files.len() > 1 { self.files.len() as u64 } else { 0 }
    }

    /// Returns the names of the files.
    pub(in crate::wal) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| &file.name[..])
    }
}

/// Returns the archives of past days that are to be rewritten.
///
/// Several archives of a day that are at most half full are merged; `limit` is the number of rows
/// of a full one. Any other archive is rewritten if it contains deleted rows. `removed` are files
/// that are removed anyway, and `deleted` numbers whose deletion is only in the journal yet. An
/// archive with a recorded destination stays as it is.
pub(in crate::wal) fn archives_to_rewrite(
    files: &[FileEntry],
    removed: &BTreeSet<String>,
    deleted: &[Number],
    today: i64,
    limit: u64,
) -> Vec<RewriteGroup> {
    let mut small: BTreeMap<i64, RewriteGroup> = BTreeMap::new();
    let mut large = Vec::new();
    for file in files.iter().filter(|file| !removed.contains(&file.name) && file.pushed.is_none()) {
        let Some(day) = file.day.filter(|day| day.day() < today) else { continue };
        match file.live() * 2 <= limit {
            true => {
                small
                    .entry(day.day())
                    .or_insert_with(|| RewriteGroup { day, files: Vec::new() })
                    .files
                    .push(file.clone());
            }
            false => large.push(RewriteGroup { day, files: vec![file.clone()] }),
        }
    }
    let has_deleted = |file: &FileEntry| {
        !file.superseded.is_empty() || deleted.iter().any(|number| file.may_hold_number(*number))
    };
    let all = small.into_values().chain(large);
    all.filter(|group| group.files.len() > 1 || group.files.iter().any(has_deleted)).collect()
}

/// Returns the day that counts for the age of each archive: its own, unless the clock was wrong.
///
/// Operations that are later in the log cannot have been completed earlier. An archive whose day is
/// before that of an earlier archive therefore counts as being of that day. One whose day is in the
/// future counts as being of the day of the next archive that is not, if there is one.
pub(in crate::wal) fn days_of_archives(files: &[FileEntry], today: i64) -> BTreeMap<&str, i64> {
    let mut archives: Vec<(&FileEntry, i64)> =
        files.iter().filter_map(|file| Some((file, file.day?.day()))).collect();
    archives.sort_by_key(|(file, _)| file.revisions.1);
    let mut floor = i64::MIN;
    for (_, day) in archives.iter_mut().filter(|(_, day)| *day <= today) {
        floor = floor.max(*day);
        *day = floor;
    }
    let mut next = i64::MAX;
    for (_, day) in archives.iter_mut().rev() {
        if *day > today {
            *day = next;
        } else {
            next = next.min(*day);
        }
    }
    archives.into_iter().map(|(file, day)| (file.name.as_str(), day)).collect()
}
