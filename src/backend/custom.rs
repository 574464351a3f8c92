//! Backend `custom`: a program of the user's carries the operations out.
//!
//! It gets the operation as one JSON document on its standard input. What it prints is its result: a JSON object with any of
//! `cid`, `size`, `destination` and `receipt`; anything else is kept as the receipt `output`. It says how it went by its
//! exit status: 0 done, 75 (`EX_TEMPFAIL`) try again, anything else failed for good; the last line of its standard error
//! becomes the message.
//!
//! Its standard output is the file `run/<number>`, which is locked for as long as anybody has it open: whoever finds it
//! locked after a crash knows that the program has outlived its drain loop.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Attempt, AttemptError, Backend, Request};
use crate::clock::Clock;
use crate::operation::{Failure, FailureClass, Fields, Outcome};

/// The exit status that asks for another attempt (`EX_TEMPFAIL` of sysexits.h).
const TRY_AGAIN: i32 = 75;
/// As much as a receipt may take, in bytes.
const OUTPUT_MAX: u64 = 64 << 10;
/// As much of its standard error as is kept to quote from, in bytes.
const ERRORS_MAX: usize = 4 << 10;
/// How long a program that was asked to stop may take before it is killed.
const GRACE: Duration = Duration::from_millis(1000);
/// Between two looks at whether it has ended: the first ones, and the later ones.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A program of the user's.
#[derive(Debug)]
pub struct CustomBackend {
    command: Vec<String>,
    /// Where the output of running programs is kept.
    run: PathBuf,
    /// How long it may take.
    limit: Option<Duration>,
    clock: Arc<dyn Clock>,
}

/// What a program may say of its result.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    cid: Option<String>,
    size: Option<u64>,
    destination: Option<String>,
    receipt: serde_json::Map<String, Value>,
    /// Seconds to wait before the next attempt.
    retry_after: Option<f64>,
    error_type: Option<String>,
    message: Option<String>,
}

/// How a program ended.
enum Ended {
    ByItself(ExitStatus),
    /// It was asked to, or its time was up.
    Stopped(&'static str),
}

impl CustomBackend {
    /// A program, the folder for the output of running ones, and how long each may take.
    pub fn new(command: Vec<String>, run: PathBuf, limit: Option<Duration>, clock: Arc<dyn Clock>) -> CustomBackend {
        CustomBackend { command, run, limit, clock }
    }

    fn output_of(&self, request: &Request) -> PathBuf {
        self.run.join(request.number.to_string())
    }

    /// The file that becomes its standard output, empty and locked.
    fn claim(&self, path: &Path) -> Result<File, AttemptError> {
        let failed = |error: io::Error| {
            AttemptError::transient("disk", format!("could not write `{}`: {error}", path.display()))
        };
        std::fs::DirBuilder::new().recursive(true).create(&self.run).map_err(failed)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(still_running()),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        Ok(file)
    }

    fn spawn(&self, request: &Request, output: &File) -> Result<Child, AttemptError> {
        let (program, arguments) = self.command.split_first().ok_or_else(not_configured)?;
        let output = output.try_clone().map_err(|error| cannot_start(program, &error))?;
        // All other files of ours close themselves; signals from the terminal reach us, and not the program.
        Command::new(program)
            .args(arguments)
            .env("WAL_CLI_OPERATION_ID", request.id.to_string())
            .env("WAL_CLI_OPERATION_NUMBER", request.number.to_string())
            .env("WAL_CLI_OPERATION_TYPE", request.operation_type.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::from(output))
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| cannot_start(program, &error))
    }

    /// Waits for its end; stops it when asked to, or when its time is up.
    fn wait(&self, child: &mut Child, attempt: &Attempt) -> io::Result<Ended> {
        let start = self.clock.elapsed();
        let mut pause = LOOK.0;
        let why = loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ended::ByItself(status));
            }
            if attempt.is_cancelled() {
                break "it was asked to stop";
            }
            if self.limit.is_some_and(|limit| self.clock.elapsed().saturating_sub(start) >= limit) {
                break "its time was up";
            }
            self.clock.sleep(pause);
            pause = (pause * 2).min(LOOK.1);
        };
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let asked = self.clock.elapsed();
        let _ = group.map(|group| kill_process_group(group, Signal::TERM));
        while child.try_wait()?.is_none() {
            if self.clock.elapsed().saturating_sub(asked) >= GRACE {
                break;
            }
            self.clock.sleep(LOOK.1);
        }
        // Whatever is left of the group goes with it.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        child.wait()?;
        Ok(Ended::Stopped(why))
    }
}

