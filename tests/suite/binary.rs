//! The real program, run as a user would run it.
#![expect(clippy::disallowed_methods, reason = "reads files as another program would")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A temporary directory with a home, a log and files, removed when this is dropped.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Returns a new one.
    pub fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    /// Returns one in memory, if possible: for tests that only kill, and need no durable disk.
    pub fn in_memory() -> Place {
        let memory = Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Place { directory: directory.unwrap() }
    }

    /// Returns a copy in memory that keeps times and hard links.
    pub fn copy(&self) -> Place {
        let copy = Place::in_memory();
        let from = self.directory.path().join(".");
        assert!(
            Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(copy.directory.path())
                .status()
                .unwrap()
                .success()
        );
        copy
    }

    /// Returns a path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the path of the log.
    pub fn log(&self) -> PathBuf {
        self.path("wal")
    }

    /// Writes a file in the directory, and returns its path.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes the settings file.
    pub fn settings(&self, text: &str) -> PathBuf {
        std::fs::create_dir_all(self.path("config/ipfs-kit")).unwrap();
        self.file("config/ipfs-kit/wal.toml", text)
    }

    /// Returns the program with these arguments, separated by spaces.
    pub fn command(&self, arguments: &str) -> Command {
        self.prepare(Command::new(env!("CARGO_BIN_EXE_wal-cli")), arguments)
    }

    /// Returns the program run by another one, such as strace.
    pub fn command_under(&self, mut outer: Command, arguments: &str) -> Command {
        outer.arg(env!("CARGO_BIN_EXE_wal-cli"));
        self.prepare(outer, arguments)
    }

    fn prepare(&self, mut command: Command, arguments: &str) -> Command {
        for (name, _) in std::env::vars() {
            if name.starts_with("IPFS_KIT_WAL_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("IPFS_KIT_WAL_PATH", self.log())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program and returns its stdout; fails unless it ends with 0.
    pub fn run(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{arguments}: {}\n{}",
            output.status,
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs the program, and returns its output.
    pub fn output(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program and returns its JSON document; fails unless it ends with 0 and the
    /// document is valid.
    pub fn json(&self, arguments: &str) -> serde_json::Value {
        let document = serde_json::from_str(&self.run(&format!("--json {arguments}"))).unwrap();
        super::contract::check(arguments, &document);
        document
    }

    /// Starts the program without output.
    pub fn start(&self, arguments: &str) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

/// Returns the names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
