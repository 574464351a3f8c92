//! Backends: the named destinations that carry operations out.
//!
//! A [`Backend`] knows its own protocol, but neither the log nor the retry policy. The drain loop
//! has it execute operations, one per thread, and queries it about earlier attempts. All
//! differences between kinds of backends are behind the trait: operation types, parameters, the
//! targets that an operation touches, and the files to sweep. [`Backends`] holds the backends of
//! one log by name.

mod atomic;
mod attempt;
mod configured;
pub mod custom;
mod effect;
mod errors;
#[cfg(feature = "test-util")]
pub mod failpoint;
mod files;
#[cfg(feature = "ipfs")]
pub mod ipfs;
mod listed;
pub mod local;
pub mod mock;
mod parameters;
mod rate_limit;
mod registry;
#[cfg(any(feature = "ipfs", feature = "s3"))]
mod runtime;
#[cfg(feature = "s3")]
pub mod s3;
mod standard;
pub mod unixfs;

use std::fmt;
use std::path::PathBuf;

pub use attempt::{Attempt, AttemptError, AttemptStatus};
pub use effect::{AuditResult, Effect, EffectKind, Reach};
pub use parameters::{ParameterError, TYPES};
pub use rate_limit::RateLimiter;
pub use registry::{Backends, Refusal};

use crate::operation::{
    BackendName, Failure, Fields, Number, OperationId, OperationType, Outcome, Source,
};

/// An operation, as it is passed to its backend.
#[derive(Debug, Clone)]
pub struct Request {
    /// The operation's id: unique, and the same for every attempt.
    pub id: OperationId,
    /// The operation's number in its log.
    pub number: Number,
    /// The operation's type.
    pub operation_type: OperationType,
    /// The configured name of the backend.
    pub backend: BackendName,
    /// The parameters: `path`, `cid`, `source`, `destination`, `recursive`, and options of the
    /// backend.
    pub parameters: Fields,
    /// The file that the operation refers to, as it was when the operation was logged.
    pub source: Option<Source>,
    /// The path of a copy in the log, which is read instead of that file. The parameter `path`
    /// keeps the original path, for names and content types.
    pub content: Option<PathBuf>,
}

/// The operation types that a backend carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationTypes<'a> {
    /// Every type. Attempts at types that the backend does not know fail.
    Any,
    /// The standard types, such as `add`, `get` and `pin`, with their standard parameters.
    /// Operations of other types are not logged.
    Standard,
    /// These types alone. Operations of other types are not logged.
    Only(&'a [&'a str]),
}

impl<'a> OperationTypes<'a> {
    /// Returns whether operations of this type are carried out.
    pub fn contains(self, operation_type: &OperationType) -> bool {
        self.listed().is_none_or(|types| types.contains(&operation_type.as_str()))
    }

    /// Returns the types, or `None` if every type is carried out.
    pub fn listed(self) -> Option<&'a [&'a str]> {
        match self {
            OperationTypes::Any => None,
            OperationTypes::Standard => Some(&TYPES),
            OperationTypes::Only(types) => Some(types),
        }
    }
}

/// The names by which a backend knows its targets. They decide how a text that may be a path or a
/// CID is read: the argument of `rm`, or the destination of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// The backend interprets names by itself. Arguments that begin with `/` are paths, others are
    /// CIDs.
    Opaque,
    /// Paths begin with `/`; everything else is a CID.
    PathsAndCids,
    /// Every name is a key; there are no CIDs.
    Keys,
}