impl Backend for CustomBackend {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        let path = self.output_of(request);
        let mut output = self.claim(&path)?;
        let mut child = self.spawn(request, &output)?;
        let told = tell(&mut child, &document_of(request));
        let errors = listen(&mut child);
        let ended = self.wait(&mut child, attempt);
        // They end with the program, or with the last of those that it has started.
        drop(told);
        let errors = errors.map_or_else(String::new, |thread| last_line(&thread.join().unwrap_or_default()));
        let ended = ended.map_err(|error| unanswered(format!("nobody knows how the program ended: {error}")))?;
        let printed = read_output(&mut output).unwrap_or_default();
        let result = match ended {
            Ended::Stopped(why) => return Err(unanswered(format!("the program was stopped: {why}"))),
            Ended::ByItself(status) => settle(status, &printed, &errors),
        };
        // What it printed is in the result now. If this fails, the file stands there until the number runs again.
        let _ = rustix::fs::unlink(&path);
        result
    }

    fn ask(&self, request: &Request) -> Result<Answer, AttemptError> {
        let path = self.output_of(request);
        if let Ok(file) = File::options().read(true).open(&path)
            && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        {
            return Err(still_running());
        }
        let what = "nobody knows how the program ended; see what it does when it is run once more";
        Ok(Answer::Unknown(what.to_owned()))
    }

    fn health(&self) -> Result<(), Failure> {
        let failure = |message: String| Failure {
            class: FailureClass::Outage,
            error_type: "program_not_found".into(),
            message,
        };
        let Some(program) = self.command.first() else {
            return Err(failure("no program is configured: set `command` of the backend".into()));
        };
        let is_program = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
        let found = match program.contains('/') {
            true => is_program(Path::new(program)),
            false => std::env::var_os("PATH")
                .is_some_and(|path| std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)))),
        };
        found.then_some(()).ok_or_else(|| failure(format!("there is no program `{program}` that can be run")))
    }
}

/// What the program reads.
fn document_of(request: &Request) -> String {
    let source = request.source.as_ref().map(|source| json!({ "size": source.size, "mtime_ns": source.mtime_ns }));
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

/// Writes the document in a thread: a program that does not read holds up nobody.
fn tell(child: &mut Child, document: &str) -> Option<JoinHandle<()>> {
    let mut stdin = child.stdin.take()?;
    let document = format!("{document}\n");
    // Who does not want to know need not read it.
    Some(std::thread::spawn(move || drop(stdin.write_all(document.as_bytes()))))
}

/// Reads its standard error to the end, and keeps the last of it.
fn listen(child: &mut Child) -> Option<JoinHandle<Vec<u8>>> {
    let mut stderr = child.stderr.take()?;
    Some(std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..read]);
            let surplus = kept.len().saturating_sub(ERRORS_MAX);
            kept.drain(..surplus);
        }
        kept
    }))
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

fn read_output(output: &mut File) -> io::Result<String> {
    output.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What its exit status, and what it printed, amount to.
fn settle(status: ExitStatus, printed: &str, errors: &str) -> Result<Outcome, AttemptError> {
    let said: Option<Said> = serde_json::from_str(printed.trim()).ok();
    match status.code() {
        Some(0) => Ok(match said {
            Some(said) => outcome_of(said),
            None if printed.trim().is_empty() => Outcome::default(),
            None => Outcome {
                receipt: Fields::from([("output".to_owned(), printed.trim_end().to_owned())]),
                ..Outcome::default()
            },
        }),
        Some(code) => {
            let said = said.unwrap_or_default();
            let error_type = said.error_type.unwrap_or_else(|| format!("exit_{code}"));
            let message = match (said.message, errors) {
                (Some(message), _) => message,
                (None, "") => format!("the program ended with {code} and said nothing"),
                (None, errors) => format!("the program ended with {code}: {errors}"),
            };
            let class = if code == TRY_AGAIN { FailureClass::Transient } else { FailureClass::Permanent };
            let retry_after_ms = said.retry_after.filter(|after| *after > 0.0).map(|after| (after * 1000.0) as u64);
            Err(AttemptError::Failed { failure: Failure { class, error_type, message }, retry_after_ms })
        }
        // In the middle of whatever it did.
        None => Err(unanswered(format!("the program was killed by signal {}", status.signal().unwrap_or(0)))),
    }
}

fn outcome_of(said: Said) -> Outcome {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let receipt = said.receipt.into_iter().map(|(name, value)| (name, text(value))).collect();
    Outcome { cid: said.cid, size: said.size, destination: said.destination, receipt }
}

fn unanswered(message: String) -> AttemptError {
    AttemptError::Unanswered(Failure { class: FailureClass::Transient, error_type: "program_ended".into(), message })
}

fn still_running() -> AttemptError {
    AttemptError::transient("still_running", "the program that a dead drain loop started is still running")
}

fn not_configured() -> AttemptError {
    AttemptError::failed(FailureClass::Outage, "program_not_found", "no program is configured: set `command` of the backend")
}

/// Nothing was begun, and it is the machine that needs a hand: the operations wait.
fn cannot_start(program: &str, error: &io::Error) -> AttemptError {
    AttemptError::failed(
        FailureClass::Outage,
        "program_not_found",
        format!("the program `{program}` could not be started: {error}"),
    )
}
