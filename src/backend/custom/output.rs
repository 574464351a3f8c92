//! The files `run/<number>`, which hold the standard output of programs. Each file is locked while
//! a process has it open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::disk::{Disk, DiskResult};
use crate::operation::Number;

/// The longest time for which another process may hold the lock only to test it.
const LOCK_TEST_MAX: Duration = Duration::from_millis(100);

/// The time after which a lock that should be released counts as held. Killed processes keep their
/// files for a moment, and so do children that are being started: until they execute their program,
/// they have copies of all our open files.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// Returns the directory for these files, in the directory of a log.
pub(in crate::backend) fn directory_of(base: &Path) -> PathBuf {
    base.join("run")
}

pub(super) fn path_of(directory: &Path, number: Number) -> PathBuf {
    directory.join(number.to_string())
}

/// Returns the numbers of the operations that have a file.
pub(super) fn numbers(disk: &dyn Disk, directory: &Path) -> DiskResult<Vec<Number>> {
    let entries = match disk.list(directory) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        entries => entries?,
    };
    let number_of =
        |name: &str| name.parse().ok().filter(|number: &Number| number.to_string() == name);
    Ok(entries.iter().filter_map(|entry| number_of(entry.name.to_str()?)).collect())
}

/// Removes the file of an operation, unless a program still has it open. Only the drain loop may
/// call this: another process could claim the file between the test and the removal.
pub(super) fn remove_unless_held(directory: &Path, number: Number) {
    let path = path_of(directory, number);
    if !is_held(&path) {
        remove(&path);
    }
}

/// Removes a file. If that fails, a later sweep tries again.
pub(super) fn remove(path: &Path) {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => {
            let path = path.display();
            tracing::debug!(%error, %path, "could not remove the output of a program")
        }
    }
}

/// Returns whether a program, or a process that it started, has the file open. Concurrent calls do
/// not disturb each other.
pub(super) fn is_held(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).open(path);
    opened.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Waits until the file is released, but no longer than an ending process needs for that.
pub(super) fn wait_until_released(path: &Path, clock: &dyn Clock) {
    let start = clock.elapsed();
    while is_held(path) && clock.elapsed().saturating_sub(start) < RELEASE_MAX {
        clock.sleep(Duration::from_millis(2));
    }
}

/// Opens the file for a program's standard output, empty and locked. Returns `None` if an earlier
/// program still has it open.
pub(super) fn claim(path: &Path, clock: &dyn Clock) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    // In append mode, because a child of the program may open the file again and write to it.
    options.read(true).append(true).create(true).mode(0o600);
    let file = options.open(path)?;
    let start = clock.elapsed();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock)
                if clock.elapsed().saturating_sub(start) >= LOCK_TEST_MAX =>
            {
                return Ok(None);
            }
            Err(TryLockError::WouldBlock) => clock.sleep(Duration::from_millis(5)),
        }
    }
    file.set_len(0)?;
    Ok(Some(file))
}

/// Returns at most `max` bytes from the beginning, and whether there are more. Leaves the offset
/// at which the program writes.
pub(super) fn read(file: &File, max: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = vec![0; max + 1];
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len.min(max));
    Ok((bytes, len > max))
}
