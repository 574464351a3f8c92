//! `durability-helper`: the helper processes of `verify --durability`, and their start.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::process::Signal;

use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::invocation::Program;
use crate::client::{Client, Filter, Processes};
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::disk::{Access, Disk, OsDisk};
use crate::operation::{BackendName, Fields, InvalidName, Logged, OperationType};

/// Internal: work for `verify --durability`
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct DurabilityHelper {
    /// Task to perform
    task: Task,
    /// File or log to perform it on
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Try to take the lock of the file.
    Lock,
    /// Append to the log until killed.
    Append,
    /// List the ids of the log.
    List,
}

/// The name of these processes in histories and lock notes.
const LABEL: &str = "verify --durability";

impl Command for DurabilityHelper {
    const NAME: &'static str = "durability-helper";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let output = &mut session.output;
        match self.task {
            Task::Lock => {
                let locked = OsDisk::new().open(&self.path, Access::Write)?.try_lock()?;
                output.line(if locked { "locked" } else { "refused" })?;
            }
            Task::Append => {
                let client = Client::builder(Settings::at(self.path)).program(LABEL).build();
                let operation = operation().map_err(|error| CliError::usage(error.to_string()))?;
                // Until this process is killed, or its parent has died.
                while !output.is_closed() {
                    let id = client.submit(operation.clone())?.id;
                    output.line(&id.to_string())?;
                }
            }
            Task::List => {
                let client = Client::builder(Settings::at(self.path)).program(LABEL).build();
                for operation in client.list(&Filter::default(), None)?.operations {
                    output.text(&format!("{}\n", operation.id))?;
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// Returns the operation that is appended repeatedly.
fn operation() -> Result<Logged, InvalidName> {
    Ok(Logged::new(
        OperationType::new("add")?,
        BackendName::new("mock")?,
        Fields::from([("path".to_owned(), "/durability".to_owned())]),
        0,
    ))
}

/// Starts this program again as a helper process.
#[derive(Debug)]
pub struct Reexec {
    /// The name under which it was called.
    pub program: Program,
}

impl Reexec {
    fn command(&self) -> io::Result<process::Command> {
        let mut command = process::Command::new(std::env::current_exe()?);
        if self.program == Program::IpfsKit {
            command.arg("wal");
        }
        command.stdin(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    fn lines(output: &[u8]) -> Vec<String> {
        String::from_utf8_lossy(output).lines().map(str::to_owned).collect()
    }
}

impl Processes for Reexec {
    fn try_lock(&self, path: &Path) -> io::Result<bool> {
        let output = self.command()?.args(["durability-helper", "lock"]).arg(path).output()?;
        match Reexec::lines(&output.stdout).first().map(String::as_str) {
            Some("locked") => Ok(true),
            Some("refused") => Ok(false),
            _ => Err(io::Error::other("it printed nothing")),
        }
    }

    fn append_and_kill(&self, log: &Path, after: Duration) -> io::Result<Vec<String>> {
        let mut child = self
            .command()?
            .args(["durability-helper", "append"])
            .arg(log)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("the helper process has no stdout"))?;
        let (sender, acknowledged) = channel();
        // Only an id on a complete line was acknowledged.
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                if let Some(id) = line.strip_suffix('\n') {
                    let _ = sender.send(id.to_owned());
                }
                line.clear();
            }
        });
        // Only a process that has acknowledged an operation is killed while it appends.
        let first = acknowledged.recv_timeout(FIRST_TIMEOUT);
        if first.is_ok() {
            SystemClock::new().sleep(after);
        }
        child.kill()?;
        let status = child.wait()?;
        match first {
            Err(_) => {
                Err(io::Error::other(format!("the helper process acknowledged nothing ({status})")))
            }
            Ok(_) if status.signal() != Some(Signal::KILL.as_raw()) => {
                Err(io::Error::other(format!("the helper process ended by itself ({status})")))
            }
            Ok(first) => Ok(std::iter::once(first).chain(acknowledged).collect()),
        }
    }

    fn list(&self, log: &Path) -> io::Result<Vec<String>> {
        if OsDisk::new().metadata(log).is_err() {
            return Ok(Vec::new());
        }
        let output = self.command()?.args(["durability-helper", "list"]).arg(log).output()?;
        match output.status.success() {
            true => Ok(Reexec::lines(&output.stdout)),
            false => Err(io::Error::other("a new process cannot read the log")),
        }
    }
}

/// The longest time until a helper process acknowledges its first operation.
const FIRST_TIMEOUT: Duration = Duration::from_secs(60);
