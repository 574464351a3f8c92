//! The uses between files: paths are resolved through `use`, groups and re-exports.

use std::collections::{BTreeMap, BTreeSet};

/// The name of a module: `wal::journal`; that of the crate is empty.
type Module = String;

/// An import.
struct Use {
    /// The name that it introduces; `*` for a glob.
    name: String,
    path: Vec<String>,
    /// True if other modules may use the name through this one.
    exported: bool,
}

/// A file: its imports, and its other code.
struct File {
    uses: Vec<Use>,
    code: String,
}

/// All files of the crate.
pub struct Crate {
    files: BTreeMap<Module, File>,
}

impl Crate {
    /// Reads modules from code without comments and literals.
    pub fn new(sources: impl IntoIterator<Item = (Module, String)>) -> Crate {
        let files = sources.into_iter().map(|(module, code)| {
            let (uses, code) = imports(&code);
            (module, File { uses, code })
        });
        Crate { files: files.collect() }
    }

    /// Returns for each module the modules whose definitions it uses.
    pub fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges = BTreeMap::new();
        for (module, file) in &self.files {
            let mut used = BTreeSet::new();
            for import in &file.uses {
                // A re-export alone is not a use.
                if !import.exported || has_word(&file.code, &import.name) {
                    used.extend(self.definition(module, &import.path, 0));
                }
            }
            for path in paths(&file.code) {
                used.extend(self.definition(module, &path, 0));
            }
            used.remove(module.as_str());
            edges.insert(module.as_str(), used);
        }
        edges
    }

    /// Returns the module that defines what a path means; none for modules themselves, and for
    /// other crates.
    fn definition(&self, from: &str, path: &[String], depth: usize) -> Option<&str> {
        if depth > 8 {
            return None;
        }
        let (mut module, mut rest) = self.start(from, path, depth)?;
        while let Some(first) = rest.first() {
            let inner = join(&module, first);
            if !self.files.contains_key(&inner) {
                break;
            }
            (module, rest) = (inner, rest[1..].to_vec());
        }
        let (key, file) = self.files.get_key_value(&module)?;
        let item = rest.first()?;
        for import in file.uses.iter().filter(|import| import.exported) {
            if import.name == *item {
                let path = [&import.path[..], &rest[1..]].concat();
                return self.definition(&module, &path, depth + 1);
            }
        }
        let is_defined = has_word(&file.code, item);
        for import in file.uses.iter().filter(|import| import.exported && !is_defined) {
            if import.name == "*" {
                let path = [&import.path[..], &rest[..]].concat();
                let found = self.definition(&module, &path, depth + 1);
                if found.is_some() {
                    return found;
                }
            }
        }
        Some(key)
    }

    /// Returns the module in which a path starts, and the rest of the path.
    fn start(&self, from: &str, path: &[String], depth: usize) -> Option<(Module, Vec<String>)> {
        let (head, mut rest) = path.split_first()?;
        let mut module = match head.as_str() {
            "crate" => String::new(),
            "self" => from.to_owned(),
            "super" => parent(from)?.to_owned(),
            name if self.files.contains_key(&join(from, name)) => join(from, name),
            name => {
                let uses = &self.files.get(from)?.uses;
                // A module that was imported under this name; other names are not modules.
                let import = uses.iter().find(|import| import.name == name)?;
                if import.path[..] == *path || depth > 8 || rest.is_empty() {
                    return None;
                }
                let path = [&import.path[..], rest].concat();
                return self.start(from, &path, depth + 1);
            }
        };
        while rest.first().is_some_and(|next| next == "super") {
            (module, rest) = (parent(&module)?.to_owned(), &rest[1..]);
        }
        Some((module, rest.to_vec()))
    }
}

