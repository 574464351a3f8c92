//! Compares one durable `add`, as a process, with the least that such a process can cost.
//!
//! The minimum is a program without any library that appends 300 bytes to a file in the same
//! directory and flushes it: this program, called with `append`. Both are started alternately, in
//! blocks, and their times are reported as a ratio.
//!
//! Run it with `cargo build --release --bins --examples`, then
//! `cargo run --release --example add_beside_floor -- [DIRECTORY]`.
#![allow(clippy::disallowed_methods, reason = "it measures with the machine's own clock and files")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BLOCKS: usize = 9;
const PAIRS: usize = 40;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("append"), Some(file)) => append(Path::new(&file)),
        (directory, _) => compare(Path::new(directory.unwrap_or("."))),
    }
}

fn append(file: &Path) -> Outcome<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(&[b'x'; 300])?;
    file.sync_data()?;
    Ok(())
}

/// Returns the seconds that a command takes from start to end.
fn time(command: &mut Command) -> Outcome<f64> {
    let start = Instant::now();
    let status =
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).status()?;
    let taken = start.elapsed().as_secs_f64();
    if status.success() {
        Ok(taken)
    } else {
        Err(format!("{command:?} ended with {status}").into())
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn compare(directory: &Path) -> Outcome<()> {
    let myself = std::env::current_exe()?;
    let target =
        myself.parent().and_then(Path::parent).ok_or("this program lies in no target directory")?;
    let program = target.join("wal-cli");
    let place = directory.join(format!("add-beside-floor-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let (log, file) = (place.join("wal"), place.join("floor"));
    let mut ours = Command::new(&program);
    ours.args(["add", "--spool", "never", "--backend", "mock", "--base-path"])
        .arg(&log)
        .arg(&program);
    let mut floor = Command::new(&myself);
    floor.arg("append").arg(&file);
    // The first `add` creates the log, which is not measured.
    time(&mut ours)?;
    time(&mut floor)?;
    let mut ratios = Vec::new();
    println!("block  ours ms  floor ms  ratio   ({PAIRS} pairs each, medians)");
    for block in 1..=BLOCKS {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            a.push(time(&mut ours)? * 1e3);
            b.push(time(&mut floor)? * 1e3);
        }
        let (a, b) = (median(&mut a), median(&mut b));
        println!("{block:>5}  {a:>7.2}  {b:>8.2}  {:>5.2}", a / b);
        ratios.push(a / b);
    }
    let all = median(&mut ratios);
    println!("ratio: median {all:.2}, from {:.2} to {:.2}", ratios[0], ratios[BLOCKS - 1]);
    std::fs::remove_dir_all(&place)?;
    Ok(())
}
