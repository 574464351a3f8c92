//! One linker flag, for the programs alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Arrow, Parquet and the rest bring some twenty thousand relocations. Resolved here, they cost nothing at each
    // start; in a position-independent program they would be a third of what one `add` costs.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
