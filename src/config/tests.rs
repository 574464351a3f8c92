use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::keys::{BACKEND_KEYS, GLOBAL_KEYS};
use super::*;
use crate::disk::{Access, Machine, OsDisk};

const FILE: &str = "/etc/ipfs-kit/wal.toml";

/// The layers of one configuration.
#[derive(Default)]
struct Case<'a> {
    file: Option<&'a str>,
    environment: Vec<(&'a str, &'a str)>,
    flags: Vec<(&'a str, &'a str)>,
}

impl Case<'_> {
    fn check(&self) -> Result<(Loaded, Vec<ConfigError>), ConfigError> {
        let disk = Machine::new().process();
        for folder in ["/etc", "/etc/ipfs-kit"] {
            disk.create_dir(Path::new(folder)).unwrap();
        }
        if let Some(text) = self.file {
            disk.open(Path::new(FILE), Access::CreateNew)
                .unwrap()
                .write_at(text.as_bytes(), 0)
                .unwrap();
        }
        check(Sources {
            disk: &disk,
            user_dirs: &UserDirs {
                home: Some("/home/ann".into()),
                config_dir: Some("/etc".into()),
            },
            file: None,
            environment: self.environment.iter().map(|(name, value)| (name.into(), value.into())),
            flags: &self.flags,
        })
    }

    fn load(&self) -> Loaded {
        let (loaded, errors) = self.check().unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        loaded
    }

    fn error(&self) -> ConfigError {
        match self.check() {
            Ok((_, mut errors)) => {
                assert_eq!(errors.len(), 1, "{errors:?}");
                errors.remove(0)
            }
            Err(error) => error,
        }
    }
}

fn file(text: &str) -> Case<'_> {
    Case { file: Some(text), ..Case::default() }
}

fn environment<'a>(variable: &'a str, value: &'a str) -> Case<'a> {
    Case { environment: vec![(variable, value)], ..Case::default() }
}

fn flag<'a>(key: &'a str, value: &'a str) -> Case<'a> {
    Case { flags: vec![(key, value)], ..Case::default() }
}

/// A key: its name, its variable, a valid value as TOML, that value in `config show`, and invalid
/// values as TOML and as words.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    fn() -> Json,
    &'static [&'static str],
    &'static [&'static str],
);

const COUNT: &[&str] = &["-1", "1.5", "\"7\"", "true", "[]", "{}", "99999999999999"];
const COUNT_WORDS: &[&str] = &["-1", "1.5", "many", "0x10", "99999999999999", "1 000"];
const BOOL: &[&str] = &["1", "\"true\"", "[true]", "1979-05-27"];
const BOOL_WORDS: &[&str] = &["maybe", "2", "tru"];
const SECONDS: &[&str] = &["-1", "\"soon\"", "true", "inf", "nan", "1e12", "\"5 weeks\""];
const SECONDS_WORDS: &[&str] = &["-1", "soon", "NaN", "inf", "1e12", "5 weeks"];
const BYTES: &[&str] = &["-1", "1.5", "\"a lot\"", "true", "\"64 MiX\""];
const BYTES_WORDS: &[&str] = &["-1", "a lot", "64 MiX", "9999999 TiB"];
const TEXT: &[&str] = &["1", "\"\"", "\"a\\u0000b\"", "[\"a\"]", "false"];
const URL: &[&str] =
    &["1", "\"localhost:5001\"", "\"ftp://a\"", "\"http://\"", "\"http://:1\"", "\"http://a b\""];
