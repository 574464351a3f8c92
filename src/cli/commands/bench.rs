//! `bench`: measures the disk, and the log on it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use crate::bench;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, OsDisk};
use crate::report::{
    Append, BatchDoc, BenchVerifyDoc, Floor, write_append, write_batch, write_bench_verify,
    write_floor,
};

/// Measure this disk, and the log on it
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Measure the disk alone: write and fdatasync, one record at a time and in groups
    Floor {
        /// Directory on the disk to measure
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Measure appends to a log against plain writes to the same disk, in alternating blocks
    Append {
        /// Directory on the disk to measure
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Threads that append at the same time; several numbers are measured one after the other
        #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
        threads: Vec<usize>,
        /// Blocks; each has one sample of the log and one of the disk
        #[arg(long, default_value_t = 5)]
        blocks: usize,
    },
    /// Measure large batches beside plain writes of the same bytes, in alternating blocks
    Batch {
        /// Directory on the disk to measure
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Operations per batch
        #[arg(long, default_value = "100000")]
        operations: NonZeroUsize,
        /// Blocks; each has one batch and one plain write
        #[arg(long, default_value_t = 5)]
        blocks: usize,
    },
    /// Measure `verify` beside a plain decode of the same files, in alternating blocks
    Verify {
        /// Directory on the disk to measure
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Operations in the log
        #[arg(long, default_value = "1000000")]
        operations: NonZeroUsize,
        /// Blocks; each has one sample of both
        #[arg(long, default_value_t = 5)]
        blocks: usize,
    },
}

impl Command for Bench {
    const NAME: &'static str = "bench";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let output = &mut *context.output;
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        match self.command {
            BenchCommand::Floor { dir } => {
                let rows = bench::floor(&*disk, &*clock, &dir)?;
                let text = write_floor(&rows, &output.style);
                output.outcome(|| Floor::new(&rows), None, |output| output.text(&text))
            }
            BenchCommand::Append { dir, threads, blocks } => {
                let mut rows = Vec::with_capacity(threads.len());
                for threads in threads {
                    rows.push(bench::append(&disk, &clock, &dir, threads.max(1), blocks.max(1))?);
                }
                let text = write_append(&rows, &output.style);
                output.outcome(|| Append::new(&rows), None, |output| output.text(&text))
            }
            BenchCommand::Batch { dir, operations, blocks } => {
                let row = bench::batch(&disk, &clock, &dir, operations.get(), blocks.max(1))?;
                let text = write_batch(&row, &output.style);
                output.outcome(|| BatchDoc::new(&row), None, |output| output.text(&text))
            }
            BenchCommand::Verify { dir, operations, blocks } => {
                let row = bench::verify(&disk, &clock, &dir, operations.get(), blocks.max(1))?;
                let text = write_bench_verify(&row, &output.style);
                output.outcome(|| BenchVerifyDoc::new(&row), None, |output| output.text(&text))
            }
        }
    }
}
