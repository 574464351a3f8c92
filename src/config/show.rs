//! Keys with their values and origins, for `config show` and `config get`.

use serde_json::{Value as Json, json};

use super::field::Field;
use super::keys::{self, BACKEND_KEYS, GLOBAL_KEYS, is_secret, redact};
use super::{ConfigError, Loaded, Origin};
use crate::operation::BackendName;

/// One key as `config show` prints it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The full name, such as `backends.ipfs.endpoint`.
    pub key: String,
    /// The value, with secrets redacted; null if it is not set.
    pub value: serde_json::Value,
    /// The place where it was set.
    pub origin: Origin,
    /// The meaning, in one line.
    pub about: &'static str,
}

/// Returns every key with its value and origin, in the order of the manual.
pub fn entries(loaded: &Loaded) -> Vec<Entry> {
    let mut settings = loaded.settings.clone();
    let mut entries = Vec::new();
    let mut push = |name: String, value: Json, about: &'static str| {
        let origin = loaded.origin(&name).clone();
        entries.push(Entry { value: redacted(&name, value), key: name, origin, about });
    };
    for key in &GLOBAL_KEYS {
        if let Some(field) = key.field(&mut settings) {
            push(key.name.to_owned(), field.into_json(), key.about);
        }
    }
    for (backend, settings) in &mut settings.backends {
        for key in &BACKEND_KEYS {
            if let Some(field) = key.field(settings) {
                push(format!("backends.{backend}.{}", key.name), field.into_json(), key.about);
            }
        }
    }
    entries
}

/// Returns one key with its value and origin. Fails if there is no such key.
pub fn get(loaded: &Loaded, key: &str) -> Result<Entry, ConfigError> {
    match entries(loaded).into_iter().find(|entry| entry.key == key) {
        Some(entry) => Ok(entry),
        None => Err(keys::unknown(&loaded.settings.backends, key, None)),
    }
}

impl Field<'_> {
    /// Returns the current value.
    fn into_json(self) -> Json {
        match self {
            Field::Bool(field) => json!(*field),
            Field::MaybeBool(field) => json!(*field),
            Field::Integer(field, _) => json!(field.get()),
            Field::Bytes(field, _) => json!(*field),
            Field::Seconds(field, _) if field.subsec_nanos() == 0 => json!(field.as_secs()),
            Field::Seconds(field, _) => json!(field.as_secs_f64()),
            Field::Ratio(field) => json!(*field),
            Field::Text(field) | Field::HostName(field) | Field::Url(field) => json!(field),
            // `Debug` hides the secret; `redacted` hides it again by its key.
            Field::Secret(field) => json!(field.as_ref().map(|secret| format!("{secret:?}"))),
            Field::Path(field) => json!(field.to_string_lossy()),
            Field::MaybePath(field) => json!(field.as_ref().map(|path| path.to_string_lossy())),
            Field::Command(field) if field.is_empty() => Json::Null,
            Field::Command(field) => json!(field),
            Field::Spool(field) => json!(field.as_str()),
            Field::Backend(field) => json!(field.as_str()),
            Field::MaybeBackend(field) => json!(field.as_ref().map(BackendName::as_str)),
            Field::Type(field) => json!(field.as_str()),
        }
    }
}

fn redacted(key: &str, value: Json) -> Json {
    match value {
        Json::String(text) => Json::String(redact(key, &text)),
        Json::Array(items) if is_secret(key) => Json::String(redact(key, &format!("{items:?}"))),
        other => other,
    }
}
