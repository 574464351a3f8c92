//! A running program: its pipes, its end, and stopping it.
//!
//! The thread that waits for the program also serves its pipes. A thread per pipe could be held up
//! by processes that the program leaves running.

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

/// The most that a program may write to its standard output, in bytes.
pub(super) const OUTPUT_MAX: u64 = 16 << 20;
/// The output between two polls, in bytes, from which on a program is polled at the short interval.
const BUSY_OUTPUT: u64 = 64 << 10;
/// The end of the standard error that is kept for messages, in bytes.
const STDERR_KEPT_MAX: usize = 4 << 10;
/// The most that one poll reads from the standard error, in bytes: a program that writes without
/// end must not hold up the other checks.
const STDERR_READ_MAX: usize = 1 << 20;
/// The time between a request to end and a kill.
const GRACE: Duration = Duration::from_millis(1000);
/// The time to wait for the rest of the standard error, which processes that a program leaves
/// running may keep open indefinitely.
const STDERR_REST: Duration = Duration::from_millis(200);
/// The shortest interval between two polls of a program.
const POLL_MIN: Duration = Duration::from_millis(2);
/// The longest interval between two polls of a program.
const POLL_MAX: Duration = Duration::from_millis(50);

/// The end of a program.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The reason for stopping it, if it was stopped.
    pub(super) stopped: Option<StopReason>,
}

/// The reason for stopping a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The drain loop stops, or a user cancelled the operation.
    Cancelled,
    /// The program exceeded its time.
    TimedOut,
    /// The program exceeded [`OUTPUT_MAX`].
    TooMuchOutput,
    /// The program was suspended because it used the terminal.
    NeedsTerminal,
}

/// A running program.
pub(super) struct Process<'a> {
    child: Child,
    pipes: Pipes,
    /// The file that is its standard output.
    output: &'a File,
    clock: &'a dyn Clock,
}

