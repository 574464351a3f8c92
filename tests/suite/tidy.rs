//! The rules that the repository keeps: layers, limits of size, words, and names of tests.
#![expect(clippy::disallowed_methods, reason = "reads the sources, not data that is kept")]

mod imports;
mod lexer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::{Crate, has_word, parent};

/// The modules that each module may use: nothing that handles an operation at a later stage.
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
    ("bench", &["operation", "clock", "disk", "wal", "config", "client"]),
];

/// The parts of `wal`, as the table in `src/wal/mod.rs` has them: each uses only those before it.
const WAL_PARTS: &[&str] = &[
    "error", "layout", "role", "options", "change", "journal", "manifest", "schema", "original",
    "read", "reserve", "append", "spool", "files", "verify", "repair", "open",
];

/// The module that may use all others.
const TOP: &str = "cli";

/// Crates that may be used in some modules only, given as beginnings of paths below `src`.
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

/// Most lines of a file.
const LINES_MAX: usize = 700;

/// Most lines of a function.
const FUNCTION_LINES_MAX: usize = 80;

/// Most columns of a line of code or prose.
const COLUMNS_MAX: usize = 100;

/// A source file, by its path below the repository.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Returns the path below `src`; none for other files.
    fn in_src(&self) -> Option<&Path> {
        self.path.strip_prefix("src").ok()
    }

    /// Returns the first-level module that the file is part of; none for the roots.
    fn module(&self) -> Option<&str> {
        let first = self.in_src()?.iter().next()?.to_str()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (!["lib", "main"].contains(&module)).then_some(module)
    }

    /// Returns the code that is built into the program: without comments, literals and tests.
    fn code(&self) -> String {
        if self.path.ends_with("tests.rs")
            || self.path.components().any(|part| part.as_os_str() == "tests")
        {
            return String::new();
        }
        lexer::split(before_tests(&self.text)).code
    }

    /// Returns the name of the file's module, such as `wal::journal`; none for `main.rs`.
    fn full_module(&self) -> Option<String> {
        let path = self.in_src()?.with_extension("");
        let mut parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        match parts.last().copied() {
            Some("main") if parts.len() == 1 => return None,
            Some("lib") if parts.len() == 1 => parts.clear(),
            Some("mod") => drop(parts.pop()),
            _ => {}
        }
        Some(parts.join("::"))
    }
}

fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all files below a directory, by their paths below the repository.
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

/// Returns the modules that code names after `crate::`, groups included.
fn modules_named(code: &str) -> BTreeSet<String> {
    names_behind("crate::", code)
}

/// The names that follow a prefix of paths, in braces too.
fn names_behind(prefix: &str, code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, found) in code.match_indices(prefix) {
        // `$crate::` is the same; `my_crate::` is not, nor is the second part of a longer path.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
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

/// Returns the module that a path begins with; none for items of the root.
fn head_of(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

/// Returns the first names of all paths in a group, up to its closing brace.
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
                "{}: `{module}` must not use `{used}`",
                source.path.display()
            );
        }
    }
}

/// Returns the graph of the files of the crate: for each module, those whose definitions it uses.
fn crate_files() -> Crate {
    let sources = sources("src").into_iter();
    Crate::new(sources.filter_map(|source| Some((source.full_module()?, source.code()))))
}

/// A module may use what its parents define; the other way round, too.
fn is_family(one: &str, other: &str) -> bool {
    let is_below = |inner: &str, outer: &str| {
        outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"))
    };
    is_below(one, other) || is_below(other, one)
}

#[test]
fn no_files_use_each_other() {
    let files = crate_files();
    let mut edges = files.edges();
    for (from, used) in &mut edges {
        used.retain(|to| !is_family(from, to));
    }
    assert_eq!(imports::cycles(&edges), Vec::<Vec<String>>::new());
}

#[test]
fn no_modules_of_one_parent_use_each_other() {
    let files = crate_files();
    let mut siblings: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (from, used) in files.edges() {
        for to in used {
            let Some((parent, from, to)) = siblings_of(from, to) else { continue };
            siblings.entry(parent).or_default().entry(from).or_default().insert(to);
        }
    }
    let cycles: Vec<_> = siblings.values().flat_map(imports::cycles).collect();
    assert_eq!(cycles, Vec::<Vec<String>>::new());
}

