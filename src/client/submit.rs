use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{BadInput, ClientError};
use super::{Client, Reference};
use crate::backend::{Attempt, AttemptError, AttemptStatus, Request};
use crate::config::SpoolMode;
use crate::disk::{DiskError, FileKind};
use crate::operation::{
    BackendName, Claim, Event, Fields, Logged, Number, Operation, OperationId, OperationType,
    Outcome, Source, Status,
};
use crate::wal::{Admitted, Change, Known};
use crate::worker::{End, Terms, request_of, settle};

/// Bytes of an idempotency key, at most.
const KEY_MAX: usize = 512;

/// How files are added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddOptions {
    /// Where; none: the default backend.
    pub backend: Option<BackendName>,
    /// Retries; none: the configured number.
    pub max_retries: Option<u32>,
    /// Higher goes first.
    pub priority: i32,
    /// Further parameters of the backend.
    pub parameters: Fields,
    /// Operations that have to be completed first.
    pub after: Vec<Reference>,
    /// Not to be tried before this time has passed.
    pub delay: Option<Duration>,
    /// The caller's key, for one operation: the same key is never logged twice.
    pub key: Option<String>,
    /// Whether content is copied into the log now; none: as configured.
    pub spool: Option<SpoolMode>,
}

/// What was logged, durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The operation's number.
    pub number: Number,
    /// The operation's id.
    pub id: OperationId,
    /// Its status: pending, or that of the operation which had its idempotency key already.
    pub status: Status,
    /// Whether it had been logged before, under the same idempotency key.
    pub existing: bool,
    /// The operation's type.
    pub operation_type: OperationType,
    /// Where it will be carried out.
    pub backend: BackendName,
    /// The path it concerns, where it concerns one.
    pub path: Option<String>,
    /// Whether its content was copied into the log, so that the file may change or vanish from now on.
    pub spooled: bool,
}

impl Client {
    /// Logs the addition of one file or directory.
    pub fn add(&self, path: &Path, options: &AddOptions) -> Result<Receipt, ClientError> {
        let receipts = self.add_all(&[path.to_owned()], options)?;
        receipts
            .into_iter()
            .next()
            .ok_or_else(|| ClientError::NoSuchOperation(path.display().to_string()))
    }

    /// Logs the addition of files and directories: all of them, or none if one cannot be used.
    pub fn add_all(
        &self,
        paths: &[PathBuf],
        options: &AddOptions,
    ) -> Result<Vec<Receipt>, ClientError> {
        let mut batch = self.batch(options, false)?;
        paths.iter().try_for_each(|path| batch.add(path, None))?;
        batch.commit()?.to_vec()
    }

    /// What a path is at this moment: its absolute form, its source, whether it is a directory.
    pub(crate) fn describe(
        &self,
        path: &Path,
        spool: SpoolMode,
    ) -> Result<(String, Option<Source>, bool), BadInput> {
        let bad = |error_type, message: String| BadInput {
            line: None,
            input: path.display().to_string(),
            error_type,
            message,
        };
        let absolute = std::path::absolute(path)
            .map_err(|error| bad("bad_path", format!("it cannot be made absolute: {error}")))?;
        let Some(text) = absolute.to_str() else {
            let message =
                "its name is not UTF-8, and parameters are UTF-8 text; rename it first".to_owned();
            return Err(bad("not_utf8", message));
        };
        let reason = |error| unreadable(&path.display().to_string(), error);
        let metadata = self.disk.metadata(&absolute).map_err(reason)?;
        match metadata.kind {
            FileKind::File => {
                // Opening it tells now, rather than at the drain, that it may not be read.
                self.disk.open(&absolute, crate::disk::Access::Read).map_err(reason)?;
                let source = Source {
                    size: metadata.len,
                    mtime_ns: metadata.mtime_ns,
                    inode: metadata.inode,
                    sha256: None,
                    spool: None,
                };
                Ok((text.to_owned(), Some(source), false))
            }
            FileKind::Directory if spool == SpoolMode::Always => Err(bad(
                "is_directory",
                "directories are not copied into the log; pass `--spool auto` and keep it, or add its files".into(),
            )),
            FileKind::Directory => {
                self.disk.list(&absolute).map_err(reason)?;
                Ok((text.to_owned(), None, true))
            }
            FileKind::Symlink | FileKind::Other => {
                Err(bad("unsupported_file", "it is neither a file nor a directory".into()))
            }
        }
    }

