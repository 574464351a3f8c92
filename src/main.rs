//! The executable: hands the arguments over and returns the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    wal_cli::run(std::env::args_os())
}