/// Returns the closest common ancestor of two modules, and the children of it that they lie in.
fn siblings_of<'a>(one: &'a str, other: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let lineage = |module: &'a str| {
        let mut lineage = vec![module];
        while let Some(next) = lineage.last().and_then(|module| parent(module)) {
            lineage.push(next);
        }
        lineage.reverse();
        lineage
    };
    let (one, other) = (lineage(one), lineage(other));
    let common = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    Some((one[common - 1], one.get(common)?, other.get(common)?))
}

#[test]
fn functions_fit_on_a_screen() {
    let mut found = Vec::new();
    for source in sources("src") {
        for (name, line, lines) in lexer::functions(&source.code()) {
            if lines > FUNCTION_LINES_MAX {
                found.push(format!("{}:{line}: `{name}`: {lines} lines", source.path.display()));
            }
        }
    }
    assert_none(&found);
}

/// Constructions that docs/STYLE.md forbids: words in sequence.
const FORBIDDEN: &[&str] = &[
    "whoever",
    "somebody",
    "nobody",
    "someone else",
    "anew",
    "for ever",
    "so many",
    "so long as",
    "once more",
    "tells",
    "told",
    "stands",
    "stood",
    "is away",
    "are away",
    "was away",
    "were away",
    "comes to",
    "came of",
    "what waits",
    "what is to",
    "is no",
];

/// Beginnings of sentences in doc comments that lack a verb.
const VERBLESS: &[&str] = &["What", "Whether", "Which", "How"];

/// Returns the forbidden constructions in a text.
fn forbidden(text: &str) -> Vec<&'static str> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '_' && c != '-')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let mut found = Vec::new();
    for construction in FORBIDDEN {
        let wanted: Vec<&str> = construction.split(' ').collect();
        for at in 0..words.len().saturating_sub(wanted.len() - 1) {
            let matches = words[at..].iter().zip(&wanted).all(|(word, wanted)| word == wanted);
            let is_fine = *construction == "is no"
                && (at > 0 && words[at - 1] == "there"
                    || words.get(at + 2).is_some_and(|next| next == "longer"));
            if matches && !is_fine {
                found.push(*construction);
            }
        }
    }
    found
}

/// Returns the pages for readers: path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let of_docs =
        files("docs").into_iter().filter(|path| path.extension().is_some_and(|e| e == "md"));
    let of_root = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(PathBuf::from);
    let paths = of_docs.chain(of_root);
    paths.map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap())).collect()
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

