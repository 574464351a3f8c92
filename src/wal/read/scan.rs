//! Visiting operations in the order of their numbers, without opening more files than needed.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::index::OperationSummary;
use super::view::View;
use crate::operation::{Number, Operation};
use crate::wal::error::{Damage, WalError, WalResult};
use crate::wal::manifest::FileEntry;
use crate::wal::original::Rows;
use crate::wal::schema::Table;

/// The order in which operations are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By number, highest first.
    NewestFirst,
    /// By number, lowest first.
    OldestFirst,
}

impl View {
    /// Visits operations in the order of their numbers until the visitor breaks.
    ///
    /// Opens only files for which `wanted_file` returns true, and decodes only those operations of
    /// the journal for which `wanted` does. The visitor must still check each operation.
    ///
    /// The rows of a damaged file are left out. Its error is returned after all other operations
    /// have been visited.
    pub fn visit(
        &self,
        order: Order,
        wanted_file: impl Fn(&FileEntry) -> bool,
        wanted: impl Fn(&OperationSummary) -> bool,
        visitor: impl FnMut(Operation) -> ControlFlow<()>,
    ) -> WalResult<()> {
        self.visit_between((Number::ZERO, Number::MAX), order, wanted_file, wanted, visitor)
    }

    /// Like [`View::visit`], for the operations with numbers from the first to the last one, both
    /// included.
    pub fn visit_between(
        &self,
        numbers: (Number, Number),
        order: Order,
        wanted_file: impl Fn(&FileEntry) -> bool,
        wanted: impl Fn(&OperationSummary) -> bool,
        mut visitor: impl FnMut(Operation) -> ControlFlow<()>,
    ) -> WalResult<()> {
        let mut merge = Merge::new(self, numbers, order, wanted_file, wanted);
        while let Some(operation) = merge.next()? {
            if visitor(operation).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// An iterator that merges the operations of files, journal and files of the original system.
struct Merge<'a> {
    view: &'a View,
    numbers: (Number, Number),
    order: Order,
    heap: BinaryHeap<Item<'a>>,
    damage: Option<Damage>,
}

/// A source that is still to be visited. Its key sorts by the first number that it may hold.
struct Item<'a> {
    key: (Number, bool),
    source: Source<'a>,
}

/// A source of operations.
enum Source<'a> {
    File(&'a FileEntry),
    Group(&'a FileEntry, Arc<Table>, usize),
    Row(Box<Operation>),
    Journal(Number),
}

impl<'a> Merge<'a> {
    fn new(
        view: &'a View,
        numbers: (Number, Number),
        order: Order,
        wanted_file: impl Fn(&FileEntry) -> bool,
        wanted: impl Fn(&OperationSummary) -> bool,
    ) -> Merge<'a> {
        let mut merge = Merge { view, numbers, order, heap: BinaryHeap::new(), damage: None };
        for file in view.files().iter().filter(|file| wanted_file(file)) {
            merge.push(file.numbers, Source::File(file));
        }
        for summary in view.touched().filter(|summary| wanted(summary)) {
            merge.push((summary.number, summary.number), Source::Journal(summary.number));
        }
        for row in view.original_rows().into_iter().flat_map(Rows::operations) {
            if !view.is_touched(row.number) {
                merge.push_row(row);
            }
        }
        merge
    }

    fn push_row(&mut self, row: &Operation) {
        if self.overlaps((row.number, row.number)) {
            self.push((row.number, row.number), Source::Row(Box::new(row.clone())));
        }
    }

    fn overlaps(&self, (first, last): (Number, Number)) -> bool {
        last >= self.numbers.0 && first <= self.numbers.1
    }

    fn push(&mut self, (first, last): (Number, Number), source: Source<'a>) {
        if !self.overlaps((first, last)) {
            return;
        }
        // The heap returns the largest key first. A file or row group precedes a row with the same
        // number, since it may hold that number as well.
        let holds_rows = matches!(source, Source::File(_) | Source::Group(..));
        let key = match self.order {
            Order::NewestFirst => last,
            Order::OldestFirst => Number::new(u64::MAX - first.get()),
        };
        self.heap.push(Item { key: (key, holds_rows), source });
    }

    fn next(&mut self) -> WalResult<Option<Operation>> {
        while let Some(Item { source, .. }) = self.heap.pop() {
            let found = match source {
                Source::File(file) => self.open(file).map(|()| None),
                Source::Group(file, table, group) => {
                    self.decode(file, &table, group).map(|()| None)
                }
                Source::Row(row) => Ok(Some(*row)),
                Source::Journal(number) => self.view.operation(number),
            };
            match found {
                Ok(Some(operation)) => return Ok(Some(operation)),
                Ok(None) => {}
                Err(WalError::Damaged(damage)) => {
                    self.damage.get_or_insert(damage);
                }
                Err(error) => return Err(error),
            }
        }
        match self.damage.take() {
            Some(damage) => Err(WalError::Damaged(damage)),
            None => Ok(None),
        }
    }

    fn open(&mut self, file: &'a FileEntry) -> WalResult<()> {
        let table = Arc::new(self.view.table(file)?);
        for group in table.groups() {
            self.push(group.numbers, Source::Group(file, table.clone(), group.index));
        }
        Ok(())
    }

    fn decode(&mut self, file: &'a FileEntry, table: &Table, group: usize) -> WalResult<()> {
        for row in self.view.group(file, table, group)?.iter() {
            if !file.superseded.contains(row.number) && !self.view.is_touched(row.number) {
                self.push_row(row);
            }
        }
        Ok(())
    }
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
