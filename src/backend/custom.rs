//! Backend `custom`: a program of the user's carries the operations out.
//!
//! It gets the operation as one JSON document on its standard input. What it prints is its result: a JSON object with any of
//! `cid`, `size`, `destination` and `receipt`; anything else is kept as the receipt `output`. It says how it went by its
//! exit status: 0 done, 75 (`EX_TEMPFAIL`) try again, anything else failed for good; the last line of its standard error
//! becomes the message. It is asked to stop by SIGTERM, and killed a second later, with all that it has started.
//!
//! Its standard output is the file `run/<number>`, which is locked for as long as anybody has it open: whoever finds it
//! locked after a crash knows that the program has outlived its drain loop.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::ours;
use super::files::check_source;
use super::{Answer, Attempt, AttemptError, Backend, Request};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::operation::{Failure, FailureClass, Fields, Number, Outcome};

/// The exit status that asks for another attempt (`EX_TEMPFAIL` of sysexits.h).
const TRY_AGAIN: i32 = 75;
/// As much as a receipt may take, in bytes.
const OUTPUT_MAX: u64 = 64 << 10;
/// As much of its standard error as is kept to quote from, in bytes.
const ERRORS_MAX: usize = 4 << 10;
/// How long a program that was asked to stop may take before it is killed.
const GRACE: Duration = Duration::from_millis(1000);
/// How long the rest of its standard error is waited for: what it leaves running may keep that open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
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
    /// Whether the folder for output is known to survive a power cut.
    is_durable: AtomicBool,
    disk: Arc<dyn Disk>,
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
struct Ended {
    status: ExitStatus,
    /// Why it was asked to, if it was.
    stopped: Option<Stopped>,
}

/// Why we made it end.
#[derive(Debug, Clone, Copy)]
enum Stopped {
    Asked,
    Late,
}

impl Stopped {
    fn why(self) -> &'static str {
        match self {
            Stopped::Asked => "it was asked to stop",
            Stopped::Late => "its time (`total_timeout`) was up",
        }
    }
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
        self.run.join(request.number.to_string())
    }

    /// The file that becomes its standard output, empty and locked.
    fn claim(&self, path: &Path) -> Result<File, AttemptError> {
        let failed = |error: io::Error| {
            AttemptError::transient("disk", format!("could not write `{}`: {error}", path.display()))
        };
        self.disk.create_dir_if_missing(&self.run).map_err(ours)?;
        if let Some(log) = self.run.parent()
            && !self.is_durable.load(Ordering::Relaxed)
        {
            self.disk.sync_dir(log).map_err(ours)?;
            self.is_durable.store(true, Ordering::Relaxed);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(still_running()),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        // Who finds it missing after a power cut takes the program for one that was never started.
        self.disk.sync_dir(&self.run).map_err(ours)?;
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
                return Ok(Ended { status, stopped: None });
            }
            if attempt.is_cancelled() {
                break Stopped::Asked;
            }
            if self.limit.is_some_and(|limit| self.clock.elapsed().saturating_sub(start) >= limit) {
                break Stopped::Late;
            }
            self.clock.sleep(pause);
            pause = (pause * 2).min(LOOK.1);
        };
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        let is_left = || group.is_some_and(|group| test_kill_process_group(group).is_ok());
        signal(Signal::TERM);
        let asked = self.clock.elapsed();
        let mut status = None;
        // Its children have as long as itself.
        while (status.is_none() || is_left()) && self.clock.elapsed().saturating_sub(asked) < GRACE {
            status = status.or(child.try_wait()?);
            self.clock.sleep(LOOK.1);
        }
        signal(Signal::KILL);
        let killed = self.clock.elapsed();
        while status.is_none() && self.clock.elapsed().saturating_sub(killed) < GRACE {
            status = child.try_wait()?;
            self.clock.sleep(LOOK.0);
        }
        // Not ours to kill, or busy with a device: nobody waits for that.
        let status = status.ok_or_else(|| io::Error::other("it was asked to stop, and could not be killed"))?;
        Ok(Ended { status, stopped: Some(why) })
    }
}

