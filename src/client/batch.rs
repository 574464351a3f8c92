//! Batches of inputs: each is checked as it is added, and all valid ones are logged together.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::error::ClientError;
use super::inputs::{BadInput, BadInputs};
use super::spool::{SpoolOutcome, spool_content};
use super::submit::{DescribedPath, check_key, describe, id_of};
use super::{AddOptions, Client, OnInvalid, Receipt, Reference};
use crate::backend::{Effect, Refusal, Request};
use crate::config::{SpoolMode, parse_seconds};
use crate::operation::{
    BackendName, Fields, Logged, Number, NumberRange, OperationId, OperationType, Outcome, Time,
};
use crate::wal::{self, Committed, NumberSet, Stage, WalError};

/// Notes on single inputs that are kept; further ones are discarded.
const NOTES_MAX: usize = 20;

/// The longest delay: 100 years.
pub const DELAY_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Bound of `max_retries`.
const RETRIES_MAX: u32 = 1000;

/// One operation as a line of JSON. Fields may be added, but are never renamed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OperationLine {
    /// The type of operation.
    pub operation_type: OperationType,
    /// The backend; `None` takes the batch's.
    pub backend: Option<BackendName>,
    /// The parameters, added to those of the batch.
    #[serde(default)]
    pub parameters: Fields,
    /// Operations with a higher priority run first; `None` takes the batch's.
    pub priority: Option<i32>,
    /// Attempts after the first one; `None` takes the batch's.
    pub max_retries: Option<u32>,
    /// Operations that have to complete first, in addition to those of the batch.
    #[serde(default)]
    pub after: Vec<NumberOrText>,
    /// Delay of the first attempt: seconds, or a text such as `10min`.
    pub delay: Option<SecondsOrText>,
    /// The idempotency key.
    pub idempotency_key: Option<String>,
}

/// A reference to an operation in JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum NumberOrText {
    /// The operation's number.
    Number(Number),
    /// A number, a full id, or `@last`.
    Text(String),
}

/// A duration in JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum SecondsOrText {
    /// Seconds.
    Seconds(u32),
    /// A number with its unit, as on the command line.
    Text(String),
}

/// Inputs that are logged together by [`Batch::commit`]. Dropping it logs nothing.
#[derive(Debug)]
pub struct Batch<'c> {
    client: &'c Client,
    options: AddOptions,
    backend: BackendName,
    after: Vec<OperationId>,
    on_invalid: OnInvalid,
    checked_add: bool,
    batch: Option<wal::Batch<'c>>,
    /// The content copied for `batch`; declared after it because it has to be dropped after it.
    stage: Option<Stage<'c>>,
    spool: SpoolMode,
    notes: Vec<String>,
    /// Hashes of the names that the additions so far get at the backend: there may be a million.
    names: HashSet<u64>,
    hasher: RandomState,
    total: u64,
    valid: u64,
    bad: BadInputs,
}

/// The error that ended passing on receipts.
enum Ended<E> {
    /// An error of the caller's function.
    Caller(E),
    /// An error while reading receipts.
    Read(WalError),
}

impl<E> From<WalError> for Ended<E> {
    fn from(error: WalError) -> Ended<E> {
        Ended::Read(error)
    }
}

/// The operations that a batch durably logged, and the inputs that it left out.
#[derive(Debug)]
#[non_exhaustive]
pub struct Receipts {
    committed: Option<Committed>,
    /// The rejected inputs; empty unless the batch skips them ([`OnInvalid::Skip`]).
    pub bad: BadInputs,
    /// Notes for people, such as that a file was not copied for lack of room.
    pub notes: Vec<String>,
    /// The number of inputs.
    pub total: u64,
}

impl Receipts {
    /// Returns the number of operations that were logged, now or before under the same idempotency
    /// key.
    pub fn count(&self) -> u64 {
        self.total - self.bad.count
    }

    /// Returns the ranges of numbers of the new operations, in order.
    pub fn numbers(&self) -> &[NumberRange] {
        self.committed.as_ref().map_or(&[], |committed| &committed.numbers)
    }

    /// Returns the numbers of all operations, new ones and earlier ones.
    pub fn number_set(&self) -> Result<NumberSet, ClientError> {
        let mut numbers = NumberSet::default();
        self.each(|receipt| {
            numbers.insert(receipt.number);
            Ok::<(), ClientError>(())
        })?;
        Ok(numbers)
    }

