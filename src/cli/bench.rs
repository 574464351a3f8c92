//! `bench`: what this disk can do, and what the log makes of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::Exit;
use super::args::Bench;
use super::context::Context;
use super::error::CliError;
use crate::bench;
use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, OsDisk};
use crate::report::{
    Append, BatchDoc, BenchVerifyDoc, Document, Floor, write_append, write_batch,
    write_bench_verify, write_floor,
};

/// Runs the command.
pub fn run(context: &mut Context<'_>, command: &Bench) -> Result<Exit, CliError> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    match command {
        Bench::Floor { dir } => {
            let rows = bench::floor(&*disk, &*clock, &directory(dir.as_ref()))?;
            let terminal = &mut *context.terminal;
            if terminal.json {
                terminal.document(&Document::done(Floor::new(&rows)))?;
            } else {
                terminal.text(&write_floor(&rows, &terminal.style))?;
            }
        }
        Bench::Append { dir, threads, blocks } => {
            let directory = directory(dir.as_ref());
            let mut rows = Vec::with_capacity(threads.len());
            for threads in threads {
                rows.push(bench::append(
                    &disk,
                    &clock,
                    &directory,
                    (*threads).max(1),
                    (*blocks).max(1),
                )?);
            }
            let terminal = &mut *context.terminal;
            if terminal.json {
                terminal.document(&Document::done(Append::new(&rows)))?;
            } else {
                terminal.text(&write_append(&rows, &terminal.style))?;
            }
        }
        Bench::Batch { dir, operations, blocks } => {
            let row = bench::batch(
                &disk,
                &clock,
                &directory(dir.as_ref()),
                operations.get(),
                (*blocks).max(1),
            )?;
            let terminal = &mut *context.terminal;
            if terminal.json {
                terminal.document(&Document::done(BatchDoc::new(&row)))?;
            } else {
                terminal.text(&write_batch(&row, &terminal.style))?;
            }
        }
        Bench::Verify { dir, operations, blocks } => {
            let row = bench::verify(
                &disk,
                &clock,
                &directory(dir.as_ref()),
                operations.get(),
                (*blocks).max(1),
            )?;
            let terminal = &mut *context.terminal;
            if terminal.json {
                terminal.document(&Document::done(BenchVerifyDoc::new(&row)))?;
            } else {
                terminal.text(&write_bench_verify(&row, &terminal.style))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// The directory that was named, or the present one.
fn directory(named: Option<&PathBuf>) -> PathBuf {
    named.cloned().unwrap_or_else(|| PathBuf::from("."))
}
