//! Walking through operations in order, opening no more files than needed.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::view::{Glimpse, View};
use crate::operation::{Number, Operation};
use crate::wal::error::{WalError, WalResult};
use crate::wal::manifest::FileEntry;
use crate::wal::original::Rows;
use crate::wal::schema::Table;

/// In which order operations are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By number, highest first.
    NewestFirst,
    /// By number, lowest first.
    OldestFirst,
}

impl View {
    /// Visits operations, newest first or oldest first, until told to stop.
    ///
    /// Only files for which `wanted_file` holds are opened, and of the journal's operations only those are
    /// decoded for which `wanted` holds; the visitor still has to look at each operation itself.
    pub fn visit(
        &self,
        order: Order,
        wanted_file: impl Fn(&FileEntry) -> bool,
        wanted: impl Fn(&Glimpse) -> bool,
        visitor: impl FnMut(Operation) -> ControlFlow<()>,
    ) -> WalResult<()> {
        self.visit_between((Number::ZERO, Number::MAX), order, wanted_file, wanted, visitor)
    }

    /// The same of operations with these numbers, the last one included: for walks in portions.
    pub fn visit_between(
        &self,
        (first, last): (Number, Number),
        order: Order,
        wanted_file: impl Fn(&FileEntry) -> bool,
        wanted: impl Fn(&Glimpse) -> bool,
        mut visitor: impl FnMut(Operation) -> ControlFlow<()>,
    ) -> WalResult<()> {
        let reversed = |number: Number| Number::new(u64::MAX - number.get());
        let between = |numbers: (Number, Number)| numbers.1 >= first && numbers.0 <= last;
        enum Source<'a> {
            File(&'a FileEntry),
            Group(&'a FileEntry, Arc<Table>, usize),
            Row(Box<Operation>),
            Touched,
        }
        struct Item<'a> {
            key: (Number, bool),
            source: Source<'a>,
        }
        impl PartialEq for Item<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.key == other.key
            }
        }
        impl Eq for Item<'_> {}
        impl PartialOrd for Item<'_> {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for Item<'_> {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.key.cmp(&other.key)
            }
        }
        // The heap gives the largest key first. What may still unfold into rows goes before rows of the same number.
        let key = |(first, last): (Number, Number), unfolds: bool| match order {
            Order::NewestFirst => (last, unfolds),
            Order::OldestFirst => (reversed(first), unfolds),
        };
        let mut heap = BinaryHeap::new();
        for file in self.files().iter().filter(|file| between(file.numbers) && wanted_file(file)) {
            heap.push(Item { key: key(file.numbers, true), source: Source::File(file) });
        }
        for glimpse in self
            .touched()
            .filter(|glimpse| between((glimpse.number, glimpse.number)) && wanted(glimpse))
        {
            heap.push(Item {
                key: key((glimpse.number, glimpse.number), false),
                source: Source::Touched,
            });
        }
        for row in self.original_rows().into_iter().flat_map(Rows::operations) {
            if between((row.number, row.number)) && !self.is_touched(row.number) {
                let source = Source::Row(Box::new(row.clone()));
                heap.push(Item { key: key((row.number, row.number), false), source });
            }
        }
        // A damaged file hides its own rows and nothing else; it is told when all the others have been visited.
        let mut damage = None;
        let mut readable = |damaged: WalError| match damaged {
            WalError::Damaged(found) => {
                damage.get_or_insert(found);
                Ok(())
            }
            other => Err(other),
        };
        while let Some(Item { key: at, source }) = heap.pop() {
            let operation = match source {
                Source::File(file) => {
                    let table = match self.table(file) {
                        Ok(table) => Arc::new(table),
                        Err(error) => {
                            readable(error)?;
                            continue;
                        }
                    };
                    for group in table.groups().iter().filter(|group| between(group.numbers)) {
                        let source = Source::Group(file, table.clone(), group.index);
                        heap.push(Item { key: key(group.numbers, true), source });
                    }
                    continue;
                }
                Source::Group(file, table, group) => {
                    let rows = match self.group(file, &table, group) {
                        Ok(rows) => rows,
                        Err(error) => {
                            readable(error)?;
                            continue;
                        }
                    };
                    for row in rows.iter() {
                        let live =
                            !file.superseded.contains(row.number) && !self.is_touched(row.number);
                        if live && between((row.number, row.number)) {
                            let source = Source::Row(Box::new(row.clone()));
                            heap.push(Item { key: key((row.number, row.number), false), source });
                        }
                    }
                    continue;
                }
                Source::Row(row) => *row,
                Source::Touched => {
                    let number = match order {
                        Order::NewestFirst => at.0,
                        Order::OldestFirst => reversed(at.0),
                    };
                    match self.operation(number) {
                        Ok(Some(operation)) => operation,
                        Ok(None) => continue,
                        Err(error) => {
                            readable(error)?;
                            continue;
                        }
                    }
                }
            };
            if visitor(operation).is_break() {
                return Ok(());
            }
        }
        damage.map_or(Ok(()), |damage| Err(WalError::Damaged(damage)))
    }
}
