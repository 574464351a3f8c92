//! Where everything is written: data to stdout, all else to stderr.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ColorChoice;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Serialize;

use super::args::{ColorWhen, Global};
use super::error::CliError;
use super::{Exit, Program};
use crate::clock::{Clock, SystemClock};
use crate::report::{Color, Document, Documented, Line, Style};

/// Stdout. Once nobody reads it any more, what is written goes nowhere: that is no error, and the command's
/// verdict stands.
#[derive(Debug)]
pub struct Pipe {
    out: StdoutLock<'static>,
    gone: bool,
}

impl Pipe {
    /// Whether nobody reads any more.
    pub fn is_gone(&self) -> bool {
        self.gone
    }
}

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gone {
            return Ok(bytes.len());
        }
        match self.out.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.out.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            other => other,
        }
    }
}

/// The two streams, and how to write to them.
#[derive(Debug)]
pub struct Terminal {
    /// The name under which the program was called.
    pub program: Program,
    /// Whether stdout is for JSON.
    pub json: bool,
    /// Whether stderr is for errors only.
    pub quiet: bool,
    /// How text on stdout looks.
    pub style: Style,
    /// Stdout.
    pub out: BufWriter<Pipe>,
    color_errors: bool,
}

impl Terminal {
    /// The terminal, or the pipes, of this process.
    pub fn new(program: Program, global: &Global) -> Terminal {
        let stdout = io::stdout();
        let wants = |is_terminal: bool| match global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => is_terminal && color_is_welcome(),
        };
        let width = stdout.is_terminal().then(|| {
            let told =
                rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
            if told == 0 { 80 } else { told }
        });
        Terminal {
            program,
            json: global.json,
            quiet: global.quiet,
            style: Style { color: wants(width.is_some()), width, now: SystemClock::new().now() },
            out: BufWriter::new(Pipe { out: stdout.lock(), gone: false }),
            color_errors: wants(io::stderr().is_terminal()),
        }
    }

    /// Prints the one JSON document of this command.
    pub fn document<R: Serialize>(&mut self, document: &Document<'_, R>) -> Result<(), CliError> {
        self.line(&document.line())
    }

    /// Prints the one JSON document of this command as it is made: it may be longer than memory.
    pub fn stream<R: Serialize>(&mut self, document: &Document<'_, R>) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.out, document).map_err(io::Error::from)?;
        self.line("")
    }

    /// Prints a line and makes sure that it is out.
    pub fn line(&mut self, line: &str) -> Result<(), CliError> {
        writeln!(self.out, "{line}")?;
        self.flush()
    }

    /// Shows what a command found, and what is wrong with it, if anything is: as one document, or as text.
    pub fn outcome<R: Documented>(
        &mut self,
        result: R,
        error: Option<&CliError>,
        text: impl FnOnce(&mut Terminal) -> Result<(), CliError>,
    ) -> Result<Exit, CliError> {
        if self.json {
            let shown = error.map(|error| error.shown(self.program));
            self.document(&Document::with_error(result, shown))?;
        } else {
            text(self)?;
            if let Some(error) = error {
                self.complain(error);
            }
        }
        Ok(error.map_or(Exit::Done, |error| error.exit))
    }

    /// Prints text.
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Makes sure that what was printed is out.
    pub fn flush(&mut self) -> Result<(), CliError> {
        Ok(self.out.flush()?)
    }

    /// Says something on stderr that nobody has to read.
    pub fn note(&mut self, text: &str) {
        if !self.quiet && !self.json {
            self.say(text);
        }
    }

    /// Says on stderr that something is not as it should be.
    pub fn warn(&mut self, text: &str, hint: Option<&str>) {
        if !self.quiet {
            let head = Color::Warn.on("warning:", self.color_errors);
            self.say(&format!("{head} {text}"));
            if let Some(hint) = hint {
                self.hint(hint);
            }
        }
    }

    fn hint(&mut self, text: &str) {
        let head = Color::Ok.on("hint:", self.color_errors);
        self.say(&format!("{head} {}", self.program.named(text)));
    }

    fn say(&mut self, text: &str) {
        // In the order in which it happened; and with stderr gone there is nobody left to tell.
        let _ = self.out.flush();
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Tells a person of an error; scripts get it in a document.
    pub fn complain(&mut self, error: &CliError) {
        if error.is_silent() {
            return;
        }
        let head = Color::Error.on("error:", self.color_errors);
        self.say(&format!("{head} {}", self.program.named(&error.message)));
        for detail in &error.more.details {
            self.say(&format!("  {detail}"));
        }
        for cause in &error.more.causes {
            self.say(&format!("  caused by: {cause}"));
        }
        for hint in &error.more.hints {
            self.hint(hint);
        }
    }

    /// Ends the command: prints what went wrong, and gives the exit code.
    pub fn end(mut self, result: Result<Exit, CliError>) -> Exit {
        let result = result.and_then(|exit| match self.out.flush() {
            Ok(()) => Ok(exit),
            Err(error) => Err(error.into()),
        });
        let error = match result {
            Ok(exit) => return exit,
            Err(error) => error,
        };
        if self.json && !error.is_silent() {
            let document = Document::failed(error.shown(self.program));
            // Nothing can be printed if it was stdout that failed.
            if self.document(&document).is_err() {
                self.complain(&error);
            }
        } else {
            self.complain(&error);
        }
        error.exit
    }
}

fn color_is_welcome() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether a flag stands among the arguments, before a `--`. For when they cannot be parsed.
fn has_flag(args: &[OsString], flag: &str) -> bool {
    args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == flag)
}

/// Colours of help and of usage errors, which are made before the arguments are known.
pub fn clap_color(args: &[OsString]) -> ColorChoice {
    let is = |word: &str| {
        has_flag(args, &format!("--color={word}"))
            || args.windows(2).any(|pair| pair[0] == "--color" && pair[1] == word)
    };
    if is("always") {
        ColorChoice::Always
    } else if is("never") || !color_is_welcome() {
        ColorChoice::Never
    } else {
        ColorChoice::Auto
    }
}

/// Tells what is wrong with the arguments, or prints the help that was asked for.
pub fn refuse(program: Program, args: &[OsString], error: &clap::Error) -> Exit {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked_for && has_flag(args, "--json") {
        let error = usage_error(error);
        let document = Document::failed(error.shown(program)).line();
        // Without a reader there is nothing more to do.
        let _ = writeln!(io::stdout(), "{document}");
        return Exit::Usage;
    }
    let _ = error.print();
    if asked_for { Exit::Done } else { Exit::Usage }
}

fn usage_error(error: &clap::Error) -> CliError {
    let rendered = error.render().to_string();
    let first: Vec<&str> =
        rendered.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "a command is missing".to_owned()
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
        None => "`wal-cli --help`, or `--help` behind a command, lists what there is".into(),
    })
}
