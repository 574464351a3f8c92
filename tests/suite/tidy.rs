//! The rules that the repository keeps.
#![expect(clippy::disallowed_methods, reason = "it reads the sources, not data that is kept")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that each module may use: nothing that a later stage of an operation's way knows.
const MAY_USE: &[(&str, &[&str])] = &[
    ("operation", &[]),
    ("clock", &["operation"]),
    ("disk", &["operation"]),
    ("wal", &["operation", "clock", "disk"]),
    ("queue", &["operation"]),
    ("suggest", &[]),
    ("config", &["operation", "disk", "suggest"]),
    ("backend", &["operation", "clock", "disk", "suggest", "config"]),
    ("health", &["operation", "clock", "disk", "wal", "queue", "config", "backend"]),
    ("worker", &["operation", "clock", "disk", "wal", "queue", "config", "backend", "health"]),
    (
        "client",
        &["operation", "clock", "disk", "wal", "queue", "config", "backend", "health", "worker"],
    ),
    ("report", &["operation", "client", "bench"]),
    ("server", &["operation", "clock", "disk", "config", "client", "report"]),
    ("bench", &["operation", "clock", "disk", "config", "client"]),
];

/// The module that uses what it likes.
const TOP: &str = "cli";

/// Crates that only one place may know; by the beginnings of paths below `src`.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("arrow_array", &["wal/schema", "wal/original"]),
    ("arrow_schema", &["wal/schema", "wal/original"]),
    ("parquet", &["wal/schema", "wal/original"]),
    ("toml_edit", &["config"]),
    ("reqwest", &["backend/ipfs/http"]),
    ("tokio", &["backend/runtime", "backend/ipfs/http", "backend/s3"]),
    ("aws_config", &["backend/s3"]),
    ("aws_sdk_s3", &["backend/s3"]),
    ("aws_credential_types", &["backend/s3"]),
    ("aws_smithy_async", &["backend/s3"]),
    ("aws_smithy_checksums", &["backend/s3"]),
    ("aws_smithy_http_client", &["backend/s3"]),
    ("aws_smithy_types", &["backend/s3"]),
    ("clap", &["cli"]),
    ("schemars", &["report"]),
    ("comfy_table", &["report", "cli"]),
    ("indicatif", &["report", "cli"]),
];

/// Lines beyond which a file holds more than one thing.
const LINES_MAX: usize = 800;

/// A source file, by its path below the repository.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The path below `src`, if it is there.
    fn in_src(&self) -> Option<&Path> {
        self.path.strip_prefix("src").ok()
    }

    /// The module of the crate that the file is part of; none for the roots.
    fn module(&self) -> Option<&str> {
        let first = self.in_src()?.iter().next()?.to_str()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (!["lib", "main"].contains(&module)).then_some(module)
    }

    /// The code that is built into the program: without comments, and without tests.
    fn code(&self) -> String {
        if self.path.ends_with("tests.rs")
            || self.path.components().any(|part| part.as_os_str() == "tests")
        {
            return String::new();
        }
        without_tests_and_comments(&self.text)
    }
}

fn without_tests_and_comments(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    before_tests
        .lines()
        .map(|line| format!("{}\n", line.split("//").next().unwrap_or(line)))
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the repository, by their paths below the repository.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    let sources: Vec<_> = files(folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| Source { text: fs::read_to_string(root().join(&path)).unwrap(), path })
        .collect();
    assert!(!sources.is_empty(), "{folder} holds no sources");
    sources
}

/// Whether a text has a word, not as part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

/// The modules that code names behind `crate::`, in braces too.
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        // `$crate::` is the same; `my_crate::` is not.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => modules.extend(heads_of(group)),
            None => modules.extend(head_of(rest)),
        }
    }
    modules
}

