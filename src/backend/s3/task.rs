//! What an operation asks for, read from its parameters, when it is logged and when it is carried out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::place::Place;
use crate::backend::parameters::{ParameterError, Reader, check_names};
use crate::operation::Fields;

/// The operation types that a service for objects carries out.
pub(super) const TYPES: [&str; 10] =
    ["add", "upload", "get", "cat", "download", "rm", "list", "mkdir", "copy", "move"];

/// The parameters that are read, beside metadata.
const NAMES: [&str; 7] = [
    "path",
    "destination",
    "source",
    "recursive",
    "content_type",
    "storage_class",
    "if_none_match",
];

/// Parameters that become metadata of an object begin so.
const METADATA: &str = "metadata.";

/// Bytes of metadata, at most, names included; what we add ourselves comes on top.
const METADATA_MAX: usize = 1900;

/// One operation, understood.
#[derive(Debug)]
pub(super) enum Task {
    /// A file, or with `recursive` a directory, to be put there.
    Put {
        path: PathBuf,
        destination: Place,
        recursive: bool,
        options: PutOptions,
    },
    /// An object, or with `folders` also all that is in a folder.
    Get {
        source: Place,
        destination: PathBuf,
        folders: bool,
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

/// What goes with an object that is put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PutOptions {
    pub(super) content_type: Option<String>,
    pub(super) storage_class: Option<String>,
    /// Only where nothing is yet.
    pub(super) if_none_match: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Whether an operation of this type may be logged with these parameters; the error says what is missing or wrong.
pub(super) fn check(operation_type: &str, parameters: &Fields) -> Result<(), ParameterError> {
    check_names(parameters, &NAMES)?;
    let places = ["source", "destination", "path"].into_iter().filter(|name| {
        // There, it is that of a file on this machine.
        !matches!(
            (operation_type, *name),
            ("add" | "upload", "path") | ("get" | "cat" | "download" | "list", "destination")
        )
    });
    for place in places.filter_map(|name| parameters.get(name)) {
        Place::check(place)?;
    }
    Task::read(operation_type, parameters).map(drop)
}

impl Task {
    /// What an operation of this type and with these parameters asks for.
    pub(super) fn read(operation_type: &str, parameters: &Fields) -> Result<Task, ParameterError> {
        let fields = Reader { operation_type, parameters };
        let recursive = fields.flag("recursive")?;
        if let Some(parameter) = ["cid", "pin_name"].iter().find(|name| fields.get(name).is_some())
        {
            return Err(format!(
                "`{parameter}` means nothing to a service for objects: they have keys"
            )
            .into());
        }
        let object = |name: &str| Place::of_object(fields.required(name)?);
        Ok(match operation_type {
            "add" | "upload" => {
                let path = fields.path("path")?;
                let destination = match (operation_type, fields.get("destination")) {
                    (_, Some(text)) if recursive => Place::of_object(text)?,
                    (_, Some(text)) => Place::for_file(text, &path)?,
                    // Under its own name.
                    ("add", None) => Place::for_file("", &path)?,
                    (_, None) => object("destination")?,
                };
                Task::Put { path, destination, recursive, options: PutOptions::read(&fields)? }
            }
            "get" | "cat" | "download" => {
                let folders = operation_type != "cat";
                Task::Get {
                    source: object("source")?,
                    destination: fields.path("destination")?,
                    folders,
                }
            }
            "rm" => Task::Remove { place: object("path")?, recursive },
            "list" => {
                let place = Place::parse(fields.get("path").unwrap_or_default())?;
                Task::List { place, destination: fields.get("destination").map(PathBuf::from) }
            }
            "mkdir" => Task::MakeFolder { place: object("path")? },
            "copy" => Task::Copy { source: object("source")?, destination: object("destination")? },
            "move" => Task::Move { source: object("source")?, destination: object("destination")? },
            other => return Err(format!("there is no operation type `{other}` here").into()),
        })
    }
}

impl Task {
    /// The same with this bucket where none is named.
    pub(super) fn in_bucket(self, bucket: Option<&str>) -> Task {
        match self {
            Task::Put { path, destination, recursive, options } => {
                Task::Put { path, destination: destination.in_bucket(bucket), recursive, options }
            }
            Task::Get { source, destination, folders } => {
                Task::Get { source: source.in_bucket(bucket), destination, folders }
            }
            Task::Remove { place, recursive } => {
                Task::Remove { place: place.in_bucket(bucket), recursive }
            }
            Task::List { place, destination } => {
                Task::List { place: place.in_bucket(bucket), destination }
            }
            Task::MakeFolder { place } => Task::MakeFolder { place: place.in_bucket(bucket) },
            Task::Copy { source, destination } => Task::Copy {
                source: source.in_bucket(bucket),
                destination: destination.in_bucket(bucket),
            },
            Task::Move { source, destination } => Task::Move {
                source: source.in_bucket(bucket),
                destination: destination.in_bucket(bucket),
            },
        }
    }
}

impl PutOptions {
    fn read(fields: &Reader<'_>) -> Result<PutOptions, ParameterError> {
        let text = |name: &str| match fields.get(name) {
            Some(text) if !is_header(text) => {
                Err(format!("{name} may hold printable ASCII only, not `{text}`").into())
            }
            text => Ok::<_, ParameterError>(text.map(str::to_owned)),
        };
        let if_none_match = text("if_none_match")?;
        if if_none_match.as_deref().is_some_and(|value| value != "*") {
            return Err("if_none_match must be `*`: put it only where nothing is yet"
                .to_owned()
                .into());
        }
        let mut metadata = BTreeMap::new();
        for (parameter, value) in fields.parameters {
            let Some(name) = parameter.strip_prefix(METADATA) else { continue };
            let is_name = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            };
            if name.is_empty() || !name.bytes().all(is_name) {
                let message =
                    format!("`{name}` is no name for metadata: a-z, 0-9, `-` and `_` may be in it");
                return Err(message.into());
            }
            if name.starts_with("wal-cli-") {
                return Err(format!(
                    "metadata that begins with `wal-cli-`, such as `{name}`, is ours"
                )
                .into());
            }
            if !is_header(value) {
                return Err(
                    format!("{parameter} may hold printable ASCII only, not `{value}`").into()
                );
            }
            metadata.insert(name.to_owned(), value.clone());
        }
        let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > METADATA_MAX {
            return Err(format!(
                "there are {bytes} bytes of metadata; services take {METADATA_MAX}"
            )
            .into());
        }
        let (content_type, storage_class) = (text("content_type")?, text("storage_class")?);
        Ok(PutOptions { content_type, storage_class, if_none_match, metadata })
    }
}

/// Whether it can be the value of a header as it is.
fn is_header(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(operation_type: &str, parameters: &[(&str, &str)]) -> Result<Task, String> {
        let parameters =
            parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Task::read(operation_type, &parameters).map_err(|bad| bad.message)
    }

    #[test]
    fn what_goes_with_an_object_is_read_and_checked() {
        let put = |more: &[(&str, &str)]| {
            let parameters = [&[("path", "/x"), ("destination", "k")], more].concat();
            read("upload", &parameters).map(|task| match task {
                Task::Put { options, .. } => options,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(put(&[]), Ok(PutOptions::default()));
        let options = put(&[
            ("content_type", "text/plain"),
            ("storage_class", "GLACIER"),
            ("metadata.by", "ann"),
        ])
        .unwrap();
        assert_eq!(options.content_type.as_deref(), Some("text/plain"));
        assert_eq!(options.metadata, BTreeMap::from([("by".to_owned(), "ann".to_owned())]));
        assert_eq!(put(&[("if_none_match", "*")]).unwrap().if_none_match.as_deref(), Some("*"));
        let long = "x".repeat(METADATA_MAX);
        for bad in [
            ("if_none_match", "etag"),
            ("content_type", "a\nb"),
            ("metadata.By", "x"),
            ("metadata.", "x"),
            ("metadata.by", "é"),
            ("metadata.by", " x"),
            ("metadata.by", &long),
            ("metadata.wal-cli-operation", "x"),
        ] {
            assert!(put(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn misspelled_names_are_noticed_and_notes_of_others_are_not() {
        let check = |name: &str| {
            let fields = [("path", "/x"), ("destination", "k"), (name, "text/plain")];
            check("upload", &fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        for (given, meant) in [
            ("content-type", "content_type"),
            ("Content_Type", "content_type"),
            ("storageclass", "storage_class"),
        ] {
            assert_eq!(
                check(given),
                Err(format!("there is no parameter `{given}`; did you mean `{meant}`?").into())
            );
        }
        for other in [
            "content_type",
            "metadata.content-type",
            "id",
            "note",
            "sources",
            "content_size",
            "storage_days",
        ] {
            assert_eq!(check(other), Ok(()), "{other}");
        }
    }

    #[test]
    fn each_type_needs_what_it_needs() {
        for (operation_type, parameters) in [
            ("upload", &[("path", "/x")][..]),
            ("upload", &[("destination", "k")]),
            ("add", &[("path", "/x"), ("cid", "Qm")]),
            ("get", &[("source", "k")]),
            ("get", &[("source", "s3://b"), ("destination", "/x")]),
            ("rm", &[("path", "s3://b/")]),
            ("rm", &[("path", "k"), ("recursive", "yes")]),
            ("pin", &[]),
        ] {
            assert!(read(operation_type, parameters).is_err(), "{operation_type} {parameters:?}");
        }
        let added = read("add", &[("path", "/a/x.txt")]);
        assert!(matches!(added, Ok(Task::Put { destination, .. }) if destination.key == "x.txt"));
        let into = read(
            "upload",
            &[("path", "/a/dir"), ("destination", "s3://b/to/"), ("recursive", "true")],
        );
        assert!(matches!(into, Ok(Task::Put { destination, .. }) if destination.key == "to/"));
    }
}
