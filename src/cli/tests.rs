use std::io;
use std::time::Duration;

use super::error::CliError;
use super::*;
use crate::backend::Refusal;
use crate::client::{BadInput, BadPush, ClientError, Skipped};
use crate::config::ConfigError;
use crate::disk::DiskError;
use crate::operation::{BackendName, Number, OperationId, OperationType, Status, Time};
use crate::report::ErrorType;
use crate::wal::{Damage, WalError};

#[test]
fn the_definition_is_valid() {
    definition(Program::WalCli).debug_assert();
    definition(Program::IpfsKit).debug_assert();
}

fn without_help(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
    let path = format!("{path} {}", command.get_name());
    for argument in command.get_arguments().filter(|argument| argument.get_help().is_none()) {
        missing.push(format!("{path} {}", argument.get_id()));
    }
    if command.get_about().is_none() {
        missing.push(path.clone());
    }
    command.get_subcommands().for_each(|command| without_help(command, &path, missing));
}

#[test]
fn every_command_and_every_argument_has_help() {
    let mut missing = Vec::new();
    without_help(&definition(Program::IpfsKit), "", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn help_is_one_line_each_without_a_full_stop() {
    fn check(command: &clap::Command, wrong: &mut Vec<String>) {
        let arguments = command.get_arguments().filter_map(clap::Arg::get_help);
        for help in command.get_about().into_iter().chain(arguments).map(ToString::to_string) {
            if help.ends_with('.') || help.contains('\n') || help.len() > 100 {
                wrong.push(help);
            }
        }
        command.get_subcommands().for_each(|command| check(command, wrong));
    }
    let mut wrong = Vec::new();
    check(&definition(Program::WalCli), &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
}

/// Returns the commands in backticks, as arguments.
fn commands_in(text: &str) -> Vec<Vec<OsString>> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|quoted| quoted.starts_with("wal-cli "))
        .map(|command| shlex::split(command).unwrap().into_iter().map(OsString::from).collect())
        .collect()
}

fn disk_error(kind: io::ErrorKind) -> DiskError {
    DiskError::new("open", "/wal/journal".as_ref(), kind.into())
}

fn id() -> OperationId {
    OperationId::new(Time::from_millis(1), 0, 1)
}

fn wal_errors() -> Vec<WalError> {
    let path = || std::path::PathBuf::from("/wal/MANIFEST.json");
    let busy = |name: &str| WalError::Busy {
        path: name.into(),
        waited: Duration::from_secs(5),
        holder: "pid 7 holds it".into(),
    };
    let damaged = |path| {
        WalError::Damaged(Damage { path, offset: Some(3), what: "checksum mismatch".into() })
    };
    let kinds = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::NotFound,
        io::ErrorKind::Other,
    ];
    let mut all = vec![
        busy("/wal/lock"),
        busy("/wal/process.lock"),
        damaged(path()),
        damaged("/wal/journal".into()),
        WalError::NewerFormat { path: path(), found: 9, known: 1 },
        WalError::NewerFrame { path: path(), offset: 80, kind: 9 },
        WalError::NotOurs { path: path(), what: "a photo".into() },
        WalError::NoLog { path: path() },
        WalError::OriginalAtWork { path: path(), ago_s: 3 },
        WalError::NoSpace { path: path(), free: 1, wanted: 2 },
        WalError::NoRoomForOutcomes { path: path(), free: 1, wanted: 2 },
        WalError::NoRoom { path: path(), content: "a.txt".into(), bytes: 3, free: 1, kept: 2 },
        WalError::Unconfirmed { why: "fsync failed".into(), ids: vec![id()] },
        WalError::KeyTaken { key: "k".into(), number: Number::new(3) },
        WalError::KeyTwice { key: "k".into() },
        WalError::UnknownDependency { id: id() },
        WalError::HasDependents { number: Number::new(3), dependent: Number::new(4) },
        WalError::TooLarge { bytes: 9, max: 1 },
        WalError::Conflict { number: Number::new(3) },
    ];
    all.extend(kinds.map(disk_error).map(WalError::NotLogged));
    all.extend(kinds.map(disk_error).map(WalError::Disk));
    all
}