const URL_WORDS: &[&str] = &["/ip4/127.0.0.1/tcp/5001", "localhost:5001", "https://"];
const PATHS: &[&str] = &["1", "\"\"", "true", "\"~bob/x\"", "\"a\\u0000b\""];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("enabled", "ENABLED", "false", || json!(false), BOOL, BOOL_WORDS),
    ("base_path", "PATH", "\"/data\"", || json!("/data"), PATHS, &["~bob/x"]),
    ("must_exist", "MUST_EXIST", "true", || json!(true), BOOL, BOOL_WORDS),
    ("partition_size", "PARTITION_SIZE", "7", || json!(7), COUNT, COUNT_WORDS),
    ("max_retries", "MAX_RETRIES", "0", || json!(0), COUNT, COUNT_WORDS),
    ("retry_delay", "RETRY_DELAY", "0.5", || json!(0.5), SECONDS, SECONDS_WORDS),
    ("retry_after_max", "RETRY_AFTER_MAX", "\"2 min\"", || json!(120), SECONDS, SECONDS_WORDS),
    ("processing_interval", "PROCESS_INTERVAL", "2", || json!(2), SECONDS, &["0", "-1"]),
    ("archive_completed", "ARCHIVE_COMPLETED", "false", || json!(false), BOOL, BOOL_WORDS),
    ("cleanup_interval", "CLEANUP_INTERVAL", "3600", || json!(3600), SECONDS, SECONDS_WORDS),
    ("max_age_days", "MAX_AGE_DAYS", "7", || json!(7), COUNT, COUNT_WORDS),
    ("archive_push", "ARCHIVE_PUSH", "\"s3://b/h\"", || json!("s3://b/h"), TEXT, &["a\nb"]),
    ("archive_host", "ARCHIVE_HOST", "\"web1\"", || json!("web1"), TEXT, &["a b", "a/b"]),
    ("archive_backend", "ARCHIVE_BACKEND", "\"s3\"", || json!("s3"),
        &["1", "\"S3\"", "\"s33\""], &["S3", "nowhere"]),
    ("health_check_interval", "HEALTH_CHECK_INTERVAL", "\"250 ms\"", || json!(0.25),
        SECONDS, SECONDS_WORDS),
    ("health_check_timeout", "HEALTH_CHECK_TIMEOUT", "1.5", || json!(1.5), SECONDS, &["0", "3601"]),
    ("health_history_size", "HEALTH_HISTORY_SIZE", "50", || json!(50), COUNT, &["2", "10001"]),
    ("default_backend", "DEFAULT_BACKEND", "\"s3\"", || json!("s3"),
        &["1", "\"S3\"", "\"s33\""], &["S3", "nowhere"]),
    ("jobs", "JOBS", "8", || json!(8), COUNT, &["0", "1025"]),
    ("spool", "SPOOL", "\"never\"", || json!("never"), &["true", "\"nevr\""], &["yes", "Auto"]),
    ("spool_max_bytes", "SPOOL_MAX_BYTES", "\"1.5 MiB\"", || json!(1_572_864), BYTES, BYTES_WORDS),
    ("min_free_bytes", "MIN_FREE_BYTES", "1024", || json!(1024), BYTES, BYTES_WORDS),
    ("lock_timeout", "LOCK_TIMEOUT", "\"1.5h\"", || json!(5400), SECONDS, SECONDS_WORDS),
    ("backends.ipfs.type", "BACKENDS_IPFS_TYPE", "\"ipfs\"", || json!("ipfs"),
        &["\"s3\"", "1"], &["s3", "x"]),
    ("backends.ipfs.endpoint", "BACKENDS_IPFS_ENDPOINT", "\"https://a/\"", || json!("https://a"),
        URL, URL_WORDS),
    ("backends.s3.region", "BACKENDS_S3_REGION", "\"eu-west-1\"", || json!("eu-west-1"),
        TEXT, &["a\u{7}"]),
    ("backends.s3.bucket", "BACKENDS_S3_BUCKET", "\"b\"", || json!("b"), TEXT, &["a\nb"]),
    ("backends.custom.command", "BACKENDS_CUSTOM_COMMAND", "\"~/put 'a b'\"",
        || json!(["/home/ann/put", "a b"]),
        &["1", "[]", "[1]", "\"a 'b\"", "\"\"", "[\"\"]"], &["a 'b"]),
    ("backends.local.path", "BACKENDS_LOCAL_PATH", "\"~/l\"", || json!("/home/ann/l"),
        PATHS, &["~bob"]),
    ("backends.storacha.connection_timeout", "BACKENDS_STORACHA_CONNECTION_TIMEOUT", "3",
        || json!(3), SECONDS, &["0"]),
    ("backends.ipfs.idle_timeout", "BACKENDS_IPFS_IDLE_TIMEOUT", "30", || json!(30),
        SECONDS, &["0"]),
    ("backends.s3.total_timeout", "BACKENDS_S3_TOTAL_TIMEOUT", "\"1h\"", || json!(3600),
        SECONDS, SECONDS_WORDS),
    ("backends.ipfs.token", "BACKENDS_IPFS_TOKEN", "\"t\"", || json!("********"), TEXT, &[]),
    ("backends.ipfs.username", "BACKENDS_IPFS_USERNAME", "\"ann\"", || json!("ann"),
        TEXT, &["a\nb"]),
    ("backends.ipfs.password", "BACKENDS_IPFS_PASSWORD", "\"p\"", || json!("********"), TEXT, &[]),
    ("backends.s3.access_key_id", "BACKENDS_S3_ACCESS_KEY_ID", "\"k\"", || json!("********"),
        TEXT, &[]),
    ("backends.s3.secret_access_key", "BACKENDS_S3_SECRET_ACCESS_KEY", "\"s\"",
        || json!("********"), TEXT, &[]),
    ("backends.s3.session_token", "BACKENDS_S3_SESSION_TOKEN", "\"t\"", || json!("********"),
        TEXT, &[]),
    ("backends.s3.path_style", "BACKENDS_S3_PATH_STYLE", "true", || json!(true), BOOL, BOOL_WORDS),
    ("backends.s3.checksums", "BACKENDS_S3_CHECKSUMS", "false", || json!(false), BOOL, BOOL_WORDS),
    ("backends.s3.part_size", "BACKENDS_S3_PART_SIZE", "\"8 MiB\"", || json!(8_388_608),
        BYTES, &["4 MiB", "6 GiB"]),
    ("backends.s3.part_jobs", "BACKENDS_S3_PART_JOBS", "2", || json!(2), COUNT, &["0", "65"]),
    ("backends.s3.jobs", "BACKENDS_S3_JOBS", "2", || json!(2), COUNT, COUNT_WORDS),
    ("backends.ipfs.max_bytes_per_second", "BACKENDS_IPFS_MAX_BYTES_PER_SECOND", "\"1 MiB\"",
        || json!(1_048_576),
        BYTES, BYTES_WORDS),
    ("backends.ipfs.cid_version", "BACKENDS_IPFS_CID_VERSION", "1", || json!(1), COUNT, &["2"]),
    ("backends.local.raw_leaves", "BACKENDS_LOCAL_RAW_LEAVES", "true", || json!(true),
        BOOL, BOOL_WORDS),
    ("backends.local.chunk_size", "BACKENDS_LOCAL_CHUNK_SIZE", "\"1 MiB\"", || json!(1_048_576),
        BYTES, &["2 MiB", "0"]),
    ("backends.ipfs.max_links", "BACKENDS_IPFS_MAX_LINKS", "1024", || json!(1024),
        COUNT, &["1", "8193"]),
    ("backends.mock.failure_rate", "BACKENDS_MOCK_FAILURE_RATE", "0.25", || json!(0.25),
        &["-0.1", "2", "nan"], &["x"]),
    ("backends.mock.latency_ms", "BACKENDS_MOCK_LATENCY_MS", "5", || json!(5), COUNT, COUNT_WORDS),
    ("backends.mock.seed", "BACKENDS_MOCK_SEED", "42", || json!(42), &["-1", "\"7\""], &["x"]),
    ("backends.mock.offline", "BACKENDS_MOCK_OFFLINE", "true", || json!(true), BOOL, BOOL_WORDS),
];

