//! Backend `custom`: a program of the user's carries the operations out.
//!
//! The program reads the operation as one JSON document from its standard input, and writes its
//! result to its standard output: a JSON object with any of `cid`, `size`, `destination` and
//! `receipt`; other output becomes the receipt `output`. Its exit status is 0 for success, 75
//! (`EX_TEMPFAIL`) for a transient failure, and anything else for a permanent one; the last line of
//! its standard error becomes the message. It is asked to stop with SIGTERM, and killed a second
//! later, together with the processes that it started.
//!
//! Its standard output is the file `run/<number>`, which is locked while any process has it open. A
//! file that is still locked after a crash shows that the program has outlived its drain loop.

mod output;
mod process;
mod program;
mod result;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use self::process::Process;
use self::result::{Output, RESULT_MAX, attempt_result, unknown_outcome};
use super::configured::{Configured, Context};
use super::errors::ours;
use super::files::check_source;
use super::{Attempt, AttemptError, AttemptStatus, Backend, Request};
use crate::clock::Clock;
use crate::config::{CustomSettings, VARIABLE_PREFIX};
use crate::disk::Disk;
use crate::operation::{Failure, Number, Outcome};

/// Builds the backend from its settings.
pub(super) fn configure(custom: &CustomSettings, context: &Context<'_>) -> Configured {
    let Context { settings, disk, clock, .. } = context;
    let run = output::directory_of(&settings.base_path);
    let command = custom.command.clone();
    let missing = command.is_empty().then_some("command");
    let limit = Some(custom.total_timeout).filter(|total| !total.is_zero());
    let custom = CustomBackend::new(disk.clone(), clock.clone(), command, run, limit);
    Configured { missing, ..Configured::complete(custom) }
}

/// Output files that one sweep examines. If there are more, each sweep begins at a random one.
const SWEEP_MAX: usize = 500;

/// A backend that runs a program for each attempt.
#[derive(Debug)]
pub struct CustomBackend {
    command: Vec<String>,
    /// The directory for the output of programs.
    run: PathBuf,
    /// The longest time of one attempt.
    limit: Option<Duration>,
    /// True once `run` is known to survive a power cut.
    is_durable: AtomicBool,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
}

impl CustomBackend {
    /// Returns a backend that runs `command`, keeps its output in the directory `run`, and stops it
    /// after `limit`.
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        command: Vec<String>,
        run: PathBuf,
        limit: Option<Duration>,
    ) -> CustomBackend {
        CustomBackend { command, run, limit, is_durable: AtomicBool::new(false), disk, clock }
    }

    fn output_of(&self, request: &Request) -> PathBuf {
        output::path_of(&self.run, request.number)
    }

    /// Opens the file for the program's standard output, empty and locked. Fails with an unknown
    /// outcome if an earlier attempt still runs.
    fn claim_output(&self, path: &Path) -> Result<File, AttemptError> {
        let failed = |error: io::Error| {
            AttemptError::transient(
                "disk",
                format!(
                    "cannot write `{}`, the output of the program: {error}; make it writable",
                    path.display()
                ),
            )
        };
        self.disk.create_dir_if_missing(&self.run).map_err(ours)?;
        if let Some(log) = self.run.parent()
            && !self.is_durable.load(Ordering::Relaxed)
        {
            self.disk.sync_dir(log).map_err(ours)?;
            self.is_durable.store(true, Ordering::Relaxed);
        }
        // A second program never runs beside the first: the outcome of that one is queried later.
        let file = output::claim(path, &*self.clock).map_err(failed)?;
        let file = file.ok_or_else(|| unknown_outcome(still_running(path)))?;
        // Durable before the start: a missing file means that the program was never started.
        self.disk.sync_dir(&self.run).map_err(ours)?;
        Ok(file)
    }

    fn start<'a>(
        &'a self,
        request: &Request,
        output: &'a File,
    ) -> Result<Process<'a>, AttemptError> {
        let (program, arguments) =
            self.command.split_first().ok_or_else(program::not_configured)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("WAL_CLI_OPERATION_ID", request.id.to_string())
            .env("WAL_CLI_OPERATION_NUMBER", request.number.to_string())
            .env("WAL_CLI_OPERATION_TYPE", request.operation_type.as_str());
        // The program gets no tokens and passwords of other backends.
        let prefix = format!("{VARIABLE_PREFIX}BACKENDS_");
        let is_secret =
            |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        std::env::vars_os().map(|(name, _)| name).filter(is_secret).for_each(|name| {
            command.env_remove(name);
        });
        let document = format!("{}\n", document_of(request)).into_bytes();
        Process::start(command, document, output, &*self.clock)
            .map_err(|error| program::cannot_start(program, &error))
    }

    /// Runs the program. Our handle of its output is closed when this returns.
    fn run(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        let output = self.claim_output(&self.output_of(request))?;
        let mut process = self.start(request, &output)?;
        let ended = process.wait(attempt, self.limit);
        let ended = ended.map_err(|error| {
            unknown_outcome(format!("the exit status of the program is unknown: {error}"))
        })?;
        let output = Output::new(output::read(&output, RESULT_MAX).unwrap_or_default());
        attempt_result(&ended, &output, &process.last_line())
    }
}

