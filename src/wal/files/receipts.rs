//! The receipts of a large batch, kept in an unnamed file until they are read.

use std::path::PathBuf;

use crate::disk::{Access, Disk, DiskFile};
use crate::operation::{
    BackendName, Logged, Number, Operation, OperationId, OperationType, Revision, Source, Status,
};
use crate::wal::change::Written;
use crate::wal::error::{WalError, WalResult};
use crate::wal::layout::Layout;

/// The number of bytes that are read at a time.
const STEP: usize = 256 * 1024;

/// The number of bytes of a record before its path: number, id, revision, kind, flags, status,
/// length of the path.
const HEAD: usize = 8 + 16 + 8 + 4 + 1 + 1 + 4;

/// The length of the path in a record without one.
const NO_PATH: u32 = u32::MAX;

/// The receipt of one operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its number, id and revision.
    pub written: Written,
    /// Its type.
    pub operation_type: OperationType,
    /// The backend that will execute it.
    pub backend: BackendName,
    /// The path in its parameters, if it has one.
    pub path: Option<String>,
    /// Its status.
    pub status: Status,
    /// True if it had been logged before, with the same idempotency key.
    pub existing: bool,
    /// True if its content is in the spool.
    pub spooled: bool,
}

impl Receipt {
    /// Returns the receipt of an operation that was logged.
    pub fn new(written: Written, operation: &Logged) -> Receipt {
        Receipt {
            written,
            operation_type: operation.operation_type.clone(),
            backend: operation.backend.clone(),
            path: operation.parameters.get("path").cloned(),
            status: Status::Pending,
            existing: false,
            spooled: operation.source.as_ref().is_some_and(Source::is_spooled),
        }
    }

    /// Returns the receipt of an operation that was logged before.
    pub fn existing(operation: &Operation) -> Receipt {
        let Operation { number, id, revision, .. } = *operation;
        Receipt {
            written: Written { number, id, revision, deleted: false },
            operation_type: operation.operation_type.clone(),
            backend: operation.backend.clone(),
            path: operation.parameters.get("path").cloned(),
            status: operation.status(),
            existing: true,
            spooled: operation.source.as_ref().is_some_and(Source::is_spooled),
        }
    }
}

/// Receipts on disk. The file is removed with the process, however that ends.
#[derive(Debug, Default)]
pub struct Receipts {
    file: Option<Box<dyn DiskFile>>,
    path: PathBuf,
    /// The number of bytes in the file.
    len: u64,
    /// Records that are not in the file yet.
    unwritten: Vec<u8>,
    /// The types and backends to which records refer by index.
    kinds: Vec<(OperationType, BackendName)>,
}

impl Receipts {
    /// Creates the file in `tmp/`, and removes its name.
    pub fn create(disk: &dyn Disk, layout: &Layout, random: u64) -> WalResult<Receipts> {
        let path = layout.staged(&format!("receipts_{random:016x}"));
        let file = disk.open(&path, Access::CreateNew)?;
        disk.remove_file(&path)?;
        Ok(Receipts { file: Some(file), path, ..Receipts::default() })
    }

    /// Adds a receipt. It is in memory until [`Receipts::flush`].
    pub fn push(&mut self, entry: &Receipt) {
        let known = self
            .kinds
            .iter()
            .position(|(kind, backend)| *kind == entry.operation_type && *backend == entry.backend);
        let kind = known.unwrap_or_else(|| {
            self.kinds.push((entry.operation_type.clone(), entry.backend.clone()));
            self.kinds.len() - 1
        });
        let path_len = entry.path.as_ref().map_or(NO_PATH, |path| path.len() as u32);
        let bytes = &mut self.unwritten;
        bytes.extend_from_slice(&entry.written.number.get().to_le_bytes());
        bytes.extend_from_slice(entry.written.id.as_bytes());
        bytes.extend_from_slice(&entry.written.revision.get().to_le_bytes());
        bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        bytes.extend_from_slice(&[
            u8::from(entry.existing) | u8::from(entry.spooled) << 1,
            entry.status as u8,
        ]);
        bytes.extend_from_slice(&path_len.to_le_bytes());
        bytes.extend_from_slice(entry.path.as_deref().unwrap_or_default().as_bytes());
    }