/// Returns a TOML value as a user would type it on a command line.
fn as_word(toml: &str) -> &str {
    toml.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(toml)
}

#[test]
fn every_key_is_in_the_table_of_these_tests() {
    for key in &GLOBAL_KEYS {
        assert!(ROWS.iter().any(|row| row.0 == key.name && row.1 == key.variable), "{}", key.name);
    }
    for key in &BACKEND_KEYS {
        let is_it = |row: &Row| {
            row.0.starts_with("backends.") && row.0.ends_with(&format!(".{}", key.name))
        };
        assert!(ROWS.iter().any(|row| is_it(row) && row.1.ends_with(key.variable)), "{}", key.name);
    }
}

#[test]
fn every_key_can_be_set_in_every_layer_with_its_origin() {
    for (key, variable, toml, shown, _, _) in ROWS {
        let (variable, word) = (format!("IPFS_KIT_WAL_{variable}"), as_word(toml));
        let flag_name = format!("--{}", key.replace('_', "-"));
        let text = format!("# first\n\n{key} = {toml}\n");
        let cases = [
            (file(&text), format!("{FILE}:3")),
            (environment(&variable, word), variable.clone()),
            (flag(key, word), flag_name),
        ];
        for (case, origin) in cases {
            let loaded = case.load();
            let entry = get(&loaded, key).unwrap();
            assert_eq!((entry.value, entry.origin.to_string()), (shown(), origin), "{key}");
            assert_eq!(loaded.origins.len(), 1, "{key}");
            assert!(loaded.warnings.is_empty(), "{key}: {:?}", loaded.warnings);
        }
        let written = set("", Path::new(FILE), key, word).unwrap();
        assert_eq!(get(&file(&written).load(), key).unwrap().value, shown(), "{written}");
    }
}