fn join(module: &str, name: &str) -> Module {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// Returns the parent of a module.
pub fn parent(module: &str) -> Option<&str> {
    (!module.is_empty()).then(|| module.rsplit_once("::").map_or("", |(parent, _)| parent))
}

/// Returns whether a text has a word, not as part of a longer one.
pub fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

/// Splits code into its imports and the rest.
fn imports(code: &str) -> (Vec<Use>, String) {
    let (mut uses, mut kept) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let visible = start.starts_with("pub");
        let tree = match start.find("use ") {
            Some(0) => &start[4..],
            Some(at) if visible && (at == 4 || start[..at].ends_with(") ")) => &start[at + 4..],
            _ => {
                kept.push_str(line);
                kept.push('\n');
                continue;
            }
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            let Some(line) = lines.next() else { break };
            tree.push_str(line);
        }
        expand(tree.split(';').next().unwrap_or_default(), &[], visible, &mut uses);
    }
    (uses, kept)
}

/// Adds all imports of a tree: `a::{b, c as d, self}`.
fn expand(tree: &str, before: &[String], exported: bool, uses: &mut Vec<Use>) {
    let tree = tree.trim();
    let (path, group) = match tree.find('{') {
        Some(at) => (&tree[..at], Some(tree[at + 1..].trim_end().trim_end_matches('}'))),
        None => (tree, None),
    };
    let (path, alias) = match path.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim())),
        None => (path, None),
    };
    let mut full = before.to_vec();
    full.extend(path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    if let Some(group) = group {
        for member in members(group) {
            expand(member, &full, exported, uses);
        }
        return;
    }
    if full.len() > 1 && full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    let Some(name) = full.last().cloned() else { return };
    if name == "*" {
        full.pop();
    }
    uses.push(Use { name: alias.map_or(name, str::to_owned), path: full, exported });
}

/// Returns the members of a group, split at its own commas.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members.push(&group[start..]);
    members.retain(|member| !member.trim().is_empty());
    members
}

/// Returns all paths of two or more names in code.
fn paths(code: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for word in code.split(|c: char| !is_part(c)) {
        let names: Vec<String> =
            word.split("::").take_while(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.len() > 1 && !names.iter().any(|name| name.contains(':')) {
            found.insert(names);
        }
    }
    found
}

/// Returns the groups of nodes that reach each other.
pub fn cycles(edges: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<Vec<String>> {
    let reach = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = edges.get(from).into_iter().flatten().copied().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next.to_owned()) {
                open.extend(edges.get(next).into_iter().flatten());
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        edges.keys().map(|node| (*node, reach(node))).collect();
    let groups: BTreeSet<Vec<String>> = reached
        .iter()
        .filter(|(node, to)| to.contains(**node))
        .map(|(node, to)| {
            let back = |other: &&String| {
                reached.get(other.as_str()).is_some_and(|from| from.contains(*node))
            };
            to.iter().filter(back).cloned().collect()
        })
        .collect();
    groups.into_iter().collect()
}

#[test]
fn uses_are_resolved_to_the_files_that_define_them() {
    let sources = [
        ("", "pub mod a; pub mod b;\npub use a::Thing;"),
        ("a", "mod x;\nmod y;\npub use x::{Thing, deep::*};\npub struct Own;"),
        ("a::x", "pub mod deep;\nuse super::{Own, y::{self, Y as Z}};\nstruct Thing(Z, y::Other);"),
        ("a::x::deep", "pub struct Deep;\nfn f() { super::super::y::f() }"),
        ("a::y", "pub struct Y;\npub struct Other;\nfn f(t: crate::Thing) {}"),
        ("b", "use crate::a::{self, Deep};\nfn f(t: a::Thing) {}"),
    ];
    let sources = sources.map(|(module, code)| (module.to_owned(), code.to_owned()));
    let all = Crate::new(sources);
    let edges: BTreeMap<&str, Vec<&str>> =
        all.edges().into_iter().map(|(from, to)| (from, to.into_iter().collect())).collect();
    assert_eq!(
        edges,
        BTreeMap::from([
            ("", vec![]),
            ("a", vec![]),
            ("a::x", vec!["a", "a::y"]),
            ("a::x::deep", vec!["a::y"]),
            ("a::y", vec!["a::x"]),
            ("b", vec!["a::x", "a::x::deep"]),
        ])
    );
    assert_eq!(cycles(&all.edges()), [["a::x", "a::y"]]);
}
