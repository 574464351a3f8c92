//! A program while it runs: what goes through its pipes, how it ends, and how it is made to.
//!
//! Nobody but the one who waits for it looks after its pipes: there is no thread that it, or what
//! it leaves running,
//! could hold up.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};

use crate::backend::Attempt;
use crate::clock::Clock;

/// As much as a program may print while it runs, in bytes.
pub(super) const PRINTED_MAX: u64 = 16 << 20;
/// What is much to be printed between two looks, in bytes.
const MUCH: u64 = 64 << 10;
/// As much of its standard error as is kept to quote from, in bytes.
const ERRORS_MAX: usize = 4 << 10;
/// As much of its standard error as is read at one look, in bytes: one that writes without end is
/// still looked after.
const READ_AT_ONCE: usize = 1 << 20;
/// How long a program that was asked to stop may take before it is killed.
const GRACE: Duration = Duration::from_millis(1000);
/// How long the rest of its standard error is waited for: what it leaves running may keep that open
/// for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Between two looks at whether it has ended: the first ones, and the later ones.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// How a program ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Why it was made to, if it was.
    pub(super) stopped: Option<Stopped>,
}

/// Why we made it end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The drain loop, or whoever cancelled the operation, wants it to.
    Asked,
    /// Its time is up.
    Late,
    /// It printed too much.
    Flooded,
    /// It stood still, since it wants something of the terminal.
    AtTerminal,
}

/// A program that runs.
pub(super) struct Process<'a> {
    child: Child,
    pipes: Pipes,
    /// The file that is its standard output.
    output: &'a File,
    clock: &'a dyn Clock,
}

impl<'a> Process<'a> {
    /// Starts it; `document` is what it reads.
    pub(super) fn start(
        mut command: Command,
        document: Vec<u8>,
        output: &'a File,
        clock: &'a dyn Clock,
    ) -> io::Result<Process<'a>> {
        let (stdin, told) = io::pipe()?;
        let (said, stderr) = io::pipe()?;
        never_wait_for(&told)?;
        never_wait_for(&said)?;
        // All other files of ours close themselves; signals from the terminal reach us, and not the
        // program.
        let child = command
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(stderr))
            .process_group(0)
            .spawn()?;
        // It keeps our copies of the program's ends of the pipes.
        drop(command);
        let pipes = Pipes { to: Some(told), document, told: 0, from: Some(said), kept: Vec::new() };
        Ok(Process { child, pipes, output, clock })
    }

    /// Waits for its end; makes it end when asked to, when its time is up, or when it does what it
    /// may not.
    pub(super) fn wait(&mut self, attempt: &Attempt, limit: Option<Duration>) -> io::Result<Ended> {
        let start = self.clock.elapsed();
        let (mut pause, mut before) = (LOOK.0, 0);
        let why = loop {
            let moved = self.pipes.pump();
            if let Some(status) = self.child.try_wait()? {
                self.hear_last_words(status);
                return Ok(Ended { status, stopped: None });
            }
            if attempt.is_cancelled() {
                break Stopped::Asked;
            }
            if limit.is_some_and(|limit| self.clock.elapsed().saturating_sub(start) >= limit) {
                break Stopped::Late;
            }
            let printed = self.output.metadata()?.len();
            if printed > PRINTED_MAX {
                break Stopped::Flooded;
            }
            if self.is_at_terminal() {
                break Stopped::AtTerminal;
            }
            // Who moves much is looked after often.
            let is_busy = moved || printed.saturating_sub(before) > MUCH;
            before = printed;
            pause = if is_busy { LOOK.0 } else { (pause * 2).min(LOOK.1) };
            self.clock.sleep(pause);
        };
        let status = self.stop()?;
        self.hear_last_words(status);
        if self.output.metadata()?.len() > PRINTED_MAX {
            self.output.set_len(PRINTED_MAX)?;
        }
        Ok(Ended { status, stopped: Some(why) })
    }

    /// The last line of its standard error that says something.
    pub(super) fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.pipes.kept);
        text.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or_default()
            .to_owned()
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it stands still because it wants to read from, or to change, a terminal that is not
    /// its own.
    fn is_at_terminal(&self) -> bool {
        let Some(pid) = self.pid() else { return false };
        // That it has ended is left for `try_wait` to see.
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let stopped_by = waitid(WaitId::Pid(pid), look)
            .ok()
            .flatten()
            .and_then(|status| status.stopping_signal());
        [Signal::TTIN, Signal::TTOU].iter().any(|signal| stopped_by == Some(signal.as_raw()))
    }

    /// Asks it to end, and kills it a while later, with all that it has started.
    fn stop(&mut self) -> io::Result<ExitStatus> {
        let group = self.pid();
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        let is_left = || group.is_some_and(|group| test_kill_process_group(group).is_ok());
        signal(Signal::TERM);
        // Who stands still cannot act on that.
        signal(Signal::CONT);
        let mut status = None;
        // Its children have as long as itself, and as long to be gone once they are killed.
        for pause in [LOOK.1, LOOK.0] {
            let since = self.clock.elapsed();
            while (status.is_none() || is_left())
                && self.clock.elapsed().saturating_sub(since) < GRACE
            {
                self.pipes.pump();
                status = status.or(self.child.try_wait()?);
                self.clock.sleep(pause);
            }
            if status.is_none() || is_left() {
                signal(Signal::KILL);
            }
        }
        // Not ours to kill, or busy with a device: nobody waits for that.
        status.ok_or_else(|| io::Error::other("it was asked to stop, and could not be killed"))
    }

    /// Reads what is left in the pipe; of a program that failed also what its children still have
    /// to say.
    fn hear_last_words(&mut self, status: ExitStatus) {
        self.pipes.pump();
        let since = self.clock.elapsed();
        while !status.success()
            && self.pipes.from.is_some()
            && self.clock.elapsed().saturating_sub(since) < LAST_WORDS
        {
            self.clock.sleep(LOOK.0);
            self.pipes.pump();
        }
    }
}

/// Our ends of its pipes, of which none is ever waited for.
struct Pipes {
    /// Its standard input; none: it has been told all, or does not listen.
    to: Option<PipeWriter>,
    document: Vec<u8>,
    /// How much of the document is written.
    told: usize,
    /// Its standard error; none: everybody has closed it.
    from: Option<PipeReader>,
    /// The last of what came from there.
    kept: Vec<u8>,
}

impl Pipes {
    /// Moves what can be moved now; whether anything was.
    fn pump(&mut self) -> bool {
        let told = self.tell();
        self.hear() || told
    }

    fn tell(&mut self) -> bool {
        let before = self.told;
        while let Some(to) = &mut self.to {
            match to.write(&self.document[self.told..]) {
                Ok(written) => self.told += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.to = None,
            }
            if self.told == self.document.len() {
                self.to = None;
            }
        }
        self.told > before
    }

    fn hear(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let mut heard = 0;
        while let Some(from) = &mut self.from
            && heard < READ_AT_ONCE
        {
            match from.read(&mut buffer) {
                Ok(read @ 1..) => {
                    heard += read;
                    self.kept.extend_from_slice(&buffer[..read]);
                    let surplus = self.kept.len().saturating_sub(ERRORS_MAX);
                    self.kept.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => self.from = None,
            }
        }
        heard > 0
    }
}

/// Our end of a pipe; the program's is another one, which stays as programs expect it.
fn never_wait_for(pipe: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&pipe)?;
    Ok(fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?)
}
