//! The output of the program, and its behaviour with terminals, pipes, signals and unusual names.
#![expect(clippy::disallowed_methods, reason = "creates files, and waits, as a user would")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::binary::Place;
use super::setups::{nothing, one_completed, one_pending, one_will_fail, unparsable_settings};

const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

/// Returns an output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the exit code.
pub fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn add_prints_a_line_per_operation_and_wait_its_cid() {
    let place = Place::new();
    place.file("a.txt", "hello world\n");
    let line = place.run("add --backend local a.txt");
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!((words[0], words[1].len(), words.len()), ("1", 36, 3), "{line}");
    assert_eq!(words[2], place.path("a.txt").to_str().unwrap());
    let waited = place.run("add --backend local a.txt --wait");
    assert!(waited.contains("completed") && waited.contains(CID), "{waited}");
    let json = place.json("add --backend local a.txt");
    assert_eq!(json["operation_id"], json["operations"][0]["operation_id"]);
    let json = place.json("add --backend local a.txt a.txt");
    assert_eq!(
        (json.get("operation_id"), json["operations"][1]["status"].as_str()),
        (None, Some("pending"))
    );
}

#[test]
fn an_operation_document_has_every_field() {
    let place = Place::new();
    one_completed(&place);
    let json = place.json("show 1");
    let operation = json["operation"].as_object().unwrap();
    for field in
        "operation_id number operation_type backend status parameters timestamp updated_at \
                  completed_at result receipt error error_type failure_class retry_count \
                  max_retries next_retry_at interruptions priority depends_on idempotency_key hold \
                  not_before source claim redirected_from redirected_to revision history"
            .split_whitespace()
    {
        assert!(operation.contains_key(field), "{field}");
    }
    assert_eq!(operation["result"]["cid"], CID);
    assert_eq!(operation["history"].as_array().unwrap().len(), 3);
    let time = operation["timestamp"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let status = place.json("status");
    for field in "stats backends oldest_pending processing_active processing health journal_bytes partitions archives \
                  free_bytes base_path damage"
        .split_whitespace()
    {
        assert!(status.get(field).is_some(), "{field}");
    }
}

#[test]
fn all_bad_paths_are_named_and_nothing_is_logged() {
    let place = Place::new();
    place.file("a.txt", "a");
    place.file("plain", "");
    let strange = place.path("caf\u{e9}").into_os_string();
    let mut bytes = strange.as_bytes().to_vec();
    bytes.truncate(bytes.len() - 1);
    let no_utf8 = PathBuf::from(std::ffi::OsStr::from_bytes(&bytes));
    std::fs::write(&no_utf8, "x").unwrap();
    // A path through a file replaces an unreadable directory, since root can read every directory.
    let mut command = place.command("add --json --backend local a.txt gone plain/x /dev/null");
    let output = command.arg(&no_utf8).output().unwrap();
    assert_eq!(code(&output), Some(2));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bad = json["error"]["bad_inputs"].as_array().unwrap();
    let kinds: Vec<_> = bad.iter().map(|bad| bad["error_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["not_found", "io", "unsupported_file", "not_utf8"], "{json}");
    assert_eq!(place.json("status")["stats"]["total"], 0);
}

#[test]
fn unusual_names_and_empty_files_are_added_and_escaped() {
    let place = Place::new();
    let mut command = place.command("add --backend local --wait");
    for name in ["two\nlines", "tab\tand \x1b[31mred", "-dash", "  spaces  ", "empty"] {
        let path = place.file(name, if name == "empty" { "" } else { "x" });
        command.arg(path);
    }
    let output = command.output().unwrap();
    let stdout = text(&output.stdout);
    assert_eq!(
        (code(&output), stdout.lines().count()),
        (Some(0), 5),
        "{stdout}{}",
        text(&output.stderr)
    );
    assert!(stdout.contains("two\\nlines") && !stdout.contains('\x1b'), "{stdout}");
    assert_eq!(place.run("list").lines().count(), 6);
    let json = place.json("show 1");
    assert!(json["operation"]["parameters"]["path"].as_str().unwrap().ends_with("two\nlines"));
}

#[test]
fn paths_come_from_a_file_or_a_pipe() {
    let place = Place::new();
    let (a, b) = (place.file("a.txt", "a"), place.file("b c", "b"));
    let list = place.file("list", &format!("{}\r\n\n{}\n", a.display(), b.display()));
    assert_eq!(
        place.run(&format!("add --backend local --from-file {}", list.display())).lines().count(),
        2
    );
    let mut child = place
        .command("add --backend local -0 --from-file -")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a.txt\0b c\0").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 2);
    let mut child = place
        .command("wait --timeout 1ms -")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    let waited = child.wait_with_output().unwrap();
    assert_eq!((code(&waited), text(&waited.stdout).lines().count()), (Some(4), 2));
}

#[test]
fn a_missing_source_file_fails_its_operation() {
    let place = Place::new();
    one_will_fail(&place);
    let output = place.output("process");
    assert_eq!(code(&output), Some(1));
    let operation = place.json("show 1")["operation"].clone();
    assert_eq!(
        (operation["status"].as_str(), operation["error_type"].as_str()),
        (Some("failed"), Some("not_found"))
    );
    assert_eq!(operation["failure_class"], "permanent");
    place.file("a.txt", "back\n");
    assert!(place.run("retry --failed").contains("pending"));
}

#[test]
fn a_closed_stdout_pipe_is_not_an_error() {
    let place = Place::new();
    place.file("a.txt", "a");
    let paths = "a.txt ".repeat(3000);
    place.run(&format!("add --backend local {paths}"));
    for command in
        ["list --limit 0", "list --limit 0 --json", "list -q --limit 0", "completions bash"]
    {
        let mut child =
            place.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), text(&output.stderr)), (Some(0), String::new()), "{command}");
    }
    // The command has completed although its output was not read.
    let mut child =
        place.command("process").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(place.json("status")["stats"]["completed"], 3000);
}

