//! The layers above the defaults, and their merge.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, TomlError, Value};

use super::field::{PathBase, RawValue};
use super::keys::{self, BACKEND_KEYS, GLOBAL_KEYS, Key};
use super::{
    BackendSettings, BackendType, ConfigError, Loaded, Origin, Settings, Sources, UserDirs,
    Warning, redact,
};
use crate::disk::{Access, Disk, FileKind};
use crate::operation::BackendName;

/// The prefix of all environment variables of the configuration.
pub const VARIABLE_PREFIX: &str = "IPFS_KIT_WAL_";

/// The variable for filters of the diagnostic log, which is not a setting.
const LOG_VARIABLE: &str = "IPFS_KIT_WAL_LOG";

/// The full name of a key. Keys of backends sort after global ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub backend: Option<String>,
    pub key: String,
}

impl Name {
    pub(super) fn parse(text: &str) -> Name {
        match text.strip_prefix("backends.").and_then(|rest| rest.rsplit_once('.')) {
            Some((backend, key)) => Name { backend: Some(backend.to_owned()), key: key.to_owned() },
            None => Name { backend: None, key: text.to_owned() },
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Some(backend) => write!(f, "backends.{backend}.{}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// The value of a key in one layer.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    pub raw: RawValue,
    pub origin: Origin,
}

/// The assignments of one layer, or of several that were merged.
pub(super) type Layer = BTreeMap<Name, Assignment>;

/// Reads all layers. Errors of single keys are returned beside the settings, in which those keys
/// have their defaults.
pub(super) fn read(
    sources: Sources<'_, impl IntoIterator<Item = (OsString, OsString)>>,
) -> Result<(Loaded, Vec<ConfigError>), ConfigError> {
    let Sources { disk, user_dirs, file, environment, flags } = sources;
    let mut errors = Vec::new();
    let mut layer = Layer::new();
    let mut read_file = None;
    if let Some(path) = file.map(Path::to_owned).or_else(|| user_dirs.file()) {
        match read_text(disk, &path) {
            Ok(text) => {
                layer = from_toml(&text, &path, &mut errors)?;
                read_file = Some(path);
            }
            Err(ConfigError::Disk(error)) if error.is_not_found() && file.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    let flags: Layer = flags
        .iter()
        .map(|(key, value)| {
            let origin = Origin::Flag(format!("--{}", key.replace('_', "-")));
            (Name::parse(key), Assignment { raw: RawValue::Word((*value).to_owned()), origin })
        })
        .collect();
    let mut warnings = Vec::new();
    let named = layer.keys().chain(flags.keys()).filter_map(|name| name.backend.clone()).collect();
    layer.extend(from_environment(environment, named, &mut warnings, &mut errors));
    layer.extend(flags);

    let (settings, origins) = resolve(&layer, user_dirs, &mut warnings, &mut errors);
    Ok((Loaded { settings, origins, warnings, file: read_file }, errors))
}

fn read_text(disk: &dyn Disk, path: &Path) -> Result<String, ConfigError> {
    let not_a_file = |kind| ConfigError::NotAFile { path: path.to_owned(), kind };
    let file = disk.open(path, Access::Read)?;
    match file.metadata()?.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(not_a_file("a directory")),
        // The length of a pipe is unknown: read as a file it would seem empty, without settings.
        FileKind::Symlink | FileKind::Other => return Err(not_a_file("a pipe or a device")),
    }
    String::from_utf8(file.read_to_end_from(0)?).map_err(|_| not_a_file("not UTF-8"))
}

/// Returns the line and column of a byte, both counted from 1.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Returns the error for a file that is not valid TOML.
pub(super) fn syntax_error(error: &TomlError, text: &str, path: &Path) -> ConfigError {
    let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
    let message = error.message().trim().replace('\n', "; ");
    ConfigError::Syntax { path: path.to_owned(), line, column, message }
}

/// Returns the assignments of a configuration file.
pub(super) fn from_toml(
    text: &str,
    path: &Path,
    errors: &mut Vec<ConfigError>,
) -> Result<Layer, ConfigError> {
    let document = Document::parse(text).map_err(|error| syntax_error(&error, text, path))?;
    let mut reader = TomlReader { text, path, layer: Layer::new(), errors };
    for (key, item) in document.as_table() {
        let origin = reader.origin(document.as_table(), key);
        match (key, item.as_table_like()) {
            ("backends", Some(backends)) => reader.backends(backends),
            ("backends", None) => reader.not_a_table("backends".into(), item, origin),
            _ => reader.value(Name { backend: None, key: key.to_owned() }, item, origin),
        }
    }
    Ok(reader.layer)
}

struct TomlReader<'a> {
    text: &'a str,
    path: &'a Path,
    layer: Layer,
    errors: &'a mut Vec<ConfigError>,
}

impl TomlReader<'_> {
    fn origin(&self, table: &dyn TableLike, key: &str) -> Origin {
        let offset =
            table.get_key_value(key).and_then(|(key, _)| key.span()).map_or(0, |span| span.start);
        Origin::File { path: self.path.to_owned(), line: line_and_column(self.text, offset).0 }
    }

    fn backends(&mut self, backends: &dyn TableLike) {
        for (backend, item) in backends.iter() {
            let origin = self.origin(backends, backend);
            let Some(table) = item.as_table_like() else {
                self.not_a_table(format!("backends.{backend}"), item, origin);
                continue;
            };
            for (key, item) in table.iter() {
                let origin = self.origin(table, key);
                self.value(
                    Name { backend: Some(backend.to_owned()), key: key.to_owned() },
                    item,
                    origin,
                );
            }
        }
    }

    fn value(&mut self, name: Name, item: &Item, origin: Origin) {
        self.layer.insert(name, Assignment { raw: raw_of(item), origin });
    }

    fn not_a_table(&mut self, key: String, item: &Item, origin: Origin) {
        let value = redact(&key, &raw_of(item).as_written());
        self.errors.push(ConfigError::Value {
            key,
            value: value.into(),
            expected: "a table".into(),
            origin,
            hint: None,
        });
    }
}

fn raw_of(item: &Item) -> RawValue {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match item {
        Item::Value(Value::String(value)) => RawValue::Text(value.value().clone()),
        Item::Value(Value::Boolean(value)) => RawValue::Bool(*value.value()),
        Item::Value(Value::Integer(value)) => RawValue::Int(*value.value()),
        Item::Value(Value::Float(value)) => RawValue::Float(*value.value()),
        Item::Value(Value::Array(items)) if items.iter().all(|item| item.is_str()) => {
            RawValue::List(items.iter().filter_map(text).collect())
        }
        Item::Value(other) => RawValue::Other(other.to_string()),
        Item::ArrayOfTables(_) => RawValue::Other("a list of tables".into()),
        Item::Table(_) | Item::None => RawValue::Other("a table".into()),
    }
}

/// Returns the assignments of the environment. `named` are the backends of other layers.
fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    mut named: BTreeSet<String>,
    warnings: &mut Vec<Warning>,
    errors: &mut Vec<ConfigError>,
) -> Layer {
    // Sorted, so that the result does not depend on the order of the variables.
    let ours: BTreeMap<String, OsString> = environment
        .into_iter()
        .filter(|(variable, _)| variable.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes()))
        .filter_map(|(variable, value)| Some((variable.into_string().ok()?, value)))
        .filter(|(variable, value)| variable != LOG_VARIABLE && !value.is_empty())
        .collect();
    let mut layer = Layer::new();
    if ours.is_empty() {
        return layer;
    }
    named.extend(BackendType::ALL.map(|kind| kind.as_str().to_owned()));
    for variable in ours.keys() {
        if let Some(name) = backend_part(variable, "TYPE")
            && !named.iter().any(|known| as_variable(known) == name)
        {
            named.insert(name.to_ascii_lowercase());
        }
    }
    for (variable, value) in ours {
        let Some(name) = name_of(&variable, &named) else {
            let hint = keys::did_you_mean(&variable, variables(&named));
            warnings.push(Warning { message: "there is no such setting".into(), variable, hint });
            continue;
        };
        let origin = Origin::Environment(variable);
        match value.into_string() {
            Ok(word) => {
                layer.insert(name, Assignment { raw: RawValue::Word(word), origin });
            }
            Err(value) => errors.push(ConfigError::Value {
                value: redact(&name.to_string(), &value.to_string_lossy()).into(),
                key: name.to_string(),
                expected: "UTF-8".into(),
                origin,
                hint: None,
            }),
        }
    }
    layer
}

