//! Batches of inputs: each is checked as it comes, and those that are logged are logged all or none.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::error::{BadInput, ClientError};
use super::spool::Taken;
use super::submit::check_key;
use super::{AddOptions, Client, Receipt, Reference};
use crate::backend::Refusal;
use crate::config::{SpoolMode, parse_seconds};
use crate::operation::{BackendName, Fields, Logged, Number, OperationId, OperationType, Time};
use crate::wal::{self, Committed, Stage, WalError};

/// Bad inputs that are kept to be told; of those beyond, only the number is.
const BAD_MAX: usize = 10_000;

/// Notes on single inputs that are kept.
const NOTES_MAX: usize = 20;

/// The longest delay: a hundred years.
pub const DELAY_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Retries that may be asked for.
const RETRIES_MAX: u32 = 1000;

/// One operation as a line of JSON. Names are a contract: fields are added, never renamed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationLine {
    /// What is to be done.
    pub operation_type: OperationType,
    /// Where; none: as the batch's options say.
    pub backend: Option<BackendName>,
    /// With what.
    #[serde(default)]
    pub parameters: Fields,
    /// Higher goes first; none: as the batch's options say.
    pub priority: Option<i32>,
    /// Retries; none: as the batch's options say.
    pub max_retries: Option<u32>,
    /// Operations that have to be completed first, beside those of the batch's options.
    #[serde(default)]
    pub after: Vec<NumberOrText>,
    /// Not to be tried before this time has passed: seconds, or a text such as `10min`.
    pub delay: Option<SecondsOrText>,
    /// The caller's key.
    pub idempotency_key: Option<String>,
}

/// A number, or what stands for an operation otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum NumberOrText {
    /// An operation's number.
    Number(Number),
    /// A number, a full id, or `@last`.
    Text(String),
}

/// Seconds, or a time with its unit.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum SecondsOrText {
    /// Seconds.
    Seconds(u32),
    /// As on the command line.
    Text(String),
}

/// Inputs on their way into the log. Dropping it logs nothing.
#[derive(Debug)]
pub struct Batch<'c> {
    client: &'c Client,
    options: AddOptions,
    backend: BackendName,
    after: Vec<OperationId>,
    keep_going: bool,
    checked_add: bool,
    batch: Option<wal::Batch<'c>>,
    /// What is copied for it; dropped after it.
    stage: Option<Stage<'c>>,
    spool: SpoolMode,
    notes: Vec<String>,
    total: u64,
    good: u64,
    bad: BadInputs,
}

/// Inputs that were refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadInputs {
    /// Which, and why; the first of them if there are very many.
    pub listed: Vec<BadInput>,
    /// How many there are.
    pub count: u64,
}

impl BadInputs {
    fn push(&mut self, bad: BadInput) {
        self.count += 1;
        if self.listed.len() < BAD_MAX {
            self.listed.push(bad);
        }
    }
}

/// Why receipts were not handed out to the end.
enum Ended<E> {
    /// Whoever took them could not go on.
    Told(E),
    /// They could not be read.
    Read(WalError),
}

impl<E> From<WalError> for Ended<E> {
    fn from(error: WalError) -> Ended<E> {
        Ended::Read(error)
    }
}

/// What a batch logged, durable, and what it left out.
#[derive(Debug)]
pub struct Receipts {
    committed: Option<Committed>,
    /// What was refused; empty unless the batch was to keep going.
    pub bad: BadInputs,
    /// What the caller should know, such as that there was no room for a copy.
    pub notes: Vec<String>,
    /// How many inputs there were.
    pub total: u64,
}

impl Receipts {
    /// How many operations are told of.
    pub fn count(&self) -> u64 {
        self.total - self.bad.count
    }

    /// Runs of numbers that were given to new operations.
    pub fn numbers(&self) -> &[(Number, Number)] {
        self.committed.as_ref().map_or(&[], |committed| &committed.numbers)
    }

    /// Hands out what was logged, in the order of the inputs.
    pub fn each<E: From<ClientError>>(
        &self,
        mut take: impl FnMut(Receipt) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(committed) = &self.committed else { return Ok(()) };
        let told = committed.each(|entry| {
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
            take(receipt).map_err(Ended::Told)
        });
        told.map_err(|ended| match ended {
            Ended::Told(error) => error,
            Ended::Read(error) => ClientError::from(error).into(),
        })
    }