/// The module that a path begins with; none for items of the root itself.
fn head_of(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

/// The first parts of all paths in a group, up to its closing brace.
fn heads_of(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.extend(head_of(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

#[test]
fn modules_use_only_those_above_them() {
    for source in sources("src") {
        let Some(module) = source.module().filter(|module| *module != TOP) else { continue };
        let Some((_, may)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            panic!(
                "{}: give the module `{module}` a row in this test's table",
                source.path.display()
            );
        };
        for used in modules_named(&source.code()) {
            let is_module = used == TOP || MAY_USE.iter().any(|(name, _)| *name == used);
            assert!(
                !is_module || used == module || may.contains(&used.as_str()),
                "{}: `{module}` may not know `{used}`",
                source.path.display()
            );
        }
    }
}

#[test]
fn certain_crates_are_used_only_where_intended() {
    for source in sources("src") {
        let path = source.in_src().unwrap().to_str().unwrap();
        let code = source.code();
        for (name, places) in ONLY_IN {
            let may = places.iter().any(|place| path.starts_with(place));
            let paths = [format!("{name}::"), format!("use {name};")];
            let knows = has_word(&code, name) && paths.iter().any(|path| code.contains(path));
            assert!(may || !knows, "{path} may not know `{name}`, only {}", places.join(" and "));
        }
    }
}

#[test]
fn sources_have_neither_process_exit_nor_unsafe() {
    for source in sources("src") {
        let code = source.code();
        assert!(
            !code.contains("process::exit"),
            "{}: return an exit code instead",
            source.path.display()
        );
        assert!(
            !has_word(&code, "unsafe"),
            "{}: there is no unsafe code here",
            source.path.display()
        );
    }
}

#[test]
fn no_marks_are_left_for_later() {
    // Put together here, so that this file passes its own test.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for source in sources("src").into_iter().chain(sources("tests")) {
        for mark in marks {
            assert!(
                !has_word(&source.text, mark),
                "{}: {mark}: do it or open an issue",
                source.path.display()
            );
        }
    }
}

#[test]
fn files_stay_readable_in_one_sitting() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        let lines = source.text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines: which second noun is hiding?",
            source.path.display()
        );
    }
}

#[test]
fn every_file_of_test_data_is_used() {
    let tests = sources("src").into_iter().chain(sources("tests"));
    let all: String = tests.map(|source| source.text).collect();
    for path in files("tests/data") {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(all.contains(name), "{} is named in no test", path.display());
    }
}

#[test]
fn paths_are_found_in_every_spelling() {
    for (code, expected) in [
        ("use crate::disk::{Disk, OsDisk};", &["disk"][..]),
        ("use crate::{clock::Clock, wal::{Reader, Writer}, queue};", &["clock", "queue", "wal"]),
        ("use crate::{\n    backend::Backend,\n    disk,\n};", &["backend", "disk"]),
        ("fn f() -> crate::wal::Log { $crate::queue::g() }", &["queue", "wal"]),
        ("use my_crate::wal; // crate::cli", &[]),
        ("pub(in crate::config) fn f() {}", &["config"]),
        ("fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}", &[]),
    ] {
        let found = modules_named(&without_tests_and_comments(code));
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{code}");
    }
    assert!(has_word("an unsafe { }", "unsafe") && !has_word("unsafe_code", "unsafe"));
}

#[test]
fn every_hazard_names_an_existing_test() {
    let page = fs::read_to_string(root().join("docs/hazards.md")).unwrap();
    let named: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 40, "{}", named.len());
    let sources: Vec<Source> = sources("src").into_iter().chain(sources("tests")).collect();
    for name in named.into_iter().filter(|name| !name.ends_with('…')) {
        let (module, function) = name.rsplit_once("::").unwrap();
        let place = match module.strip_prefix("suite::") {
            Some(module) => format!("tests/suite/{}", module.replace("::", "/")),
            None => format!("src/{}", module.replace("::", "/")),
        };
        let is_test = |source: &Source| {
            let path = source.path.to_str().unwrap();
            let is_its_file = path == format!("{place}.rs")
                || path == place.trim_end_matches("/tests").to_owned() + ".rs";
            let is_there =
                |indent| source.text.contains(&format!("#[test]\n{indent}fn {function}()"));
            is_its_file && (is_there("") || is_there("    "))
        };
        assert!(sources.iter().any(is_test), "{name} is no test");
    }
}