fn as_variable(backend: &str) -> String {
    backend.replace('-', "_").to_ascii_uppercase()
}

/// Returns the backend's part of the name of a variable for this key.
fn backend_part<'a>(variable: &'a str, key: &str) -> Option<&'a str> {
    let rest = variable.strip_prefix(VARIABLE_PREFIX)?.strip_prefix("BACKENDS_")?;
    rest.strip_suffix(key)?.strip_suffix('_').filter(|backend| !backend.is_empty())
}

/// Returns the key that a variable sets.
fn name_of(variable: &str, named: &BTreeSet<String>) -> Option<Name> {
    let end = variable.strip_prefix(VARIABLE_PREFIX)?;
    if let Some(key) = GLOBAL_KEYS.iter().find(|key| key.variable == end) {
        return Some(Name { backend: None, key: key.name.to_owned() });
    }
    BACKEND_KEYS.iter().find_map(|key| {
        let part = backend_part(variable, key.variable)?;
        let backend = named.iter().find(|backend| as_variable(backend) == part)?;
        Some(Name { backend: Some(backend.clone()), key: key.name.to_owned() })
    })
}

/// Returns the names of all variables.
fn variables(named: &BTreeSet<String>) -> impl Iterator<Item = String> {
    let general = GLOBAL_KEYS.iter().map(|key| format!("{VARIABLE_PREFIX}{}", key.variable));
    let of_backends = named.iter().flat_map(|backend| {
        let backend = as_variable(backend);
        BACKEND_KEYS
            .iter()
            .map(move |key| format!("{VARIABLE_PREFIX}BACKENDS_{backend}_{}", key.variable))
    });
    general.chain(of_backends)
}

