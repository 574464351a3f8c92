//! One value: reading it from text or TOML, checking it, showing it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Value as Json, json};

use super::{BackendType, Secret, SpoolMode};
use crate::operation::BackendName;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// Bare text, from the environment or the command line: may stand for anything.
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
    /// Anything else that TOML can say, as written.
    Other(String),
}

impl Raw {
    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Raw::Word(text) | Raw::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// As it was written, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Raw::Word(text) => text.clone(),
            Raw::Text(text) => format!("{text:?}"),
            Raw::Bool(value) => value.to_string(),
            Raw::Int(value) => value.to_string(),
            Raw::Float(value) => format!("{value:?}"),
            Raw::List(items) => format!("{items:?}"),
            Raw::Other(text) => text.trim().to_owned(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Raw::Int(value) => Some(*value as f64),
            Raw::Float(value) => Some(*value),
            Raw::Word(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn whole(&self) -> Option<u64> {
        match self {
            Raw::Int(value) => u64::try_from(*value).ok(),
            Raw::Word(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

/// What paths are read against.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Base<'a> {
    /// What `~` stands for.
    pub home: Option<&'a Path>,
    /// The folder that relative paths start from; none leaves them as they are.
    pub folder: Option<&'a Path>,
}

impl Base<'_> {
    fn path(self, text: &str) -> Option<PathBuf> {
        if text.is_empty() || text.contains('\0') {
            return None;
        }
        match text.strip_prefix('~') {
            None => Some(self.folder.map_or_else(|| text.into(), |folder| folder.join(text))),
            Some("") => self.home.map(Path::to_owned),
            // `~somebody` would otherwise become a folder of that name.
            Some(rest) => Some(self.home?.join(rest.strip_prefix('/')?)),
        }
    }
}

/// An integer field of any width.
pub(super) trait Whole {
    /// Its value, if it has one.
    fn get(&self) -> Option<u64>;
    /// Sets it; false if it has no room for the value.
    fn put(&mut self, value: u64) -> bool;
}

macro_rules! whole {
    ($($int:ty),+) => {$(
        impl Whole for $int {
            fn get(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }

            fn put(&mut self, value: u64) -> bool {
                <$int>::try_from(value).map(|value| *self = value).is_ok()
            }
        }
    )+};
}
whole!(u32, u64, usize);

impl Whole for Option<usize> {
    fn get(&self) -> Option<u64> {
        self.as_ref().and_then(Whole::get)
    }

    fn put(&mut self, value: u64) -> bool {
        usize::try_from(value).map(|value| *self = Some(value)).is_ok()
    }
}

/// The field behind a key, with what it takes.
pub(super) enum Slot<'a> {
    /// Yes or no.
    Bool(&'a mut bool),
    /// Yes, no or not set.
    MaybeBool(&'a mut Option<bool>),
    /// A whole number.
    Whole(&'a mut dyn Whole, RangeInclusive<u64>),
    /// An amount of bytes.
    Bytes(&'a mut u64, RangeInclusive<u64>),
    /// A span of time, bounds in seconds.
    Seconds(&'a mut Duration, RangeInclusive<f64>),
    /// A share, 0 to 1.
    Ratio(&'a mut f64),
    /// Any text.
    Text(&'a mut Option<String>),
    /// The name of a machine.
    HostName(&'a mut Option<String>),
    /// Text that is not to be seen.
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
    Type(&'a mut BackendType),
}

impl Slot<'_> {
    /// Sets the field; `None`, and nothing changed, if the value is not of its kind or out of bounds.
    pub(super) fn fill(self, raw: &Raw, base: Base<'_>) -> Option<()> {
        match self {
            Slot::Bool(field) => *field = bool_of(raw)?,
            Slot::MaybeBool(field) => *field = Some(bool_of(raw)?),
            Slot::Whole(field, bounds) => {
                let value = raw.whole().filter(|value| bounds.contains(value))?;
                return field.put(value).then_some(());
            }
            Slot::Bytes(field, bounds) => {
                let value = raw.whole().or_else(|| parse_bytes(raw.text()?))?;
                *field = Some(value).filter(|value| bounds.contains(value))?;
            }
            Slot::Seconds(field, bounds) => {
                let value = match raw.number() {
                    Some(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
                    None => parse_seconds(raw.text()?)?,
                };
                *field = Some(value).filter(|value| bounds.contains(&value.as_secs_f64()))?;
            }
            Slot::Ratio(field) => {
                *field = raw.number().filter(|value| (0.0..=1.0).contains(value))?
            }
            Slot::Text(field) => *field = Some(plain(raw)?.to_owned()),
            Slot::HostName(field) => {
                let is_part = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
                *field = Some(plain(raw).filter(|text| text.bytes().all(is_part))?.to_owned());
            }
            Slot::Secret(field) => *field = Some(Secret::new(plain(raw)?.to_owned())),
            Slot::Url(field) => *field = Some(url(plain(raw)?)?),
            Slot::Path(field) => *field = base.path(raw.text()?)?,
            Slot::MaybePath(field) => *field = Some(base.path(raw.text()?)?),
            Slot::Command(field) => *field = command(raw, base)?,
            Slot::Spool(field) => *field = SpoolMode::parse(raw.text()?)?,
            Slot::Backend(field) => *field = BackendName::new(raw.text()?).ok()?,
            Slot::MaybeBackend(field) => *field = Some(BackendName::new(raw.text()?).ok()?),
            Slot::Type(field) => *field = BackendType::parse(raw.text()?)?,
        }
        Some(())
    }

    /// What the field takes, to follow "it takes".
    pub(super) fn expects(&self) -> String {
        match self {
            Slot::Bool(_) | Slot::MaybeBool(_) => "true or false".into(),
            Slot::Whole(_, bounds) => {
                format!("a whole number from {} to {}", bounds.start(), bounds.end())
            }
            Slot::Bytes(_, bounds) => {
                let end = ByteSize::b(*bounds.end()).display().iec();
                format!(
                    "an amount from {} bytes to {end}, such as 1048576 or \"64 MiB\"",
                    bounds.start()
                )
            }
            Slot::Seconds(_, bounds) => {
                format!(
                    "a number of seconds from {} to {}, such as 0.5 or \"2 min\"",
                    bounds.start(),
                    bounds.end()
                )
            }
            Slot::Ratio(_) => "a number from 0 to 1".into(),
            Slot::Text(_) | Slot::Secret(_) => "text".into(),
            Slot::HostName(_) => "letters, digits, `.`, `_` and `-`".into(),
            Slot::Url(_) => {
                "an address with http:// or https://, such as http://localhost:8080".into()
            }
            Slot::Path(_) | Slot::MaybePath(_) => {
                "a path, in which a leading ~/ is the home directory".into()
            }
            Slot::Command(_) => {
                "a program with its arguments, as one text or a list of texts".into()
            }
            Slot::Spool(_) => {
                format!("one of {}", SpoolMode::ALL.map(SpoolMode::as_str).join(", "))
            }
            Slot::Backend(_) | Slot::MaybeBackend(_) => "the name of a backend".into(),
            Slot::Type(_) => {
                format!("one of {}", BackendType::ALL.map(BackendType::as_str).join(", "))
            }
        }
    }

    /// The words it takes, if it takes only some: to guess what was meant.
    pub(super) fn words(&self) -> Vec<&'static str> {
        match self {
            Slot::Spool(_) => SpoolMode::ALL.map(SpoolMode::as_str).into(),
            Slot::Type(_) => BackendType::ALL.map(BackendType::as_str).into(),
            _ => Vec::new(),
        }
    }

    /// What the field stands at.
    pub(super) fn show(self) -> Json {
        match self {
            Slot::Bool(field) => json!(*field),
            Slot::MaybeBool(field) => json!(*field),
            Slot::Whole(field, _) => json!(field.get()),
            Slot::Bytes(field, _) => json!(*field),
            Slot::Seconds(field, _) if field.subsec_nanos() == 0 => json!(field.as_secs()),
            Slot::Seconds(field, _) => json!(field.as_secs_f64()),
            Slot::Ratio(field) => json!(*field),
            Slot::Text(field) | Slot::HostName(field) | Slot::Url(field) => json!(field),
            // Only whether there is one; whoever shows it masks it by its key as well.
            Slot::Secret(field) => json!(field.as_ref().map(|secret| format!("{secret:?}"))),
            Slot::Path(field) => json!(field.to_string_lossy()),
            Slot::MaybePath(field) => json!(field.as_ref().map(|path| path.to_string_lossy())),
            Slot::Command(field) if field.is_empty() => Json::Null,
            Slot::Command(field) => json!(field),
            Slot::Spool(field) => json!(field.as_str()),
            Slot::Backend(field) => json!(field.as_str()),
            Slot::MaybeBackend(field) => json!(field.as_ref().map(BackendName::as_str)),
            Slot::Type(field) => json!(field.as_str()),
        }
    }

    /// What to write to the file for a word that the field has taken.
    pub(super) fn to_toml(&self, word: &str) -> toml_edit::Value {
        let word = word.trim();
        match self {
            Slot::Bool(field) => (**field).into(),
            Slot::MaybeBool(Some(value)) => (*value).into(),
            // As it was typed: 64 MiB, 2 min and ~/here say more than what they come to.
            _ => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(value), _) if self.is_number() => value.into(),
                (_, Ok(value)) if self.is_number() => value.into(),
                _ => word.into(),
            },
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Slot::Whole(..) | Slot::Bytes(..) | Slot::Seconds(..) | Slot::Ratio(_))
    }
}

fn bool_of(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Bool(value) => Some(*value),
        Raw::Word(word) => match word.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn plain(raw: &Raw) -> Option<&str> {
    raw.text().filter(|text| !text.is_empty() && !text.contains(char::is_control))
}

fn url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let host = rest.split('/').next().filter(|host| !host.is_empty() && !host.starts_with(':'));
    (host.is_some() && !text.contains(char::is_whitespace))
        .then(|| text.trim_end_matches('/').to_owned())
}

fn command(raw: &Raw, base: Base<'_>) -> Option<Vec<String>> {
    let mut words = match raw {
        Raw::List(items) => items.clone(),
        _ => shlex::split(raw.text()?)?,
    };
    let program = words.first_mut().filter(|program| !program.is_empty())?;
    if program.starts_with('~') {
        *program = base.path(program)?.to_str()?.to_owned();
    }
    (!words.iter().any(|word| word.contains('\0'))).then_some(words)
}

/// Reads an amount of bytes: `1048576`, `64 MiB`, `1.5 GB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// Reads a span of time: seconds such as `90` or `0.5`, or with a unit, `250 ms`, `2 min`, `1.5h`, `7d`.
pub fn parse_seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "s" | "sec" => 1.0,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}
