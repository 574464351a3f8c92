//! Validation of a manifest. Its hash proves that it is unchanged since it was written; these
//! checks, that it was written correctly.

use std::collections::BTreeSet;

use super::{FileEntry, Manifest};
use crate::operation::Number;
use crate::wal::journal::{COUNT_MAX, FORMAT};
use crate::wal::layout::Layout;

impl Manifest {
    /// Fails, with a description, if the manifest contradicts itself. All other code relies on
    /// this.
    pub(super) fn check(&self) -> Result<(), String> {
        let counts = [
            ("counter", self.counter),
            ("first_generation", self.first_generation),
            ("revision", self.revision.get()),
            ("next_number", self.next_number.get()),
        ];
        if self.format != u64::from(FORMAT) {
            return Err(format!("`format` is {}, which never existed", self.format));
        }
        if let Some((name, value)) = counts.into_iter().find(|(_, value)| *value > COUNT_MAX) {
            return Err(format!("`{name}` is {value}, above the highest possible value"));
        }
        let mut names = BTreeSet::new();
        for file in &self.files {
            file.check()
                .map_err(|what| format!("the entry of `{}` is invalid: {what}", file.name))?;
            if !names.insert(&file.name) {
                return Err(format!("it names `{}` twice", file.name));
            }
        }
        let originals = self.originals.iter().flat_map(|originals| &originals.files);
        let foreign = originals.map(|file| (&file.name, Layout::is_table_name(&file.name)));
        let unread = self.unread.iter().map(|place| (&place.name, Layout::is_inside(&place.name)));
        match foreign.chain(unread).find(|(_, fits)| !fits) {
            Some((name, _)) => Err(format!("`{name}` is not a file of a log")),
            None => Ok(()),
        }
    }
}

impl FileEntry {
    fn check(&self) -> Result<(), String> {
        fn ascends<T: Ord>((first, last): &(T, T)) -> bool {
            first <= last
        }
        if !Layout::is_table_name(&self.name) || !Layout::is_numbered(&self.name) {
            return Err("its name is not that of a file of the log".into());
        }
        let ranges = [
            ("ids", ascends(&self.ids)),
            ("numbers", ascends(&self.numbers) && self.numbers.1.get() <= COUNT_MAX),
            ("revisions", ascends(&self.revisions) && self.revisions.1.get() <= COUNT_MAX),
            ("times", ascends(&self.times)),
        ];
        if let Some((name, _)) = ranges.into_iter().find(|(_, fits)| !fits) {
            return Err(format!("its `{name}` are an invalid range"));
        }
        // Sums of invalid numbers may overflow.
        let live = self.counts.values().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        let in_ranges = |sum: u64, (first, last): &(Number, Number)| {
            sum.checked_add(last.since(*first).checked_add(1)?)
        };
        let superseded = self.superseded.ranges.iter().try_fold(0_u64, in_ranges);
        let rows = live.zip(superseded).and_then(|(live, superseded)| live.checked_add(superseded));
        // The sum may be lower than the number of rows, since two rows may have one number.
        if self.rows == 0 || self.rows > COUNT_MAX || rows.is_none_or(|rows| rows > self.rows) {
            return Err(format!("it has {} rows, which its counts exceed", self.rows));
        }
        if self
            .superseded
            .ranges
            .iter()
            .any(|(first, last)| *first < self.numbers.0 || *last > self.numbers.1)
        {
            return Err("its superseded rows are outside the range of its numbers".into());
        }
        if self.pushed.as_ref().is_some_and(|pushed| !self.is_archive() || pushed.to.is_empty()) {
            return Err("only an archive can have a destination, and that cannot be empty".into());
        }
        if live.is_none_or(|live| self.keys.max(self.dependents) > live) {
            return Err("it has more keys or more dependents than rows".into());
        }
        Ok(())
    }
}
