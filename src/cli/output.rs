//! The streams: data goes to stdout, everything else to stderr.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ColorChoice;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::args::{ColorWhen, Global};
use super::error::CliError;
use super::exit::Exit;
use super::invocation::{Invocation, Program};
use crate::clock::{Clock, SystemClock};
use crate::report::{Color, Document, Documented, Line, Style};

/// Stdout. Once its reader has closed it, further output is discarded: that is not an error, and
/// the command keeps its exit code.
#[derive(Debug)]
pub struct StdoutPipe {
    out: StdoutLock<'static>,
    closed: bool,
}

impl io::Write for StdoutPipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        match self.out.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.out.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }
}

/// The two streams, and the form of the output.
#[derive(Debug)]
pub struct Output {
    /// The invocation of the program.
    pub invocation: Invocation,
    /// The form of text on stdout.
    pub style: Style,
    /// Stdout.
    pub out: BufWriter<StdoutPipe>,
    json: bool,
    quiet: bool,
    color_errors: bool,
}

impl Output {
    /// Returns the streams of this process.
    pub fn new(invocation: Invocation, global: &Global) -> Output {
        let stdout = io::stdout();
        let has_color = |is_terminal: bool| match global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => is_terminal && color_is_allowed(),
        };
        let width = stdout.is_terminal().then(|| {
            let columns =
                rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
            if columns == 0 { 80 } else { columns }
        });
        Output {
            invocation,
            style: Style {
                color: has_color(width.is_some()),
                width,
                now: SystemClock::new().now(),
            },
            out: BufWriter::new(StdoutPipe { out: stdout.lock(), closed: false }),
            json: global.json,
            quiet: global.quiet,
            color_errors: has_color(io::stderr().is_terminal()),
        }
    }

    /// Calls `json` if stdout is for JSON, else `text`. No other place makes this decision.
    pub fn choose<T>(
        &mut self,
        json: impl FnOnce(&mut Output) -> T,
        text: impl FnOnce(&mut Output) -> T,
    ) -> T {
        if self.json { json(self) } else { text(self) }
    }

    /// Prints the result of a command: one JSON document with the first of the errors, or text and
    /// then all errors. Returns the exit code of the first error.
    ///
    /// The document is streamed, since it may be larger than memory.
    pub fn outcome<'e, R: Documented>(
        &mut self,
        result: impl FnOnce() -> R,
        errors: impl IntoIterator<Item = &'e CliError>,
        text: impl FnOnce(&mut Output) -> Result<(), CliError>,
    ) -> Result<Exit, CliError> {
        let mut errors = errors.into_iter().peekable();
        let exit = errors.peek().map_or(Exit::Done, |error| error.exit);
        if self.json {
            let error = errors.next().map(|error| error.document(&self.invocation));
            serde_json::to_writer(&mut self.out, &Document::with_error(result(), error))
                .map_err(io::Error::from)?;
            self.line("")?;
        } else {
            text(self)?;
            errors.for_each(|error| self.print_error(error));
        }
        Ok(exit)
    }

    /// Prints one event of a stream, and flushes it: a JSON document on a line of its own, or text.
    pub fn event(
        &mut self,
        document: impl Serialize,
        text: impl FnOnce(&mut Output) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.choose(|output| output.line(&document.line()), text)?;
        self.flush()
    }

    /// Prints a line, and flushes it.
    pub fn line(&mut self, line: &str) -> Result<(), CliError> {
        writeln!(self.out, "{line}")?;
        self.flush()
    }

    /// Prints text.
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Prints text that a function of [`report`](crate::report) writes, with the commands in it
    /// adapted to this invocation.
    pub fn write(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, &Style) -> io::Result<()>,
    ) -> Result<(), CliError> {
        let mut bytes = Vec::new();
        write(&mut bytes, &self.style)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(self.out.write_all(self.invocation.pasteable(&text).as_bytes())?)
    }

    /// Writes buffered output to stdout.
    pub fn flush(&mut self) -> Result<(), CliError> {
        Ok(self.out.flush()?)
    }

    /// Returns whether the reader of stdout has closed it.
    pub fn is_closed(&self) -> bool {
        self.out.get_ref().closed
    }

    /// Returns whether notes and progress are shown.
    pub fn shows_notes(&self) -> bool {
        !self.quiet && !self.json
    }

    /// Returns whether progress bars are shown: with notes, and if stderr is a terminal.
    pub fn shows_bars(&self) -> bool {
        self.shows_notes() && io::stderr().is_terminal()
    }

    /// Returns a progress bar with this template; a hidden one where bars are not shown.
    pub fn progress_bar(&self, template: &str) -> ProgressBar {
        if !self.shows_bars() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(bar_style(template));
        bar
    }

    /// Prints a note on stderr.
    pub fn note(&mut self, text: &str) {
        if self.shows_notes() {
            let text = self.invocation.pasteable(text).into_owned();
            self.print_stderr(&text);
        }
    }

    /// Prints a line on stderr that `--quiet` does not suppress, also beside JSON.
    pub fn announce(&mut self, text: &str) {
        self.print_stderr(text);
    }

    /// Prints a warning on stderr, also beside JSON.
    pub fn warn(&mut self, text: &str, hint: Option<&str>) {
        if !self.quiet {
            let head = Color::Warn.on("warning:", self.color_errors);
            let line = format!("{head} {}", self.invocation.pasteable(text));
            self.print_stderr(&line);
            if let Some(hint) = hint {
                self.hint(hint);
            }
        }
    }

    fn hint(&mut self, text: &str) {
        let head = Color::Ok.on("hint:", self.color_errors);
        let line = format!("{head} {}", self.invocation.pasteable(text));
        self.print_stderr(&line);
    }

    fn print_stderr(&mut self, text: &str) {
        // Earlier output comes first. Without a stderr there is nothing left to do.
        let _ = self.out.flush();
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Prints an error with its details, causes and hints on stderr.
    pub fn print_error(&mut self, error: &CliError) {
        if error.is_silent() {
            return;
        }
        let head = Color::Error.on("error:", self.color_errors);
        let mut text = format!("{head} {}", self.invocation.pasteable(&error.message));
        for detail in &error.details.lines {
            text.push_str(&format!("\n  {}", self.invocation.pasteable(detail)));
        }
        for cause in &error.details.causes {
            text.push_str(&format!("\n  caused by: {}", self.invocation.pasteable(cause)));
        }
        self.print_stderr(&text);
        for hint in &error.details.hints {
            self.hint(hint);
        }
    }

    /// Ends the command: prints the error that it failed with, and returns the exit code.
    pub fn end(mut self, result: Result<Exit, CliError>) -> Exit {
        let result = result.and_then(|exit| self.flush().map(|()| exit));
        let error = match result {
            Ok(exit) => return exit,
            Err(error) => error,
        };
        let is_printed = self.json && !error.is_silent() && {
            let document = Document::failed(error.document(&self.invocation)).line();
            // This fails if the error is that of stdout.
            self.line(&document).is_ok()
        };
        if !is_printed {
            self.print_error(&error);
        }
        error.exit
    }
}

