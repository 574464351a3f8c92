//! The fuzz targets: `fuzz/` feeds them new bytes, `tests/suite/corpora.rs` the inputs that are
//! kept.
//!
//! Each `run` panics where the program must not have done what it did; each `seeds` returns initial
//! inputs.

pub mod args;
pub mod image;
pub mod journal;
pub mod json;
pub mod manifest;
pub mod parquet;

/// A target: its name, what it does with bytes, and bytes to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All of them.
pub const TARGETS: [Target; 5] = [
    ("args", args::run, args::seeds),
    ("journal", journal::run, journal::seeds),
    ("json", json::run, json::seeds),
    ("manifest", manifest::run, manifest::seeds),
    ("parquet", parquet::run, parquet::seeds),
];

/// Numbers at which arithmetic goes wrong.
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
