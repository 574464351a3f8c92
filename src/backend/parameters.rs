//! The standard operations and their parameters. The same parser checks an operation before it is
//! logged and reads it for execution, so a logged operation is always readable.

use std::path::PathBuf;

use super::errors::Result;
use super::unixfs::{Cid, Options};
use super::{AttemptError, Request};
use crate::operation::Fields;
use crate::suggest;

/// The standard operation types, for backends that store content by CID.
pub const TYPES: [&str; 12] = [
    "add", "upload", "get", "cat", "download", "pin", "unpin", "rm", "list", "mkdir", "copy",
    "move",
];

/// The parameters of standard operations. Others are the user's, and kept with the operation.
const NAMES: [&str; 14] = [
    "path",
    "destination",
    "source",
    "cid",
    "recursive",
    "profile",
    "cid_version",
    "raw_leaves",
    "chunk_size",
    "chunker",
    "max_links",
    "pin",
    "pin_name",
    "to_files",
];

/// Fails if an operation of this type may not be logged with these parameters.
pub fn check(operation_type: &str, parameters: &Fields) -> Parsed<()> {
    check_names(parameters, &NAMES)?;
    StandardOperation::read(operation_type, parameters, Options::default()).map(drop)
}

/// Fails if a parameter is almost certainly a misspelling of one of `names`, which would silently
/// have no effect. Other parameters are the user's.
pub(super) fn check_names(parameters: &Fields, names: &[&str]) -> Parsed<()> {
    for given in parameters.keys().filter(|given| !names.contains(&&given[..])) {
        if let Some(name) = names.iter().find(|name| suggest::is_typo_of(given, name)) {
            let message = format!("there is no parameter `{given}`; did you mean `{name}`?");
            return Err(message.into());
        }
    }
    Ok(())
}

/// The reason why an operation's parameters are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParameterError {
    /// A word for programs: `bad_parameters`, or `bad_path` for names that lead out of the tree.
    pub error_type: &'static str,
    /// A text that names the parameter and the problem.
    pub message: String,
}

impl ParameterError {
    /// Returns an error of the type `bad_parameters`.
    pub fn new(message: impl Into<String>) -> ParameterError {
        ParameterError { error_type: "bad_parameters", message: message.into() }
    }
}

impl From<String> for ParameterError {
    fn from(message: String) -> ParameterError {
        ParameterError::new(message)
    }
}

/// An operation that was logged with invalid parameters fails permanently.
impl From<ParameterError> for AttemptError {
    fn from(error: ParameterError) -> AttemptError {
        AttemptError::permanent(error.error_type, error.message)
    }
}

pub(super) type Parsed<T> = std::result::Result<T, ParameterError>;

/// A parsed operation.
#[derive(Debug)]
pub(super) enum StandardOperation {
    Add { path: PathBuf, recursive: bool, options: Options },
    Upload { path: PathBuf, destination: Name, recursive: bool, options: Options },
    Get { source: Source, destination: PathBuf },
    Cat { source: Source, destination: PathBuf },
    Pin { cid: Cid },
    Unpin { cid: Cid },
    RemoveContent { cid: Cid, recursive: bool },
    RemoveName { name: Name, recursive: bool },
    List { what: Listed, destination: Option<PathBuf> },
    MakeDirectory { name: Name },
    Copy { source: Name, destination: Name },
    Move { source: Name, destination: Name },
}

/// The source of content.
#[derive(Debug)]
pub(super) enum Source {
    /// A CID, and the path of an entry below it.
    Content(Cid, Vec<String>),
    /// A name in the tree.
    Name(Name),
}

/// The target of `list`.
#[derive(Debug)]
pub(super) enum Listed {
    /// All content.
    Content,
    /// A directory by its CID.
    Directory(Cid),
    /// A name in the tree.
    Name(Name),
}

impl StandardOperation {
    /// Parses a request. Fails permanently if its parameters are invalid.
    pub(super) fn of(request: &Request, options: Options) -> Result<StandardOperation> {
        StandardOperation::read(request.operation_type.as_str(), &request.parameters, options)
            .map_err(AttemptError::from)
    }

    /// Parses an operation.
    pub(super) fn read(
        operation_type: &str,
        parameters: &Fields,
        options: Options,
    ) -> Parsed<StandardOperation> {
        let fields = Reader { operation_type, parameters };
        let recursive = fields.flag("recursive")?;
        let options = options.overridden(parameters)?;
        Ok(match operation_type {
            "add" => StandardOperation::Add { path: fields.path("path")?, recursive, options },
            "upload" => {
                let (path, destination) =
                    (fields.path("path")?, fields.proper_name("destination")?);
                StandardOperation::Upload { path, destination, recursive, options }
            }
            "get" => StandardOperation::Get {
                source: fields.source(false)?,
                destination: fields.path("destination")?,
            },
            "cat" => StandardOperation::Cat {
                source: fields.source(false)?,
                destination: fields.path("destination")?,
            },
            "download" => StandardOperation::Get {
                source: fields.source(true)?,
                destination: fields.path("destination")?,
            },
            "pin" => StandardOperation::Pin { cid: fields.cid()? },
            "unpin" => StandardOperation::Unpin { cid: fields.cid()? },
            "rm" => match fields.one_of("cid", "path")? {
                Some("cid") => StandardOperation::RemoveContent { cid: fields.cid()?, recursive },
                Some(_) => {
                    StandardOperation::RemoveName { name: fields.proper_name("path")?, recursive }
                }
                None => return Err("`rm` needs the parameter `cid` or `path`".to_owned().into()),
            },
            "list" => {
                let what = match fields.one_of("cid", "path")? {
                    Some("cid") => Listed::Directory(fields.cid()?),
                    Some(_) => Listed::Name(fields.name("path")?),
                    None => Listed::Content,
                };
                StandardOperation::List {
                    what,
                    destination: fields.get("destination").map(PathBuf::from),
                }
            }
            "mkdir" => StandardOperation::MakeDirectory { name: fields.proper_name("path")? },
            "copy" | "move" => {
                let (source, destination) =
                    (fields.proper_name("source")?, fields.proper_name("destination")?);
                if operation_type == "copy" {
                    StandardOperation::Copy { source, destination }
                } else {
                    StandardOperation::Move { source, destination }
                }
            }
            other => return Err(format!("`{other}` is not a supported operation type").into()),
        })
    }
}

