//! User input: command lines, settings files, conditions, durations, sizes, references to
//! operations.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use wal_cli::client::Reference;
use wal_cli::config::{self, Sources, UserDirs};
use wal_cli::disk::{Disk, Machine};
use wal_cli::operation::{BackendName, OperationId, OperationType, Status, Time};
use wal_cli::{cli, report};

const FILE: &str = "/settings.toml";

pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    match first % 4 {
        0 => command_line(rest),
        1 => settings(rest),
        2 => change(rest),
        _ => words(rest),
    }
}

/// Parses words that end with a newline or NUL as arguments of the program under either name.
fn command_line(data: &[u8]) {
    let words =
        data.split(|byte| matches!(byte, 0 | b'\n')).map(|word| OsString::from_vec(word.to_vec()));
    let words: Vec<OsString> = words.collect();
    for name in [&["wal-cli"][..], &["ipfs-kit", "wal"]] {
        let args: Vec<OsString> = name.iter().map(OsString::from).chain(words.clone()).collect();
        if let Err(reported) = cli::understands(&args) {
            assert!(!reported.is_empty());
        }
    }
}

fn load(text: &[u8], flags: &[(&str, &str)]) -> Result<config::Loaded, config::ConfigError> {
    let disk = Machine::new().process();
    let disk: &dyn Disk = &disk;
    disk.write_new_synced(Path::new(FILE), text).unwrap();
    let user_dirs = UserDirs { home: Some("/home/me".into()), config_dir: None };
    let file = Some(Path::new(FILE));
    config::load_from(Sources { disk, user_dirs: &user_dirs, file, environment: Vec::new(), flags })
}

/// Reads a settings file, shows its keys, and looks each up by the name under which it is shown.
fn settings(text: &[u8]) {
    let loaded = match load(text, &[]) {
        Ok(loaded) => loaded,
        Err(error) => {
            let _ = (error.to_string(), error.hint(), error.key(), error.origin());
            return;
        }
    };
    for entry in config::entries(&loaded) {
        let found = config::get(&loaded, &entry.key)
            .unwrap_or_else(|error| panic!("{}: {error}", entry.key));
        assert_eq!(found, entry);
        let _ = loaded.origin(&entry.key).to_string();
    }
    loaded.warnings.iter().for_each(|warning| drop(warning.to_string()));
}

/// Sets a key in a file; the result must equal that of a flag.
fn change(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\n');
    let (Some(key), Some(value)) = (parts.next(), parts.next()) else { return };
    let text = parts.next().unwrap_or_default();
    let Ok(changed) = config::set(text, Path::new(FILE), key, value) else { return };
    if config::is_path(key) && !value.trim().starts_with(['/', '~']) {
        // In a file, a relative path is resolved against another directory.
        return;
    }
    // The file may have had another error before.
    let (Ok(by_flag), Ok(by_file)) =
        (load(text.as_bytes(), &[(key, value)]), load(changed.as_bytes(), &[]))
    else {
        return;
    };
    assert_eq!(
        by_flag.settings, by_file.settings,
        "{key} = {value:?}\nin\n{text}\nbecame\n{changed}"
    );
}

fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(
            Reference::parse(&reference.to_string()).expect("a printed reference can be parsed"),
            reference
        );
    }
    if let Some(id) = OperationId::parse(text) {
        assert_eq!(OperationId::parse(&id.to_string()), Some(id));
        let _ = id.made_at().to_string();
    }
    if let Some(time) = Time::parse_rfc3339(text) {
        assert_eq!(Time::parse_rfc3339(&time.to_string()), Some(time), "{text}");
        let _ = (time.yyyymmdd(), report::ago(Time::from_millis(0), time));
    }
    if let Some(status) = Status::parse(text) {
        assert_eq!(status.to_string(), text);
    }
    if let Ok(name) = OperationType::new(text) {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = BackendName::new(text) {
        assert_eq!(name.to_string(), text);
    }
    if let Some(time) = config::parse_seconds(text) {
        let again = config::parse_seconds(&format!("{}s", time.as_secs()));
        // Above 2^53, a number of seconds is not exact.
        if time.as_secs() < 1 << 53 {
            assert_eq!(again, Some(Duration::from_secs(time.as_secs())), "{text}");
        }
        let _ = report::span(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    }
    if let Some(size) = config::parse_bytes(text) {
        assert_eq!(config::parse_bytes(&size.to_string()), Some(size), "{text}");
        let _ = report::bytes(size);
    }
    let shown = report::visible(text);
    assert!(!shown.contains(char::is_control));
    let _ = (report::wrapped(&shown, 20), report::shortened(&shown, 10));
    let _ = cli::understands(&["wal-cli", "status", "--fail-if", text].map(OsString::from));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "status\n--json",
        "status\n--fail-if\nfailed>0,oldest_pending>1h,free_bytes<=64MiB",
        "add\n--backend\nlocal\nfile\n--wait\n--timeout\n5min",
        "add\n-0\n--from-file\n-\n--keep-going",
        "submit\npin\ncid=Qm\n--param\na=b\n--after\n1\n--delay\n10min\n--key\nk",
        "list\nfailed\n--since\n2h\n--limit\n0",
        "list\nall\n--until\n2026-01-31T12:00\n--cause\n3f2a91c0\n--type\nadd",
        "retry\n--cause\n3f2a\n--backend\ns3",
        "retry\n@failed\n--now",
        "wait\n-\n--timeout\n60",
        "process\n--follow\n--limit\n3\n--backend\nlocal\n--dry-run",
        "cleanup\n--max-age-days\n36500\n--dry-run\n--failed",
        "cancel\n17\n18",
        "prioritize\n17\n-5",
        "config\nset\njobs\n4",
        "completions\nbash",
        "bench\nappend",
        "--help",
        "--base-path\n/x\nwhy\n@last",
        "",
    ];
    let files = [
        "",
        "jobs = 4\nretry_delay = \"2 min\"\nmin_free_bytes = \"64 MiB\"\n",
        "[backends.local]\ntype = \"local\"\npath = \"~/x\"\n",
        "[backends]\nmine = { type = \"custom\", command = [\"a\", \"b\"] }\n",
        "# nothing\nenabled = false # why\nspool = 'never'\nspool_max_bytes = 0\n",
        "backends.ipfs.endpoint = \"http://127.0.0.1:5001/\"\ndefault_backend = \"ipfs\"\n",
        "jobs = -1\nlock_timeout = 1e300\nunknown = 1\n",
        "[backends.s3]\naccess_key = \"a\"\nsecret_key = \"b\"\nbucket = \"c\"\n",
        "jobs = [",
    ];
    let changes = [
        "jobs\n7\njobs = 4 # as many\n",
        "retry_delay\n1.5h\n",
        "backends.local.path\n/y\n[backends]\n[backends.local]\npath = '/x'\n",
        "backends.mine.command\n\"a b\" c\n[backends.mine]\ntype = 'custom'\n",
        "spool\nalways\n# head\n\n# tail",
        "min_free_bytes\n1.5 GB\nbackends = { }\n",
    ];
    let words = [
        "@last",
        "17",
        "+5",
        "original:job 17",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "2025-11-22T08:26:40.123Z",
        "2016-12-31T23:59:60Z",
        "-262143-01-01T00:00:00Z",
        "1.5h",
        "250 ms",
        "18446744073709551615",
        "64 MiB",
        "1e30",
        "failed>0",
        "free_bytes<99999999999 EiB",
        "oldest_pending>1e300d",
        "a\u{202e}b\t\u{1b}[31m",
        "ähnlich 日本語",
    ];
    let all = [&lines[..], &files, &changes, &words];
    let with = |(mode, texts): (usize, &&[&str])| {
        texts.iter().map(move |text| [&[mode as u8], text.as_bytes()].concat()).collect::<Vec<_>>()
    };
    all.iter().enumerate().flat_map(with).collect()
}