#[test]
fn a_failed_write_to_stdout_is_reported() {
    let place = Place::new();
    one_pending(&place);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = place.command("list").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(code(&output), Some(7));
    assert!(text(&output.stderr).contains("cannot write to stdout"), "{}", text(&output.stderr));
}

#[test]
fn pages_of_a_list_join_without_gaps() {
    let place = Place::new();
    place.file("a.txt", "a");
    place.run("add --backend local a.txt a.txt a.txt a.txt a.txt");
    let mut numbers = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = place.json(&format!("list --limit 2 {cursor}"));
        numbers.extend(
            page["operations"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["number"].as_u64().unwrap()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("--cursor {next}"),
            None => break,
        }
    }
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    let ids = place.run("list -q --limit 0");
    assert_eq!(ids.lines().filter(|line| line.len() == 36).count(), 5, "{ids}");
}

/// Runs a command on a terminal of 80 columns.
fn on_a_terminal(place: &Place, variables: &str, arguments: &str) -> String {
    let inner =
        format!("stty cols 80 rows 24; {variables} {} {arguments}", env!("CARGO_BIN_EXE_wal-cli"));
    let mut outer = Command::new("script");
    outer.args(["-qec", &inner, "/dev/null"]);
    let prepared = place.command("");
    for (name, value) in prepared.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    let output = outer
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .current_dir(place.path(""))
        .output()
        .unwrap();
    text(&output.stdout)
}

#[test]
fn a_terminal_gets_colours_and_80_columns_and_a_pipe_neither() {
    let place = Place::new();
    let deep = "a-long-name-of-a-folder/".repeat(6);
    std::fs::create_dir_all(place.path(&deep)).unwrap();
    place.file(&format!("{deep}a.txt"), "a");
    place.run(&format!("add --backend local {deep}a.txt"));
    for variables in ["NO_COLOR=1", ""] {
        for command in [
            "list",
            "status",
            "health --backend local",
            "show 1",
            "process",
            "--help",
            "add --help",
        ] {
            let shown = on_a_terminal(&place, variables, command);
            let plain = without_colours(&shown);
            assert!(!plain.trim().is_empty(), "{command}");
            assert!(variables.is_empty() || plain == shown, "{command}: {shown}");
            // `show` and results are printed in full, whatever their length.
            for line in plain.lines().filter(|_| !["show 1", "process"].contains(&command)) {
                assert!(line.trim_end().chars().count() <= 80, "{command}: {line}");
            }
        }
    }
    assert!(on_a_terminal(&place, "", "list").contains('\x1b'));
    assert!(on_a_terminal(&place, "", "--color never list").find('\x1b').is_none());
    let piped = place.run("list");
    assert!(!piped.contains('\x1b') && piped.contains(&deep), "{piped}");
    assert!(place.run("list --color always").contains('\x1b'));
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        plain.push_str(&rest[..at]);
        let end = rest[at + 2..]
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(rest.len(), |end| at + 3 + end);
        rest = &rest[end..];
    }
    plain + rest
}

