//! A Kubo daemon with a repository of its own, on a free port of this machine.
#![expect(
    clippy::disallowed_methods,
    reason = "waits for another program, in files and time of the real machine"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::suite::tools::{Need, kubo, stdout_of};

/// The longest time for a daemon to start, much more than it takes.
const READY_MAX: Duration = Duration::from_secs(120);

/// Ends the daemon when the test that started it ends, even if it was killed: the guard then reads
/// the end of the pipe.
const GUARD: &str = r#"
"$0" daemon $1 </dev/null >"$IPFS_PATH/daemon.log" 2>&1 &
echo $!
cat >/dev/null
kill $! 2>/dev/null
wait $!
rm -rf "$IPFS_PATH"
"#;

/// A daemon with its repository.
pub struct Kubo {
    repository: PathBuf,
    guard: Option<Child>,
    /// The arguments of its start.
    flags: &'static str,
    pid: u32,
    address: String,
}

impl Kubo {
    /// Returns the daemon shared by tests that leave it running and use content of their own.
    pub fn shared() -> &'static Kubo {
        // The first test that uses it starts it.
        Need::Kubo.check();
        static SHARED: OnceLock<Kubo> = OnceLock::new();
        SHARED.get_or_init(|| Kubo::new(&[]))
    }

    /// Returns a new daemon, which ends when it is dropped.
    pub fn new(settings: &[(&str, &str)]) -> Kubo {
        Kubo::with("--offline", settings)
    }

    /// Returns a daemon that asks peers for missing content, but has no peers.
    pub fn alone() -> Kubo {
        Kubo::with(
            "--enable-gc=false",
            &[("AutoConf.Enabled", "false"), ("Routing.Type", "\"none\"")],
        )
    }

    fn with(flags: &'static str, settings: &[(&str, &str)]) -> Kubo {
        let memory = Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let repository = directory.unwrap().keep();
        let mut kubo = Kubo { repository, guard: None, flags, pid: 0, address: String::new() };
        stdout_of(kubo.command().args(["init", "--profile=test"]));
        for (key, value) in settings {
            stdout_of(kubo.command().args(["config", "--json", key, value]));
        }
        kubo.start();
        kubo
    }

    fn command(&self) -> Command {
        let mut command = Command::new(kubo());
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env("IPFS_PATH", &self.repository)
            .env("IPFS_TELEMETRY", "off")
            .env("HOME", &self.repository);
    }

    /// Starts the daemon; later starts use the same address.
    pub fn start(&mut self) {
        let mut guard = Command::new("sh");
        self.prepare(&mut guard);
        guard
            .arg("-c")
            .arg(GUARD)
            .arg(kubo())
            .arg(self.flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        guard.stderr(Stdio::null());
        // The output of an earlier daemon.
        let log = self.repository.join("daemon.log");
        drop(std::fs::remove_file(&log));
        let mut guard = guard.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.pid = line.trim().parse().unwrap();
        self.guard = Some(guard);
        let since = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("Daemon is ready") {
                break;
            }
            let lives = Path::new(&format!("/proc/{}", self.pid)).exists();
            assert!(lives && since.elapsed() < READY_MAX, "Kubo does not start:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.address =
            std::fs::read_to_string(self.repository.join("api")).unwrap().trim().to_owned();
    }

    /// Stops the daemon, and keeps its repository for a later start on the same port.
    pub fn stop(&mut self) {
        stdout_of(self.command().args([
            "config",
            "--json",
            "Addresses.API",
            &format!("{:?}", self.address),
        ]));
        let mut guard = self.guard.take().unwrap();
        // The guard must not remove the repository.
        Command::new("kill").arg(self.pid.to_string()).status().unwrap();
        self.gone();
        guard.kill().unwrap();
        guard.wait().unwrap();
    }

    fn gone(&self) {
        let since = Instant::now();
        // A zombie until its guard reaps it.
        let state =
            || std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        while !matches!(state().rsplit(") ").next(),
            Some(rest) if rest.is_empty() || rest.starts_with('Z'))
        {
            assert!(since.elapsed() < READY_MAX, "Kubo does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the port of the RPC.
    pub fn port(&self) -> u16 {
        self.address.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// Returns the URL of the RPC.
    pub fn endpoint(&self) -> String {
        endpoint(self.port())
    }

    /// Returns the output of Kubo's own client.
    pub fn ipfs(&self, arguments: &str) -> String {
        stdout_of(self.command().args(["--api", &self.address]).args(arguments.split_whitespace()))
            .trim()
            .to_owned()
    }

    /// Returns whether Kubo's own client lists a pin of a CID.
    pub fn has_pin(&self, cid: &str) -> bool {
        self.ipfs("pin ls --type=recursive --quiet").lines().any(|line| line == cid)
    }
}

impl Drop for Kubo {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().unwrap();
        } else {
            std::fs::remove_dir_all(&self.repository).unwrap();
        }
    }
}

/// Returns the URL of an RPC on this machine.
pub fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}/api/v0")
}
