//! A durable outbox for storage operations.

pub mod backend;
#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod disk;
pub mod health;
pub mod operation;
pub mod queue;
#[cfg(feature = "cli")]
pub mod report;
mod suggest;
pub mod wal;
pub mod worker;
