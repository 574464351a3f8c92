//! What was typed, checked as far as that is possible without looking at anything else.

mod archive;
mod tools;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use archive::{Archive, ArchivePush};
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
pub use tools::{Bench, Second, Task, Verify};

use super::Program;
use super::condition::Condition;
use super::exit::TABLE;
use crate::client::DELAY_MAX;
use crate::config::{SpoolMode, parse_seconds};
use crate::operation::{BackendName, OperationType, Status, Time};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "wal-cli",
    version,
    about = "A durable outbox for storage operations: written down before they happen, carried out when the backend \
             is there",
    after_help = TABLE,
    styles = STYLES,
    disable_help_subcommand = true,
    max_term_width = 100,
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// What every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Folder of the log
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub base_path: Option<PathBuf>,
    /// Settings file to read instead of the usual one
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Trace on stderr what happens; IPFS_KIT_WAL_LOG takes filters
    #[arg(long, global = true)]
    pub debug: bool,
    /// No progress, notes or warnings on stderr
    #[arg(long, global = true)]
    pub quiet: bool,
    /// When to use colours: auto (minds NO_COLOR and pipes), always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub color: ColorWhen,
    /// How long to wait for a lock of the log: seconds, or 250ms, 10s, 2min
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub lock_timeout: Option<Duration>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log files and directories to be added, all of them or none
    Add(Add),
    /// Log an operation of any type: pin, get, upload, rm, …
    Submit(Submit),
    /// Show counts, what runs, health and room on the disk
    Status(StatusArgs),
    /// List operations, the newest first
    List(List),
    /// Show everything about operations
    Show(Show),
    /// Wait until operations have ended
    Wait(Wait),
    /// Say why an operation isn't done, and what would change that
    Why(Why),
    /// Show what went wrong, by cause and backend
    Failures(Failures),
    /// Put failed operations back to pending, or send them to another backend
    Retry(Retry),
    /// Give up operations: what waits fails, what runs is asked to stop
    Cancel(Cancel),
    /// Set operations aside until they are released
    Hold(Ids),
    /// Let held operations go on
    Release(Ids),
    /// Forget operations, with their histories
    Delete(Ids),
    /// Change the place of operations in the order
    Prioritize(Prioritize),
    /// Carry out what is due
    Process(Process),
    /// Push the archives of past days, and list them
    #[command(subcommand)]
    Archive(Archive),
    /// Drop completed operations that are old enough
    Cleanup(Cleanup),
    /// Fold the journal into Parquet files now
    Checkpoint,
    /// Check every byte of the log, repair it, check its disk, or ask the backends
    Verify(Verify),
    /// What `verify --durability` starts
    #[command(hide = true)]
    SecondProcess(Second),
    /// Probe the backends now
    Health(Health),
    /// Measure this disk, and the log beside it
    #[command(subcommand)]
    Bench(Bench),
    /// Show, change and check the settings
    #[command(subcommand)]
    Config(Config),
    /// Print the JSON Schema of what a command prints with --json
    Schema(SchemaArgs),
    /// Print a script that completes commands in a shell
    Completions(Completions),
}

const ADD_EXAMPLES: &str = "\
Examples:
  wal-cli add photo.jpg
  wal-cli add --backend local --wait README.md
  find . -name '*.jpg' -print0 | wal-cli add -0 --from-file -";

/// `add`
#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub struct Add {
    /// Files and directories
    #[arg(required_unless_present = "from_file", value_hint = ValueHint::AnyPath)]
    pub path: Vec<PathBuf>,
    /// Directories, too, with all that is in them
    #[arg(long, short)]
    pub recursive: bool,
    /// Read paths from a file, one per line (`-`: from stdin)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from_file: Option<PathBuf>,
    /// The paths in that file end with NUL instead of a newline
    #[arg(short = '0', long = "null", requires = "from_file")]
    pub null: bool,
    /// What goes with any logged operation.
    #[command(flatten)]
    pub logging: Logging,
}