/// Returns the style of a bar with this template.
pub fn bar_style(template: &str) -> ProgressStyle {
    // The templates are valid; with an invalid one a bar would look plain, which is harmless.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn color_is_allowed() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns whether a flag occurs among arguments that could not be parsed, before a `--`.
fn has_flag(args: &[OsString], flag: &str) -> bool {
    args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == flag)
}

/// Returns the colours of help and of usage errors, which are printed before arguments are parsed.
pub fn clap_color(args: &[OsString]) -> ColorChoice {
    let is = |word: &str| {
        has_flag(args, &format!("--color={word}"))
            || args.windows(2).any(|pair| pair[0] == "--color" && pair[1] == word)
    };
    if is("always") {
        ColorChoice::Always
    } else if is("never") || !color_is_allowed() {
        ColorChoice::Never
    } else {
        ColorChoice::Auto
    }
}

/// Prints a usage error, or the requested help; returns the exit code.
pub fn print_usage_error(program: Program, args: &[OsString], error: &clap::Error) -> Exit {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !is_help && has_flag(args, "--json") {
        let error = usage_error(error);
        let document = Document::failed(error.document(&Invocation::unparsed(program))).line();
        // Without a reader there is nothing left to do.
        let _ = writeln!(io::stdout(), "{document}");
        return Exit::Usage;
    }
    let _ = error.print();
    if is_help { Exit::Done } else { Exit::Usage }
}

fn usage_error(error: &clap::Error) -> CliError {
    let rendered = error.render().to_string();
    let first: Vec<&str> =
        rendered.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "no command was given".to_owned()
        }
        _ => first.join(" ").trim_start_matches("error: ").to_owned(),
    };
    let suggested =
        [ContextKind::SuggestedArg, ContextKind::SuggestedValue, ContextKind::SuggestedSubcommand]
            .into_iter()
            .find_map(|kind| match error.get(kind)? {
                ContextValue::String(one) => Some(one.clone()),
                ContextValue::Strings(several) => several.first().cloned(),
                _ => None,
            });
    CliError::usage(message).hint(match suggested {
        Some(word) => format!("did you mean `{word}`?"),
        None => {
            "run `wal-cli --help` for the commands, and `--help` after one for its flags".into()
        }
    })
}
