//! The programs that tests use beside our own; `tests/run` sets them up.

use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// The Python that has pyarrow, duckdb and polars.
///
/// A test that needs it fails without it: one that skipped itself would pass and prove nothing.
pub fn python() -> Command {
    match std::env::var_os("WAL_CLI_TEST_PYTHON") {
        Some(python) => Command::new(python),
        None => panic!(
            "WAL_CLI_TEST_PYTHON is not set: run the tests with `tests/run`, which sets this up"
        ),
    }
}

/// Where Kubo's program is.
///
/// A test that needs it fails without it, as above.
pub fn kubo() -> std::path::PathBuf {
    match std::env::var_os("WAL_CLI_TEST_KUBO") {
        Some(kubo) => kubo.into(),
        None => panic!(
            "WAL_CLI_TEST_KUBO is not set: run the tests with `tests/run`, which sets this up"
        ),
    }
}

/// Where SeaweedFS's program is: beside the Python that it comes with.
pub fn weed() -> std::path::PathBuf {
    std::path::Path::new(python().get_program()).with_file_name("weed")
}

/// Everything that a command wrote to stdout; fails with its stderr if the command failed.
pub fn stdout_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(output.stderr));
    text(output.stdout)
}

#[test]
fn the_other_readers_of_parquet_are_those_we_name() {
    let script = "import pyarrow, duckdb, polars\nfor m in (pyarrow, duckdb, polars): print(f'{m.__name__}=={m.__version__}')";
    let installed = stdout_of(python().args(["-c", script]));
    let wanted = include_str!("../requirements.txt");
    for line in installed.lines() {
        assert!(wanted.lines().any(|wanted| wanted == line), "{line} is installed");
    }
    assert_eq!(installed.lines().count(), 3, "{installed}");
}

/// How a process ends, and the most memory that it had, in KiB.
#[expect(clippy::disallowed_methods, reason = "it looks at another process, in real time")]
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