/// Whether content is copied when its operation is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Spool {
    /// Copy it where that costs little.
    Auto,
    /// Copy it whatever it costs.
    Always,
    /// Read the file when it is sent.
    Never,
}

impl From<Spool> for SpoolMode {
    fn from(spool: Spool) -> SpoolMode {
        match spool {
            Spool::Auto => SpoolMode::Auto,
            Spool::Always => SpoolMode::Always,
            Spool::Never => SpoolMode::Never,
        }
    }
}

/// What goes with any logged operation.
#[derive(Debug, Args)]
pub struct Logging {
    /// Backend that carries it out [default: the setting default_backend]
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// Carry it out now, or wait until a running `process` has
    #[arg(long, short)]
    pub wait: bool,
    /// Give up waiting after this long (the operation stays logged)
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Higher goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// Retries after a first failure [default: the setting max_retries]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub max_retries: Option<u32>,
    /// Only once this operation is completed; may be given several times
    #[arg(long, value_name = "ID")]
    pub after: Vec<String>,
    /// Not before this much time has passed: 90s, 10min, 2h
    #[arg(long, value_name = "TIME", value_parser = delay)]
    pub delay: Option<Duration>,
    /// Idempotency key: logging the same key again logs nothing, and names the first operation
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Copy files now: auto, always, never [default: the setting spool]
    #[arg(long, value_name = "MODE", hide_possible_values = true)]
    pub spool: Option<Spool>,
    /// Log what can be used although some inputs cannot; those are listed, and the exit code is 1
    #[arg(long)]
    pub keep_going: bool,
    /// A further parameter for the backend
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
}

const SUBMIT_HELP: &str = r#"Types and their arguments:
  add PATH                      upload FILE NAME
  get | cat | download SRC DEST (SRC: a CID, with a path perhaps, or a name)
  pin CID                       unpin CID
  rm CID|NAME [--recursive]     list [CID|NAME] [DEST]
  mkdir NAME                    copy | move NAME NAME

Names lie in a backend's tree of files and start with `/`. On s3 they are keys of the
configured bucket, or s3://BUCKET/KEY; one that ends with `/` is a folder.

Parameters, as --param KEY=VALUE or in a line's `parameters`:
  add, upload on local, ipfs    cid_version, raw_leaves, chunk_size, max_links, profile
  add on ipfs                   pin=false, pin_name, to_files=NAME; pin: pin_name
  add, upload on s3             content_type, storage_class, metadata.NAME, if_none_match=*

With --from-file, each line is an object: operation_type, and if need be backend,
parameters (texts), priority, max_retries, after (a list), delay, idempotency_key.
What a line does not say, the flags do.

Examples:
  wal-cli submit pin CID --backend local
  wal-cli submit upload photo.jpg /pictures/photo.jpg --backend local --wait
  wal-cli submit upload photo.jpg s3://BUCKET/2026/ --backend s3 --param content_type=image/jpeg
  wal-cli submit get CID out.jpg
  echo '{"operation_type":"pin","parameters":{"cid":"CID"}}' | wal-cli submit --from-file -"#;

/// `submit`
#[derive(Debug, Args)]
#[command(after_help = SUBMIT_HELP)]
pub struct Submit {
    /// What is to be done
    #[arg(value_name = "TYPE", value_parser = operation_type, required_unless_present = "from_file")]
    pub operation_type: Option<OperationType>,
    /// What to do it with; see below
    #[arg(value_hint = ValueHint::AnyPath)]
    pub arg: Vec<OsString>,
    /// Read operations from a file (`-`: stdin), each a line of JSON; all of them are logged, or none
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["operation_type", "recursive"])]
    pub from_file: Option<PathBuf>,
    /// Directories with everything in them
    #[arg(long, short)]
    pub recursive: bool,
    /// What goes with any logged operation.
    #[command(flatten)]
    pub logging: Logging,
}