#[test]
fn pages_have_no_forbidden_constructions() {
    let mut found = Vec::new();
    for (path, text) in pages() {
        // Its tables give examples of them.
        let is_style = path.ends_with("STYLE.md");
        for (at, line) in text.lines().enumerate() {
            for words in forbidden(line).into_iter().filter(|_| !is_style) {
                found.push(format!("{}:{}: {words}: {line}", path.display(), at + 1));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn messages_and_doc_comments_have_no_forbidden_constructions() {
    let mut found = Vec::new();
    for source in sources("src") {
        let parts = lexer::split(before_tests(&source.text));
        for (line, text) in parts.literals.iter().chain(&parts.docs) {
            for words in forbidden(text) {
                found.push(format!("{}:{line}: {words}: {text:.80?}", source.path.display()));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn doc_comments_begin_with_a_verb_or_a_noun() {
    let mut found = Vec::new();
    for source in sources("src") {
        let docs = lexer::split(&source.text).docs;
        let lines: BTreeSet<usize> = docs.iter().map(|(line, _)| *line).collect();
        for (line, text) in docs.iter().filter(|(line, _)| !lines.contains(&(line - 1))) {
            let first = text.split(' ').next().unwrap_or_default();
            if VERBLESS.contains(&first) {
                found.push(format!("{}:{line}: {text}", source.path.display()));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn lines_end_within_100_columns() {
    let scripts = ["tests/run", "tests/long", "tests/bench", ".ci/run", "deny.toml"];
    let scripts = scripts.map(|path| (path.into(), fs::read_to_string(root().join(path)).unwrap()));
    let sources = ["src", "tests", "examples"].into_iter().flat_map(sources);
    let all = pages().into_iter().chain(scripts);
    let mut found = Vec::new();
    for (path, text) in all.chain(sources.map(|source| (source.path, source.text))) {
        let mut in_fence = false;
        for (at, line) in text.lines().enumerate() {
            // Examples on a page are as the program prints them.
            in_fence ^= path.extension().is_some_and(|e| e == "md") && line.starts_with("```");
            let columns = line.chars().count();
            let is_table = line.trim_start().starts_with('|');
            // Literals in tests are data, which rustfmt does not break.
            let is_data = path.starts_with("tests") && line.contains('"');
            if columns > COLUMNS_MAX && !is_table && !is_data && !in_fence && !line.contains("://")
            {
                found.push(format!("{}:{}: {columns} columns", path.display(), at + 1));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn forbidden_constructions_are_found() {
    for (text, expected) in [
        ("there is no log, and it is no longer there", &[][..]),
        ("Whoever waits is no user", &["whoever", "is no"]),
        ("it is said once\n    more", &["once more"]),
        ("outstanding, retold", &[]),
    ] {
        assert_eq!(forbidden(text), expected, "{text}");
    }
}

#[test]
fn parts_of_the_log_use_only_those_above_them() {
    let rank = |part: &str| WAL_PARTS.iter().position(|known| *known == part);
    for source in sources("src/wal") {
        let path = source.path.strip_prefix("src/wal").unwrap();
        let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
        let part = names[0].strip_suffix(".rs").unwrap_or(names[0]);
        if part == "mod" {
            continue;
        }
        let Some(own) = rank(part) else { panic!("give `wal::{part}` a place in WAL_PARTS") };
        let code = source.code();
        let mut used = names_behind("crate::wal::", &code);
        // The path from the file's module up to `wal`.
        let depth = names.len() - usize::from(path.ends_with("mod.rs"));
        used.extend(names_behind(&"super::".repeat(depth), &code));
        for used in used {
            assert!(
                rank(&used).is_some_and(|rank| rank <= own),
                "{}: `wal::{part}` may not know `wal::{used}`",
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
            assert!(
                may || !knows,
                "{path} must not use `{name}`, only {} may",
                places.join(" and ")
            );
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
            "{}: the crate has no unsafe code",
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
                "{}: {mark}: do it, or open an issue",
                source.path.display()
            );
        }
    }
}

#[test]
fn files_stay_readable_in_one_sitting() {
    let mut found = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            found.push(format!("{}: {lines} lines", source.path.display()));
        }
    }
    assert_none(&found);
}

#[test]
fn every_source_file_is_part_of_a_module() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        let name = source.path.file_stem().unwrap().to_str().unwrap();
        let mut folder = source.path.parent().unwrap();
        let name = match name {
            "lib" | "main" | "all" => continue,
            "mod" => {
                let own = folder.file_name().unwrap().to_str().unwrap();
                folder = folder.parent().unwrap();
                own
            }
            name => name,
        };
        let roots = match folder.to_str().unwrap() {
            "src" => ["src/lib.rs".into(), "src/main.rs".into()],
            "tests" | "tests/suite" => ["tests/all.rs".into(), PathBuf::new()],
            _ => [folder.join("mod.rs"), folder.with_extension("rs")],
        };
        let texts = roots.iter().filter_map(|path| fs::read_to_string(root().join(path)).ok());
        // `src/lib.rs` lists its modules in a macro, without `mod`.
        let (alone, declared) = (format!("{name};"), format!("mod {name};"));
        let is_declared =
            |text: &str| text.lines().any(|line| line.ends_with(&declared) || line.trim() == alone);
        assert!(
            texts.into_iter().any(|text| is_declared(&text)),
            "no module includes {}",
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
        let found = modules_named(&lexer::split(before_tests(code)).code);
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
                || path == format!("{place}/mod.rs")
                || path == place.trim_end_matches("/tests").to_owned() + ".rs"
                || path == place.trim_end_matches("/tests").to_owned() + "/mod.rs";
            let is_there =
                |indent| source.text.contains(&format!("#[test]\n{indent}fn {function}()"));
            is_its_file && (is_there("") || is_there("    "))
        };
        assert!(sources.iter().any(is_test), "{name} is not a test");
    }
}
