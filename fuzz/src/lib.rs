//! The fuzz targets. What they do with their bytes is tests/fuzzing, which plain tests run on the corpora.

use std::panic::{catch_unwind, set_hook};
use std::process::abort;
use std::sync::{Mutex, PoisonError};

#[path = "../../tests/fuzzing/mod.rs"]
pub mod fuzzing;

/// What the last panic said.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// The hook of libFuzzer aborts at every panic. Ours does not: the log catches those of the Parquet reader, and only
/// what it does not catch is a finding.
pub fn init() {
    set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::force_capture();
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{panic}\n{trace}");
    }));
}

/// Runs a target; a panic that comes up to here ends the process.
pub fn run(target: fn(&[u8]), data: &[u8]) {
    if catch_unwind(|| target(data)).is_err() {
        eprintln!("{}", PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        abort();
    }
}