    /// All of them at once.
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
    /// Begins a batch. Its options hold for every input that does not say otherwise.
    ///
    /// With `keep_going`, inputs that cannot be used are left out, and the others are logged.
    pub fn batch(&self, options: &AddOptions, keep_going: bool) -> Result<Batch<'_>, ClientError> {
        if !self.settings.enabled {
            return Err(ClientError::Disabled);
        }
        options.key.as_deref().map_or(Ok(()), check_key)?;
        let after: Result<_, ClientError> =
            options.after.iter().map(|one| self.id_of(one)).collect();
        Ok(Batch {
            client: self,
            options: options.clone(),
            backend: options
                .backend
                .clone()
                .unwrap_or_else(|| self.settings.default_backend.clone()),
            after: after?,
            keep_going,
            checked_add: false,
            batch: None,
            stage: None,
            spool: options.spool.unwrap_or(self.settings.spool),
            notes: Vec::new(),
            total: 0,
            good: 0,
            bad: BadInputs::default(),
        })
    }
}

impl Batch<'_> {
    /// The addition of a file or directory.
    pub fn add(&mut self, path: &Path, line: Option<u64>) -> Result<(), ClientError> {
        let operation_type = self.client.type_named("add")?;
        if !self.checked_add {
            // What the backend refuses, it refuses for every path alike: say it once, before the paths.
            let mut stand_in = self.options.parameters.clone();
            stand_in.insert("path".into(), "/file".into());
            self.client.backends.check(&self.backend, &operation_type, &stand_in)?;
            self.checked_add = true;
        }
        let mut parameters = self.options.parameters.clone();
        parameters.insert("path".into(), String::new());
        let logged =
            self.logged(operation_type, self.backend.clone(), parameters, self.options.max_retries);
        let described = self.described(logged, path);
        self.take(described, line)
    }

    /// One operation of any type.
    pub fn operation(
        &mut self,
        operation_type: &OperationType,
        parameters: Fields,
    ) -> Result<(), ClientError> {
        let logged = self.logged(
            operation_type.clone(),
            self.backend.clone(),
            parameters,
            self.options.max_retries,
        );
        match self.completed(logged) {
            Ok(logged) => {
                self.client.backends.check(
                    &logged.backend,
                    &logged.operation_type,
                    &logged.parameters,
                )?;
                self.take(Ok(logged), None)
            }
            bad => self.take(bad, None),
        }
    }

    /// One operation as JSON: see [`OperationLine`].
    pub fn submit(&mut self, text: &[u8], line: Option<u64>) -> Result<(), ClientError> {
        let logged = self.read(text).map_err(|(error_type, message)| BadInput {
            line,
            input: String::from_utf8_lossy(text).chars().take(200).collect(),
            error_type,
            message,
        });
        self.take(logged, line)
    }

    /// An input that could not even be read.
    pub fn reject(&mut self, bad: BadInput) -> Result<(), ClientError> {
        let line = bad.line;
        self.take(Err(bad), line)
    }

    /// Writes all that a commit has left to name; until then nothing is logged.
    pub fn prepare(&mut self) -> Result<(), ClientError> {
        Ok(self.batch.as_mut().map_or(Ok(()), wal::Batch::prepare)?)
    }

    /// Logs the operations: durable when this returns.
    pub fn commit(self) -> Result<Receipts, ClientError> {
        if self.bad.count > 0 && !self.keep_going {
            return Err(ClientError::BadInputs { bad: self.bad, total: self.total });
        }
        if self.options.key.is_some() && self.good > 1 {
            return Err(ClientError::OneKey { operations: self.good });
        }
        let committed = self.batch.map(wal::Batch::commit).transpose()?;
        Ok(Receipts { committed, bad: self.bad, notes: self.notes, total: self.total })
    }

    fn take(
        &mut self,
        logged: Result<Logged, BadInput>,
        line: Option<u64>,
    ) -> Result<(), ClientError> {
        self.total += 1;
        let mut logged = match logged {
            Ok(logged) => logged,
            Err(bad) => {
                self.refuse(BadInput { line, ..bad });
                return Ok(());
            }
        };
        self.good += 1;
        let lost = self.bad.count > 0 && !self.keep_going;
        // A key stands for one operation: that there are more is told when all have been counted.
        if lost || (self.options.key.is_some() && self.good > 1) {
            return Ok(());
        }
        let staged = match self.client.take_content(&mut self.stage, &mut logged, self.spool)? {
            Taken::Copied(staged) => Some(staged),
            Taken::Referred(note) => {
                if self.notes.len() < NOTES_MAX {
                    self.notes.extend(note);
                }
                None
            }
            Taken::Bad(bad) => {
                self.good -= 1;
                self.refuse(BadInput { line, ..bad });
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
                self.good -= 1;
                let input = input.unwrap_or_default().chars().take(200).collect();
                self.refuse(BadInput {
                    line,
                    input,
                    error_type: "too_large",
                    message: error.to_string(),
                });
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn refuse(&mut self, bad: BadInput) {
        self.bad.push(bad);
        if !self.keep_going {
            // Nothing will be logged; what is left is to see what else is wrong.
            self.batch = None;
        }
    }

    /// An operation with all that the options say.
    fn logged(
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

    /// The operation with what its file is now, so that a change before it is sent does not go unnoticed.
    fn described(&self, mut logged: Logged, path: &Path) -> Result<Logged, BadInput> {
        let (path, source, is_directory) = self.client.describe(path, self.spool)?;
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
        let mut logged = self.logged(line.operation_type, backend, parameters, retries);
        logged.priority = line.priority.unwrap_or(logged.priority);
        for reference in line.after {
            let reference = match reference {
                NumberOrText::Number(number) => Ok(Reference::Number(number)),
                NumberOrText::Text(text) => Reference::parse(&text),
            };
            let id = reference.and_then(|reference| self.client.id_of(&reference));
            logged.depends_on.push(id.map_err(|error| ("bad_after", error.to_string()))?);
        }
        if let Some(delay) = line.delay {
            let delay = match delay {
                SecondsOrText::Seconds(seconds) => Some(Duration::from_secs(u64::from(seconds))),
                SecondsOrText::Text(text) => parse_seconds(&text),
            };
            let delay = delay.filter(|delay| *delay <= DELAY_MAX);
            let delay = delay.ok_or_else(|| {
                bad("`delay` takes seconds, or a text such as `10min`, up to a hundred years"
                    .into())
            })?;
            logged.not_before = Some(self.after_delay(delay));
        }
        if let Some(key) = line.idempotency_key {
            check_key(&key).map_err(|error| ("bad_key", error.to_string()))?;
            logged.idempotency_key = Some(key);
        }
        let logged = self.completed(logged).map_err(|bad| (bad.error_type, bad.message))?;
        let checked =
            self.client.backends.check(&logged.backend, &logged.operation_type, &logged.parameters);
        checked.map_err(|refusal| (word_of(&refusal), refusal.to_string()))?;
        Ok(logged)
    }

    /// The operation with what has to be found out about files of this machine.
    fn completed(&self, logged: Logged) -> Result<Logged, BadInput> {
        let of_a_file = ["add", "upload"].contains(&logged.operation_type.as_str());
        match logged.parameters.get("path").cloned().filter(|_| of_a_file) {
            Some(path) => self.described(logged, Path::new(&path)),
            None => self.with_absolute_destination(logged),
        }
    }

    /// The drain loop may run elsewhere in this machine's tree.
    fn with_absolute_destination(&self, mut logged: Logged) -> Result<Logged, BadInput> {
        let writes = ["get", "cat", "download", "list"].contains(&logged.operation_type.as_str());
        if let Some(destination) = logged.parameters.get_mut("destination").filter(|_| writes) {
            let absolute = std::path::absolute(&*destination).ok();
            *destination = absolute
                .and_then(|path| path.into_os_string().into_string().ok())
                .ok_or_else(|| {
                    let message = "it cannot be made an absolute path in UTF-8".to_owned();
                    BadInput {
                        line: None,
                        input: destination.clone(),
                        error_type: "bad_path",
                        message,
                    }
                })?;
        }
        Ok(logged)
    }
}

fn word_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unknown { .. } => "unknown_backend",
        Refusal::NotBuilt { .. } => "backend_not_built",
        Refusal::Unconfigured { .. } => "backend_unconfigured",
        Refusal::Unsupported { .. } => "unsupported",
        Refusal::BadParameters(_) => "bad_parameters",
    }
}
