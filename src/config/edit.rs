//! Changes to one key of a configuration file, which leave the rest of it as it is.

use std::path::Path;

use toml_edit::{DocumentMut, InlineTable, Item, Table, Value};

use super::field::{Field, RawValue};
use super::keys::{self, BACKEND_KEYS, GLOBAL_KEYS};
use super::layers::{self, Assignment, Name};
use super::{BackendSettings, BackendType, ConfigError, Origin, Settings, UserDirs};
use crate::operation::BackendName;

/// Returns the text of a configuration file with one key set; comments and order stay as they are.
///
/// `file` is the path of the text, for messages. Fails if the key or the value is invalid, or if
/// the change makes another key invalid; errors that exist already may stay.
pub fn set(text: &str, file: &Path, key: &str, value: &str) -> Result<String, ConfigError> {
    let name = Name::parse(key);
    let given = Assignment {
        raw: RawValue::Word(value.to_owned()),
        origin: Origin::Flag("config set".into()),
    };
    let (_, errors_before) = resolve(text, file, None)?;
    let (mut settings, errors) = resolve(text, file, Some((name.clone(), given)))?;
    let is_new = |error: &ConfigError| {
        let is_same = |old: &&ConfigError| {
            old.key() == error.key()
                && std::mem::discriminant(*old) == std::mem::discriminant(error)
        };
        error.key() == Some(key) || !errors_before.iter().any(|old| is_same(&old))
    };
    if let Some(error) = errors.into_iter().find(is_new) {
        return Err(error);
    }
    let mut document: DocumentMut =
        text.parse().map_err(|error| layers::syntax_error(&error, text, file))?;
    let written =
        to_toml(&mut settings, &name, value).and_then(|value| insert(&mut document, &name, value));
    if written.is_none() {
        // A value is in the place of the key's table. That is one of the errors above.
        let not_a_table = errors_before
            .into_iter()
            .find(|error| error.key().is_some_and(|parent| key.starts_with(parent)));
        return Err(not_a_table.unwrap_or_else(|| keys::unknown(&settings.backends, key, None)));
    }
    let text = document.to_string();
    resolve(&text, file, None).map(|_| text)
}

/// Returns whether a key takes a path. In a file, relative paths start from the file's directory.
pub fn is_path(key: &str) -> bool {
    let name = Name::parse(key);
    let (mut settings, mut backend) =
        (Settings::at("/".into()), BackendSettings::new(BackendType::Local));
    let field = match name.backend {
        None => keys::find(&GLOBAL_KEYS, &name.key).and_then(|key| key.field(&mut settings)),
        Some(_) => keys::find(&BACKEND_KEYS, &name.key).and_then(|key| key.field(&mut backend)),
    };
    matches!(field, Some(Field::Path(_) | Field::MaybePath(_)))
}

/// Returns the settings and the errors of a text, with `change` on top of it.
fn resolve(
    text: &str,
    file: &Path,
    change: Option<(Name, Assignment)>,
) -> Result<(Settings, Vec<ConfigError>), ConfigError> {
    let mut errors = Vec::new();
    let mut layer = layers::from_toml(text, file, &mut errors)?;
    layer.extend(change);
    // Any home directory will do, because only the form of paths is checked.
    let user_dirs = UserDirs { home: Some("/".into()), config_dir: None };
    let (settings, _) = layers::resolve(&layer, &user_dirs, &mut Vec::new(), &mut errors);
    Ok((settings, errors))
}

/// Returns the TOML for the value of a key.
fn to_toml(settings: &mut Settings, name: &Name, word: &str) -> Option<Value> {
    match &name.backend {
        None => Some(keys::find(&GLOBAL_KEYS, &name.key)?.field(settings)?.to_toml(word)),
        Some(backend) => {
            let settings = settings.backends.get_mut(&BackendName::new(backend).ok()?)?;
            Some(keys::find(&BACKEND_KEYS, &name.key)?.field(settings)?.to_toml(word))
        }
    }
}

fn insert(document: &mut DocumentMut, name: &Name, mut value: Value) -> Option<()> {
    if document.as_table().is_empty() {
        // The file has only comments. They stay in front of the new key.
        let mut head = document.trailing().as_str().unwrap_or_default().to_owned();
        if !head.is_empty() && !head.ends_with('\n') {
            // Otherwise the key would become a part of the last comment.
            head.push('\n');
        }
        document.set_trailing("");
        document.decor_mut().set_prefix(head);
    }
    let mut table = document.as_item_mut();
    if let Some(backend) = &name.backend {
        table = subtable(subtable(table, "backends", true)?, backend, false)?;
    }
    let table = table.as_table_like_mut()?;
    match table.get_mut(&name.key) {
        Some(Item::Value(old)) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        _ => {
            table.insert(&name.key, Item::Value(value));
        }
    }
    Some(())
}

/// Returns the item of this name in a table. If there is none, creates a table of the parent's
/// kind.
fn subtable<'a>(parent: &'a mut Item, name: &str, implicit: bool) -> Option<&'a mut Item> {
    let inline = parent.is_inline_table();
    let item = parent.get_mut(name)?;
    if item.is_none() {
        let mut table = Table::new();
        table.set_implicit(implicit);
        *item = if inline { Item::Value(InlineTable::new().into()) } else { Item::Table(table) };
    }
    Some(item)
}

impl Field<'_> {
    /// Returns the TOML for a word that the field has accepted.
    pub(super) fn to_toml(&self, word: &str) -> toml_edit::Value {
        let word = word.trim();
        match self {
            Field::Bool(field) => (**field).into(),
            Field::MaybeBool(Some(value)) => (*value).into(),
            // As it was typed: `64 MiB`, `2 min` and `~/here` are easier to read than their values.
            _ => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(value), _) if self.is_number() => value.into(),
                (_, Ok(value)) if self.is_number() => value.into(),
                _ => word.into(),
            },
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Field::Integer(..) | Field::Bytes(..) | Field::Seconds(..) | Field::Ratio(_))
    }
}