/// Returns the settings that result from the layers, and the origin of each key that is set.
pub(super) fn resolve(
    layer: &Layer,
    user_dirs: &UserDirs,
    warnings: &mut Vec<Warning>,
    errors: &mut Vec<ConfigError>,
) -> (Settings, BTreeMap<String, Origin>) {
    let default_path = user_dirs.home.as_ref().map(|home| home.join(".ipfs_kit").join("wal"));
    let settings = Settings::at(default_path.clone().unwrap_or_default());
    let mut resolver = Resolver { user_dirs, settings, origins: BTreeMap::new(), warnings, errors };
    resolver.declare(layer);
    for (name, given) in layer {
        resolver.apply(name, given);
    }
    resolver.finish(default_path)
}

struct Resolver<'a> {
    user_dirs: &'a UserDirs,
    settings: Settings,
    origins: BTreeMap<String, Origin>,
    warnings: &'a mut Vec<Warning>,
    errors: &'a mut Vec<ConfigError>,
}

impl Resolver<'_> {
    /// Adds the backends that have a type, so that their other keys can be applied.
    fn declare(&mut self, layer: &Layer) {
        let mut refused = BTreeSet::new();
        for (name, given) in layer {
            let Some(text) = name.backend.as_deref() else { continue };
            if BackendType::parse(text).is_some() || refused.contains(text) {
                continue;
            }
            let backend = match BackendName::new(text) {
                Ok(backend) => backend,
                Err(error) => {
                    refused.insert(text);
                    let hint = Some(error.to_string());
                    let key = format!("backends.{text}");
                    self.errors.push(ConfigError::UnknownKey {
                        key,
                        origin: Some(given.origin.clone()),
                        hint,
                    });
                    continue;
                }
            };
            let name = Name { backend: Some(text.to_owned()), key: "type".into() };
            let Some(given_type) = layer.get(&name) else {
                if refused.insert(text) {
                    let of_predeclared = BackendType::ALL.map(|kind| kind.as_str().to_owned());
                    let hint = keys::did_you_mean(text, of_predeclared).or_else(|| {
                        Some(format!("set `backends.{text}.type`, for example to \"ipfs\""))
                    });
                    let backend = text.to_owned();
                    self.errors.push(ConfigError::NoType {
                        backend,
                        origin: given.origin.clone(),
                        hint,
                    });
                }
                continue;
            };
            match given_type.raw.text().and_then(BackendType::parse) {
                Some(kind) => {
                    self.settings
                        .backends
                        .entry(backend)
                        .or_insert_with(|| BackendSettings::new(kind));
                }
                // The invalid type is reported once, here. Other keys depend on it, and cannot be
                // checked.
                None => {
                    refused.insert(text);
                    if let Some(key) = keys::find(&BACKEND_KEYS, "type") {
                        set(
                            key,
                            &mut BackendSettings::new(BackendType::Mock),
                            &name,
                            given_type,
                            PathBase::default(),
                        )
                        .map_or_else(|error| self.errors.push(error), drop);
                    }
                }
            }
        }
    }

    fn apply(&mut self, name: &Name, given: &Assignment) {
        let directory = match &given.origin {
            Origin::File { path, .. } => path.parent(),
            _ => None,
        };
        let base = PathBase { home: self.user_dirs.home.as_deref(), directory };
        let origin = || Some(given.origin.clone());
        let result = match &name.backend {
            None => match keys::find(&GLOBAL_KEYS, &name.key) {
                Some(key) => set(key, &mut self.settings, name, given, base),
                None => Err(keys::unknown(&self.settings.backends, &name.key, origin())),
            },
            Some(backend) => {
                let Ok(backend) = BackendName::new(backend) else { return };
                let known = &self.settings.backends;
                let Some(kind) = known.get(&backend).map(BackendSettings::backend_type) else {
                    return;
                };
                match keys::find(&BACKEND_KEYS, &name.key) {
                    None => Err(keys::unknown(known, &name.to_string(), origin())),
                    Some(key) if !key.applies_to(kind) => {
                        Err(not_of_type(name, kind, given.origin.clone()))
                    }
                    Some(key) if key.name == "type" => check_type(name, given, kind),
                    Some(key) => match self.settings.backends.get_mut(&backend) {
                        Some(settings) => set(key, settings, name, given, base),
                        None => Ok(()),
                    },
                }
            }
        };
        match result {
            Ok(()) => {
                self.origins.insert(name.to_string(), given.origin.clone());
            }
            // A warning only: the variable may be meant for another version or machine.
            Err(ConfigError::NotOfType {
                origin: Origin::Environment(variable),
                backend_type,
                hint,
                ..
            }) => {
                let message = format!("a backend of type `{backend_type}` has no `{}`", name.key);
                self.warnings.push(Warning { variable, message, hint });
            }
            Err(error) => self.errors.push(error),
        }
    }

    /// Checks and sets the values that depend on several keys.
    fn finish(mut self, default_path: Option<PathBuf>) -> (Settings, BTreeMap<String, Origin>) {
        let settings = &mut self.settings;
        if settings.base_path.as_os_str().is_empty() {
            self.errors.push(ConfigError::NoHome);
        }
        if !self.origins.contains_key("backends.local.path")
            && let Some(local) = settings
                .backends
                .get_mut(&BackendType::Local.name())
                .and_then(BackendSettings::local_mut)
        {
            // Beside the default log, as in the original system; in the directory of any other log.
            let directory = match settings.base_path.parent() {
                Some(parent) if Some(&settings.base_path) == default_path.as_ref() => parent,
                _ => settings.base_path.as_path(),
            };
            local.path = Some(directory.join("local"));
        }
        let names: Vec<String> = settings.backends.keys().map(BackendName::to_string).collect();
        let exists = |name: &BackendName| settings.backends.contains_key(name);
        let mut unknown = Vec::new();
        if !exists(&settings.default_backend) {
            let name = std::mem::replace(&mut settings.default_backend, BackendType::Ipfs.name());
            unknown.push(("default_backend", name));
        }
        unknown.extend(
            settings
                .archive_backend
                .take_if(|name| !exists(name))
                .map(|name| ("archive_backend", name)),
        );
        for (key, name) in unknown {
            self.errors.push(ConfigError::Value {
                key: key.into(),
                value: name.as_str().into(),
                expected: format!("the name of a backend: {}", names.join(", ")).into(),
                origin: self.origins.remove(key).unwrap_or(Origin::Default),
                hint: keys::did_you_mean(name.as_str(), names.clone()),
            });
        }
        (self.settings, self.origins)
    }
}