    /// Calls `take` with each receipt, in the order of the inputs. Ends at its first error.
    pub fn each<E: From<ClientError>>(
        &self,
        mut take: impl FnMut(Receipt) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(committed) = &self.committed else { return Ok(()) };
        let result = committed.each(|entry| {
            let receipt = Receipt {
                number: entry.written.number,
                id: entry.written.id,
                status: entry.status,
                existing: entry.existing,
                operation_type: entry.operation_type,
                backend: entry.backend,
                path: entry.path,
                spooled: entry.spooled,
            };
            take(receipt).map_err(Ended::Caller)
        });
        result.map_err(|ended| match ended {
            Ended::Caller(error) => error,
            Ended::Read(error) => ClientError::from(error).into(),
        })
    }

    /// Returns all receipts, in the order of the inputs.
    pub fn to_vec(&self) -> Result<Vec<Receipt>, ClientError> {
        let mut receipts = Vec::new();
        self.each(|receipt| {
            receipts.push(receipt);
            Ok::<(), ClientError>(())
        })?;
        Ok(receipts)
    }
}

impl Client {
    /// Begins a batch of any number of operations, of which all or none are logged.
    ///
    /// `options` apply to every input that does not override them. With [`OnInvalid::Skip`],
    /// invalid inputs are left out, and the others are logged.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use wal_cli::{AddOptions, Client, OnInvalid, Settings};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let client = Client::builder(Settings::at(directory.path().join("wal"))).build();
    /// let mut batch = client.batch(&AddOptions::default(), OnInvalid::Abort)?;
    /// for cid in ["QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"; 3] {
    ///     let line = format!(r#"{{"operation_type": "pin", "parameters": {{"cid": "{cid}"}}}}"#);
    ///     batch.submit(line.as_bytes(), None)?;
    /// }
    /// assert_eq!(batch.commit()?.count(), 3);
    /// # Ok(()) }
    /// ```
    pub fn batch(
        &self,
        options: &AddOptions,
        on_invalid: OnInvalid,
    ) -> Result<Batch<'_>, ClientError> {
        if !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        options.key.as_deref().map_or(Ok(()), check_key)?;
        let after: Result<_, ClientError> =
            options.after.iter().map(|one| id_of(self, one)).collect();
        Ok(Batch {
            client: self,
            options: options.clone(),
            backend: options
                .backend
                .clone()
                .unwrap_or_else(|| self.settings.default_backend.clone()),
            after: after?,
            on_invalid,
            checked_add: false,
            batch: None,
            stage: None,
            spool: options.spool.unwrap_or(self.settings.spool),
            notes: Vec::new(),
            names: HashSet::new(),
            hasher: RandomState::new(),
            total: 0,
            valid: 0,
            bad: BadInputs::default(),
        })
    }
}

