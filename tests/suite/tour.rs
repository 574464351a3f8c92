//! Runs the commands of docs/tour.md, and compares their output with the page.
#![expect(
    clippy::disallowed_methods,
    reason = "runs a shell as a reader would, and reads and renews the page"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use snapbox::{Assert, IntoData, Redactions};

/// The command that renews the page.
const RENEW: &str = "WAL_CLI_BLESS=1 cargo test --test all suite::tour";

/// The longest time for the commands of one block.
const PATIENCE: Duration = Duration::from_secs(120);

/// The parts of output that may differ from run to run.
const WILDCARDS: [(&str, &str); 8] = [
    ("[ID]", r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
    ("[TIME]", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
    ("[DAY]", r"before (?<redacted>\d{4}-\d\d-\d\d)"),
    ("[AGO]", r"(?<redacted>\d+(?:s|min|h)) ago"),
    ("[PID]", r"pid (?<redacted>\d+)"),
    ("[PROCESS]", r"process (?<redacted>\d+)"),
    ("[BY]", r"ann@desk [a-z]+\[(?<redacted>\d+)\]"),
    ("[SIZE]", r"(?<redacted>\d+(?:\.\d+)? [KMGTP]?i?B)(?: in the journal| free)"),
];

static REDACTIONS: LazyLock<Redactions> = LazyLock::new(|| {
    let mut redactions = Redactions::new();
    for (name, form) in WILDCARDS {
        redactions.insert(name, Regex::new(form).unwrap()).unwrap();
    }
    redactions
});

/// A command of the page as it is written there, and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    lines: Vec<String>,
    output: String,
}

impl Step {
    /// Returns the command as a shell reads it.
    fn command(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", &line[2..])).collect()
    }

    /// Returns the output without the parts that may differ, and without column widths that depend
    /// on them.
    fn redacted(&self) -> String {
        let text = REDACTIONS.redact(&self.output);
        if !text.contains("[BY]") {
            return text;
        }
        let mut narrow = text;
        while narrow.contains("   ") {
            narrow = narrow.replace("   ", "  ");
        }
        narrow
    }
}

/// A part of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Console(Vec<Step>),
}

fn parts(page: &str) -> Vec<Part> {
    let mut parts = vec![Part::Text(String::new())];
    for line in page.lines() {
        match (parts.last_mut().unwrap(), line) {
            (Part::Text(_), "```console") => parts.push(Part::Console(Vec::new())),
            (Part::Console(_), "```") => parts.push(Part::Text(String::new())),
            (Part::Text(text), line) => text.push_str(&format!("{line}\n")),
            (Part::Console(steps), line) => match steps.last_mut() {
                _ if line.starts_with("$ ") => {
                    steps.push(Step { lines: vec![line.to_owned()], output: String::new() });
                }
                Some(step) if line.starts_with("> ") && step.output.is_empty() => {
                    step.lines.push(line.to_owned())
                }
                Some(step) => step.output.push_str(&format!("{line}\n")),
                None => panic!("a console block begins with a command: {line}"),
            },
        }
    }
    parts
}

fn page_of(parts: &[Part]) -> String {
    let mut page = String::new();
    for part in parts {
        match part {
            Part::Text(text) => page.push_str(text),
            Part::Console(steps) => {
                page.push_str("```console\n");
                for Step { lines, output } in steps {
                    lines.iter().for_each(|line| page.push_str(&format!("{line}\n")));
                    page.push_str(output);
                }
                page.push_str("```\n");
            }
        }
    }
    page
}

