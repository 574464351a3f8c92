//! What running programs print: the files `run/<number>`, each locked for as long as anybody has it
//! open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::disk::{Disk, DiskResult};
use crate::operation::Number;

/// How long a file may be locked by those who only look whether it is.
const LOOKED_AT: Duration = Duration::from_millis(100);

/// How long a file may be locked by what is about to let go of it: processes that were killed, and
/// programs that are being
/// started, which have copies of all files that we have open until they have begun.
const LET_GO: Duration = Duration::from_secs(1);

/// The folder in which the log in this directory keeps them.
pub(in crate::backend) fn folder_of(base: &Path) -> PathBuf {
    base.join("run")
}

pub(super) fn path_of(folder: &Path, number: Number) -> PathBuf {
    folder.join(number.to_string())
}

/// The numbers of operations of which something is kept.
pub(super) fn kept(disk: &dyn Disk, folder: &Path) -> DiskResult<Vec<Number>> {
    let entries = match disk.list(folder) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        entries => entries?,
    };
    let number_of =
        |name: &str| name.parse().ok().filter(|number: &Number| number.to_string() == name);
    Ok(entries.iter().filter_map(|entry| number_of(entry.name.to_str()?)).collect())
}

/// Removes what is kept of an operation, unless somebody still writes it. Only for the one who may
/// start programs:
/// between looking and removing nobody else may claim it.
pub(super) fn remove_unless_held(folder: &Path, number: Number) {
    let path = path_of(folder, number);
    if !is_held(&path) {
        remove(&path);
    }
}

/// Removes a file, or leaves it to a later sweep.
pub(super) fn remove(path: &Path) {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "what a program printed stays for now")
        }
    }
}

/// Whether a program, or what it has started, has it open. Those who look do not get into each
/// other's way.
pub(super) fn is_held(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).open(path);
    opened.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Waits until nobody has it open, but not for what goes on.
pub(super) fn wait_until_free(path: &Path, clock: &dyn Clock) {
    let start = clock.elapsed();
    while is_held(path) && clock.elapsed().saturating_sub(start) < LET_GO {
        clock.sleep(Duration::from_millis(2));
    }
}

/// The file that becomes a program's standard output, empty and locked; none: another one still has
/// it.
pub(super) fn claim(path: &Path, clock: &dyn Clock) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    // For appending: what it starts may open it anew, and is not to be overwritten.
    options.read(true).append(true).create(true).mode(0o600);
    let file = options.open(path)?;
    let start = clock.elapsed();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if clock.elapsed().saturating_sub(start) >= LOOKED_AT => {
                return Ok(None);
            }
            Err(TryLockError::WouldBlock) => clock.sleep(Duration::from_millis(5)),
        }
    }
    file.set_len(0)?;
    Ok(Some(file))
}

/// The first of what was printed, and whether there is more. Where others write it stays as it is.
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
