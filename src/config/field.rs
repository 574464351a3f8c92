//! The value of a key: parsing it from text or TOML, and checking it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::{BackendType, Secret, SpoolMode};
use crate::operation::BackendName;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RawValue {
    /// Text from the environment or the command line, which may be a value of any kind.
    Word(String),
    /// A TOML string.
    Text(String),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML integer.
    Int(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML array of strings.
    List(Vec<String>),
    /// Any other TOML value, as written.
    Other(String),
}

impl RawValue {
    /// Returns the text without surrounding blanks, if the value is text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            RawValue::Word(text) | RawValue::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// Returns the value as it was written, for messages.
    pub(super) fn as_written(&self) -> String {
        match self {
            RawValue::Word(text) => text.clone(),
            RawValue::Text(text) => format!("{text:?}"),
            RawValue::Bool(value) => value.to_string(),
            RawValue::Int(value) => value.to_string(),
            RawValue::Float(value) => format!("{value:?}"),
            RawValue::List(items) => format!("{items:?}"),
            RawValue::Other(text) => text.trim().to_owned(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            RawValue::Int(value) => Some(*value as f64),
            RawValue::Float(value) => Some(*value),
            RawValue::Word(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn whole(&self) -> Option<u64> {
        match self {
            RawValue::Int(value) => u64::try_from(*value).ok(),
            RawValue::Word(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

/// The directories against which paths are resolved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PathBase<'a> {
    /// The directory for `~`.
    pub home: Option<&'a Path>,
    /// The directory for relative paths; the working directory if there is none. A path that stayed
    /// relative would name another log after a change of directory, and its parent directory could
    /// not be flushed.
    pub directory: Option<&'a Path>,
}

impl PathBase<'_> {
    fn resolve(self, text: &str) -> Option<PathBuf> {
        if text.is_empty() || text.contains('\0') {
            return None;
        }
        match text.strip_prefix('~') {
            None => {
                let path = self.directory.unwrap_or(Path::new("")).join(text);
                std::path::absolute(path).ok()
            }
            Some("") => self.home.map(Path::to_owned),
            // Otherwise `~ann` would become a directory of that name.
            Some(rest) => Some(self.home?.join(rest.strip_prefix('/')?)),
        }
    }
}

/// An integer field of any width.
pub(super) trait Integer {
    /// Returns the value, if there is one.
    #[cfg(any(test, feature = "cli"))]
    fn get(&self) -> Option<u64>;
    /// Sets the value. Returns false if it does not fit.
    fn set(&mut self, value: u64) -> bool;
}

macro_rules! integer {
    ($($int:ty),+) => {$(
        impl Integer for $int {
            #[cfg(any(test, feature = "cli"))]
            fn get(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }

            fn set(&mut self, value: u64) -> bool {
                <$int>::try_from(value).map(|value| *self = value).is_ok()
            }
        }
    )+};
}
integer!(u32, u64, usize);

impl Integer for Option<usize> {
    #[cfg(any(test, feature = "cli"))]
    fn get(&self) -> Option<u64> {
        self.as_ref().and_then(Integer::get)
    }

    fn set(&mut self, value: u64) -> bool {
        usize::try_from(value).map(|value| *self = Some(value)).is_ok()
    }
}

/// The field behind a key, and the values that it takes.
pub(super) enum Field<'a> {
    /// Yes or no.
    Bool(&'a mut bool),
    /// Yes, no or not set.
    MaybeBool(&'a mut Option<bool>),
    /// A whole number.
    Integer(&'a mut dyn Integer, RangeInclusive<u64>),
    /// An amount of bytes.
    Bytes(&'a mut u64, RangeInclusive<u64>),
    /// A duration, with bounds in seconds.
    Seconds(&'a mut Duration, RangeInclusive<f64>),
    /// A share, 0 to 1.
    Ratio(&'a mut f64),
    /// Any text.
    Text(&'a mut Option<String>),
    /// The name of a machine.
    HostName(&'a mut Option<String>),
    /// Text that is never shown.
    Secret(&'a mut Option<Secret>),
    /// The address of an HTTP service.
    Url(&'a mut Option<String>),
    /// A path.
    Path(&'a mut PathBuf),
    /// A path or nothing.
    MaybePath(&'a mut Option<PathBuf>),
    /// A program and its arguments.
    Command(&'a mut Vec<String>),
    /// A spool mode.
    Spool(&'a mut SpoolMode),
    /// The name of a backend.
    Backend(&'a mut BackendName),
    /// The name of a backend or nothing.
    MaybeBackend(&'a mut Option<BackendName>),
    /// A type of backend.
    Type(
        #[cfg_attr(
            not(any(test, feature = "cli")),
            expect(dead_code, reason = "`config show` prints it")
        )]
        BackendType,
    ),
}

impl Field<'_> {
    /// Sets the field. Returns `None`, and changes nothing, if the value is of another kind or out
    /// of bounds.
    pub(super) fn set(self, raw: &RawValue, base: PathBase<'_>) -> Option<()> {
        match self {
            Field::Bool(field) => *field = bool_of(raw)?,
            Field::MaybeBool(field) => *field = Some(bool_of(raw)?),
            Field::Integer(field, bounds) => {
                let value = raw.whole().filter(|value| bounds.contains(value))?;
                return field.set(value).then_some(());
            }
            Field::Bytes(field, bounds) => {
                let value = raw.whole().or_else(|| parse_bytes(raw.text()?))?;
                *field = Some(value).filter(|value| bounds.contains(value))?;
            }
            Field::Seconds(field, bounds) => {
                let value = match raw.number() {
                    Some(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
                    None => parse_seconds(raw.text()?)?,
                };
                *field = Some(value).filter(|value| bounds.contains(&value.as_secs_f64()))?;
            }
            Field::Ratio(field) => {
                *field = raw.number().filter(|value| (0.0..=1.0).contains(value))?
            }
            Field::Text(field) => *field = Some(plain(raw)?.to_owned()),
            Field::HostName(field) => {
                let is_part = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
                *field = Some(plain(raw).filter(|text| text.bytes().all(is_part))?.to_owned());
            }
            Field::Secret(field) => *field = Some(Secret::new(plain(raw)?.to_owned())),
            Field::Url(field) => *field = Some(url(plain(raw)?)?),
            Field::Path(field) => *field = base.resolve(raw.text()?)?,
            Field::MaybePath(field) => *field = Some(base.resolve(raw.text()?)?),
            Field::Command(field) => *field = command(raw, base)?,
            Field::Spool(field) => *field = SpoolMode::parse(raw.text()?)?,
            Field::Backend(field) => *field = BackendName::new(raw.text()?).ok()?,
            Field::MaybeBackend(field) => *field = Some(BackendName::new(raw.text()?).ok()?),
            // Only checks the word: the type of a backend never changes.
            Field::Type(_) => drop(BackendType::parse(raw.text()?)?),
        }
        Some(())
    }

    /// Returns a noun phrase for the values that the field takes.
    pub(super) fn expected(&self) -> String {
        match self {
            Field::Bool(_) | Field::MaybeBool(_) => "true or false".into(),
            Field::Integer(_, bounds) => {
                format!("a whole number from {} to {}", bounds.start(), bounds.end())
            }
            Field::Bytes(_, bounds) => {
                let end = ByteSize::b(*bounds.end()).display().iec();
                format!(
                    "an amount from {} bytes to {end}, such as 1048576 or \"64 MiB\"",
                    bounds.start()
                )
            }
            Field::Seconds(_, bounds) => {
                format!(
                    "seconds from {} to {}, such as 0.5, or a duration such as \"2 min\" or \
                     \"1h30m\"",
                    bounds.start(),
                    bounds.end()
                )
            }
            Field::Ratio(_) => "a number from 0 to 1".into(),
            Field::Text(_) | Field::Secret(_) => "text".into(),
            Field::HostName(_) => "letters, digits, `.`, `_` and `-`".into(),
            Field::Url(_) => {
                "an address with http:// or https://, such as http://localhost:8080".into()
            }
            Field::Path(_) | Field::MaybePath(_) => {
                "a path, in which a leading ~/ is the home directory".into()
            }
            Field::Command(_) => {
                "a program with its arguments, as one text or a list of texts".into()
            }
            Field::Spool(_) => {
                format!("one of {}", SpoolMode::ALL.map(SpoolMode::as_str).join(", "))
            }
            Field::Backend(_) | Field::MaybeBackend(_) => "the name of a backend".into(),
            Field::Type(_) => {
                format!("one of {}", BackendType::ALL.map(BackendType::as_str).join(", "))
            }
        }
    }

    /// Returns the words that the field takes, if it takes a fixed set, for suggestions.
    pub(super) fn choices(&self) -> Vec<&'static str> {
        match self {
            Field::Spool(_) => SpoolMode::ALL.map(SpoolMode::as_str).into(),
            Field::Type(_) => BackendType::ALL.map(BackendType::as_str).into(),
            _ => Vec::new(),
        }
    }
}

fn bool_of(raw: &RawValue) -> Option<bool> {
    match raw {
        RawValue::Bool(value) => Some(*value),
        RawValue::Word(word) => match word.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn plain(raw: &RawValue) -> Option<&str> {
    raw.text().filter(|text| !text.is_empty() && !text.contains(char::is_control))
}

fn url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let host = rest.split('/').next().filter(|host| !host.is_empty() && !host.starts_with(':'));
    (host.is_some() && !text.contains(char::is_whitespace))
        .then(|| text.trim_end_matches('/').to_owned())
}

fn command(raw: &RawValue, base: PathBase<'_>) -> Option<Vec<String>> {
    let mut words = match raw {
        RawValue::List(items) => items.clone(),
        _ => shlex::split(raw.text()?)?,
    };
    let program = words.first_mut().filter(|program| !program.is_empty())?;
    if program.starts_with('~') {
        *program = base.resolve(program)?.to_str()?.to_owned();
    }
    (!words.iter().any(|word| word.contains('\0'))).then_some(words)
}

/// Parses an amount of bytes, such as `1048576`, `64 MiB` or `1.5 GB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// Parses a duration: seconds such as `90` or `0.5`, or numbers with units, `250ms`, `2 min`,
/// `1.5h`, `7d` or `1h30m`.
///
/// Units are `ms`, `s` or `sec`, `m` or `min`, `h` and `d`; in a compound form each is smaller than
/// the one before. Returns `None` for anything else, and for durations that [`Duration`] cannot
/// hold.
pub fn parse_seconds(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        let is_plain = rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        return Duration::try_from_secs_f64(seconds).ok().filter(|_| is_plain);
    }
    let (mut total, mut unit_before) = (Duration::ZERO, f64::INFINITY);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        if unit >= unit_before {
            return None;
        }
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        total = total.checked_add(part)?;
        (unit_before, rest) = (unit, after.trim_start());
    }
    (unit_before != f64::INFINITY).then_some(total)
}