/// The home directory of a user who has the program in `PATH`.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// Runs the commands of a block in one shell; what each of them printed, on either stream.
    fn run(&self, steps: &[Step]) -> Vec<Step> {
        let home = self.directory.path();
        // The exit code of a command is kept for the next one.
        let script: String = steps
            .iter()
            .map(|step| format!("{}__code=$?; printf '\\036'; (exit $__code)\n", step.command()))
            .collect();
        let path = self.directory.path().with_extension("out");
        let out = File::create(&path).unwrap();
        let mut shell = Command::new("bash");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("IPFS_KIT_WAL_")) {
            shell.env_remove(name);
        }
        let program = Path::new(env!("CARGO_BIN_EXE_wal-cli")).parent().unwrap();
        let mut search = vec![program.to_owned()];
        search.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let mut shell = shell
            .arg("-c")
            .arg(&script)
            .current_dir(home)
            .env("HOME", home)
            .env("PATH", std::env::join_paths(search).unwrap())
            .env("LC_ALL", "C")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while shell.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                shell.kill().unwrap();
                panic!("after {PATIENCE:?}:\n{}", fs::read_to_string(&path).unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let printed = self.as_on_page(&fs::read_to_string(&path).unwrap());
        fs::remove_file(&path).unwrap();
        let outputs: Vec<&str> = printed.split('\x1e').collect();
        assert_eq!(outputs.len(), steps.len() + 1, "{printed}");
        let ran = |(step, output): (&Step, &str)| Step {
            lines: step.lines.clone(),
            output: output.to_owned(),
        };
        steps.iter().zip(outputs).map(ran).collect()
    }

    /// Replaces the directory by `/home/ann`, and user and host by `ann@desk`.
    fn as_on_page(&self, printed: &str) -> String {
        let actor = Regex::new(r"\S+@\S+ ([a-z]+\[\d+\])").unwrap();
        let host = Regex::new(r"(pid \d+) on [^\s,]+").unwrap();
        let text = printed.replace(self.directory.path().to_str().unwrap(), "/home/ann");
        host.replace_all(&actor.replace_all(&text, "ann@desk $1"), "$1 on desk").into_owned()
    }
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tour.md")
}

#[test]
fn the_tour_matches_the_program() {
    let on_page = parts(&fs::read_to_string(page()).unwrap());
    let home = Home { directory: tempfile::tempdir().unwrap() };
    let mut actual = Vec::new();
    for part in &on_page {
        actual.push(match part {
            Part::Text(text) => Part::Text(text.clone()),
            Part::Console(steps) => Part::Console(home.run(steps)),
        });
    }
    if std::env::var_os("WAL_CLI_BLESS").is_some() {
        // Matching output stays as it is, so that the diff of a renewal shows only changes.
        let renewed: Vec<Part> = on_page
            .into_iter()
            .zip(actual)
            .map(|(on_page, actual)| renewed(on_page, actual))
            .collect();
        fs::write(page(), page_of(&renewed)).unwrap();
        return;
    }
    let expected = page_of(&on_page.into_iter().map(without_wildcards).collect::<Vec<_>>());
    let actual = page_of(&actual.into_iter().map(without_wildcards).collect::<Vec<_>>());
    if let Err(difference) =
        Assert::new().try_eq(Some(&"docs/tour.md"), actual.into_data(), expected.into_data().raw())
    {
        panic!(
            "the output differs from docs/tour.md; if intended, renew it: {RENEW}\n{difference}"
        );
    }
}

fn without_wildcards(part: Part) -> Part {
    match part {
        Part::Console(steps) => Part::Console(
            steps
                .into_iter()
                .map(|step| Step { output: step.redacted(), lines: step.lines })
                .collect(),
        ),
        text => text,
    }
}

fn renewed(on_page: Part, actual: Part) -> Part {
    match (on_page, actual) {
        (Part::Console(on_page), Part::Console(actual)) => Part::Console(
            on_page
                .into_iter()
                .zip(actual)
                .map(
                    |(on_page, actual)| {
                        if on_page.redacted() == actual.redacted() { on_page } else { actual }
                    },
                )
                .collect(),
        ),
        (_, actual) => actual,
    }
}

#[test]
fn the_tour_uses_every_command() {
    let on_page = parts(&fs::read_to_string(page()).unwrap());
    let steps = on_page
        .iter()
        .filter_map(|part| if let Part::Console(steps) = part { Some(steps) } else { None });
    let commands: String = steps.flatten().map(Step::command).collect();
    for verb in
        "add submit status list show wait why failures retry cancel hold release delete prioritize process cleanup archive"
            .split_whitespace()
    {
        assert!(commands.contains(&format!("wal-cli {verb}")), "docs/tour.md lacks `{verb}`");
    }
}

#[test]
fn only_values_that_vary_between_runs_are_redacted() {
    let step = |output: &str| Step { lines: vec![], output: output.to_owned() }.redacted();
    let line = "7  01a20500-1ce1-7000-9f58-e7a2efb7de6a  2026-11-22T20:44:28.780Z  (3s ago), pid 17, 5.1 KiB in the journal";
    assert_eq!(step(line), "7  [ID]  [TIME]  ([AGO] ago), pid [PID], [SIZE] in the journal");
    for kept in
        ["operation 17 is pending", "6 B", "1 completed, 3 failed", "retries      0 of 5", "a   b"]
    {
        assert_eq!(step(kept), kept);
    }
    assert_eq!(step("ann@desk add[17432]   x"), "ann@desk add[[BY]]  x");
}