impl Backend for CustomBackend {
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError> {
        if attempt.is_cancelled() {
            return Err(AttemptError::Stopped);
        }
        check_source(&*self.disk, request)?;
        let path = self.output_of(request);
        let mut output = self.claim(&path)?;
        let mut child = self.spawn(request, &output)?;
        tell(&mut child, &document_of(request));
        let errors = Errors::of(&mut child);
        let ended = self.wait(&mut child, attempt);
        let ended = ended.map_err(|error| unanswered(format!("nobody knows how the program ended: {error}")))?;
        let printed = read_output(&mut output).unwrap_or_default();
        settle(&ended, &printed, &errors.last_line())
    }

    fn ask(&self, request: &Request) -> Result<Answer, AttemptError> {
        if self.is_still_running(request) {
            return Ok(Answer::StillRunning);
        }
        let path = self.output_of(request);
        if !self.disk.exists(&path).map_err(ours)? {
            // It is there, and durable, before the program is started.
            return Ok(Answer::NotDone);
        }
        let what = format!(
            "it was carried out by a program that cannot be asked, and that ended without an answer; what it printed is in `{}`",
            path.display()
        );
        Ok(Answer::Unknown(what))
    }

    fn forget(&self, number: Number) {
        // If this fails, the file stands there until the number runs again.
        let _ = rustix::fs::unlink(self.run.join(number.to_string()));
    }

    fn is_still_running(&self, request: &Request) -> bool {
        let opened = OpenOptions::new().read(true).open(self.output_of(request));
        opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    fn health(&self) -> Result<(), Failure> {
        let failure =
            |message: String| Failure { class: FailureClass::Outage, error_type: "program_not_found".into(), message };
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

/// Writes the document in a thread: a program that does not read it holds up nobody.
fn tell(child: &mut Child, document: &str) {
    let Some(mut stdin) = child.stdin.take() else { return };
    let document = format!("{document}\n");
    std::thread::spawn(move || drop(stdin.write_all(document.as_bytes())));
}

/// The last of what a program writes to its standard error.
struct Errors {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Errors {
    fn of(child: &mut Child) -> Errors {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (sender, ended) = channel();
        if let Some(mut stderr) = child.stderr.take() {
            let kept = kept.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend_from_slice(&buffer[..read]);
                    let surplus = kept.len().saturating_sub(ERRORS_MAX);
                    kept.drain(..surplus);
                }
                drop(sender);
            });
        }
        Errors { kept, ended }
    }

    /// The last line that says something, once the program has ended.
    fn last_line(&self) -> String {
        // The end comes as a disconnection.
        let _ = self.ended.recv_timeout(LAST_WORDS);
        let text = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
    }
}

fn read_output(output: &mut File) -> io::Result<String> {
    output.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What its exit status, and what it printed, amount to.
fn settle(ended: &Ended, printed: &str, errors: &str) -> Result<Outcome, AttemptError> {
    let said: Option<Said> = serde_json::from_str(printed.trim()).ok();
    match (ended.status.code(), ended.stopped) {
        (Some(0), _) => Ok(match said {
            Some(said) => outcome_of(said),
            None if printed.trim().is_empty() => Outcome::default(),
            None => Outcome {
                receipt: Fields::from([("output".to_owned(), printed.trim_end().to_owned())]),
                ..Outcome::default()
            },
        }),
        (Some(TRY_AGAIN), Some(Stopped::Asked)) => Err(AttemptError::Stopped),
        (Some(TRY_AGAIN), Some(Stopped::Late)) => {
            Err(AttemptError::transient("timed_out", format!("the program gave up: {}", Stopped::Late.why())))
        }
        (_, Some(stopped)) => Err(unanswered(format!("the program was stopped: {}", stopped.why()))),
        (Some(code), None) => {
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
        (None, None) => {
            let signal = ended.status.signal().unwrap_or(0);
            Err(unanswered(format!("the program was killed by signal {signal}")))
        }
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
    AttemptError::transient("still_running", "the program that was started for it is still running")
}

fn not_configured() -> AttemptError {
    let message = "no program is configured: set `command` of the backend";
    AttemptError::failed(FailureClass::Outage, "program_not_found", message)
}

/// Nothing was begun, and it is the machine that needs a hand: the operations wait.
fn cannot_start(program: &str, error: &io::Error) -> AttemptError {
    AttemptError::failed(
        FailureClass::Outage,
        "program_not_found",
        format!("the program `{program}` could not be started: {error}"),
    )
}
