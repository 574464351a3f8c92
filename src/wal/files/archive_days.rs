//! The days of archives, and which archives of past days are to be rewritten.

use std::collections::{BTreeMap, BTreeSet};

use crate::operation::{Number, Time};
use crate::wal::manifest::FileEntry;

/// Archives of a day that are rewritten together.
#[derive(Debug)]
pub(in crate::wal) struct Unsettled {
    pub(super) day: Time,
    pub(super) files: Vec<FileEntry>,
}

impl Unsettled {
    /// How many are joined with others.
    pub(super) fn joined(&self) -> u64 {
        if self.files.len() > 1 { self.files.len() as u64 } else { 0 }
    }

    /// The names of the files.
    pub(in crate::wal) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| &file.name[..])
    }
}

/// Returns the archives of past days that are to be rewritten: the several of a day that are not
/// half full of the `limit` rows that one may hold, together, and each that still has rows which
/// were deleted. One that is pushed, or about to be, stays as it is. `removed`: files that go
/// anyway; `deleted`: numbers that the files do not know to be deleted yet.
pub(in crate::wal) fn unsettled_archives(
    files: &[FileEntry],
    removed: &BTreeSet<String>,
    deleted: &[Number],
    today: i64,
    limit: u64,
) -> Vec<Unsettled> {
    let mut small: BTreeMap<i64, Unsettled> = BTreeMap::new();
    let mut large = Vec::new();
    for file in files.iter().filter(|file| !removed.contains(&file.name) && file.pushed.is_none()) {
        let Some(day) = file.day.filter(|day| day.day() < today) else { continue };
        match file.live() * 2 <= limit {
            true => {
                small
                    .entry(day.day())
                    .or_insert_with(|| Unsettled { day, files: Vec::new() })
                    .files
                    .push(file.clone());
            }
            false => large.push(Unsettled { day, files: vec![file.clone()] }),
        }
    }
    let has_deleted = |file: &FileEntry| {
        !file.superseded.is_empty() || deleted.iter().any(|number| file.may_hold_number(*number))
    };
    let all = small.into_values().chain(large);
    all.filter(|group| group.files.len() > 1 || group.files.iter().any(has_deleted)).collect()
}

/// The day that each archive counts as: its own, unless the clock was wrong on that day.
///
/// What was completed later in the order of the log cannot be older, so a day that lies before that
/// of an earlier archive counts as that one; and a day that has not come yet counts as that of the
/// next archive whose day has, if there is one.
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