/// A name in the tree of files, as the parts of its path. The root has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(Vec<String>);

impl Name {
    /// Parses a path with or without a leading `/`. Refuses names that lead out of the tree.
    pub(super) fn parse(text: &str) -> Parsed<Name> {
        let bad = |why| {
            let message = format!("`{text}` is not a valid name in the tree of files: {why}");
            Err(ParameterError { error_type: "bad_path", message })
        };
        let parts: Vec<String> =
            text.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect();
        if parts.iter().any(|part| part == "..") {
            return bad("`..` is not allowed");
        }
        if text.contains('\0') {
            return bad("it contains a zero byte");
        }
        if parts.iter().any(|part| part.len() > 255) {
            return bad("a part of it is longer than 255 bytes");
        }
        Ok(Name(parts))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the name with a leading `/`.
    pub(super) fn display(&self) -> String {
        format!("/{}", self.0.join("/"))
    }

    /// Returns the parts of the path.
    pub(super) fn parts(&self) -> &[String] {
        &self.0
    }

    /// Returns whether the name is `other`, or below it.
    pub(super) fn is_below(&self, other: &Name) -> bool {
        self.0.starts_with(&other.0)
    }
}

/// Fails if the destination is the source, or inside it.
pub(super) fn refuse_into_itself(source: &Name, destination: &Name) -> Result<()> {
    if destination.is_below(source) {
        let message = format!(
            "`{}` is inside `{}`; choose another name",
            destination.display(),
            source.display()
        );
        return Err(AttemptError::permanent("bad_path", message));
    }
    Ok(())
}

/// Reads parameters, with errors that name the operation type.
pub(super) struct Reader<'a> {
    pub(super) operation_type: &'a str,
    pub(super) parameters: &'a Fields,
}

impl<'a> Reader<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Parsed<&'a str> {
        self.get(name)
            .ok_or_else(|| format!("`{}` needs the parameter `{name}`", self.operation_type).into())
    }

    fn one_of(&self, a: &'static str, b: &'static str) -> Parsed<Option<&'static str>> {
        match (self.get(a), self.get(b)) {
            (Some(_), Some(_)) => {
                Err(format!("`{}` takes `{a}` or `{b}`, not both", self.operation_type).into())
            }
            (Some(_), None) => Ok(Some(a)),
            (None, Some(_)) => Ok(Some(b)),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Parsed<bool> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(format!("{name} must be `true` or `false`, not `{other}`").into()),
        }
    }

    pub(super) fn path(&self, name: &str) -> Parsed<PathBuf> {
        let path = self.required(name)?;
        if path.contains('\0') {
            return Err(format!("{name} contains a zero byte").into());
        }
        Ok(path.into())
    }

    fn name(&self, name: &str) -> Parsed<Name> {
        Name::parse(self.required(name)?)
    }

    /// Reads a name other than that of the root.
    fn proper_name(&self, name: &str) -> Parsed<Name> {
        let parsed = self.name(name)?;
        if parsed.is_root() {
            return Err(
                format!("{name} must be a name in the tree of files, not the tree itself").into()
            );
        }
        Ok(parsed)
    }

    fn cid(&self) -> Parsed<Cid> {
        parse_cid(self.required("cid")?)
    }

    /// Reads a CID with a path, or a name in the tree. The parameter `cid` is always a CID. With
    /// `names_first`, text without a leading `/` that is not a CID is a name.
    fn source(&self, names_first: bool) -> Parsed<Source> {
        match self.one_of("cid", "source")? {
            Some("cid") => content(self.required("cid")?),
            Some(_) => {
                let text = self.required("source")?;
                if text.starts_with("/ipfs/") || text.starts_with("ipfs://") {
                    return content(text);
                }
                match content(text) {
                    Ok(content) if !text.starts_with('/') => Ok(content),
                    Err(bad) if !text.starts_with('/') && !names_first => {
                        Err(format!("{}; a name in the tree of files starts with `/`", bad.message)
                            .into())
                    }
                    _ => Name::parse(text).map(Source::Name),
                }
            }
            None => {
                Err(format!("`{}` needs the parameter `cid` or `source`", self.operation_type)
                    .into())
            }
        }
    }
}

fn parse_cid(text: &str) -> Parsed<Cid> {
    Cid::try_from(text).map_err(|error| format!("`{text}` is not a valid CID: {error}").into())
}

fn content(text: &str) -> Parsed<Source> {
    let text = text.strip_prefix("/ipfs/").or_else(|| text.strip_prefix("ipfs://")).unwrap_or(text);
    let mut parts = text.split('/');
    let cid = parse_cid(parts.next().unwrap_or_default())?;
    Ok(Source::Content(cid, parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()))
}