    /// Writes the receipts in memory to the file.
    pub fn flush(&mut self) -> WalResult<()> {
        if let Some(file) = &self.file {
            file.write_at(&self.unwritten, self.len)?;
            self.len += self.unwritten.len() as u64;
            self.unwritten.clear();
        }
        Ok(())
    }

    /// Calls `take` with each receipt, in the order in which they were added.
    pub fn each<E: From<WalError>>(
        &self,
        mut take: impl FnMut(Receipt) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut buffer = Vec::new();
        let (mut at, mut wanted) = (0, STEP);
        while at < self.len {
            buffer.resize(wanted, 0);
            let read = file.read_at(&mut buffer, at).map_err(WalError::from)?;
            let mut used = 0;
            while let Some((entry, len)) = self.decode(&buffer[used..read]) {
                take(entry)?;
                used += len;
            }
            if used == 0 {
                // The record is longer than the buffer or, at the end of the file, cut short.
                if read < wanted {
                    return Err(WalError::damaged(
                        &self.path,
                        Some(at),
                        "the list of receipts is torn",
                    )
                    .into());
                }
                wanted *= 2;
            } else {
                wanted = STEP;
            }
            at += used as u64;
        }
        Ok(())
    }

    /// Decodes the first record. Returns its receipt and its length.
    fn decode(&self, bytes: &[u8]) -> Option<(Receipt, usize)> {
        let number = Number::new(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?));
        let id = OperationId::from_bytes(bytes.get(8..24)?.try_into().ok()?);
        let revision = Revision::new(u64::from_le_bytes(bytes.get(24..32)?.try_into().ok()?));
        let kind = u32::from_le_bytes(bytes.get(32..36)?.try_into().ok()?) as usize;
        let flags = *bytes.get(36)?;
        let (existing, spooled) = (flags & 1 != 0, flags & 2 != 0);
        let status = *Status::ALL.get(usize::from(*bytes.get(37)?))?;
        let path_len = u32::from_le_bytes(bytes.get(38..HEAD)?.try_into().ok()?);
        let (operation_type, backend) = self.kinds.get(kind)?.clone();
        let (path, len) = match path_len {
            NO_PATH => (None, HEAD),
            len => {
                let end = HEAD + len as usize;
                (Some(String::from_utf8(bytes.get(HEAD..end)?.to_vec()).ok()?), end)
            }
        };
        let written = Written { number, id, revision, deleted: false };
        Some((Receipt { written, operation_type, backend, path, status, existing, spooled }, len))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Machine;
    use crate::operation::Time;

    #[test]
    fn receipts_are_read_back_in_order_from_an_unnamed_file() {
        let disk = Machine::new().process();
        let layout = Layout::new("/");
        disk.create_dir(Path::new("/tmp")).unwrap();
        let mut receipts = Receipts::create(&disk, &layout, 5).unwrap();
        assert_eq!(disk.list(&layout.tmp()).unwrap(), []);
        let entries: Vec<Receipt> = (0..4000u64)
            .map(|nth| Receipt {
                written: Written {
                    number: Number::new(nth + 7),
                    id: OperationId::new(Time::from_millis(1), nth as usize, 3),
                    revision: Revision::new(nth + 9),
                    deleted: false,
                },
                status: Status::ALL[nth as usize % 5],
                existing: nth % 7 == 0,
                spooled: nth % 5 == 0,
                operation_type: OperationType::new(["add", "pin"][nth as usize % 2]).unwrap(),
                backend: BackendName::new("local").unwrap(),
                // One of them is longer than the buffer.
                path: (nth % 3 > 0)
                    .then(|| "x".repeat(if nth == 1000 { STEP * 3 } else { nth as usize % 300 })),
            })
            .collect();
        for chunk in entries.chunks(700) {
            chunk.iter().for_each(|entry| receipts.push(entry));
            receipts.flush().unwrap();
        }
        let mut read = Vec::new();
        let all = receipts.each(|entry| {
            read.push(entry);
            Ok::<(), WalError>(())
        });
        all.unwrap();
        assert!(read == entries);
    }
}
