use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ClientError;
use super::inputs::{BadInput, unreadable};
use super::{Client, OnInvalid, Reference};
use crate::config::SpoolMode;
use crate::disk::FileKind;
use crate::operation::{
    BackendName, Fields, Logged, Number, OperationId, OperationType, Source, Status,
};
use crate::wal::Admitted;

/// Bytes of an idempotency key, at most.
const KEY_MAX: usize = 512;

/// Options of new operations. The default takes everything from the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddOptions {
    /// The backend; `None` takes the setting `default_backend`.
    pub backend: Option<BackendName>,
    /// Attempts after the first one; `None` takes the setting `max_retries`.
    pub max_retries: Option<u32>,
    /// Operations with a higher priority run first.
    pub priority: i32,
    /// Parameters of the backend that apply to every operation.
    pub parameters: Fields,
    /// Operations that have to complete before these run.
    pub after: Vec<Reference>,
    /// Time that has to pass before the first attempt.
    pub delay: Option<Duration>,
    /// Idempotency key of one operation: a key that has been logged before is not logged again.
    pub key: Option<String>,
    /// Copying of content into the log; `None` takes the setting `spool`.
    pub spool: Option<SpoolMode>,
}

impl AddOptions {
    /// Sets the backend.
    #[must_use]
    pub fn with_backend(mut self, backend: BackendName) -> AddOptions {
        self.backend = Some(backend);
        self
    }

    /// Sets the number of attempts after the first one.
    #[must_use]
    pub fn with_max_retries(mut self, retries: u32) -> AddOptions {
        self.max_retries = Some(retries);
        self
    }

    /// Sets the priority; higher runs first.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> AddOptions {
        self.priority = priority;
        self
    }

    /// Sets the parameters of the backend.
    #[must_use]
    pub fn with_parameters(mut self, parameters: Fields) -> AddOptions {
        self.parameters = parameters;
        self
    }

    /// Sets the operations that have to complete first.
    #[must_use]
    pub fn with_after(mut self, after: Vec<Reference>) -> AddOptions {
        self.after = after;
        self
    }

    /// Sets the time that has to pass before the first attempt.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> AddOptions {
        self.delay = Some(delay);
        self
    }

    /// Sets the idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> AddOptions {
        self.key = Some(key.into());
        self
    }

    /// Sets whether content is copied into the log.
    #[must_use]
    pub fn with_spool(mut self, spool: SpoolMode) -> AddOptions {
        self.spool = Some(spool);
        self
    }
}

/// An operation that is durably logged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The operation's number, unique in its log.
    pub number: Number,
    /// The operation's id, unique everywhere.
    pub id: OperationId,
    /// `Pending`, or the status of the earlier operation with the same idempotency key.
    pub status: Status,
    /// The operation had been logged before, under the same idempotency key.
    pub existing: bool,
    /// The operation's type.
    pub operation_type: OperationType,
    /// The backend that it will run on.
    pub backend: BackendName,
    /// The path of its file or directory, if it has one.
    pub path: Option<String>,
    /// Its content was copied into the log: the file may change or disappear from now on.
    pub spooled: bool,
}

impl Client {
    /// Logs the addition of one file or directory. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadInputs`] if the path cannot be read, [`ClientError::Refused`] if the
    /// backend does not take it. After an error nothing is logged, unless it is a
    /// [`ClientError::Wal`] that says otherwise.
    pub fn add(&self, path: &Path, options: &AddOptions) -> Result<Receipt, ClientError> {
        let receipts = self.add_all(&[path.to_owned()], options)?;
        receipts
            .into_iter()
            .next()
            .ok_or_else(|| ClientError::NoSuchOperation(path.display().to_string()))
    }

    /// Logs the addition of files and directories: all of them, or none if one is invalid.
    ///
    /// Receipts are in the order of `paths`. For more than fit into memory, see [`Client::batch`].
    pub fn add_all(
        &self,
        paths: &[PathBuf],
        options: &AddOptions,
    ) -> Result<Vec<Receipt>, ClientError> {
        let mut batch = self.batch(options, OnInvalid::Abort)?;
        paths.iter().try_for_each(|path| batch.add(path, None))?;
        batch.commit()?.to_vec()
    }