    /// The id that a reference stands for. A full id needs no look into the log; whether it is there is seen
    /// when something is logged that refers to it.
    pub(super) fn id_of(&self, reference: &Reference) -> Result<OperationId, ClientError> {
        match reference {
            Reference::Id(id) => Ok(*id),
            other => Ok(self.operation(other)?.id),
        }
    }

    /// Logs an operation of any type. A file that it refers to is read when it is carried out.
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
        let what = operation.operation_type.to_string();
        admitted
            .map(|admitted| receipt(&admitted, &operation))
            .ok_or(ClientError::NoSuchOperation(what))
    }

    /// Puts failed operations back to pending, counters reset, and ends the wait of retrying ones.
    pub fn retry(&self, references: &[Reference]) -> Result<Vec<Operation>, ClientError> {
        Ok(self.change(references, &super::Action::Retry { now: false }, true)?.operations)
    }

    /// Logs a function of the caller's before it runs, and what came of it after: the same promise
    /// that backends get, for anything. It runs in this process, once, whatever a drain loop does meanwhile.
    ///
    /// A function that returns [`AttemptError::UnknownOutcome`] leaves the operation failed, `in_doubt`.
    pub fn wrap(
        &self,
        operation_type: &OperationType,
        backend: &BackendName,
        parameters: Fields,
        function: impl FnOnce(&Request, &Attempt) -> Result<Outcome, AttemptError>,
    ) -> Result<Operation, ClientError> {
        if !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        let wal = self.wal()?;
        // A drain loop must find neither a pending operation to take nor a claim of a dead process, so this
        // process holds the loop's lock meanwhile.
        let _loop = wal.lock_process(self.settings.lock_timeout)?;
        let logged = Logged::new(operation_type.clone(), backend.clone(), parameters.clone(), 0);
        let (written, ()) = wal.transact(|_| Ok((vec![Change::New(logged.clone())], ())))?;
        let number = written.first().map_or(Number::ZERO, |written| written.number);
        let pending = self.operation(&Reference::Number(number))?;
        let identity = self.disk.identity();
        let claim =
            Claim { pid: identity.pid, host: identity.host.clone(), started: self.clock.now() };
        let claimed = Change::Next(Known::from(&pending), Event::Claimed { claim });
        wal.transact_finishing(|_| Ok((vec![claimed.clone()], ())))?;
        let processing = self.operation(&Reference::Number(number))?;
        let request = request_of(&processing, &self.layout);
        let result = function(&request, &Attempt::default());
        let policy = self.settings.retry_policy();
        let terms = Terms { policy: &policy, clock: &*self.clock, last_success: None };
        let settlement = settle(&terms, &processing, result, false, || {
            Ok(AttemptStatus::Unknown("the function did not say whether it had been done".into()))
        });
        if let End::Known(event) = settlement.end {
            let settled = Change::Next(Known::from(&processing), event);
            wal.transact_finishing(|_| Ok((vec![settled.clone()], ())))?;
        }
        self.operation(&Reference::Number(number))
    }

    pub(super) fn type_named(&self, name: &str) -> Result<OperationType, ClientError> {
        OperationType::new(name)
            .map_err(|error| crate::backend::Refusal::BadParameters(error.to_string()).into())
    }
}

/// Keys are text that fits on a line.
pub(super) fn check_key(key: &str) -> Result<(), ClientError> {
    if key.is_empty() || key.len() > KEY_MAX || key.chars().any(char::is_control) {
        return Err(ClientError::BadKey { key: key.chars().take(80).collect() });
    }
    Ok(())
}

/// Why a path cannot be used.
pub(super) fn unreadable(path: &str, error: DiskError) -> BadInput {
    let (error_type, message) = match error.kind() {
        std::io::ErrorKind::NotFound => {
            ("not_found", "there is no such file or directory".to_owned())
        }
        std::io::ErrorKind::PermissionDenied => (
            "permission_denied",
            "you may not read it; change its permissions or run as its owner".to_owned(),
        ),
        _ => ("io", error.source.to_string()),
    };
    BadInput { line: None, input: path.to_owned(), error_type, message }
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
