//! What an operation asks for, read from its parameters, when it is logged and when it is carried out.

use std::path::PathBuf;

use super::place::Place;
use crate::operation::Fields;

/// The operation types that a service for objects carries out.
pub const TYPES: [&str; 10] = ["add", "upload", "get", "cat", "download", "rm", "list", "mkdir", "copy", "move"];

/// One operation, understood.
#[derive(Debug)]
pub(super) enum Task {
    /// A file, or with `recursive` a directory, to be put there.
    Put {
        path: PathBuf,
        destination: Place,
        recursive: bool,
    },
    Get {
        source: Place,
        destination: PathBuf,
    },
    Remove {
        place: Place,
        recursive: bool,
    },
    List {
        place: Place,
        destination: Option<PathBuf>,
    },
    MakeFolder {
        place: Place,
    },
    Copy {
        source: Place,
        destination: Place,
    },
    Move {
        source: Place,
        destination: Place,
    },
}

/// Whether an operation of this type may be logged with these parameters; the error says what is missing or wrong.
pub fn check(operation_type: &str, parameters: &Fields) -> Result<(), String> {
    Task::read(operation_type, parameters).map(drop)
}

impl Task {
    /// What an operation of this type and with these parameters asks for.
    pub(super) fn read(operation_type: &str, parameters: &Fields) -> Result<Task, String> {
        let get = |name: &str| parameters.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let required = |name: &str| get(name).ok_or_else(|| format!("`{operation_type}` needs the parameter `{name}`"));
        let path = |name: &str| match required(name)? {
            path if path.contains('\0') => Err(format!("{name} contains a zero byte")),
            path => Ok(PathBuf::from(path)),
        };
        let recursive = match get("recursive") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(format!("recursive must be `true` or `false`, not `{other}`")),
        };
        if let Some(parameter) = ["cid", "pin_name"].iter().find(|name| get(name).is_some()) {
            return Err(format!("`{parameter}` means nothing to a service for objects: they have keys"));
        }
        let object = |name: &str| Place::of_object(required(name)?);
        Ok(match operation_type {
            "add" => {
                let path = path("path")?;
                // Without a destination, under its own name.
                let destination = match get("destination") {
                    Some(text) => Place::of_object(text)?,
                    None => Place::of_object(&path.file_name().unwrap_or_default().to_string_lossy())?,
                };
                Task::Put { path, destination, recursive }
            }
            "upload" => Task::Put { path: path("path")?, destination: object("destination")?, recursive },
            "get" | "cat" | "download" => Task::Get { source: object("source")?, destination: path("destination")? },
            "rm" => Task::Remove { place: object("path")?, recursive },
            "list" => {
                let place = Place::parse(get("path").unwrap_or_default())?;
                Task::List { place, destination: get("destination").map(PathBuf::from) }
            }
            "mkdir" => Task::MakeFolder { place: object("path")? },
            "copy" => Task::Copy { source: object("source")?, destination: object("destination")? },
            "move" => Task::Move { source: object("source")?, destination: object("destination")? },
            other => return Err(format!("there is no operation type `{other}` here")),
        })
    }
}