/// A destination that carries operations out.
///
/// # What an implementation promises
///
/// - [`execute`](Backend::execute) returns `Ok` only if the operation took effect and will survive
///   a crash, as far as the destination can promise that.
/// - If it does not know whether the operation took effect, it returns
///   [`AttemptError::UnknownOutcome`], never a failure: a failure is retried.
/// - Methods may be called from several threads at once, for different operations. The drain loop
///   holds no lock of the log meanwhile, so a method may block.
/// - A panic counts as an unknown outcome. The drain loop and other backends continue.
///
/// # Which methods to implement
///
/// [`execute`](Backend::execute), [`query_attempt`](Backend::query_attempt) and
/// [`health`](Backend::health) are required. The others have defaults that suit a backend which
/// takes every operation type, keeps nothing on this machine, and whose targets have the names that
/// the standard parameters (`path`, `cid`, `source`, `destination`) give them.
///
/// | method | called |
/// |---|---|
/// | `operation_types`, `check` | before an operation is logged |
/// | `addressing` | when the command line is read, and archives are pushed |
/// | `execute` | for each attempt, after its claim is durable |
/// | `query_attempt` | after an unknown outcome, or a crash |
/// | `detached_work` | by `why`, for an operation whose drain loop died |
/// | `release_attempt` | when the outcome of an attempt is durable |
/// | `is_auditable`, `audit`, `effects` | by `verify --remote` |
/// | `orphans`, `abort_orphan` | by the drain loop about once a minute, and by `cleanup` |
/// | `sweep` | when a drain loop begins, and after each of its cleanups |
/// | `health` | by `health`, and by the drain loop during an outage |
///
/// # Example
///
/// A backend that stores notes in memory:
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Mutex;
///
/// use wal_cli::{
///     Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Effect, Failure, Fields,
///     OperationType, OperationTypes, Outcome, ParameterError, Reach, Request,
/// };
///
/// #[derive(Debug, Default)]
/// struct Notes(Mutex<BTreeMap<String, String>>);
///
/// impl Backend for Notes {
///     fn operation_types(&self) -> OperationTypes<'_> {
///         OperationTypes::Only(&["note"])
///     }
///
///     fn check(&self, _: &OperationType, parameters: &Fields) -> Result<(), ParameterError> {
///         match parameters.contains_key("title") {
///             true => Ok(()),
///             false => Err(ParameterError::new("`note` needs the parameter `title`")),
///         }
///     }
///
///     fn execute(&self, request: &Request, _: &Attempt) -> Result<Outcome, AttemptError> {
///         let title = request.parameters["title"].clone();
///         let text = request.parameters.get("text").cloned().unwrap_or_default();
///         let mut notes = self.0.lock().map_err(|_| AttemptError::transient("poisoned", "lock"))?;
///         let size = Some(text.len() as u64);
///         notes.insert(title.clone(), text);
///         Ok(Outcome { destination: Some(title), size, ..Outcome::default() })
///     }
///
///     /// Writing a note twice leaves one note.
///     fn query_attempt(&self, _: &Request) -> Result<AttemptStatus, AttemptError> {
///         Ok(AttemptStatus::NotDone)
///     }
///
///     fn audit(
///         &self,
///         _: &Request,
///         outcome: &Outcome,
///         _: &Attempt,
///     ) -> Result<AuditResult, AttemptError> {
///         let title = outcome.destination.as_deref().unwrap_or_default();
///         let notes = self.0.lock().map_err(|_| AttemptError::transient("poisoned", "lock"))?;
///         Ok(match notes.get(title) {
///             None => AuditResult::Missing(format!("note `{title}` no longer exists")),
///             Some(text) if Some(text.len() as u64) != outcome.size => {
///                 AuditResult::Altered(format!("note `{title}` has another length"))
///             }
///             Some(_) => AuditResult::Intact,
///         })
///     }
///
///     fn effects(&self, request: &Request, _: &Outcome) -> Vec<Effect> {
///         let title = request.parameters.get("title");
///         let effect = |title| Effect::writes(format!("note/{title}"), Reach::Exact);
///         title.map(effect).into_iter().collect()
///     }
///
///     fn health(&self) -> Result<(), Failure> {
///         Ok(())
///     }
/// }
/// # let _: &dyn Backend = &Notes::default();
/// ```
///
/// [`ClientBuilder::backend`](crate::ClientBuilder::backend) adds it to the backends of a log. The
/// example `custom_backend` of this crate does that in a complete program; run it with
/// `cargo run --example custom_backend`.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Returns the operation types that the backend carries out. By default, all.
    fn operation_types(&self) -> OperationTypes<'_> {
        OperationTypes::Any
    }

    /// Fails if an operation with these parameters may not be logged.
    ///
    /// The operation's type is one of [`operation_types`](Backend::operation_types). The check
    /// must depend on its arguments and the configuration alone: it runs under no lock, and also
    /// for many operations at once. By default, the parameters of
    /// [standard types](OperationTypes::Standard) are checked, and others are accepted.
    fn check(
        &self,
        operation_type: &OperationType,
        parameters: &Fields,
    ) -> Result<(), ParameterError> {
        match self.operation_types() {
            OperationTypes::Standard => parameters::check(operation_type.as_str(), parameters),
            OperationTypes::Any | OperationTypes::Only(_) => Ok(()),
        }
    }

    /// Returns the kind of names by which the backend knows its targets.
    fn addressing(&self) -> Addressing {
        Addressing::Opaque
    }

    /// Carries the operation out and verifies its result.
    ///
    /// The claim of the operation is durable before the call, and the outcome is made durable after
    /// it: if the process dies in between, the next drain loop calls
    /// [`query_attempt`](Backend::query_attempt). The same operation may be executed again after a
    /// failure. `attempt` carries requests to stop, and takes progress.
    ///
    /// # Errors
    ///
    /// See [`AttemptError`]. The class of a failure decides whether the operation is retried.
    fn execute(&self, request: &Request, attempt: &Attempt) -> Result<Outcome, AttemptError>;

    /// Returns the status of an attempt whose outcome is unknown.
    ///
    /// No attempt at the operation runs in this process meanwhile. The answer
    /// [`NotDone`](AttemptStatus::NotDone) lets the operation be executed again, so a backend
    /// returns it only if the operation did not take effect or may take effect twice.
    ///
    /// # Errors
    ///
    /// A failure of class `outage` or `transient` leaves the question open: it is asked again
    /// later. A permanent failure ends the operation as `in_doubt`.
    fn query_attempt(&self, request: &Request) -> Result<AttemptStatus, AttemptError>;

    /// Returns a sentence for users about an attempt that continues although its drain loop died:
    /// what is running, and how to end it.
    ///
    /// Must answer at once, without a network. By default, `None`.
    fn detached_work(&self, _request: &Request) -> Option<String> {
        None
    }

    /// Discards the state kept for [`query_attempt`](Backend::query_attempt), because the outcome
    /// of the operation's last attempt is durable.
    ///
    /// Not called if the process dies first: [`sweep`](Backend::sweep) removes what remains.
    fn release_attempt(&self, _number: Number) {}

    /// Returns whether operations of this type may have an effect that
    /// [`audit`](Backend::audit) can compare.
    ///
    /// By default, all types but `get`, `cat`, `download`, `list`, `rm` and `unpin`.
    fn is_auditable(&self, operation_type: &OperationType) -> bool {
        standard::is_auditable(operation_type)
    }

    /// Compares the effect of a completed operation with what the destination has now.
    ///
    /// `outcome` is what [`execute`](Backend::execute) returned. By default, nothing is compared.
    ///
    /// # Errors
    ///
    /// An error means that the state could not be determined; it says nothing about the effect.
    fn audit(
        &self,
        _request: &Request,
        _outcome: &Outcome,
        _attempt: &Attempt,
    ) -> Result<AuditResult, AttemptError> {
        Ok(AuditResult::NotApplicable)
    }

    /// Returns the targets that an operation touches, so that an audit does not report a loss where
    /// a later operation replaced or removed something.
    ///
    /// For an operation that has not completed, `outcome` is empty. Must not use the network. By
    /// default, the standard operation types touch the targets in their standard parameters, and
    /// other types touch nothing.
    fn effects(&self, request: &Request, outcome: &Outcome) -> Vec<Effect> {
        standard::effects(standard::Retention::UntilRemoved, request, outcome)
    }

    /// Returns the operations whose attempts may have left invisible data at the destination that
    /// occupies storage, such as an unfinished upload.
    ///
    /// Must not use the network: the backend keeps its own records. By default, none.
    fn orphans(&self) -> Vec<(Number, OperationId)> {
        Vec::new()
    }

    /// Removes the data that attempts at an operation left at the destination. The operation has
    /// ended, or no longer exists.
    ///
    /// Must succeed if there is nothing to remove.
    fn abort_orphan(&self, _number: Number, _id: OperationId) -> Result<(), AttemptError> {
        Ok(())
    }

    /// Removes files that ended attempts left on this machine.
    ///
    /// `is_needed` returns whether an operation may still be queried; the files of such an
    /// operation must stay. One drain loop at a time sweeps, and it starts no attempt meanwhile.
    /// Must not use the network, and must bound its work per call. By default, removes nothing.
    ///
    /// # Errors
    ///
    /// An error is logged; the next sweep tries again.
    fn sweep(&self, _is_needed: &dyn Fn(Number) -> bool) -> Result<(), AttemptError> {
        Ok(())
    }

    /// Checks that the backend works, with a request of its own.
    ///
    /// # Errors
    ///
    /// The failure's message names the problem and the next step.
    fn health(&self) -> Result<(), Failure>;
}