impl Batch<'_> {
    /// Adds a file or directory to be added to the backend; `line` is its line in an input file.
    pub fn add(&mut self, path: &Path, line: Option<u64>) -> Result<(), ClientError> {
        let operation_type = OperationType::new("add")?;
        if !self.checked_add {
            // A backend that takes no additions rejects every path alike: fail once, not per path.
            let mut stand_in = self.options.parameters.clone();
            stand_in.insert("path".into(), "/file".into());
            self.client.backends.check(&self.backend, &operation_type, &stand_in)?;
            self.checked_add = true;
        }
        let mut parameters = self.options.parameters.clone();
        parameters.insert("path".into(), String::new());
        let logged = self.new_operation(
            operation_type,
            self.backend.clone(),
            parameters,
            self.options.max_retries,
        );
        let described = self.described(logged, path);
        let described = described.and_then(|logged| self.with_own_name(logged));
        self.push(described, line)
    }

    /// Fails if an earlier addition of this batch gets the same name at the backend: one of them
    /// would replace the other. Backends that address content by its hash give no names.
    fn with_own_name(&mut self, logged: Logged) -> Result<Logged, BadInput> {
        let Some(backend) = self.client.backends.get(&logged.backend) else { return Ok(logged) };
        let request = Request {
            // Not logged yet. Names do not depend on it.
            id: OperationId::from_bytes([0; 16]),
            number: Number::new(0),
            operation_type: logged.operation_type.clone(),
            backend: logged.backend.clone(),
            parameters: logged.parameters.clone(),
            source: None,
            content: None,
        };
        let effects = backend.effects(&request, &Outcome::default());
        for Effect { target, .. } in effects.iter().filter(|effect| effect.is_write()) {
            if !self.names.insert(self.hasher.hash_one(target)) {
                let path = logged.parameters.get("path").cloned().unwrap_or_default();
                let name = target.split_once('/').map_or(&**target, |(_, name)| name);
                let message = format!(
                    "another path of this command gets the same name `{name}` at backend `{}`; \
                     add them one by one, each with its own `destination`",
                    logged.backend
                );
                return Err(BadInput::new(path, "duplicate_name", message));
            }
        }
        Ok(logged)
    }

    /// Adds an operation of any type.
    pub fn operation(
        &mut self,
        operation_type: &OperationType,
        parameters: Fields,
    ) -> Result<(), ClientError> {
        let logged = self.new_operation(
            operation_type.clone(),
            self.backend.clone(),
            parameters,
            self.options.max_retries,
        );
        match self.with_local_paths(logged) {
            Ok(logged) => {
                self.client.backends.check(
                    &logged.backend,
                    &logged.operation_type,
                    &logged.parameters,
                )?;
                self.push(Ok(logged), None)
            }
            bad => self.push(bad, None),
        }
    }

    /// Adds an operation in JSON: see [`OperationLine`]. `line` is its line in an input file.
    pub fn submit(&mut self, text: &[u8], line: Option<u64>) -> Result<(), ClientError> {
        let logged = self.read(text).map_err(|(error_type, message)| {
            let shown: String = String::from_utf8_lossy(text).chars().take(200).collect();
            BadInput::new(shown, error_type, message).at_line(line)
        });
        self.push(logged, line)
    }

    /// Counts an input that the caller could not read.
    pub fn reject(&mut self, bad: BadInput) -> Result<(), ClientError> {
        let line = bad.line;
        self.push(Err(bad), line)
    }

    /// Writes the operations ahead of [`Batch::commit`], which makes them part of the log.
    pub fn prepare(&mut self) -> Result<(), ClientError> {
        Ok(self.batch.as_mut().map_or(Ok(()), wal::Batch::prepare)?)
    }

    /// Logs all operations, or none. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadInputs`] if inputs were rejected and the batch does not skip them.
    pub fn commit(self) -> Result<Receipts, ClientError> {
        if self.is_void() {
            return Err(ClientError::BadInputs { bad: self.bad, total: self.total });
        }
        if self.options.key.is_some() && self.valid > 1 {
            return Err(ClientError::OneKey { operations: self.valid });
        }
        let committed = self.batch.map(wal::Batch::commit).transpose()?;
        Ok(Receipts { committed, bad: self.bad, notes: self.notes, total: self.total })
    }

    fn push(
        &mut self,
        logged: Result<Logged, BadInput>,
        line: Option<u64>,
    ) -> Result<(), ClientError> {
        self.total += 1;
        let mut logged = match logged {
            Ok(logged) => logged,
            Err(bad) => {
                self.reject_input(bad.at_line(line));
                return Ok(());
            }
        };
        self.valid += 1;
        // A key for several operations is an error of `commit`, which knows their number.
        if self.is_void() || (self.options.key.is_some() && self.valid > 1) {
            return Ok(());
        }
        let staged = match spool_content(self.client, &mut self.stage, &mut logged, self.spool)? {
            SpoolOutcome::Copied(staged) => Some(staged),
            SpoolOutcome::Referred(note) => {
                if self.notes.len() < NOTES_MAX {
                    self.notes.extend(note);
                }
                None
            }
            SpoolOutcome::Bad(bad) => {
                self.valid -= 1;
                self.reject_input(bad.at_line(line));
                return Ok(());
            }
        };
        let batch = match &mut self.batch {
            Some(batch) => batch,
            none => none.insert(self.client.wal()?.batch()),
        };
        let input = line.and_then(|_| logged.parameters.get("path").cloned());
        match batch.push_staged(logged, staged) {
            Err(error @ WalError::TooLarge { .. }) if line.is_some() => {
                self.valid -= 1;
                let input: String = input.unwrap_or_default().chars().take(200).collect();
                let bad = BadInput::new(input, "too_large", error.to_string());
                self.reject_input(bad.at_line(line));
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Returns `true` if nothing will be logged.
    fn is_void(&self) -> bool {
        self.bad.count > 0 && self.on_invalid == OnInvalid::Abort
    }

    fn reject_input(&mut self, bad: BadInput) {
        self.bad.push(bad);
        if self.is_void() {
            // Nothing will be logged; the remaining inputs are only checked.
            self.batch = None;
        }
    }

    /// Returns an operation with the batch's options.
    fn new_operation(
        &self,
        operation_type: OperationType,
        backend: BackendName,
        parameters: Fields,
        max_retries: Option<u32>,
    ) -> Logged {
        let retries = max_retries.unwrap_or(self.client.settings.max_retries);
        let mut logged = Logged::new(operation_type, backend, parameters, retries);
        logged.priority = self.options.priority;
        logged.depends_on.clone_from(&self.after);
        logged.not_before = self.options.delay.map(|delay| self.after_delay(delay));
        logged.idempotency_key.clone_from(&self.options.key);
        logged
    }

    fn after_delay(&self, delay: Duration) -> Time {
        let delay = delay.min(DELAY_MAX);
        self.client.clock.now().plus_millis(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
    }

    /// Adds the state of the file at `path`, so that a change before it is sent is detected.
    fn described(&self, mut logged: Logged, path: &Path) -> Result<Logged, BadInput> {
        let DescribedPath { path, source, is_directory } = describe(self.client, path, self.spool)?;
        logged.parameters.insert("path".into(), path);
        logged.source = source;
        if is_directory {
            logged.parameters.entry("recursive".into()).or_insert_with(|| "true".into());
        }
        Ok(logged)
    }

    fn read(&self, text: &[u8]) -> Result<Logged, (&'static str, String)> {
        let line: OperationLine = serde_json::from_slice(text).map_err(|error| {
            ("bad_line", error.to_string().replace(" at line 1 column ", ", at character "))
        })?;
        let bad = |message: String| ("bad_line", message);
        if line.max_retries.is_some_and(|retries| retries > RETRIES_MAX) {
            return Err(bad(format!("`max_retries` is at most {RETRIES_MAX}")));
        }
        let mut parameters = self.options.parameters.clone();
        parameters.extend(line.parameters);
        let backend = line.backend.unwrap_or_else(|| self.backend.clone());
        let retries = line.max_retries.or(self.options.max_retries);
        let mut logged = self.new_operation(line.operation_type, backend, parameters, retries);
        logged.priority = line.priority.unwrap_or(logged.priority);
        for reference in line.after {
            let reference = match reference {
                NumberOrText::Number(number) => Ok(Reference::Number(number)),
                NumberOrText::Text(text) => Reference::parse(&text),
            };
            let id = reference.and_then(|reference| id_of(self.client, &reference));
            logged.depends_on.push(id.map_err(|error| ("bad_after", error.to_string()))?);
        }
        if let Some(delay) = line.delay {
            let delay = match delay {
                SecondsOrText::Seconds(seconds) => Some(Duration::from_secs(u64::from(seconds))),
                SecondsOrText::Text(text) => parse_seconds(&text),
            };
            let delay = delay.filter(|delay| *delay <= DELAY_MAX);
            let delay = delay.ok_or_else(|| {
                bad("`delay` takes seconds, or a text such as `10min`, up to 100 years".into())
            })?;
            logged.not_before = Some(self.after_delay(delay));
        }
        if let Some(key) = line.idempotency_key {
            check_key(&key).map_err(|error| ("bad_key", error.to_string()))?;
            logged.idempotency_key = Some(key);
        }
        let logged = self.with_local_paths(logged).map_err(|bad| (bad.error_type, bad.message))?;
        let checked =
            self.client.backends.check(&logged.backend, &logged.operation_type, &logged.parameters);
        checked.map_err(|refusal| (error_type_of(&refusal), refusal.to_string()))?;
        Ok(logged)
    }

    /// Adds the state of the source file, or makes the destination absolute.
    fn with_local_paths(&self, logged: Logged) -> Result<Logged, BadInput> {
        let reads_a_file = ["add", "upload"].contains(&logged.operation_type.as_str());
        match logged.parameters.get("path").cloned().filter(|_| reads_a_file) {
            Some(path) => self.described(logged, Path::new(&path)),
            None => self.with_absolute_destination(logged),
        }
    }

    /// Makes the destination absolute: the drain loop may run in another directory.
    fn with_absolute_destination(&self, mut logged: Logged) -> Result<Logged, BadInput> {
        let writes = ["get", "cat", "download", "list"].contains(&logged.operation_type.as_str());
        if let Some(destination) = logged.parameters.get_mut("destination").filter(|_| writes) {
            let absolute = std::path::absolute(&*destination).ok();
            *destination = absolute
                .and_then(|path| path.into_os_string().into_string().ok())
                .ok_or_else(|| {
                    let message = "cannot be made an absolute path in UTF-8".to_owned();
                    BadInput::new(destination.clone(), "bad_path", message)
                })?;
        }
        Ok(logged)
    }
}

fn error_type_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unknown { .. } => "unknown_backend",
        Refusal::NotBuilt { .. } => "backend_not_built",
        Refusal::Unconfigured { .. } => "backend_unconfigured",
        Refusal::Unsupported { .. } => "unsupported",
        Refusal::BadParameters(_) => "bad_parameters",
    }
}
