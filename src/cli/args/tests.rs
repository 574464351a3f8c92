use super::*;

#[test]
fn the_command_line_is_sound() {
    command(Program::WalCli).debug_assert();
    command(Program::IpfsKit).debug_assert();
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
    without_help(&command(Program::IpfsKit), "", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn times_may_be_given_in_several_ways() {
    let at = |text| Time::parse_rfc3339(text).map(Since::At);
    assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7200))));
    assert_eq!(since("3d"), Ok(Since::Ago(Duration::from_secs(3 * 86400))));
    assert_eq!(since("2026-01-31").ok(), at("2026-01-31T00:00:00Z"));
    assert_eq!(since("2026-01-31T12:30").ok(), at("2026-01-31T12:30:00Z"));
    assert_eq!(since("2026-01-31T12:30:00+02:00").ok(), at("2026-01-31T10:30:00Z"));
    for bad in ["", "yesterday", "2026-13-01", "20260131", "-2h"] {
        assert!(since(bad).is_err(), "{bad}");
    }
}
