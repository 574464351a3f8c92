//! Operations as their parameters describe them, read both when they are logged and when they run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::location::Location;
use crate::backend::parameters::{ParameterError, Reader, check_names};
use crate::operation::Fields;

/// The operation types that an object store supports.
pub(super) const TYPES: [&str; 10] =
    ["add", "upload", "get", "cat", "download", "rm", "list", "mkdir", "copy", "move"];

/// The parameters that are read, besides metadata.
const NAMES: [&str; 7] = [
    "path",
    "destination",
    "source",
    "recursive",
    "content_type",
    "storage_class",
    "if_none_match",
];

/// The prefix of parameters that become metadata of an object.
const METADATA_PREFIX: &str = "metadata.";

/// The largest metadata in bytes, names included; the operation's own metadata is not counted.
const METADATA_MAX: usize = 1900;

/// One operation with its parameters.
#[derive(Debug)]
pub(super) enum S3Operation {
    /// Puts a file, or with `recursive` a directory.
    Put {
        path: PathBuf,
        destination: Location,
        recursive: bool,
        options: PutOptions,
    },
    /// Fetches an object, or with `folders` everything in a folder.
    Get {
        source: Location,
        destination: PathBuf,
        folders: bool,
    },
    Remove {
        location: Location,
        recursive: bool,
    },
    List {
        location: Location,
        destination: Option<PathBuf>,
    },
    MakeFolder {
        location: Location,
    },
    Copy {
        source: Location,
        destination: Location,
    },
    Move {
        source: Location,
        destination: Location,
    },
}

/// The headers and metadata of an object that is put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PutOptions {
    pub(super) content_type: Option<String>,
    pub(super) storage_class: Option<String>,
    /// `*`: put the object only if the key is free.
    pub(super) if_none_match: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Checks an operation before it is logged. The error names the parameter that is missing or
/// invalid.
pub(super) fn check(operation_type: &str, parameters: &Fields) -> Result<(), ParameterError> {
    check_names(parameters, &NAMES)?;
    let locations = ["source", "destination", "path"].into_iter().filter(|name| {
        // In these cases the parameter names a file of this machine.
        !matches!(
            (operation_type, *name),
            ("add" | "upload", "path") | ("get" | "cat" | "download" | "list", "destination")
        )
    });
    for location in locations.filter_map(|name| parameters.get(name)) {
        Location::check(location)?;
    }
    S3Operation::read(operation_type, parameters).map(drop)
}

impl S3Operation {
    /// Reads an operation from its type and its parameters.
    pub(super) fn read(
        operation_type: &str,
        parameters: &Fields,
    ) -> Result<S3Operation, ParameterError> {
        let fields = Reader { operation_type, parameters };
        let recursive = fields.flag("recursive")?;
        if let Some(parameter) = ["cid", "pin_name"].iter().find(|name| fields.get(name).is_some())
        {
            let message =
                format!("`{parameter}` has no meaning for S3, where objects are found by keys");
            return Err(message.into());
        }
        let object = |name: &str| Location::of_object(fields.required(name)?);
        Ok(match operation_type {
            "add" | "upload" => {
                let path = fields.path("path")?;
                let destination = match (operation_type, fields.get("destination")) {
                    (_, Some(text)) if recursive => Location::of_object(text)?,
                    (_, Some(text)) => Location::for_file(text, &path)?,
                    ("add", None) => Location::for_file("", &path)?,
                    (_, None) => object("destination")?,
                };
                let options = PutOptions::read(&fields)?;
                S3Operation::Put { path, destination, recursive, options }
            }
            "get" | "cat" | "download" => S3Operation::Get {
                source: object("source")?,
                destination: fields.path("destination")?,
                folders: operation_type != "cat",
            },
            "rm" => S3Operation::Remove { location: object("path")?, recursive },
            "list" => {
                let location = Location::parse(fields.get("path").unwrap_or_default())?;
                let destination = fields.get("destination").map(PathBuf::from);
                S3Operation::List { location, destination }
            }
            "mkdir" => S3Operation::MakeFolder { location: object("path")? },
            "copy" => {
                S3Operation::Copy { source: object("source")?, destination: object("destination")? }
            }
            "move" => {
                S3Operation::Move { source: object("source")?, destination: object("destination")? }
            }
            other => {
                return Err(format!("the backend does not support operation type `{other}`").into());
            }
        })
    }

