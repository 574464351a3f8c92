//! What looks at the log, and at the disk under it, from outside.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{Since, backend, since};
use crate::operation::BackendName;

/// `bench`
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// What this disk can do: write and fdatasync, alone and in groups
    Floor {
        /// Directory on the disk to be measured; the present one unless given
        dir: Option<PathBuf>,
    },
    /// Appends to a log beside the same disk, in alternating blocks
    Append {
        /// Directory on the disk to be measured; the present one unless given
        dir: Option<PathBuf>,
        /// How many threads append at the same time; several numbers are measured one after the other
        #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
        threads: Vec<usize>,
        /// Blocks, each with a sample of the log and of the disk
        #[arg(long, default_value_t = 5)]
        blocks: usize,
    },
    /// Large batches beside the same bytes written to the same disk, in alternating blocks
    Batch {
        /// Directory on the disk to be measured; the present one unless given
        dir: Option<PathBuf>,
        /// Operations of one batch
        #[arg(long, default_value = "100000")]
        operations: NonZeroUsize,
        /// Blocks, each with a batch and the disk's time for its bytes
        #[arg(long, default_value_t = 5)]
        blocks: usize,
    },
    /// Checking a log beside a plain decode of its files, in alternating blocks
    Verify {
        /// Directory on the disk to be measured; the present one unless given
        dir: Option<PathBuf>,
        /// Operations of the log
        #[arg(long, default_value = "1000000")]
        operations: NonZeroUsize,
        /// Blocks, each with one sample of both
        #[arg(long, default_value_t = 5)]
        blocks: usize,
    },
}

const VERIFY_HELP: &str = "\
Without flags nothing is changed and nobody is kept waiting: it works beside writers,
and on a read-only file system. --repair needs the log for itself for a moment, and
sets damaged files aside in quarantine/. --durability kills processes, but no machine:
whether the disk keeps its promises when the power goes cannot be tried out.
--remote asks each backend whether what was completed is still there, and the same;
what later operations replaced or removed is passed over. --reopen logs anew, with the
same parameters, what is gone or altered; `wal-cli process` then carries that out, and
writes over what was altered.

Examples:
  wal-cli verify
  wal-cli verify --json | jq '.findings[] | select(.kind == \"damage\")'
  wal-cli verify --repair
  wal-cli verify --durability /mnt/data     # safe to keep a log there?
  wal-cli verify --remote                   # is it all still there?
  wal-cli verify --remote --since 7d --backend s3 --reopen";

/// `verify`
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub struct Verify {
    /// Save every record that can be read, and say what is lost
    #[arg(long)]
    pub repair: bool,
    /// Ask the backends instead whether what was completed is still there, and the same
    #[arg(long, conflicts_with_all = ["repair", "durability"])]
    pub remote: bool,
    /// With --remote: what was completed since then: 2h, 3d, 2026-01-31
    #[arg(long, value_name = "TIME", requires = "remote", value_parser = since)]
    pub since: Option<Since>,
    /// With --remote: of this backend
    #[arg(long, short, value_name = "NAME", requires = "remote", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// With --remote: log once more what is gone or altered
    #[arg(long, requires = "remote")]
    pub reopen: bool,
    /// Try out the disk instead, below this directory [default: that of the log]
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with = "repair", value_hint = ValueHint::DirPath)]
    pub durability: Option<Option<PathBuf>>,
    /// With --durability: how often a process is killed at its work
    #[arg(long, value_name = "N", default_value_t = 5, requires = "durability", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

/// What `verify --durability` starts.
#[derive(Debug, Args)]
pub struct Second {
    /// What it is to do
    pub task: Task,
    /// To which file or log
    pub path: PathBuf,
}

/// What another process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Try to take a lock.
    Lock,
    /// Append to a log until it is killed.
    Append,
    /// List the ids of a log.
    List,
}