impl CustomBackend {
    /// Fails if the spooled copy of the content is no longer what was logged: what the program has
    /// stored may be damaged. The program may have removed the copy, and a referenced file is its
    /// user's.
    fn check_copy_after(&self, request: &Request) -> Result<(), AttemptError> {
        let Some(copy) = &request.content else { return Ok(()) };
        let is_gone = || {
            let found = self.disk.metadata(copy);
            matches!(found, Err(error) if error.is_not_found())
        };
        // The program has succeeded, so a request to stop comes too late.
        match check_source(&*self.disk, &Attempt::default(), request) {
            Err(AttemptError::Failed { failure, .. }) if failure.error_type != "spool_damaged" => {
                match is_gone() {
                    true => Ok(()),
                    // Running the program again is for its user to decide.
                    false => Err(unknown_outcome(format!(
                        "the program succeeded, but its input cannot be checked: {}",
                        failure.message
                    ))),
                }
            }
            checked => checked,
        }
    }
}

impl Backend for CustomBackend {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        if attempt.is_cancelled() {
            return Err(AttemptError::Stopped);
        }
        check_source(&*self.disk, attempt, request)?;
        let result = self.run(request, attempt).and_then(|outcome| {
            self.check_copy_after(request)?;
            Ok(outcome)
        });
        if matches!(result, Err(AttemptError::UnknownOutcome(_))) {
            // A query that follows must not mistake processes that are about to end, or children
            // that are being started, for the program.
            output::wait_until_released(&self.output_of(request), &*self.clock);
        }
        result
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError> {
        if let Some(detached) = self.detached_work(request) {
            return Ok(AttemptStatus::StillRunning(detached));
        }
        let path = self.output_of(request);
        if !self.disk.exists(&path).map_err(ours)? {
            // The file is durable before the program is started.
            return Ok(AttemptStatus::NotDone);
        }
        let reason = format!(
            "the program ended without a known result; its output is in `{}`",
            path.display()
        );
        Ok(AttemptStatus::Unknown(reason))
    }

    fn release_attempt(&self, number: Number) {
        // If this fails, the file stays until the next attempt or sweep.
        output::remove(&output::path_of(&self.run, number));
    }

    fn sweep(&self, is_needed: &dyn Fn(Number) -> bool) -> Result<(), AttemptError> {
        let mut numbers = output::numbers(&*self.disk, &self.run).map_err(ours)?;
        numbers.sort_unstable();
        if numbers.len() > SWEEP_MAX {
            let start = self.clock.random() as usize % numbers.len();
            numbers.rotate_left(start);
            numbers.truncate(SWEEP_MAX);
        }
        for number in numbers.into_iter().filter(|number| !is_needed(*number)) {
            output::remove_unless_held(&self.run, number);
        }
        Ok(())
    }

    fn detached_work(&self, request: &Request) -> Option<String> {
        let path = self.output_of(request);
        output::is_held(&path).then(|| still_running(&path))
    }

    fn health(&self) -> Result<(), Failure> {
        program::check(&*self.disk, self.command.first())
    }
}

/// Returns the document that the program reads.
fn document_of(request: &Request) -> String {
    let source = request
        .source
        .as_ref()
        .map(|source| json!({ "size": source.size, "mtime_ns": source.mtime_ns }));
    json!({
        "operation_id": request.id.to_string(),
        "number": request.number,
        "operation_type": request.operation_type.as_str(),
        "backend": request.backend.as_str(),
        "parameters": request.parameters,
        // The path of the spooled copy, if there is one.
        "content": request.content.as_ref().map(|path| path.to_string_lossy()),
        "source": source,
    })
    .to_string()
}

/// Returns the reason for which an operation is still running: a process has its output open.
fn still_running(path: &Path) -> String {
    let path = path.display();
    format!(
        "the program, or a process that it started, is still running: it has `{path}` open \
         (`fuser {path}` names the process; wait for it, or end it)"
    )
}