    /// Returns the operation with this bucket in every location that names none.
    pub(super) fn in_bucket(mut self, bucket: Option<&str>) -> S3Operation {
        let locations = match &mut self {
            S3Operation::Put { destination: one, .. }
            | S3Operation::Get { source: one, .. }
            | S3Operation::Remove { location: one, .. }
            | S3Operation::List { location: one, .. }
            | S3Operation::MakeFolder { location: one } => vec![one],
            S3Operation::Copy { source, destination }
            | S3Operation::Move { source, destination } => vec![source, destination],
        };
        for location in locations {
            *location = location.clone().in_bucket(bucket);
        }
        self
    }
}

impl PutOptions {
    fn read(fields: &Reader<'_>) -> Result<PutOptions, ParameterError> {
        let text = |name: &str| match fields.get(name) {
            Some(text) if !is_header_value(text) => {
                Err(format!("{name} must be printable ASCII, not `{text}`").into())
            }
            text => Ok::<_, ParameterError>(text.map(str::to_owned)),
        };
        let if_none_match = text("if_none_match")?;
        if if_none_match.as_deref().is_some_and(|value| value != "*") {
            let message = "if_none_match must be `*`, which puts an object only if the key is free";
            return Err(message.to_owned().into());
        }
        let mut metadata = BTreeMap::new();
        for (parameter, value) in fields.parameters {
            let Some(name) = parameter.strip_prefix(METADATA_PREFIX) else { continue };
            check_metadata_name(name)?;
            if !is_header_value(value) {
                return Err(format!("{parameter} must be printable ASCII, not `{value}`").into());
            }
            metadata.insert(name.to_owned(), value.clone());
        }
        let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > METADATA_MAX {
            return Err(format!(
                "the metadata has {bytes} bytes; at most {METADATA_MAX} are allowed"
            )
            .into());
        }
        let (content_type, storage_class) = (text("content_type")?, text("storage_class")?);
        Ok(PutOptions { content_type, storage_class, if_none_match, metadata })
    }
}

fn check_metadata_name(name: &str) -> Result<(), ParameterError> {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    if name.is_empty() || !name.bytes().all(is_allowed) {
        let message =
            format!("`{name}` is not a valid metadata name: it may contain a-z, 0-9, `-` and `_`");
        return Err(message.into());
    }
    if name.starts_with("wal-cli-") {
        let message =
            format!("metadata names that begin with `wal-cli-`, as `{name}`, are reserved");
        return Err(message.into());
    }
    Ok(())
}

/// Returns whether a text is a valid header value without encoding.
fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(operation_type: &str, parameters: &[(&str, &str)]) -> Result<S3Operation, String> {
        let parameters =
            parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        S3Operation::read(operation_type, &parameters).map_err(|bad| bad.message)
    }

    #[test]
    fn options_of_an_object_are_read_and_checked() {
        let put = |more: &[(&str, &str)]| {
            let parameters = [&[("path", "/x"), ("destination", "k")], more].concat();
            read("upload", &parameters).map(|operation| match operation {
                S3Operation::Put { options, .. } => options,
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
    fn misspelled_names_are_refused_and_other_names_are_not() {
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
    fn each_type_requires_its_parameters() {
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
        assert!(
            matches!(added, Ok(S3Operation::Put { destination, .. }) if destination.key == "x.txt")
        );
        let into = read(
            "upload",
            &[("path", "/a/dir"), ("destination", "s3://b/to/"), ("recursive", "true")],
        );
        assert!(
            matches!(into, Ok(S3Operation::Put { destination, .. }) if destination.key == "to/")
        );
    }
}
