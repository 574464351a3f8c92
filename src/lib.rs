//! A durable outbox for storage operations.
//!
//! An application that stores files elsewhere (on an IPFS node, in an S3 bucket, in a directory,
//! through a program of its own) logs each operation first and runs it later. A logged operation
//! survives crashes and power failures; while its backend is unreachable, it waits and is retried.
//! The log is one directory with a journal and Parquet files, which any number of processes can use
//! at the same time. The executable `wal-cli` is a thin layer over this library.
//!
//! # Example
//!
//! Log the addition of a file, run it, and read its outcome:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use wal_cli::{
//!     AddOptions, BackendName, Client, NoObserver, ProcessOptions, Reference, Settings, State,
//!     Stop,
//! };
//!
//! let directory = tempfile::tempdir()?;
//! let file = directory.path().join("hello.txt");
//! std::fs::write(&file, "hello\n")?;
//!
//! let client = Client::builder(Settings::at(directory.path().join("wal"))).build();
//! let options = AddOptions::default().with_backend(BackendName::new("local")?);
//! // Durable when this returns: the machine may lose power now.
//! let receipt = client.add(&file, &options)?;
//!
//! // Usually in another process, in a loop: `wal-cli process --follow`.
//! let report = client.process(&ProcessOptions::default(), &Stop::new(), &mut NoObserver)?;
//! assert_eq!(report.completed, 1);
//!
//! let operation = client.operation(&Reference::Number(receipt.number))?;
//! let State::Completed { outcome, .. } = operation.state else { panic!("it has not completed") };
//! assert_eq!(outcome.cid.as_deref(), Some("QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN"));
//! # Ok(()) }
//! ```
//!
//! # Durability
//!
//! - [`Client::add`], [`Client::submit`] and [`Batch::commit`] return after the operation has been
//!   written and flushed (`fdatasync`). A batch is logged as a whole or not at all. Concurrent
//!   writers share one flush.
//! - A drain loop ([`Client::process`]) makes its claim durable before it calls a backend, and the
//!   outcome before it reports it. If it is killed in between, the next loop asks the backend
//!   whether the attempt took effect. If the backend cannot tell, the operation fails with an
//!   unknown outcome instead of running twice.
//! - Every record has a checksum. [`Client::verify`] checks all of them, [`Client::repair`]
//!   rebuilds a damaged log from its readable records, and [`Client::audit`] asks the backends
//!   whether completed effects still exist.
//!
//! All of this needs a local file system that honours `fsync`. Linux is the only supported system.
//!
//! # Errors
//!
//! Calls return [`ClientError`]. Errors of the log itself are its variant [`ClientError::Wal`]; the
//! [`WalError`] in it says whether the operation was logged, and whether to wait
//! ([`WalError::Busy`]) or to repair ([`WalError::Damaged`]). A failure at a backend is not an
//! error of a call: it is part of the [`State`] of the operation, and its [`Failure`] decides
//! whether it will be retried.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `cli` | yes | the executable, with its reports, JSON documents and benchmarks |
//! | `ipfs` | yes | the backend of IPFS nodes (Kubo's RPC) |
//! | `s3` | yes | the backend of services that speak S3 |
//! | `test-util` | no | a simulated machine, failpoints and internals for tests; not stable |
//!
//! A library user starts with `default-features = false`: the backends `local`, `mock` and `custom`
//! are always included, and a backend whose feature is off rejects operations with
//! [`Refusal::NotBuilt`].
//!
//! # Where to go next
//!
//! - [`Client`]: all operations on a log.
//! - [`Backend`]: implement it to run operations of your own, and register it with
//!   [`ClientBuilder::backend`].
//! - [`Client::wrap`]: log a function of your own before it runs, and its outcome afterwards.
//! - [`Settings`]: retries, retention, spooling and backends; [`Settings::load`] reads what
//!   `wal-cli` uses.

// Finds types that the exports below lack. Not with the modules of the executable: they implement
// traits of other crates for types that no user meets.
#![cfg_attr(not(any(test, feature = "cli", feature = "test-util")), warn(unnameable_types))]

// Public for the integration tests alone. Written out, because `cargo fmt` does not find modules
// that a macro declares.
#[cfg(not(feature = "test-util"))]
mod backend;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod backend;
#[cfg(all(feature = "cli", not(feature = "test-util")))]
mod bench;
#[cfg(all(feature = "cli", feature = "test-util"))]
#[doc(hidden)]
pub mod bench;
#[cfg(all(feature = "cli", not(feature = "test-util")))]
mod cli;
#[cfg(all(feature = "cli", feature = "test-util"))]
#[doc(hidden)]
pub mod cli;
#[cfg(not(feature = "test-util"))]
mod client;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod client;
#[cfg(not(feature = "test-util"))]
mod clock;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod clock;
#[cfg(not(feature = "test-util"))]
mod config;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod config;
#[cfg(not(feature = "test-util"))]
mod disk;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod disk;
#[cfg(not(feature = "test-util"))]
mod health;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod health;
#[cfg(not(feature = "test-util"))]
mod operation;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod operation;
#[cfg(not(feature = "test-util"))]
mod queue;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod queue;
#[cfg(all(feature = "cli", not(feature = "test-util")))]
mod report;
#[cfg(all(feature = "cli", feature = "test-util"))]
#[doc(hidden)]
pub mod report;
mod suggest;
#[cfg(not(feature = "test-util"))]
mod wal;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod wal;
#[cfg(not(feature = "test-util"))]
mod worker;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod worker;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::run;

pub use backend::{
    Addressing, Attempt, AttemptError, AttemptStatus, AuditResult, Backend, Effect, EffectKind,
    OperationTypes, ParameterError, Reach, Refusal, Request,
};
pub use client::{
    Action, AddOptions, Archive, AuditFinding, AuditOptions, AuditReport, BackendHealth, BadInput,
    BadInputs, BadPush, Batch, ByteRange, CauseGroup, Changed, CheckpointReport, CleanupOptions,
    CleanupPlan, Client, ClientBuilder, ClientError, DELAY_MAX, Damage, DrainLoop, Failures,
    FileCounts, Filter, Finding, FindingKind, FollowUp, HealthStatus, HolderNote, KeptOrphan,
    LogStatus, Loss, NoObserver, NumberOrText, NumberSet, Observer, OldestPending, OnInvalid,
    OperationLine, OrphanedUploads, Page, Plan, ProcessOptions, ProcessReport, Progress,
    PrunedArchive, Push, PushOperation, PushOptions, PushReport, PushState, PushedArchive, Reason,
    Receipt, Receipts, Reference, Repaired, SecondsOrText, Skipped, StatusChange, StatusCounts,
    Stop, Unverified, Verified, Why,
};
pub use config::{
    BackendKind, BackendSettings, BackendType, ConfigError, CustomSettings, IpfsSettings,
    LocalSettings, MockSettings, Origin, S3Settings, Secret, Settings, SpoolMode, StorachaSettings,
    Timeouts, UnixFsSettings,
};
pub use disk::DiskError;
pub use operation::{
    BackendName, Claim, Failure, FailureClass, Fields, HistoryEntry, IllegalTransition,
    InvalidName, Logged, Number, NumberRange, Operation, OperationId, OperationType, Outcome,
    Revision, Source, State, Status, Time, Wait,
};
pub use wal::WalError;
pub use worker::NoPush;
