//! The programs that tests use beside our own; `tests/run` sets them up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// What a test needs beyond a Linux system with Rust and a C compiler.
///
/// A test that lacks it fails: one that skipped itself would pass and prove nothing. Tests with a
/// need are listed in `tests/needs.txt`, by which `tests/run --quick` leaves them out.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A Kubo node.
    Kubo,
    /// Python with the packages of `tests/requirements.txt`, SeaweedFS among them.
    Python,
    /// The right to mount file systems.
    Root,
    /// The right to trace system calls, and strace.
    Strace,
}

const NEEDS: &str = include_str!("../needs.txt");

/// Returns the names of needs with the tests or modules that have them.
fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    NEEDS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let (need, filter) = line.split_once(' ').unwrap_or_else(|| panic!("needs.txt: {line}"));
        (need, filter.trim())
    })
}

impl Need {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Fails unless the current test is listed with this need.
    ///
    /// The test harness names a test's thread after the test; other threads are not checked.
    pub fn check(self) {
        let thread = std::thread::current();
        let Some(test) = thread.name().filter(|name| name.starts_with("suite::")) else { return };
        let name = self.name();
        assert!(
            listed().any(|(need, filter)| need == name && test.starts_with(filter)),
            "list {test} in tests/needs.txt: it needs `{name}`"
        );
    }
}

/// Returns a command for the Python that has the packages of `tests/requirements.txt`.
pub fn python() -> Command {
    Need::Python.check();
    Command::new(tool("WAL_CLI_TEST_PYTHON"))
}

/// Returns the path of Kubo's program.
pub fn kubo() -> PathBuf {
    Need::Kubo.check();
    tool("WAL_CLI_TEST_KUBO")
}

/// Returns the path of SeaweedFS's program, which is installed beside Python.
pub fn weed() -> PathBuf {
    Path::new(python().get_program()).with_file_name("weed")
}

/// Returns a command for strace.
pub fn strace() -> Command {
    Need::Strace.check();
    Command::new("strace")
}

fn tool(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!(
            "{variable} is not set: run this test with `tests/run`, which sets it up, \
             or leave it out with `tests/run --quick`"
        ),
    }
}

#[expect(clippy::disallowed_methods, reason = "reads sources, not data of a log")]
#[test]
fn every_test_with_a_need_exists() {
    let mut needs = BTreeSet::new();
    for (need, filter) in listed() {
        needs.insert(need);
        let (module, test) = filter.rsplit_once("::").unwrap();
        let file = format!("tests/{}.rs", module.replace("::", "/"));
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file))
            .unwrap_or_else(|error| panic!("{filter}: {file}: {error}"));
        let found = test.is_empty() || text.contains(&format!("#[test]\nfn {test}()"));
        assert!(found, "{file} has no test {test}");
    }
    let all = [Need::Kubo, Need::Python, Need::Root, Need::Strace].map(Need::name);
    assert!(needs.iter().eq(all.iter()), "{needs:?}");
}

/// Returns the stdout of a command; fails with its stderr if the command failed.
pub fn stdout_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(output.stderr));
    text(output.stdout)
}

#[test]
fn the_installed_parquet_readers_are_the_pinned_ones() {
    let script = "import pyarrow, duckdb, polars\n\
        for m in (pyarrow, duckdb, polars): print(f'{m.__name__}=={m.__version__}')";
    let installed = stdout_of(python().args(["-c", script]));
    let wanted = include_str!("../requirements.txt");
    for line in installed.lines() {
        assert!(wanted.lines().any(|wanted| wanted == line), "{line} is installed");
    }
    assert_eq!(installed.lines().count(), 3, "{installed}");
}

/// Waits for a process. Returns its exit status and its peak memory in KiB.
#[expect(clippy::disallowed_methods, reason = "watches another process, in real time")]
pub fn peak_of(mut child: Child) -> (ExitStatus, u64) {
    let (status, mut peak) = (format!("/proc/{}/status", child.id()), 0);
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
            .max(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    (child.wait().unwrap(), peak)
}