fn client_errors() -> Vec<ClientError> {
    let name = || BackendName::new("s4").unwrap();
    let bad = BadInput {
        line: Some(1),
        input: "a.txt".into(),
        error_type: "not_found",
        message: "no such file".into(),
    };
    let skipped = |number| Skipped {
        number: Number::new(number),
        id: id(),
        status: Status::Completed,
        why: "it has completed".into(),
    };
    let refusals = [
        Refusal::Unknown { name: name(), suggestion: Some(BackendName::new("s3").unwrap()) },
        Refusal::Unknown { name: name(), suggestion: None },
        Refusal::NotBuilt { name: name(), backend_type: "storacha" },
        Refusal::Unconfigured { name: name(), key: "bucket" },
        Refusal::Unsupported {
            name: name(),
            operation_type: OperationType::new("pin").unwrap(),
            supported: vec!["upload".into()],
        },
        Refusal::BadParameters("`cid` is missing".into()),
    ];
    let pushes = [
        BadPush::NoDestination,
        BadPush::Destination { destination: "x".into(), why: "it is relative" },
        BadPush::Host { host: "a/b".into() },
    ];
    let mut all = vec![
        ClientError::NoSuchOperation("17".into()),
        ClientError::NoSuchOperation("@last".into()),
        ClientError::BadReference("x y".into()),
        ClientError::from(bad),
        ClientError::OneKey { operations: 2 },
        ClientError::BadKey { key: String::new() },
        ClientError::Disabled,
        ClientError::NotApplicable { action: "cancelled", skipped: vec![skipped(1)] },
        ClientError::NotApplicable { action: "cancelled", skipped: vec![skipped(1), skipped(2)] },
        ClientError::TimedOut { unfinished: Vec::new() },
        ClientError::Interrupted,
    ];
    all.extend(refusals.map(ClientError::from));
    all.extend(pushes.map(ClientError::from));
    all.extend(wal_errors().into_iter().map(ClientError::from));
    all
}

#[test]
fn every_error_has_a_hint_whose_commands_are_valid() {
    let config = [
        ConfigError::NoHome,
        ConfigError::Disk(disk_error(io::ErrorKind::NotFound)),
        ConfigError::Disk(disk_error(io::ErrorKind::PermissionDenied)),
        ConfigError::UnknownKey { key: "job".into(), origin: None, hint: None },
    ];
    let errors = client_errors().into_iter().map(CliError::from);
    let stdout = CliError::from(io::Error::from(io::ErrorKind::StorageFull));
    let all = errors.chain(config.map(CliError::from)).chain([stdout]);
    let mut kinds = Vec::new();
    for error in all {
        let CliError { kind, message, details, .. } = &error;
        kinds.push(*kind);
        assert!(!details.hints.is_empty(), "{kind:?} has no hint: {message}");
        for text in details.hints.iter().chain([message]) {
            assert!(!text.ends_with('.'), "{text}");
            for command in commands_in(text) {
                assert_eq!(understands(&command), Ok(()), "{kind:?}: {text}");
            }
        }
    }
    // Made by single commands, with texts that `suite::cli` checks.
    let elsewhere = [
        ErrorType::OperationFailed,
        ErrorType::Offline,
        ErrorType::Usage,
        ErrorType::UnsafeDisk,
        ErrorType::Lost,
        ErrorType::NotIntact,
        ErrorType::ConditionHolds,
        ErrorType::IllegalChange,
        ErrorType::Signals,
    ];
    for kind in ErrorType::ALL {
        assert!(kinds.contains(kind) || elsewhere.contains(kind), "{kind:?} is not covered");
    }
}
