//! Arguments that several commands share, and the parsers of their values. Nothing here does I/O.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, ValueEnum, ValueHint};

use crate::client::{DELAY_MAX, OnInvalid};
use crate::config::{SpoolMode, parse_seconds};
use crate::operation::{BackendName, OperationType, Time};

/// Colours of help and of usage errors.
pub const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// Flags of every command, before or after its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Directory of the log [default: setting base_path]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub base_path: Option<PathBuf>,
    /// Read this configuration file instead of the default
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Trace to stderr; IPFS_KIT_WAL_LOG sets the filter
    #[arg(long, global = true)]
    pub debug: bool,
    /// Suppress progress, notes and warnings
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Colours: auto (honours NO_COLOR), always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub color: ColorWhen,
    /// Longest wait for a lock: seconds, or 250ms, 2min
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub lock_timeout: Option<Duration>,
}

/// Values of `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Values of `--spool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpoolArg {
    /// Copy where that is cheap.
    Auto,
    /// Copy at any cost.
    Always,
    /// Read the file when it is sent.
    Never,
}

impl From<SpoolArg> for SpoolMode {
    fn from(spool: SpoolArg) -> SpoolMode {
        match spool {
            SpoolArg::Auto => SpoolMode::Auto,
            SpoolArg::Always => SpoolMode::Always,
            SpoolArg::Never => SpoolMode::Never,
        }
    }
}

/// Arguments of commands that log operations.
#[derive(Debug, Args)]
pub struct LoggingArgs {
    /// Backend that executes it [default: setting default_backend]
    #[arg(long, short, value_name = "NAME", value_parser = backend)]
    pub backend: Option<BackendName>,
    /// Execute it now, or wait until a running `process` has
    #[arg(long, short)]
    pub wait: bool,
    /// Longest wait; the operation stays logged
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Higher priorities run first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// Retries after a failure [default: setting max_retries]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub max_retries: Option<u32>,
    /// Run after this operation has completed; repeatable
    #[arg(long, value_name = "ID")]
    pub after: Vec<String>,
    /// Time to wait before the operation may run: 90s, 10min, 1h30m
    #[arg(long, value_name = "TIME", value_parser = delay)]
    pub delay: Option<Duration>,
    /// Idempotency key: a known key returns its operation
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Copy files now: auto, always or never [default: setting spool]
    #[arg(long, value_name = "MODE", hide_possible_values = true)]
    pub spool: Option<SpoolArg>,
    /// Log valid inputs even if others are invalid (exit 1)
    #[arg(long)]
    pub keep_going: bool,
    /// Further parameter for the backend; repeatable
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
}

impl LoggingArgs {
    /// Returns the treatment of the other inputs if one is invalid.
    pub fn on_invalid(&self) -> OnInvalid {
        if self.keep_going { OnInvalid::Skip } else { OnInvalid::Abort }
    }
}

/// Operations that a command works on.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Number, full id, `@last` (yours), `@failed` (all failed ones), or `-` for ids on stdin
    #[arg(value_name = "ID", required = true)]
    pub id: Vec<String>,
}

/// Help of the argument `ID` where it is optional.
pub const ID_HELP: &str =
    "Number, full id, `@last` (yours), `@failed` (all failed ones), or `-` for ids on stdin";

/// A bound of a time range: an instant, or a duration before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// An instant.
    At(Time),
    /// A duration before now.
    Ago(Duration),
}

impl Since {
    /// Returns the instant, given the current time.
    pub fn before(self, now: Time) -> Time {
        match self {
            Since::At(time) => time,
            Since::Ago(ago) => now.plus_millis(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

/// Parses a fingerprint of a cause, or its first digits.
pub fn cause(text: &str) -> Result<String, String> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if (4..=8).contains(&text.len()) && text.bytes().all(is_hex) {
        return Ok(text.to_owned());
    }
    Err("expected the 8 hex digits that `failures` shows, or at least the first 4".into())
}

/// Parses a bound of a time range. Times without a zone are UTC.
pub fn since(text: &str) -> Result<Since, String> {
    if let Some(ago) =
        parse_seconds(text).filter(|_| text.ends_with(|c: char| c.is_ascii_alphabetic()))
    {
        return Ok(Since::Ago(ago));
    }
    [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")]
        .iter()
        .find_map(|text| Time::parse_rfc3339(text))
        .map(Since::At)
        .ok_or_else(|| "expected 90min, 2h, 3d, 2026-01-31 or 2026-01-31T12:00:00Z".into())
}

/// Parses a duration; a number alone is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_seconds(text)
        .ok_or_else(|| "expected seconds, or a duration such as 250ms, 10s, 2min or 1h30m".into())
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    if delay <= DELAY_MAX { Ok(delay) } else { Err("the longest delay is 100 years".into()) }
}

/// Parses a name of a backend.
pub fn backend(text: &str) -> Result<BackendName, String> {
    BackendName::new(text).map_err(|error| error.to_string())
}

/// Parses an operation type.
pub fn operation_type(text: &str) -> Result<OperationType, String> {
    OperationType::new(text).map_err(|error| error.to_string())
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_several_forms() {
        let at = |text| Time::parse_rfc3339(text).map(Since::At);
        assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7200))));
        assert_eq!(since("3d"), Ok(Since::Ago(Duration::from_secs(3 * 86400))));
        assert_eq!(since("2026-01-31").ok(), at("2026-01-31T00:00:00Z"));
        assert_eq!(since("2026-01-31T12:30").ok(), at("2026-01-31T12:30:00Z"));
        assert_eq!(since("2026-01-31T12:30:00+02:00").ok(), at("2026-01-31T10:30:00Z"));
        for bad in ["", "yesterday", "2026-13-01", "20260131", "-2h"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
