//! Checks that a program can be started, and failures to start one.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::backend::AttemptError;
use crate::disk::{Access, Disk};
use crate::operation::{Failure, FailureClass};

/// The bytes of a script that are read to find its interpreter: as many as the kernel reads.
const FIRST_LINE_MAX: usize = 256;

/// Fails if the program, or the interpreter of a script, does not exist or cannot be executed.
pub(super) fn check(disk: &dyn Disk, program: Option<&String>) -> Result<(), Failure> {
    let path = find(program.ok_or_else(not_configured)?)?;
    let Some((interpreter, argument)) = interpreter_of(disk, &path) else { return Ok(()) };
    let shown = path.display();
    find_path(&interpreter).map_err(|problem| {
        not_found(format!(
            "cannot run the script `{shown}`: its interpreter `{interpreter}` {problem}; install \
             it, or correct the first line"
        ))
    })?;
    let is_env = Path::new(&interpreter).file_name().is_some_and(|name| name == "env");
    if is_env
        && !argument.is_empty()
        && !argument.starts_with('-')
        && !argument.contains(['=', ' ', '\t', '/'])
    {
        find_in_path(&argument).map_err(|problem| {
            not_found(format!(
                "cannot run the script `{shown}`: its interpreter `{argument}` {problem}; install \
                 it, or correct the first line"
            ))
        })?;
    }
    Ok(())
}

fn find(program: &str) -> Result<PathBuf, Failure> {
    let found = if program.contains('/') { find_path(program) } else { find_in_path(program) };
    found.map_err(|problem| {
        not_found(format!(
            "the program `{program}` {problem}; install it, or correct `command` of the backend"
        ))
    })
}

/// Returns the path of a program; the error is a predicate that says why it cannot be executed.
fn find_path(program: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(program);
    if path.is_dir() {
        return Err("is a directory");
    }
    if !path.exists() {
        return Err("does not exist");
    }
    match is_program(path) {
        true => Ok(path.to_owned()),
        false => {
            Err("is not executable (run `chmod +x`; the disk must not be mounted with `noexec`)")
        }
    }
}

fn find_in_path(program: &str) -> Result<PathBuf, &'static str> {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&directories)
        .map(|directory| directory.join(program))
        .find(|path| is_program(path));
    found.ok_or("is not in PATH")
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Returns the interpreter in the first line of a script, and its argument. `None` if the file is
/// not a script or cannot be read.
fn interpreter_of(disk: &dyn Disk, path: &Path) -> Option<(String, String)> {
    let mut first = [0; FIRST_LINE_MAX];
    let read = disk.open(path, Access::Read).ok()?.read_at(&mut first, 0).ok()?;
    let line = first.get(..read)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim_matches([' ', '\t']);
    let (interpreter, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    Some((interpreter.to_owned(), argument.trim_matches([' ', '\t']).to_owned()))
}

fn not_found(message: String) -> Failure {
    Failure { class: FailureClass::Outage, error_type: "program_not_found".into(), message }
}

pub(super) fn not_configured() -> Failure {
    not_found("no program is configured: set `command` of the backend".into())
}

/// Returns the failure to start a program. A lack of resources is transient. Anything else is an
/// outage: a user has to correct the program, and its operations wait until then.
pub(super) fn cannot_start(program: &str, error: &io::Error) -> AttemptError {
    let message = |hint| format!("cannot start the program `{program}`: {error}; {hint}");
    let hint = match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::NOMEM) => "the machine is short of memory or processes",
        Some(Errno::MFILE | Errno::NFILE) => {
            "too many files are open: raise `ulimit -n`, or lower `jobs`"
        }
        Some(Errno::TXTBSY) => "another process is writing it",
        Some(Errno::TOOBIG) => {
            "shorten its arguments in `command`, or the environment of `wal-cli`"
        }
        _ => {
            return not_found(message("make it executable, or correct `command` of the backend"))
                .into();
        }
    };
    AttemptError::transient("cannot_start", message(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_resources_is_not_an_outage() {
        for (errno, class) in [
            (Errno::NOENT, FailureClass::Outage),
            (Errno::ACCESS, FailureClass::Outage),
            (Errno::NOEXEC, FailureClass::Outage),
            (Errno::NOTDIR, FailureClass::Outage),
            (Errno::TOOBIG, FailureClass::Transient),
            (Errno::NOMEM, FailureClass::Transient),
            (Errno::AGAIN, FailureClass::Transient),
            (Errno::MFILE, FailureClass::Transient),
            (Errno::TXTBSY, FailureClass::Transient),
        ] {
            let error = cannot_start("/bin/x", &errno.into());
            let AttemptError::Failed { failure, .. } = error else { panic!("{error:?}") };
            assert_eq!(failure.class, class, "{errno:?}");
            assert!(
                failure.message.contains("`/bin/x`") && failure.message.contains(';'),
                "{}",
                failure.message
            );
        }
    }
}