#[test]
fn every_invalid_value_is_refused_with_key_and_origin() {
    for (key, variable, _, _, bad_toml, bad_words) in ROWS {
        let variable = format!("IPFS_KIT_WAL_{variable}");
        for toml in *bad_toml {
            let text = format!("{key} = {toml}");
            let case = file(&text);
            let error = case.error();
            assert_eq!(error.key(), Some(*key), "{text}: {error}");
            assert!(error.to_string().contains(&format!("{FILE}:1")), "{error}");
            let (loaded, _) = case.check().unwrap();
            assert_eq!(
                get(&loaded, key).unwrap(),
                get(&Case::default().load(), key).unwrap(),
                "stays at its default"
            );
        }
        for word in *bad_words {
            for (case, origin) in
                [(environment(&variable, word), &*variable), (flag(key, word), "--")]
            {
                let error = case.error();
                assert_eq!(error.key(), Some(*key), "{key}={word}: {error}");
                let message = error.to_string();
                assert!(message.contains(origin) && message.contains(word), "{message}");
            }
            assert!(set("", Path::new(FILE), key, word).is_err(), "{key}={word}");
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let loaded = Case::default().load();
    assert_eq!((loaded.file.as_ref(), loaded.origins.len()), (None, 0));
    let shown: BTreeMap<String, Json> =
        entries(&loaded).into_iter().map(|entry| (entry.key, entry.value)).collect();
    let expected = json!({
        "enabled": true, "base_path": "/home/ann/.ipfs_kit/wal", "must_exist": false,
        "partition_size": 1000,
        "max_retries": 5, "retry_delay": 60, "retry_after_max": 3600, "processing_interval": 10,
        "archive_completed": true, "cleanup_interval": 86400, "max_age_days": 30,
        "archive_push": null, "archive_host": null, "archive_backend": null,
        "health_check_interval": 60, "health_check_timeout": 10,
        "health_history_size": 25, "default_backend": "ipfs", "jobs": 4, "spool": "auto",
        "spool_max_bytes": 67_108_864, "min_free_bytes": 67_108_864, "lock_timeout": 10,
        "backends.ipfs.endpoint": "http://localhost:5001/api/v0",
        "backends.ipfs.connection_timeout": 5,
        "backends.s3.region": "us-west-2", "backends.s3.bucket": null, "backends.s3.endpoint": null,
        "backends.s3.connection_timeout": 10, "backends.storacha.connection_timeout": 15,
        "backends.storacha.endpoint": null, "backends.local.path": "/home/ann/.ipfs_kit/local",
        "backends.custom.command": null,
        "backends.local.chunk_size": 262_144, "backends.local.max_links": 174,
        "backends.ipfs.idle_timeout": 300, "backends.ipfs.total_timeout": 0,
        "backends.ipfs.token": null,
        "backends.ipfs.raw_leaves": null, "backends.ipfs.cid_version": 0,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(shown.get(key), Some(value), "{key}");
    }
}

#[test]
fn a_later_layer_wins_and_leaves_the_rest() {
    let case = Case {
        file: Some("jobs = 2\nspool = \"never\"\nmax_retries = 1\n[backends.s3]\nbucket = \"b\"\n"),
        environment: vec![
            ("IPFS_KIT_WAL_JOBS", "3"),
            ("IPFS_KIT_WAL_MAX_RETRIES", "2"),
            ("HOME", "/elsewhere"),
        ],
        flags: vec![("jobs", "4")],
    };
    let loaded = case.load();
    let settings = &loaded.settings;
    assert_eq!((settings.jobs, settings.spool, settings.max_retries), (4, SpoolMode::Never, 2));
    assert_eq!(loaded.origin("jobs").to_string(), "--jobs");
    assert_eq!(loaded.origin("max_retries").to_string(), "IPFS_KIT_WAL_MAX_RETRIES");
    assert_eq!(loaded.origin("backends.s3.bucket"), &Origin::File { path: FILE.into(), line: 5 });
    assert_eq!(loaded.origin("enabled"), &Origin::Default);
}

#[test]
fn unknown_keys_are_reported_with_a_suggestion() {
    for (text, key, hint) in [
        ("partition_siz = 3", "partition_siz", "did you mean `partition_size`?"),
        ("process_interval = 3", "process_interval", "did you mean `processing_interval`?"),
        (
            "[backends.ipfs]\nendpont = 'x'",
            "backends.ipfs.endpont",
            "did you mean `backends.ipfs.endpoint`?",
        ),
        (
            "endpoint = 'http://a'",
            "endpoint",
            "`endpoint` is a key of a single backend: set `backends.NAME.endpoint`",
        ),
        ("[backend.ipfs]\njobs = 1", "backend", "did you mean `[backends.NAME]`?"),
        ("[backends.ipfss]\nendpoint = 'http://a'", "ipfss", "did you mean `ipfs`?"),
        (
            "[backends.mine]\nbucket = 'b'",
            "mine",
            "set `backends.mine.type`, for example to \"ipfs\"",
        ),
        (
            "[backends.ipfs]\nbucket = 'b'",
            "backends.ipfs.bucket",
            "a backend of type `ipfs` has `type`, `endpoint`",
        ),
        ("[backends.mine]\ntype = 's4'\nbucket = 'b'", "backends.mine.type", "did you mean `s3`?"),
        ("default_backend = 'lokal'", "default_backend", "did you mean `local`?"),
        ("spool = 'awlays'", "spool", "did you mean `always`?"),
        ("jobs = '4'", "jobs", "leave out the quotes"),
        ("[backends.My]\ntype = 's3'", "backends.My", "`My` is not a valid backend name"),
        ("[backends.'a.b']\ntype = 's3'", "backends.a.b", "`a.b` is not a valid backend name"),
    ] {
        let error = file(text).error();
        assert_eq!(error.key(), Some(key), "{error}");
        assert!(error.hint().unwrap_or_default().starts_with(hint), "{error}: {:?}", error.hint());
        assert!(error.to_string().contains(FILE), "{error}");
    }
    let nothing_close = file("colour = true").error();
    assert_eq!(
        (nothing_close.to_string(), nothing_close.hint()),
        (format!("there is no key `colour` ({FILE}:1)"), None)
    );
    assert!(get(&Case::default().load(), "job").unwrap_err().hint().unwrap().contains("`jobs`"));
}

#[test]
fn a_value_in_place_of_a_table_is_refused() {
    for (text, key) in [
        ("backends = 5", "backends"),
        ("[backends]\nipfs = 'http://a'", "backends.ipfs"),
        ("[jobs]\na = 1", "jobs"),
        ("[[spool]]\na = 1", "spool"),
    ] {
        assert_eq!(file(text).error().key(), Some(key));
    }
}

#[test]
fn unknown_variables_cause_warnings_only() {
    let case = Case {
        environment: vec![
            ("IPFS_KIT_WAL_LOG", "debug"),
            ("IPFS_KIT_WAL_PARTITON_SIZE", "3"),
            ("IPFS_KIT_WAL_BACKENDS_IPFS_ENDPONT", "x"),
            ("IPFS_KIT_WAL_BACKENDS_IPFS_BUCKET", "x"),
            ("IPFS_KIT_WAL_BACKENDS_NOWHERE_BUCKET", "x"),
            ("IPFS_KIT_WAL_JOBS", ""),
            ("IPFS_KIT_OTHER", "x"),
            ("JOBS", "9"),
        ],
        ..Case::default()
    };
    let loaded = case.load();
    let warnings: Vec<_> = loaded
        .warnings
        .iter()
        .map(|warning| (&warning.variable[13..], warning.hint.clone().unwrap_or_default()))
        .collect();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(
        warnings.contains(&("PARTITON_SIZE", "did you mean `IPFS_KIT_WAL_PARTITION_SIZE`?".into()))
    );
    let guess = "did you mean `IPFS_KIT_WAL_BACKENDS_IPFS_ENDPOINT`?";
    assert!(warnings.contains(&("BACKENDS_IPFS_ENDPONT", guess.into())));
    assert_eq!(loaded.settings.jobs, 4, "an empty variable counts as not set");
    assert!(
        loaded
            .warnings
            .iter()
            .any(|w| w.to_string().contains("a backend of type `ipfs` has no `bucket`"))
    );
}

#[test]
fn backends_can_be_added_in_any_layer() {
    let text = "[backends.my-s3]\ntype = 's3'\nbucket = 'a'\n\
                [backends.mirror]\ntype = 'local'\npath = 'm'\n";
    let case = Case {
        file: Some(text),
        environment: vec![
            ("IPFS_KIT_WAL_BACKENDS_MY_S3_CONNECTION_TIMEOUT", "7"),
            ("IPFS_KIT_WAL_BACKENDS_OLD_NODE_TYPE", "ipfs"),
            ("IPFS_KIT_WAL_BACKENDS_OLD_NODE_ENDPOINT", "http://old:5001/api/v0"),
        ],
        flags: vec![
            ("backends.test.type", "mock"),
            ("backends.test.seed", "3"),
            ("default_backend", "old_node"),
        ],
    };
    let loaded = case.load();
    let of = |name: &str| {
        loaded.settings.backends[&crate::operation::BackendName::new(name).unwrap()].clone()
    };
    let s3 = of("my-s3").s3_mut().unwrap().clone();
    assert_eq!((s3.bucket.as_deref(), s3.timeouts.connection.as_secs()), (Some("a"), 7));
    assert_eq!(
        of("mirror").local_mut().unwrap().path.as_deref(),
        Some(Path::new("/etc/ipfs-kit/m")),
        "relative to the file"
    );
    assert_eq!(
        of("old_node").ipfs_mut().unwrap().endpoint.as_deref(),
        Some("http://old:5001/api/v0")
    );
    assert_eq!(
        (of("test").backend_type(), of("test").mock_mut().unwrap().seed),
        (BackendType::Mock, 3)
    );
    assert_eq!(loaded.settings.default_backend.as_str(), "old_node");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

fn local_path(loaded: &Loaded) -> Option<&Path> {
    match &loaded.settings.backends[&BackendType::Local.name()].kind {
        BackendKind::Local(local) => local.path.as_deref(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_local_backend_follows_the_log() {
    for (base_path, local) in [
        ("~/.ipfs_kit/wal", "/home/ann/.ipfs_kit/local"),
        ("/data/log", "/data/log/local"),
        ("~/log", "/home/ann/log/local"),
    ] {
        let loaded = flag("base_path", base_path).load();
        assert_eq!(local_path(&loaded), Some(Path::new(local)));
    }
    let configured = file("base_path = '/data'\nbackends.local.path = '/other'").load();
    assert_eq!(local_path(&configured), Some(Path::new("/other")));
}

#[test]
fn invalid_and_unreadable_files_are_refused() {
    let error = file("jobs = 1\njobs = 2\n").error();
    assert!(matches!(error, ConfigError::Syntax { line: 2, column: 1, .. }), "{error:?}");
    let error = file("jobs = 1\nbase_path = \"/x\nspool = 3").error();
    assert!(matches!(error, ConfigError::Syntax { line: 2, .. }), "{error:?}");

    let disk = Machine::new().process();
    let named = |path| {
        let user_dirs = UserDirs::default();
        let environment = [("IPFS_KIT_WAL_PATH".into(), "/data".into())];
        load_from(Sources {
            disk: &disk,
            user_dirs: &user_dirs,
            file: path,
            environment,
            flags: &[],
        })
    };
    assert_eq!(named(None).unwrap().settings.base_path, Path::new("/data"));
    let missing = named(Some(Path::new("/missing.toml"))).unwrap_err();
    assert!(missing.to_string().contains("/missing.toml") && missing.hint().is_some(), "{missing}");
    let not_text = Path::new("/not-text");
    disk.open(not_text, Access::CreateNew).unwrap().write_at(&[0xff, 0xfe], 0).unwrap();
    assert!(matches!(
        named(Some(not_text)).unwrap_err(),
        ConfigError::NotAFile { kind: "not UTF-8", .. }
    ));

    let os = OsDisk::new();
    for (path, kind) in [("/", "a directory"), ("/dev/null", "a pipe or a device")] {
        let error = load(&os, [], Some(Path::new(path)), &[]).unwrap_err();
        assert!(error.to_string().ends_with(kind), "{error}");
    }
}

#[test]
fn without_a_home_the_log_must_be_named() {
    let disk = Machine::new().process();
    let user_dirs = UserDirs::default();
    let error = load_from(Sources {
        disk: &disk,
        user_dirs: &user_dirs,
        file: None,
        environment: [],
        flags: &[],
    })
    .unwrap_err();
    assert!(matches!(error, ConfigError::NoHome), "{error}");
}

#[test]
fn all_errors_are_reported_together() {
    let case = Case {
        file: Some("jobs = 0\nspol = 1\n[backends.s3]\nregion = 1\n[backends.x]\na = 1\nb = 2\n"),
        environment: vec![("IPFS_KIT_WAL_SPOOL", "x")],
        ..Case::default()
    };
    let (_, errors) = case.check().unwrap();
    let keys: Vec<_> = errors.iter().filter_map(ConfigError::key).collect();
    assert_eq!(keys, ["x", "jobs", "spol", "spool", "backends.s3.region"]);
}

#[test]
fn setting_a_key_leaves_comments_and_order_alone() {
    let path = Path::new(FILE);
    let text = "# ours\njobs = 2 # two\n\n# where\n[backends.s3] # cloud\nbucket = \"b\"\n# end\n";
    for (key, value, expected) in [
        ("jobs", "8", text.replace("jobs = 2 #", "jobs = 8 #")),
        ("backends.s3.bucket", "c", text.replace("\"b\"", "\"c\"")),
        ("spool", "never", text.replace("# two\n", "# two\nspool = \"never\"\n")),
        ("backends.s3.jobs", "3", text.replace("\"b\"\n", "\"b\"\njobs = 3\n")),
        (
            "backends.mock.offline",
            "yes",
            format!("{}\n[backends.mock]\noffline = true\n# end\n", &text[..text.len() - 6]),
        ),
        ("retry_delay", "2 min", text.replace("# two\n", "# two\nretry_delay = \"2 min\"\n")),
        ("retry_delay", "0.5", text.replace("# two\n", "# two\nretry_delay = 0.5\n")),
        ("base_path", "~/log", text.replace("# two\n", "# two\nbase_path = \"~/log\"\n")),
    ] {
        assert_eq!(set(text, path, key, value).unwrap(), expected, "{key}");
    }
    assert_eq!(
        set("# only a comment\n", path, "jobs", "3").unwrap(),
        "# only a comment\njobs = 3\n"
    );
    // Also without a final newline, where the key must not become a part of the comment.
    assert_eq!(set("# only a comment", path, "jobs", "3").unwrap(), "# only a comment\njobs = 3\n");
    assert_eq!(
        set("backends = { s3 = { jobs = 1 } }\n", path, "backends.ipfs.jobs", "3").unwrap(),
        "backends = { s3 = { jobs = 1 } , ipfs = { jobs = 3 } }\n"
    );
    let dotted = set("backends.s3.jobs = 1\n", path, "backends.s3.bucket", "b").unwrap();
    assert_eq!(dotted, "backends.s3.jobs = 1\nbackends.s3.bucket = \"b\"\n");
}

#[test]
fn a_change_that_causes_an_error_is_refused() {
    let path = Path::new(FILE);
    for (text, key, value) in [
        ("", "jbos", "3"),
        ("", "backends.mine.bucket", "b"),
        ("", "backends.ipfs.bucket", "b"),
        ("", "backends.ipfs.type", "s3"),
        ("", "backends.My.type", "s3"),
        ("", "default_backend", "mine"),
        ("[backends.mine]\ntype = 's3'\nbucket = 'b'\n", "backends.mine.type", "local"),
        ("backends = 5\n", "backends.ipfs.jobs", "3"),
        ("jobs = \n", "jobs", "3"),
    ] {
        assert!(set(text, path, key, value).is_err(), "{key}");
    }
    let one_of_two = set("jobs = 0\nspool = 'x'\n", path, "jobs", "3").unwrap();
    assert_eq!(one_of_two, "jobs = 3\nspool = 'x'\n", "earlier errors do not prevent the change");
    let with_type = set("", path, "backends.mine.type", "s3").unwrap();
    assert!(set(&with_type, path, "backends.mine.bucket", "b").is_ok());
}

#[test]
fn secrets_are_not_shown() {
    for key in ["api_token", "backends.s3.secret_access_key", "password", "backends.x.key"] {
        assert_eq!(redact(key, "hunter2"), "********", "{key}");
    }
    for key in ["jobs", "backends.s3.bucket", "keyboard"] {
        assert_eq!(redact(key, "value"), "value", "{key}");
    }
    assert_eq!(redact("endpoint", "https://ann:pw@host/x@y"), "https://********@host/x@y");
    assert_eq!(redact("endpoint", "https://host/x@y"), "https://host/x@y");
    for text in
        ["backends.ipfs = 'http://ann:pw@host'", "backends.ipfs.endpoint = 'ftp://ann:pw@host'"]
    {
        let message = file(text).error().to_string();
        assert!(!message.contains("pw") && message.contains("@host"), "{message}");
    }
    for text in ["backends.ipfs.token = 'hunter2'", "backends.ipfs.password = 'hunter2'"] {
        let loaded = file(text).load();
        assert!(!format!("{loaded:?} {:?}", entries(&loaded)).contains("hunter2"));
    }
    let loaded = environment("IPFS_KIT_WAL_BACKENDS_IPFS_ENDPOINT", "https://ann:pw@host/x").load();
    assert_eq!(
        get(&loaded, "backends.ipfs.endpoint").unwrap().value,
        json!("https://********@host/x")
    );
}

#[test]
fn durations_and_amounts_are_parsed_with_units() {
    for (text, millis) in [
        ("90", 90_000),
        ("0.5", 500),
        (" 250ms ", 250),
        ("2 min", 120_000),
        ("1.5h", 5_400_000),
        ("1d", 86_400_000),
        ("90s", 90_000),
        ("250ms", 250),
        ("7d", 604_800_000),
        ("1h30m", 5_400_000),
        ("1h 30 min", 5_400_000),
        ("2d12h", 216_000_000),
        ("1.5h15s", 5_415_000),
        ("1m500ms", 60_500),
    ] {
        assert_eq!(parse_seconds(text).map(|span| span.as_millis()), Some(millis), "{text}");
    }
    for bad in
        ["", "s", "-1", "1e400", "1..2", "5 weeks", "ä", "30m1h", "1h1h", "1h30", "h", "1e3", "1 2"]
    {
        assert_eq!(parse_seconds(bad), None, "{bad}");
    }
    assert_eq!(
        (parse_bytes("64 MiB"), parse_bytes("2k"), parse_bytes("x")),
        (Some(64 << 20), Some(2000), None)
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures time")]
fn loading_without_a_file_is_quick() {
    // Each `add` pays for this, so it must cost far less than starting a process.
    let disk = OsDisk::new();
    let user_dirs =
        UserDirs { home: Some("/nonexistent".into()), config_dir: Some("/nonexistent".into()) };
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = std::time::Instant::now();
        let environment = std::env::vars_os();
        let sources = Sources {
            disk: &disk,
            user_dirs: &user_dirs,
            file: None,
            environment,
            flags: &[("jobs", "3")],
        };
        load_from(sources).unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("loading settings without a file: median {:?}", times[100]);
    assert!(times[100] < std::time::Duration::from_millis(2), "{:?}", times[100]);
}

#[test]
fn archives_are_pushed_by_the_only_changed_s3_backend() {
    for (text, expected) in [
        ("", "s3"),
        ("[backends.s3]\nbucket = \"b\"\n", "s3"),
        ("[backends.cold]\ntype = \"s3\"\nbucket = \"b\"\n", "cold"),
        (
            "[backends.cold]\ntype = \"s3\"\nbucket = \"b\"\n\
             [backends.warm]\ntype = \"s3\"\nbucket = \"b\"\n",
            "s3",
        ),
        ("archive_backend = \"local\"\n[backends.cold]\ntype = \"s3\"\nbucket = \"b\"\n", "local"),
    ] {
        assert_eq!(file(text).load().settings.archive_backend().as_str(), expected, "{text}");
    }
}
