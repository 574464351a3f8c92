//! `archive`: what is done with completed operations of days that are over.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{backend, duration};
use crate::operation::BackendName;

/// `archive`
#[derive(Debug, Subcommand)]
pub enum Archive {
    /// Push archives of past days, histories included, so that many logs make one table
    Push(ArchivePush),
    /// List the archives, and whether they are pushed
    List,
}

const PUSH_HELP: &str = "\
Each archive becomes an upload to DEST/host=HOST/date=YYYY-MM-DD/, logged like any other
operation: `process` carries it out, a failed one waits for `retry`. What is pushed already,
or on its way, is not logged again. docs/fleet.md has queries for what comes of it.

With the setting archive_push, `cleanup` and `process` push by themselves, and keep archives
until they are pushed.

Examples:
  wal-cli archive push s3://history/wal --dry-run
  wal-cli archive push s3://history/wal --host web1 --wait
  wal-cli archive push /history --backend local
  wal-cli config set archive_push s3://history/wal";

/// `archive push`
#[derive(Debug, Args)]
#[command(after_help = PUSH_HELP)]
pub struct ArchivePush {
    /// Where to: s3://BUCKET/PREFIX, or what else the backend uploads to [default: the setting archive_push]
    #[arg(value_name = "DEST")]
    pub destination: Option<String>,
    /// Backend that carries it out [default: the setting archive_backend, or the one for S3]
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// Name of this machine in the history [default: the setting archive_host, or its host name]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Carry it out now, or wait until a running `process` has
    #[arg(long, short, conflicts_with = "dry_run")]
    pub wait: bool,
    /// Give up waiting after this long (the operations stay logged)
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Only say what would be pushed, by what is in archives now
    #[arg(long)]
    pub dry_run: bool,
}