const STATUS_EXAMPLES: &str = "\
Conditions compare pending, processing, completed, failed, retrying, total, archived,
oldest_pending (its age), free_bytes, journal_bytes or offline (backends in use that were
away when they were last checked) with > >= < <= = != and a value.

Examples:
  wal-cli status
  wal-cli status --quiet --fail-if 'failed>0,oldest_pending>1h' || alert";

/// `status`
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusArgs {
    /// Exit with 1 if this holds, such as `failed>0`; several, with commas: if any does
    #[arg(long, value_name = "CONDITION", value_parser = Condition::parse_all)]
    pub fail_if: Option<std::vec::Vec<Condition>>,
}

const LIST_EXAMPLES: &str = "\
Examples:
  wal-cli list failed
  wal-cli list all --since 2h --limit 0
  wal-cli list pending -q | wal-cli wait -";

/// `list`
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub struct List {
    /// Only operations of this status [default: all]
    #[arg(value_name = "STATUS", value_parser = status_words(), conflicts_with = "status_flag")]
    pub status: Option<String>,
    /// The same as a flag
    #[arg(long = "status", value_name = "STATUS", value_parser = status_words())]
    pub status_flag: Option<String>,
    /// Only operations of this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// Only operations of this type
    #[arg(long = "type", short = 't', value_name = "TYPE", value_parser = operation_type)]
    pub operation_type: Option<OperationType>,
    /// Logged since then: 2h, 3d, 2026-01-31, or RFC 3339 (UTC where no zone is given)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// Logged before then
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub until: Option<Since>,
    /// Only operations with this type of error
    #[arg(long, value_name = "TYPE")]
    pub error_type: Option<String>,
    /// Only operations with this cause of failure, as `failures` names it, or by its beginning
    #[arg(long, value_name = "CAUSE", value_parser = cause)]
    pub cause: Option<String>,
    /// Only operations that are set aside
    #[arg(long)]
    pub held: bool,
    /// Only the operation with this idempotency key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only operations that wait for this one
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// At most this many; 0: all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    pub limit: usize,
    /// Go on where an earlier list ended (its `next_cursor`)
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<u64>,
    /// Only ids, one per line
    #[arg(short = 'q', long = "ids")]
    pub ids: bool,
}

impl List {
    /// The status asked for; none: all.
    pub fn status(&self) -> Option<Status> {
        self.status.as_deref().or(self.status_flag.as_deref()).and_then(Status::parse)
    }
}

const ID_HELP: &str =
    "Number, full id, `@last` (yours), `@failed` (all of them), or `-` for ids on stdin";

/// `show`
#[derive(Debug, Args)]
pub struct Show {
    #[arg(value_name = "ID", required = true, help = ID_HELP)]
    /// Which operations.
    pub id: Vec<String>,
    /// With every transition (JSON always has them)
    #[arg(long)]
    pub history: bool,
}

/// `wait`
#[derive(Debug, Args)]
pub struct Wait {
    #[arg(value_name = "ID", required = true, help = ID_HELP)]
    /// Which operations.
    pub id: Vec<String>,
    /// Give up after this long: seconds, or 250ms, 10s, 2min
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = duration)]
    pub timeout: Duration,
}

const RETRY_HELP: &str = "\
With operations named, --backend sends them to another backend, as new operations;
without, it selects the operations of that backend. What was cancelled, given up or
redirected comes back only when it is named.

Examples:
  wal-cli retry 17
  wal-cli retry --failed
  wal-cli retry --cause 3f2a91c0           # as `failures` shows it
  wal-cli retry 17 --backend local         # go on elsewhere
  wal-cli retry --backend ipfs --now       # end the waits, keep the counters
  wal-cli list failed --since 2h -q | wal-cli retry -";

