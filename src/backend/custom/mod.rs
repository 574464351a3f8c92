//! Backend `custom`: a program of the user's carries the operations out.
//!
//! It gets the operation as one JSON document on its standard input. What it prints is its result:
//! a JSON object with any of
//! `cid`, `size`, `destination` and `receipt`; anything else is kept as the receipt `output`. It
//! says how it went by its
//! exit status: 0 done, 75 (`EX_TEMPFAIL`) try again, anything else failed for good; the last line
//! of its standard error
//! becomes the message. It is asked to stop by SIGTERM, and killed a second later, with all that it
//! has started.
//!
//! Its standard output is the file `run/<number>`, which is locked for as long as anybody has it
//! open: whoever finds it
//! locked after a crash knows that the program has outlived its drain loop.

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

use self::output::folder_of;
use self::process::Process;
use self::result::{Printed, RESULT_MAX, settle, unanswered};
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
    let run = folder_of(&settings.base_path);
    let command = custom.command.clone();
    let missing = command.is_empty().then_some("command");
    let limit = Some(custom.total_timeout).filter(|total| !total.is_zero());
    let custom = CustomBackend::new(disk.clone(), clock.clone(), command, run, limit);
    Configured { missing, ..Configured::complete(custom) }
}

/// Output files that one sweep examines. If there are more, each sweep begins at a random one.
const SWEPT_AT_ONCE: usize = 500;

/// A program of the user's.
#[derive(Debug)]
pub struct CustomBackend {
    command: Vec<String>,
    /// Where the output of running programs is kept.
    run: PathBuf,
    /// How long it may take.
    limit: Option<Duration>,
    /// Whether the folder for output is known to survive a power cut.
    is_durable: AtomicBool,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
}

impl CustomBackend {
    /// A program, the folder for the output of running ones, and how long each may take.
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

    /// The file that becomes its standard output, empty and locked.
    fn claim(&self, path: &Path) -> Result<File, AttemptError> {
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
        // Whoever retried it while an earlier run goes on gets no second one beside it: what
        // becomes of the first is seen later.
        let file = output::claim(path, &*self.clock).map_err(failed)?;
        let file = file.ok_or_else(|| unanswered(goes_on(path)))?;
        // Who finds it missing after a power cut takes the program for one that was never started.
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
        // Tokens and passwords of backends are none of its business.
        let secret = format!("{VARIABLE_PREFIX}BACKENDS_");
        let is_secret =
            |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(secret.as_bytes());
        std::env::vars_os().map(|(name, _)| name).filter(is_secret).for_each(|name| {
            command.env_remove(name);
        });
        let document = format!("{}\n", document_of(request)).into_bytes();
        Process::start(command, document, output, &*self.clock)
            .map_err(|error| program::cannot_start(program, &error))
    }

    /// Runs the program; its output is closed when this returns.
    fn run(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        let output = self.claim(&self.output_of(request))?;
        let mut process = self.start(request, &output)?;
        let ended = process.wait(attempt, self.limit);
        let ended = ended.map_err(|error| {
            unanswered(format!("the exit status of the program is unknown: {error}"))
        })?;
        let printed = Printed::new(output::read(&output, RESULT_MAX).unwrap_or_default());
        settle(&ended, &printed, &process.last_line())
    }
}

impl Backend for CustomBackend {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        if attempt.is_cancelled() {
            return Err(AttemptError::Stopped);
        }
        check_source(&*self.disk, request)?;
        let result = self.run(request, attempt);
        if matches!(result, Err(AttemptError::UnknownOutcome(_))) {
            // Whoever asks next is not to take for it what is about to end, or what only begins.
            output::wait_until_free(&self.output_of(request), &*self.clock);
        }
        result
    }

    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError> {
        if let Some(what) = self.detached_work(request) {
            return Ok(AttemptStatus::StillRunning(what));
        }
        let path = self.output_of(request);
        if !self.disk.exists(&path).map_err(ours)? {
            // It is there, and durable, before the program is started.
            return Ok(AttemptStatus::NotDone);
        }
        let what = format!(
            "the program ended without a known result; its output is in `{}`",
            path.display()
        );
        Ok(AttemptStatus::Unknown(what))
    }

    fn release_attempt(&self, number: Number) {
        // If this fails, the file stands there until the number runs again, or a drain loop sweeps
        // it away.
        output::remove(&output::path_of(&self.run, number));
    }

    fn sweep(&self, is_needed: &dyn Fn(Number) -> bool) -> Result<(), AttemptError> {
        let mut numbers = output::kept(&*self.disk, &self.run).map_err(ours)?;
        numbers.sort_unstable();
        if numbers.len() > SWEPT_AT_ONCE {
            let start = self.clock.random() as usize % numbers.len();
            numbers.rotate_left(start);
            numbers.truncate(SWEPT_AT_ONCE);
        }
        for number in numbers.into_iter().filter(|number| !is_needed(*number)) {
            output::remove_unless_held(&self.run, number);
        }
        Ok(())
    }

    fn detached_work(&self, request: &Request) -> Option<String> {
        let path = self.output_of(request);
        output::is_held(&path).then(|| goes_on(&path))
    }

    fn health(&self) -> Result<(), Failure> {
        program::check(&*self.disk, self.command.first())
    }
}

/// What the program reads.
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
        // Where its content is to be read: a copy in the log, if there is one.
        "content": request.content.as_ref().map(|path| path.to_string_lossy()),
        "source": source,
    })
    .to_string()
}

/// What to say of an operation whose output is still written.
fn goes_on(path: &Path) -> String {
    let path = path.display();
    format!(
        "the program, or a process that it started, is still running: it has `{path}` open \
         (`fuser {path}` names the process; wait for it, or end it)"
    )
}
