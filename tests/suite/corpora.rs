//! Runs the fuzz targets on every input of their corpora, with the same code as under the fuzzer.
#![expect(clippy::disallowed_methods, reason = "reads the repository, not data of a log")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::fuzzing::TARGETS;

/// The least number of inputs of a corpus.
const INPUTS_MIN: usize = 12;

/// The largest size of all corpora together, so that the repository stays small.
const BYTES_MAX: u64 = 1 << 20;

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
}

/// Returns the files of a folder; none if it does not exist.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn check(run: fn(&[u8]), input: &[u8], name: &str) {
    assert!(catch_unwind(AssertUnwindSafe(|| run(input))).is_ok(), "{name} causes a panic");
}

#[test]
fn no_kept_input_causes_a_panic() {
    let mut bytes = 0;
    for (target, run, _) in TARGETS {
        let corpus = inputs(&folder("corpus", target));
        assert!(corpus.len() >= INPUTS_MIN, "fuzz/corpus/{target} holds {} inputs", corpus.len());
        for path in corpus.into_iter().chain(inputs(&folder("artifacts", target))) {
            let input = fs::read(&path).unwrap();
            bytes += input.len() as u64;
            check(run, &input, &path.display().to_string());
        }
    }
    assert!(bytes <= BYTES_MAX, "the corpora have {bytes} bytes");
}

/// Also writes the seed inputs to folders in `WAL_CLI_SEEDS`, for `tests/long fuzz`.
#[test]
fn no_seed_input_causes_a_panic() {
    let place = std::env::var_os("WAL_CLI_SEEDS").map(PathBuf::from);
    for (target, _, seeds) in TARGETS {
        let Some(place) = &place else { break };
        fs::create_dir_all(place.join(target)).unwrap();
        for (nth, seed) in seeds().into_iter().enumerate() {
            fs::write(place.join(target).join(format!("seed-{nth:03}")), seed).unwrap();
        }
    }
    for (target, run, seeds) in TARGETS {
        seeds()
            .iter()
            .enumerate()
            .for_each(|(nth, seed)| check(run, seed, &format!("seed {nth} of {target}")));
    }
}

#[test]
fn the_fuzzer_has_the_same_targets() {
    let package =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    let names: Vec<&str> =
        package.lines().filter_map(|line| line.strip_prefix("path = \"targets/")).collect();
    assert_eq!(names.len(), TARGETS.len());
    for (target, _, _) in TARGETS {
        assert!(
            names.contains(&format!("{target}.rs\"").as_str()),
            "{target} has no binary in fuzz/Cargo.toml"
        );
        let source = folder("targets", &format!("{target}.rs"));
        let source = fs::read_to_string(&source).unwrap();
        assert!(
            source.contains(&format!("fuzzing::{target}::run")),
            "fuzz/targets/{target}.rs runs another target"
        );
    }
}