    /// Logs an operation of any type. Durable when this returns.
    ///
    /// A file that it refers to is not copied into the log: it is read when the operation runs.
    pub fn submit(&self, operation: Logged) -> Result<Receipt, ClientError> {
        self.backends.check(
            &operation.backend,
            &operation.operation_type,
            &operation.parameters,
        )?;
        if !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        let admitted = self.wal()?.append_new(vec![operation.clone()])?.pop();
        admitted
            .map(|admitted| receipt(&admitted, &operation))
            .ok_or_else(|| ClientError::NoSuchOperation(operation.operation_type.to_string()))
    }
}

/// A path as it was when its operation was logged.
pub(super) struct DescribedPath {
    pub path: String,
    /// Size, time and inode of a file; `None` for a directory.
    pub source: Option<Source>,
    pub is_directory: bool,
}

/// Returns the current state of a path.
pub(super) fn describe(
    client: &Client,
    path: &Path,
    spool: SpoolMode,
) -> Result<DescribedPath, BadInput> {
    let bad = |error_type, message: String| {
        BadInput::new(path.display().to_string(), error_type, message)
    };
    let absolute = std::path::absolute(path)
        .map_err(|error| bad("bad_path", format!("cannot be made absolute: {error}")))?;
    let Some(text) = absolute.to_str() else {
        let message = "its name is not valid UTF-8, which parameters have to be; rename it";
        return Err(bad("not_utf8", message.to_owned()));
    };
    let reason = |error| unreadable(&path.display().to_string(), error);
    let metadata = client.disk.metadata(&absolute).map_err(reason)?;
    match metadata.kind {
        FileKind::File => {
            // A file without read permission is rejected now rather than when it is sent.
            client.disk.open(&absolute, crate::disk::Access::Read).map_err(reason)?;
            let source = Source {
                size: metadata.len,
                mtime_ns: metadata.mtime_ns,
                inode: metadata.inode,
                ctime_ns: Some(metadata.ctime_ns),
                sha256: None,
                spool: None,
            };
            Ok(DescribedPath { path: text.to_owned(), source: Some(source), is_directory: false })
        }
        FileKind::Directory if spool == SpoolMode::Always => Err(bad(
            "is_directory",
            "directories are not copied into the log; pass `--spool auto` and keep it, or add \
                 its files"
                .into(),
        )),
        FileKind::Directory => {
            client.disk.list(&absolute).map_err(reason)?;
            Ok(DescribedPath { path: text.to_owned(), source: None, is_directory: true })
        }
        FileKind::Symlink | FileKind::Other => {
            Err(bad("unsupported_file", "neither a file nor a directory".into()))
        }
    }
}

/// Returns the id of the operation that a reference names.
///
/// A full id needs no lookup: it is checked when an operation that refers to it is logged.
pub(super) fn id_of(client: &Client, reference: &Reference) -> Result<OperationId, ClientError> {
    match reference {
        Reference::Id(id) => Ok(*id),
        other => Ok(client.operation(other)?.id),
    }
}

/// Fails unless the key is 1 to 512 bytes of text without control characters.
pub(super) fn check_key(key: &str) -> Result<(), ClientError> {
    if key.is_empty() || key.len() > KEY_MAX || key.chars().any(char::is_control) {
        return Err(ClientError::BadKey { key: key.chars().take(80).collect() });
    }
    Ok(())
}

fn receipt(admitted: &Admitted, logged: &Logged) -> Receipt {
    let (status, existing) = match admitted {
        Admitted::Logged(_) => (Status::Pending, false),
        Admitted::Existing(operation) => (operation.status(), true),
    };
    Receipt {
        number: admitted.number(),
        id: admitted.id(),
        status,
        existing,
        operation_type: logged.operation_type.clone(),
        backend: logged.backend.clone(),
        path: logged.parameters.get("path").cloned(),
        spooled: logged.source.as_ref().is_some_and(|source| source.spool.is_some()),
    }
}
