//! The fuzz targets: `fuzz/` runs them on new inputs, `tests/suite/corpora.rs` on the corpora.
//!
//! Each `run` panics if the program behaves incorrectly; each `seeds` returns initial inputs.

pub mod args;
pub mod image;
pub mod journal;
pub mod json;
pub mod manifest;
pub mod parquet;

/// A target: its name, its function, and its initial inputs.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All targets.
pub const TARGETS: [Target; 5] = [
    ("args", args::run, args::seeds),
    ("journal", journal::run, journal::seeds),
    ("json", json::run, json::seeds),
    ("manifest", manifest::run, manifest::seeds),
    ("parquet", parquet::run, parquet::seeds),
];

/// Numbers at which arithmetic may overflow.
pub const ODD: [u64; 16] = [
    0,
    1,
    2,
    3,
    17,
    255,
    1 << 16,
    u32::MAX as u64,
    1 << 53,
    (1 << 62) - 1,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1000,
    u64::MAX - 1,
    u64::MAX,
];

/// Returns the unusual number that a byte selects.
pub fn odd(byte: u8) -> u64 {
    ODD[usize::from(byte) % ODD.len()]
}