/// `retry`
#[derive(Debug, Args)]
#[command(after_help = RETRY_HELP)]
pub struct Retry {
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["failed", "cause", "backend", "error_type", "since", "now"],
        help = ID_HELP
    )]
    /// Which operations.
    pub id: Vec<String>,
    /// All failed operations, and no retrying ones
    #[arg(long, conflicts_with = "id")]
    pub failed: bool,
    /// Those that failed for this cause, as `failures` names it, or by its beginning
    #[arg(long, value_name = "CAUSE", value_parser = cause, conflicts_with = "id")]
    pub cause: Option<String>,
    /// Those of this backend; with operations named: the backend they go to
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// Those with this type of error
    #[arg(long, value_name = "TYPE", conflicts_with = "id")]
    pub error_type: Option<String>,
    /// Those logged since then: 2h, 3d, 2026-01-31
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "id")]
    pub since: Option<Since>,
    /// Only end the wait of retrying operations: their counters stay
    #[arg(long, conflicts_with = "failed")]
    pub now: bool,
}

/// `cancel`
#[derive(Debug, Args)]
#[command(after_help = "\
What waits has failed from then on; what runs is asked to stop, and the backend decides
whether it stopped in time.

Examples:
  wal-cli cancel 17
  wal-cli list pending --backend ipfs -q --limit 0 | wal-cli cancel -")]
pub struct Cancel {
    #[arg(value_name = "ID", required = true, help = ID_HELP)]
    /// Which operations.
    pub id: Vec<String>,
    /// Mark them as permanently failed, also those that have failed already
    #[arg(long)]
    pub permanent: bool,
}

/// Commands that take operations and nothing else.
#[derive(Debug, Args)]
pub struct Ids {
    #[arg(value_name = "ID", required = true, help = ID_HELP)]
    /// Which operations.
    pub id: Vec<String>,
}

/// `prioritize`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wal-cli prioritize 17 --priority 10")]
pub struct Prioritize {
    #[arg(value_name = "ID", required = true, help = ID_HELP)]
    /// Which operations.
    pub id: Vec<String>,
    /// Higher goes first; 0 is what operations are logged with
    #[arg(long, short, value_name = "N", allow_negative_numbers = true)]
    pub priority: i32,
}

/// `why`
#[derive(Debug, Args)]
pub struct Why {
    #[arg(value_name = "ID", required = true, help = ID_HELP)]
    /// Which operations.
    pub id: Vec<String>,
}

/// `failures`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wal-cli failures\n  wal-cli retry --cause 3f2a91c0")]
pub struct Failures {
    /// Only operations of this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
}

const PROCESS_HELP: &str = "\
With --json, stdout is a stream, a document per line: {\"event\":\"settled\",…}
for each attempt that ended, {\"event\":\"summary\",…} at the end.

TERM or INT: nothing new begins, what runs gets --grace to finish, the rest is
handed back; a second one hands back at once.

Examples:
  wal-cli process
  wal-cli process --follow --jobs 8
  * * * * * wal-cli process --skip-if-running --max-time 50s     # cron";

/// `process`
#[derive(Debug, Args)]
#[command(after_help = PROCESS_HELP)]
pub struct Process {
    /// Only these operations, and what they wait for
    #[arg(value_name = "ID")]
    pub id: Vec<String>,
    /// Only say what would be carried out, and what not
    #[arg(long, conflicts_with_all = ["follow", "max_time", "skip_if_running"])]
    pub dry_run: bool,
    /// Keep going: carry out new operations as they come
    #[arg(long, short)]
    pub follow: bool,
    /// Only operations of this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// Operations at once on each backend [default: the setting jobs]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Carry out at most this many
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Begin nothing new after this long; what runs is carried through
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub max_time: Option<Duration>,
    /// End quietly with 0 if another `process` runs
    #[arg(long)]
    pub skip_if_running: bool,
    /// How long running attempts may go on after TERM or INT
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = duration)]
    pub grace: Duration,
}
/// `cleanup`
#[derive(Debug, Args)]
pub struct Cleanup {
    /// Also failed operations of that age, which otherwise stay
    #[arg(long)]
    pub failed: bool,
    /// Completed more than this many whole days ago (UTC) [default: the setting max_age_days]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(0..=36_500))]
    pub age: Option<u64>,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
}

