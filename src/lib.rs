//! A durable outbox for storage operations.

pub mod backend;
pub mod bench;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod disk;
pub mod health;
pub mod operation;
pub mod queue;
pub mod report;
pub mod wal;
pub mod worker;
