//! All integration tests, as one program that links once.

#[path = "suite/model.rs"]
mod model;