const HEALTH_HELP: &str = "\
A backend is online if its last three checks were good, degraded if some were, offline if none
was; with fewer checks, the last one decides. Operations that reach it or not are checks, too.
The exit code is 1 if a check fails now, of the backend that is named or of one that is in use:
the default one, those with settings of their own, and those of operations in the log.";

/// `health`
#[derive(Debug, Args)]
#[command(after_help = HEALTH_HELP)]
pub struct Health {
    /// Only this backend
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// Go on probing, and tell what changes; ends with Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Time between two probes of --watch, such as 5s [default: health_check_interval]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "watch")]
    pub interval: Option<Duration>,
}

/// `config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show every setting, and where it was set
    Show,
    /// Print one setting
    Get {
        /// Its name, `jobs` or `backends.ipfs.endpoint` for example
        key: String,
    },
    /// Change one setting in the settings file
    Set {
        /// Its name, `jobs` or `backends.ipfs.endpoint` for example
        key: String,
        /// What to set it to
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Print where the settings file is
    Path,
    /// Say everything that is wrong with the settings
    Check,
}

/// `schema`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wal-cli schema status\n  wal-cli schema config show")]
pub struct SchemaArgs {
    /// The command; without one, those that have a schema are listed
    pub command: Vec<String>,
}

/// `completions`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  wal-cli completions fish > ~/.config/fish/completions/wal-cli.fish"
)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// The start of a list: an instant, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// An instant.
    At(Time),
    /// Before now.
    Ago(Duration),
}

impl Since {
    /// The instant that it stands for.
    pub fn before(self, now: Time) -> Time {
        match self {
            Since::At(time) => time,
            Since::Ago(ago) => now.plus_millis(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

fn cause(text: &str) -> Result<String, String> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if (4..=8).contains(&text.len()) && text.bytes().all(is_hex) {
        return Ok(text.to_owned());
    }
    Err("it takes the eight hex digits that `failures` shows, or at least their first four".into())
}

fn since(text: &str) -> Result<Since, String> {
    if let Some(ago) =
        parse_seconds(text).filter(|_| text.ends_with(|c: char| c.is_ascii_alphabetic()))
    {
        return Ok(Since::Ago(ago));
    }
    [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")]
        .iter()
        .find_map(|text| Time::parse_rfc3339(text))
        .map(Since::At)
        .ok_or_else(|| "it takes 90min, 2h, 3d, 2026-01-31 or 2026-01-31T12:00:00Z".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_seconds(text)
        .ok_or_else(|| "it takes seconds, or a number with ms, s, min, h or d".into())
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    if delay <= DELAY_MAX { Ok(delay) } else { Err("it is at most a hundred years".into()) }
}

fn backend(text: &str) -> Result<BackendName, String> {
    BackendName::new(text).map_err(|error| error.to_string())
}

fn operation_type(text: &str) -> Result<OperationType, String> {
    OperationType::new(text).map_err(|error| error.to_string())
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it takes KEY=VALUE".into()),
    }
}

fn status_words() -> clap::builder::PossibleValuesParser {
    Status::ALL.map(Status::as_str).into_iter().chain(["all"]).collect::<Vec<_>>().into()
}

/// The command line under either name of the program.
pub fn command(program: Program) -> clap::Command {
    match program {
        Program::WalCli => Cli::command(),
        Program::IpfsKit => clap::Command::new("ipfs-kit")
            .version(env!("CARGO_PKG_VERSION"))
            .about("Tools for IPFS; here: the durable outbox")
            .styles(STYLES)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .disable_help_subcommand(true)
            .subcommand(renamed(Cli::command().name("wal"))),
    }
}

/// The same command, its examples under the other name.
fn renamed(mut command: clap::Command) -> clap::Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(Program::IpfsKit.named(&text));
    }
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, renamed))
}

#[cfg(test)]
mod tests;
