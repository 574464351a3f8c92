//! The other processes of `verify --durability`: this program, started again.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::Signal;

use super::args::{Second, Task};
use super::context::Context;
use super::error::CliError;
use super::{Exit, Program};
use crate::client::{Client, Filter, Processes};
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::disk::{Access, Disk, OsDisk};
use crate::operation::{BackendName, Fields, Logged, OperationType};

/// This program, under the name that it was called by.
#[derive(Debug)]
pub struct Again {
    /// That name.
    pub program: Program,
}

impl Again {
    fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
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

impl Processes for Again {
    fn try_lock(&self, path: &Path) -> io::Result<bool> {
        let output = self.command()?.args(["second-process", "lock"]).arg(path).output()?;
        match Again::lines(&output.stdout).first().map(String::as_str) {
            Some("locked") => Ok(true),
            Some("refused") => Ok(false),
            _ => Err(io::Error::other("it said nothing")),
        }
    }

    fn append_and_kill(&self, log: &Path, after: Duration) -> io::Result<Vec<String>> {
        let mut child = self
            .command()?
            .args(["second-process", "append"])
            .arg(log)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("it has no stdout"))?;
        let (sender, acknowledged) = channel();
        // What stands on a whole line was acknowledged; the rest of one was not.
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
        // Whoever is killed before that was not killed at work.
        let first = acknowledged.recv_timeout(PATIENCE);
        if first.is_ok() {
            SystemClock::new().sleep(after);
        }
        child.kill()?;
        let status = child.wait()?;
        match first {
            Err(_) => {
                Err(io::Error::other(format!("a second process acknowledged nothing ({status})")))
            }
            Ok(_) if status.signal() != Some(Signal::KILL.as_raw()) => {
                Err(io::Error::other(format!("a second process ended by itself ({status})")))
            }
            Ok(first) => Ok(std::iter::once(first).chain(acknowledged).collect()),
        }
    }

    fn list(&self, log: &Path) -> io::Result<Vec<String>> {
        if OsDisk::new().metadata(log).is_err() {
            return Ok(Vec::new());
        }
        let output = self.command()?.args(["second-process", "list"]).arg(log).output()?;
        match output.status.success() {
            true => Ok(Again::lines(&output.stdout)),
            false => Err(io::Error::other("a fresh process cannot read the log")),
        }
    }
}

/// How long a second process may take until it acknowledges something.
const PATIENCE: Duration = Duration::from_secs(60);

/// What such a process does.
pub fn run(context: &mut Context<'_>, args: &Second) -> Result<Exit, CliError> {
    match args.task {
        Task::Lock => {
            let got = OsDisk::new().open(&args.path, Access::Write)?.try_lock()?;
            context.terminal.line(if got { "locked" } else { "refused" })?;
        }
        Task::Append => {
            let client = Client::open(Settings::at(args.path.clone()), "verify --durability");
            let bad = |error: crate::operation::InvalidName| CliError::usage(error.to_string());
            let operation = Logged::new(
                OperationType::new("add").map_err(bad)?,
                BackendName::new("mock").map_err(bad)?,
                Fields::from([("path".to_owned(), "/durability".to_owned())]),
                0,
            );
            // Until it is killed, or whoever should do so is dead.
            while !context.terminal.out.get_ref().is_gone() {
                let id = client.submit(operation.clone())?.id;
                context.terminal.line(&id.to_string())?;
            }
        }
        Task::List => {
            let client = Client::open(Settings::at(args.path.clone()), "verify --durability");
            for operation in client.list(&Filter::default(), usize::MAX)?.operations {
                context.terminal.text(&format!("{}\n", operation.id))?;
            }
        }
    }
    Ok(Exit::Done)
}
