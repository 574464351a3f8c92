//! `add`: logs files and directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use crate::cli::args::LoggingArgs;
use crate::cli::command::Command;
use crate::cli::context::Session;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::signals::Interrupts;
use crate::cli::{inputs, logged};

const EXAMPLES: &str = "\
Examples:
  wal-cli add photo.jpg
  wal-cli add --backend local --wait README.md
  find . -name '*.jpg' -print0 | wal-cli add -0 --from-file -";

/// Log files and directories to be added: all of them, or none
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Add {
    /// Files and directories
    #[arg(required_unless_present = "from_file", value_hint = ValueHint::AnyPath)]
    path: Vec<PathBuf>,
    /// Add directories with everything in them
    #[arg(long, short)]
    recursive: bool,
    /// Read paths from a file, one per line (`-`: from stdin)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    from_file: Option<PathBuf>,
    /// Paths in that file end with NUL instead of a newline
    #[arg(short = '0', long = "null", requires = "from_file")]
    null: bool,
    #[command(flatten)]
    logging: LoggingArgs,
}

/// More paths than this take long enough to be interrupted.
const INTERRUPTIBLE_FROM: usize = 1000;

impl Command for Add {
    const NAME: &'static str = "add";

    fn run(self, session: &mut Session) -> Result<Exit, CliError> {
        let context = &mut session.open(Self::NAME)?;
        let mut options = logged::options(&self.logging)?;
        if self.recursive {
            options.parameters.insert("recursive".into(), "true".into());
        }
        let is_short = self.from_file.is_none() && self.path.len() <= INTERRUPTIBLE_FROM;
        let interrupts = if is_short { Interrupts::disabled() } else { Interrupts::install()? };
        let mut batch = context.client.batch(&options, self.logging.on_invalid())?;
        for path in &self.path {
            logged::fail_if_interrupted(&interrupts)?;
            batch.add(path, None)?;
        }
        if let Some(file) = &self.from_file {
            inputs::for_each_line(file, self.null, &interrupts.stop, |line| {
                let added = match line.text {
                    Ok(path) => batch.add(Path::new(OsStr::from_bytes(&path)), Some(line.number)),
                    Err(bad) => batch.reject(bad),
                };
                Ok(added?)
            })?;
        }
        let receipts = logged::commit(batch, &interrupts)?;
        if receipts.total == 0 {
            context.output.note("nothing was logged: no paths were given");
        }
        logged::finish(context, &receipts, &self.logging, &interrupts)
    }
}
