//! Hints and fields for errors of the log.

use std::io::ErrorKind;
use std::path::Path;

use super::{CliError, DETAILS_MAX};
use crate::disk::DiskError;
use crate::operation::OperationId;
use crate::report::{AsDisplay, Offset};
use crate::wal::{Damage, WalError};

/// The hint for an exhausted limit of open files.
const RAISE_OPEN_FILES: &str = "raise the limit of open files, such as with `ulimit -n 1024`, then \
                                run the command again";

/// Adds the next step to an error of the log, and its fields for scripts.
pub(super) fn hinted(cli: CliError, error: &WalError) -> CliError {
    match error {
        WalError::Busy { path, .. } => busy(cli, path),
        WalError::Damaged(damage) => damaged(cli, damage),
        WalError::NewerFormat { .. } | WalError::NewerFrame { .. } => {
            cli.hint("nothing was changed; use the version of the program that wrote it")
        }
        WalError::NotOurs { .. } => {
            cli.hint("nothing was changed; name another directory with `--base-path`")
        }
        WalError::NoLog { .. } => cli
            .hint("nothing was changed; check that the disk of the log is mounted")
            .hint("or create a new log: run `wal-cli config set must_exist false` first"),
        WalError::OriginalAtWork { .. } => cli.hint(
            "nothing was changed; stop that program, wait a minute, and run the command again \
             (reading works meanwhile; see docs/adoption.md)",
        ),
        WalError::NotLogged(error) => not_logged(cli, error),
        WalError::Disk(error) => disk_failed(cli, error),
        WalError::NoSpace { free, wanted, .. } => with_space(cli, *free, Some(*wanted))
            .hint("run `wal-cli cleanup` to prune old completed operations")
            .hint("or lower the limit: run `wal-cli config set min_free_bytes 1MiB`"),
        WalError::NoRoomForOutcomes { free, .. } => with_space(cli, *free, None)
            .hint("nothing is lost; free space on that disk, then run `wal-cli process` again"),
        WalError::NoRoom { free, kept, .. } => with_space(cli, *free, Some(*kept)).hint(
            "free space on that disk, or pass `--spool never` and keep the file until the \
             operation has completed",
        ),
        WalError::Unconfirmed { ids, .. } => unconfirmed(cli, ids),
        WalError::KeyTaken { number, .. } => {
            cli.with(|fields| fields.number = Some(number.get())).hint(format!(
                "run `wal-cli show {number}` to see that operation; other work needs another key"
            ))
        }
        WalError::KeyTwice { .. } => cli.hint("give each operation a key of its own"),
        WalError::UnknownDependency { .. } => {
            cli.hint("run `wal-cli list all` to see all operations")
        }
        WalError::HasDependents { dependent, .. } => cli.hint(format!(
            "nothing was changed; run `wal-cli cancel {dependent}` or \
             `wal-cli delete {dependent}` first"
        )),
        WalError::TooLarge { .. } => cli.hint("pass fewer or shorter parameters"),
        WalError::Conflict { number } => {
            cli.hint(format!("run `wal-cli show {number}` to see the change, then decide again"))
        }
        WalError::Illegal(_) => {
            cli.hint("run `wal-cli list all` to see the status of each operation")
        }
    }
}

fn busy(mut cli: CliError, lock: &Path) -> CliError {
    if !lock.ends_with("process.lock") {
        return cli.hint("try again, or pass `--lock-timeout 60s` to wait longer");
    }
    cli.message = format!("another drain loop is running: {}", cli.message);
    cli.hint(
        "wait for it to end; `--skip-if-running` makes this a success, \
         `--lock-timeout 60s` waits longer",
    )
}

fn damaged(cli: CliError, damage: &Damage) -> CliError {
    cli.with(|fields| fields.path = Some(damage.path.display().to_string()))
        .with(|fields| fields.offset = Some(Offset(damage.offset)))
        .hint(match damage.path.ends_with("MANIFEST.json") {
            true => "nothing was changed; a repair rebuilds the manifest from the other files",
            false => {
                "nothing was changed; `wal-cli list all` shows the operations that are readable"
            }
        })
        .hint(
            "copy the directory, then run `wal-cli verify` to list all damage and \
             `wal-cli verify --repair` to save all readable records; or restore the file from a \
             backup",
        )
}

fn not_logged(cli: CliError, error: &DiskError) -> CliError {
    if error.is_out_of_descriptors() {
        return cli.hint(RAISE_OPEN_FILES);
    }
    cli.hint(match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free space on that disk, then run the command again"
        }
        ErrorKind::PermissionDenied => {
            "run the command as the owner of the log, or pass `--base-path`"
        }
        _ => "check the disk, then run the command again",
    })
}

fn disk_failed(cli: CliError, error: &DiskError) -> CliError {
    if error.is_out_of_descriptors() {
        return cli.hint(RAISE_OPEN_FILES);
    }
    cli.hint(match error.kind() {
        ErrorKind::PermissionDenied => {
            "run the command as the owner of the log, or pass `--base-path`"
        }
        ErrorKind::NotADirectory => "name a directory with `--base-path`",
        _ if error.is_not_found() => "name a directory that exists",
        _ => "check the disk, then run the command again",
    })
}

fn with_space(cli: CliError, free: u64, wanted: Option<u64>) -> CliError {
    cli.with(|fields| (fields.free_bytes, fields.min_free_bytes) = (Some(free), wanted))
}

fn unconfirmed(mut cli: CliError, ids: &[OperationId]) -> CliError {
    cli.details.lines = ids.iter().take(DETAILS_MAX).map(ToString::to_string).collect();
    cli.with(|fields| fields.ids = Some(ids.iter().copied().map(AsDisplay).collect()))
        .hint("run `wal-cli list all` to see whether it was logged before you log it again")
}