impl<'a> Process<'a> {
    /// Starts a program, with `document` as its standard input.
    pub(super) fn start(
        mut command: Command,
        document: Vec<u8>,
        output: &'a File,
        clock: &'a dyn Clock,
    ) -> io::Result<Process<'a>> {
        let (child_stdin, stdin) = io::pipe()?;
        let (stderr, child_stderr) = io::pipe()?;
        set_nonblocking(&stdin)?;
        set_nonblocking(&stderr)?;
        // Our other files are closed on exec. In a process group of its own, the program gets no
        // signals from the terminal.
        let child = command
            .stdin(Stdio::from(child_stdin))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(child_stderr))
            .process_group(0)
            .spawn()?;
        // Closes our copies of the program's ends of the pipes.
        drop(command);
        let (stdin, stderr) = (Some(stdin), Some(stderr));
        let pipes = Pipes { stdin, document, written: 0, stderr, stderr_end: Vec::new() };
        Ok(Process { child, pipes, output, clock })
    }

    /// Waits until the program ends. Stops it if the attempt is cancelled, if `limit` is exceeded,
    /// if it writes too much, or if it needs a terminal.
    pub(super) fn wait(&mut self, attempt: &Attempt, limit: Option<Duration>) -> io::Result<Ended> {
        let start = self.clock.elapsed();
        let (mut pause, mut output_before) = (POLL_MIN, 0);
        let reason = loop {
            let moved = self.pipes.pump();
            if let Some(status) = self.child.try_wait()? {
                self.read_stderr_rest(status);
                return Ok(Ended { status, stopped: None });
            }
            if attempt.is_cancelled() {
                break StopReason::Cancelled;
            }
            if limit.is_some_and(|limit| self.clock.elapsed().saturating_sub(start) >= limit) {
                break StopReason::TimedOut;
            }
            let output = self.output.metadata()?.len();
            if output > OUTPUT_MAX {
                break StopReason::TooMuchOutput;
            }
            if self.is_suspended_by_terminal() {
                break StopReason::NeedsTerminal;
            }
            let is_busy = moved || output.saturating_sub(output_before) > BUSY_OUTPUT;
            output_before = output;
            pause = if is_busy { POLL_MIN } else { (pause * 2).min(POLL_MAX) };
            self.clock.sleep(pause);
        };
        let status = self.stop()?;
        self.read_stderr_rest(status);
        if self.output.metadata()?.len() > OUTPUT_MAX {
            self.output.set_len(OUTPUT_MAX)?;
        }
        Ok(Ended { status, stopped: Some(reason) })
    }

    /// Returns the last line of the standard error that is not blank.
    pub(super) fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.pipes.stderr_end);
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

    /// Returns whether the program is suspended because it read from, or tried to change, a
    /// terminal that is not its own.
    fn is_suspended_by_terminal(&self) -> bool {
        let Some(pid) = self.pid() else { return false };
        // NOWAIT: the exit status stays for `try_wait`.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let stopped_by = waitid(WaitId::Pid(pid), options)
            .ok()
            .flatten()
            .and_then(|status| status.stopping_signal());
        [Signal::TTIN, Signal::TTOU].iter().any(|signal| stopped_by == Some(signal.as_raw()))
    }

    /// Asks the program and the processes that it started to end, and kills them after [`GRACE`].
    fn stop(&mut self) -> io::Result<ExitStatus> {
        let group = self.pid();
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        let is_left = || group.is_some_and(|group| test_kill_process_group(group).is_ok());
        signal(Signal::TERM);
        // A suspended program handles SIGTERM only once it continues.
        signal(Signal::CONT);
        let mut status = None;
        // The whole group gets the same time to end, and the same time again after the kill.
        for pause in [POLL_MAX, POLL_MIN] {
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
        // It belongs to another user, or hangs in a system call: waiting longer would not help.
        status.ok_or_else(|| io::Error::other("it was asked to stop, and could not be killed"))
    }

    /// Reads what is left in the pipe. If the program failed, also waits for what its children
    /// still write.
    fn read_stderr_rest(&mut self, status: ExitStatus) {
        self.pipes.pump();
        let since = self.clock.elapsed();
        while !status.success()
            && self.pipes.stderr.is_some()
            && self.clock.elapsed().saturating_sub(since) < STDERR_REST
        {
            self.clock.sleep(POLL_MIN);
            self.pipes.pump();
        }
    }
}

/// Our ends of the program's pipes. No call on them blocks.
struct Pipes {
    /// The standard input; `None` once it is written, or the program has closed it.
    stdin: Option<PipeWriter>,
    document: Vec<u8>,
    /// The number of bytes of the document that are written.
    written: usize,
    /// The standard error; `None` once all processes have closed it.
    stderr: Option<PipeReader>,
    /// The last bytes of the standard error.
    stderr_end: Vec<u8>,
}

impl Pipes {
    /// Moves what can be moved without blocking. Returns whether anything was.
    fn pump(&mut self) -> bool {
        let wrote = self.write_stdin();
        self.read_stderr() || wrote
    }

    fn write_stdin(&mut self) -> bool {
        let before = self.written;
        while let Some(stdin) = &mut self.stdin {
            match stdin.write(&self.document[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.stdin = None,
            }
            if self.written == self.document.len() {
                self.stdin = None;
            }
        }
        self.written > before
    }

    fn read_stderr(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let mut total = 0;
        while let Some(stderr) = &mut self.stderr
            && total < STDERR_READ_MAX
        {
            match stderr.read(&mut buffer) {
                Ok(read @ 1..) => {
                    total += read;
                    self.stderr_end.extend_from_slice(&buffer[..read]);
                    let surplus = self.stderr_end.len().saturating_sub(STDERR_KEPT_MAX);
                    self.stderr_end.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => self.stderr = None,
            }
        }
        total > 0
    }
}

/// Sets our end of a pipe to non-blocking. The program's end stays blocking, as programs expect.
fn set_nonblocking(pipe: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&pipe)?;
    Ok(fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?)
}