#[test]
fn ipfs_kit_has_the_same_commands_below_wal() {
    let place = Place::new();
    nothing(&place);
    let link = place.path("ipfs-kit");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wal-cli"), &link).unwrap();
    let run = |arguments: &str| {
        let prepared = place.command(arguments);
        let mut command = Command::new(&link);
        command.args(prepared.get_args()).current_dir(place.path(""));
        for (name, value) in prepared.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        command.output().unwrap()
    };
    assert_eq!(code(&run("wal add --backend local a.txt")), Some(0));
    assert!(text(&run("wal list").stdout).contains("a.txt"));
    let help = text(&run("wal add --help").stdout);
    assert!(help.contains("Usage: ipfs-kit wal add") && !help.contains("wal-cli"), "{help}");
    let output = run("wal add --backend locla a.txt");
    assert!(
        text(&output.stderr).contains("`ipfs-kit wal config show`"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(code(&run("add --backend local a.txt")), Some(2));
    let json: Value = serde_json::from_slice(&run("--json wal show 7").stdout).unwrap_or_default();
    assert_eq!(json["error"]["type"], "usage", "flags follow `wal`");
    let json: Value = serde_json::from_slice(&run("wal --json show 7").stdout).unwrap();
    assert_eq!(json["error"]["type"], "no_such_operation");
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Starts a drain loop with a slow running attempt, and further due operations.
fn loop_at_work(place: &Place) -> Child {
    nothing(place);
    place.settings("jobs = 1\n[backends.mock]\nlatency_ms = 60000\n");
    place.run("add --backend mock a.txt b.txt");
    let mut child = place
        .command("process --follow --json --grace 100ms")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..500 {
        if place.json("status")["stats"]["processing"] == 1 {
            return child;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("the loop claimed nothing: {:?}", child.wait());
}

fn all_lines(child: &mut Child) -> Vec<Value> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

#[test]
fn a_stopped_loop_returns_its_operations_and_ends_with_0() {
    let place = Place::new();
    let mut child = loop_at_work(&place);
    let status = place.json("status");
    assert_eq!(
        (status["processing_active"].as_bool(), status["processing"]["pid"].as_u64()),
        (Some(true), Some(child.id().into()))
    );
    let second = place.output("process");
    assert_eq!(code(&second), Some(5));
    assert!(
        text(&second.stderr).contains(&format!("pid {}", child.id())),
        "{}",
        text(&second.stderr)
    );
    let skipped = place.json("process --skip-if-running");
    assert_eq!(
        (skipped["skipped"].as_bool(), skipped["processing"]["pid"].as_u64()),
        (Some(true), Some(child.id().into()))
    );

    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let lines = all_lines(&mut child);
    let summary = lines.last().unwrap();
    assert_eq!(
        (summary["success"].as_bool(), summary["stopped"].as_bool()),
        (Some(true), Some(true)),
        "{lines:?}"
    );
    let status = place.json("status");
    assert_eq!(
        (status["stats"]["pending"].as_u64(), status["processing_active"].as_bool()),
        (Some(2), Some(false))
    );
}

#[test]
fn a_keyboard_interrupt_ends_with_130() {
    let place = Place::new();
    let mut child = loop_at_work(&place);
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(all_lines(&mut child).last().unwrap()["error"]["type"], "interrupted");
    assert_eq!(place.json("status")["stats"]["pending"], 2);

    for command in ["wait 1", "wait 1 --json", "add --backend mock a.txt --wait"] {
        let mut child =
            place.command(command).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        signal(&child, Signal::INT);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{command}");
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert!(printed.contains("pending"), "{command}: {printed}");
    }
}

#[test]
fn settings_are_changed_in_their_file_and_shown_with_their_origin() {
    let place = Place::new();
    // A relative path is resolved against the current directory, not that of the settings file.
    place.run("config set backends.local.path store");
    assert_eq!(
        place.run("config get backends.local.path"),
        format!("{}\n", place.path("store").display())
    );
    place.run("config set jobs 7");
    assert_eq!(place.run("config get jobs"), "7\n");
    let file = place.run("config path");
    let shown = place.json("config show");
    assert_eq!(shown["settings"]["jobs"]["value"], 7);
    assert_eq!(shown["settings"]["jobs"]["origin"], format!("{}:1", file.trim()));
    assert_eq!(shown["settings"]["retry_delay"]["origin"], "default");
    let output = place.command("status").env("IPFS_KIT_WAL_JBOS", "3").output().unwrap();
    assert!(
        text(&output.stderr).starts_with("warning: IPFS_KIT_WAL_JBOS has no effect"),
        "{}",
        text(&output.stderr)
    );
    let output = place
        .command("status --debug")
        .env("IPFS_KIT_WAL_LOG", "wal_cli=nonsense=x")
        .output()
        .unwrap();
    assert_eq!(code(&output), Some(2));
}

#[test]
fn every_command_has_help_even_with_invalid_settings() {
    let place = Place::new();
    unparsable_settings(&place);
    let help = place.run("--help");
    let commands: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 13, "{commands:?}");
    for command in commands {
        let help = place.run(&format!("{command} --help"));
        assert!(help.contains("Usage: wal-cli"), "{help}");
    }
    assert!(help.contains("Exit codes:"));
    assert!(place.run("--version").starts_with("wal-cli "));
}

#[test]
fn the_examples_of_the_backend_pages_are_valid() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/backends");
    let pages: Vec<PathBuf> =
        std::fs::read_dir(pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(pages.len() >= 4);
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let (_, settings) = text
            .split_once("```toml\n")
            .unwrap_or_else(|| panic!("{page:?} has no example configuration"));
        let place = Place::new();
        place.settings(settings.split_once("```").unwrap().0);
        place.run("config check");
        let shown = place.json("config show");
        let name = page.file_stem().unwrap().to_str().unwrap();
        let (_, table) = text.split_once("| key | default | meaning |\n").unwrap();
        for row in table.lines().take_while(|line| line.starts_with('|')).skip(1) {
            for key in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
                let key = format!("backends.{name}.{key}");
                assert!(
                    !shown["settings"][&key].is_null(),
                    "{page:?} names `{key}`, which is not a key"
                );
            }
        }
    }
}

/// Returns the hint of a command that fails, from its JSON document.
fn hint_of(command: &mut Command) -> String {
    let output = command.arg("--json").output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["error"]["hint"].as_str().unwrap().to_owned()
}

#[test]
fn hints_can_be_pasted_with_the_flags_in_use() {
    let place = Place::new();
    let log = place.path("my logs/it's");
    let flagged = |arguments: &str| {
        let mut command = place.command("");
        command.arg("--base-path").arg(&log).args(arguments.split_whitespace());
        command
    };
    place.file("a.txt", "a");
    assert!(flagged("add --backend local a.txt").output().unwrap().status.success());
    let hint = hint_of(&mut flagged("show 17"));
    let typed = format!("wal-cli --base-path \"{}\" list all", log.display());
    assert!(hint.contains(&format!("`{typed}`")), "{hint}");
    // The command in the hint runs in a shell as it is, on that log.
    let program = Path::new(env!("CARGO_BIN_EXE_wal-cli")).parent().unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", &typed]).env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    let listed = text(&shell.output().unwrap().stdout);
    assert!(listed.contains("a.txt"), "{listed}");
    // The text on stderr has the same hint as the JSON document.
    let said = text(&flagged("show 17").output().unwrap().stderr);
    assert!(said.contains(&format!("hint: {hint}")), "{said}");
    let why = text(&flagged("why 1").output().unwrap().stdout);
    assert!(!why.contains("`wal-cli process"), "{why}");
}

#[test]
fn hints_do_not_repeat_settings_of_the_environment() {
    let place = Place::new();
    place.file("a.txt", "a");
    place.run("add --backend local a.txt");
    let hint = hint_of(&mut place.command("show 17"));
    assert!(hint.contains("`wal-cli list all`"), "{hint}");
    let config = place.file("my.toml", "");
    let hint = hint_of(&mut place.command(&format!("show 17 --config {}", config.display())));
    let expected = format!("`wal-cli --config {} list all`", config.display());
    assert!(hint.contains(&expected), "{hint}");
    // As `ipfs-kit`, hints name that program.
    let other = place.path("ipfs-kit");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wal-cli"), &other).unwrap();
    let mut command = Command::new(&other);
    command.args(["wal", "show", "17", "--base-path"]).arg(place.log());
    let hint = hint_of(&mut command);
    let expected = format!("`ipfs-kit wal --base-path {} list all`", place.log().display());
    assert!(hint.contains(&expected), "{hint}");
}

#[test]
fn every_command_in_texts_and_pages_is_valid() {
    let quoted = regex::Regex::new(r#"`(wal-cli [^`"]*)`"#).unwrap();
    let continued = regex::Regex::new(r"\\\n\s*").unwrap();
    let value = regex::Regex::new(r"\{[^}]*\}").unwrap();
    let placeholder = regex::Regex::new(r"\b[A-Z]{2,}\b").unwrap();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let (mut checked, mut wrong) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let code: String = source
                .lines()
                .take_while(|line| *line != "#[cfg(test)]")
                .filter(|line| !line.trim_start().starts_with("//"))
                .flat_map(|line| [line, "\n"])
                .collect();
            for found in quoted.captures_iter(&continued.replace_all(&code, "")) {
                let command = value.replace_all(&found[1], "abcd").replace('…', "abcd");
                let command = placeholder.replace_all(&command, "abcd");
                let words = words_of(&command);
                checked += 1;
                if let Err(error) = wal_cli::cli::understands(&words) {
                    wrong.push(format!("{}: `{}`: {error}", path.display(), &found[1]));
                }
            }
        }
    }
    assert!(checked > 30, "only {checked} commands were found");
    assert_eq!(wrong, Vec::<String>::new());
}

fn words_of(command: &str) -> Vec<std::ffi::OsString> {
    command.split_whitespace().map(Into::into).collect()
}

#[test]
fn a_new_log_is_announced_once_and_not_created_if_one_must_exist() {
    let place = Place::new();
    place.file("a", "a\n");
    let log = place.log().display().to_string();
    let errors = |arguments: &str| text(&place.output(arguments).stderr);
    assert_eq!(errors("status"), "");
    let announced = errors("add --backend local a --quiet --json");
    assert_eq!(announced, format!("created a new log in `{log}`\n"));
    assert_eq!(errors("add --backend local a"), "");
    // As if its disk was not mounted.
    std::fs::rename(place.log(), place.path("elsewhere")).unwrap();
    place.settings("must_exist = true\n");
    for command in ["add --backend local a", "process", "status --fail-if pending>9", "checkpoint"]
    {
        let refused = place.output(command);
        let stderr = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(6), "{command}: {stderr}");
        assert!(
            stderr.contains(&format!("there is no log in `{log}`, and `must_exist` is set")),
            "{command}: {stderr}"
        );
        assert!(!place.log().exists(), "{command}");
    }
    std::fs::rename(place.path("elsewhere"), place.log()).unwrap();
    place.run("process");
}

#[test]
fn a_relative_path_names_one_log_whose_directory_is_made_durable() {
    let place = Place::new();
    place.file("a", "a\n");
    for (variable, value) in [("IPFS_KIT_WAL_PATH", "relative"), ("HOME", "home")] {
        let mut add = place.command("add --backend local a --json");
        add.env_remove("IPFS_KIT_WAL_PATH").env(variable, value);
        let output = add.output().unwrap();
        assert!(output.status.success(), "{variable}: {output:?}");
        let created = text(&output.stderr);
        let expected = format!("created a new log in `{}/", place.path("").display());
        assert!(created.replace("//", "/").starts_with(&expected.replace("//", "/")), "{created}");
    }
}
