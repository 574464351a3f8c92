//! A durable outbox for storage operations.

pub mod backend;
pub mod clock;
pub mod config;
pub mod disk;
pub mod operation;
pub mod queue;
pub mod wal;