fn not_of_type(name: &Name, backend_type: BackendType, origin: Origin) -> ConfigError {
    let keys = BACKEND_KEYS.iter().filter(|key| key.applies_to(backend_type));
    let keys: Vec<String> = keys.map(|key| format!("`{}`", key.name)).collect();
    let hint = Some(format!("a backend of type `{backend_type}` has {}", keys.join(", ")));
    ConfigError::NotOfType { key: name.to_string(), backend_type, origin, hint }
}

/// Fails if the type differs from the one that the backend has: a predeclared one from its name,
/// and any other from the layers as a whole.
fn check_type(
    name: &Name,
    given: &Assignment,
    backend_type: BackendType,
) -> Result<(), ConfigError> {
    if given.raw.text() == Some(backend_type.as_str()) {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: name.to_string(),
        value: given.raw.as_written().into(),
        expected: format!(
            "only `{backend_type}`, because a backend that is named like a type has that type"
        )
        .into(),
        origin: given.origin.clone(),
        hint: Some("choose another name for a backend of another type".into()),
    })
}

/// Sets the field behind a key.
fn set<T: Clone>(
    key: &'static Key<T>,
    target: &mut T,
    name: &Name,
    given: &Assignment,
    base: PathBase<'_>,
) -> Result<(), ConfigError> {
    // The caller has checked that the key applies.
    let Some(field) = key.field(target) else { return Ok(()) };
    if field.set(&given.raw, base).is_some() {
        return Ok(());
    }
    let unquoted = match &given.raw {
        RawValue::Text(text) => key
            .field(&mut target.clone())
            .and_then(|field| field.set(&RawValue::Word(text.clone()), base)),
        _ => None,
    };
    let Some(field) = key.field(target) else { return Ok(()) };
    let hint = match unquoted {
        Some(()) => Some("leave out the quotes".into()),
        None => {
            let choices = field.choices().into_iter().map(str::to_owned);
            keys::did_you_mean(given.raw.text().unwrap_or_default(), choices)
        }
    };
    let (key, expected) = (name.to_string(), field.expected().into());
    let value = redact(&key, &given.raw.as_written()).into();
    Err(ConfigError::Value { key, value, expected, origin: given.origin.clone(), hint })
}
