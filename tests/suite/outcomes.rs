//! Every command with every outcome it can have: exit code, and one JSON document.

use std::sync::OnceLock;

use serde_json::Value;

use super::binary::Place;
use super::cli::{code, text};
use super::contract;
use super::setups::*;

/// A command with its expected outcome: exit code and type of error.
struct Case {
    setup: Setup,
    command: &'static str,
    exit: i32,
    error: &'static str,
}

/// Returns a case that fails. A `+` before the error: the document has a result, too.
const fn fails(setup: Setup, command: &'static str, exit: i32, error: &'static str) -> Case {
    Case { setup, command, exit, error }
}

/// Returns a case that succeeds.
const fn works(setup: Setup, command: &'static str) -> Case {
    Case { setup, command, exit: 0, error: "" }
}

/// Returns all cases.
fn cases() -> Vec<Case> {
    vec![
        works(nothing, "add --backend local a.txt"),
        works(
            nothing,
            "add --backend local a.txt b.txt --priority -3 --max-retries 0 --param recursive=false",
        ),
        works(nothing, "add --backend local a.txt --wait"),
        works(nothing, "add --backend local . --wait"),
        works(nothing, "add --backend local a.txt --spool never"),
        works(nothing, "add --backend local --from-file -"),
        works(one_with_a_key, "add --backend local a.txt --key k"),
        works(one_pending, "add --backend local b.txt --after 1 --delay 2h"),
        works(one_pending, "add --backend local b.txt --after 1 --wait"),
        fails(one_with_a_key, "add --backend local b.txt --key k", 2, "key_conflict"),
        fails(nothing, "add --backend local a.txt b.txt --key k", 2, "bad_key"),
        fails(nothing, "add --backend local a.txt --after 99", 3, "no_such_operation"),
        works(nothing, "add --backend local a.txt --spool auto"),
        works(nothing, "add --backend local a.txt . --spool auto"),
        works(nothing, "add --backend local a.txt --spool always --wait"),
        fails(nothing, "add --backend local a.txt . --spool always", 2, "bad_inputs"),
        fails(nothing, "add --backend local a.txt --spool sometimes", 2, "usage"),
        fails(full_disk, "add --backend local a.txt --spool always", 7, "no_space"),
        works(long_list, "add --backend local --from-file list"),
        works(long_list, "add --backend mock --from-file list --wait"),
        works(nothing, "add --backend local a.txt --keep-going"),
        fails(long_list_full_disk, "add --backend local --from-file list", 7, "no_space"),
        fails(
            long_list_checkpoint_locked,
            "add --backend local --from-file list --lock-timeout 30ms",
            5,
            "busy",
        ),
        fails(lists_with_bad_lines, "add --backend local --from-file list", 2, "bad_inputs"),
        fails(
            lists_with_bad_lines,
            "add --backend local --from-file list --keep-going",
            1,
            "+bad_inputs",
        ),
        fails(
            lists_with_bad_lines,
            "add --backend local --from-file list --keep-going --wait",
            1,
            "+bad_inputs",
        ),
        fails(
            lists_with_bad_lines,
            "add --backend local --from-file list --key k x",
            2,
            "bad_inputs",
        ),
        fails(long_list, "add --backend local --from-file list --key k", 2, "bad_key"),
        fails(nothing, "add --backend local a.txt no.txt neither.txt", 2, "bad_inputs"),
        fails(nothing, "add --backend local a.txt/x", 2, "bad_inputs"),
        fails(nothing, "add --backend local --from-file no.txt", 2, "usage"),
        fails(nothing, "add --backend locla a.txt", 2, "unknown_backend"),
        fails(nothing, "add a.txt --backend storacha", 2, "backend_not_built"),
        fails(nothing, "add a.txt --backend s3", 2, "backend_unconfigured"),
        fails(nothing, "add", 2, "usage"),
        fails(nothing, "add a.txt --param x", 2, "usage"),
        fails(nothing, "add a.txt --timeout 5", 2, "usage"),
        fails(logging_disabled, "add --backend local a.txt", 2, "disabled"),
        fails(log_not_mounted, "add --backend local a.txt", 6, "no_log"),
        fails(full_disk, "add --backend local a.txt", 7, "no_space"),
        fails(full_disk, "add --backend local a.txt --wait", 7, "no_space"),
        fails(log_locked, "add --backend local a.txt --lock-timeout 30ms", 5, "busy"),
        fails(damaged, "add --backend local a.txt", 6, "damaged"),
        fails(newer_format, "add --backend local a.txt", 6, "newer_format"),
        fails(invalid_settings, "add --backend local a.txt", 2, "config"),
        fails(log_in_a_file, "add --backend local a.txt", 7, "disk"),
        fails(drain_locked, "add --backend local a.txt --wait --timeout 100ms", 4, "+timed_out"),
        //
        works(nothing, "submit mkdir /d --backend local"),
        works(nothing, "submit upload a.txt /a --backend local --spool always"),
        fails(nothing, "submit upload . /a --backend local --spool always", 2, "bad_inputs"),
        fails(nothing, "submit mkdir /d --backend local --spool always", 2, "usage"),
        works(nothing, "submit upload a.txt /a --backend local --wait"),
        works(nothing, "submit add a.txt --backend local"),
        works(nothing, "submit list --backend local --wait"),
        works(
            one_completed,
            "submit get QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o out --backend local --wait",
        ),
        works(
            one_completed,
            "submit pin QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o --backend local --wait",
        ),
        works(
            one_completed,
            "submit rm QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o --backend local --wait",
        ),
        works(lists_with_bad_lines, "submit --from-file good.ndjson --backend local"),
        works(lists_with_bad_lines, "submit --from-file good.ndjson --backend local --wait"),
        works(nothing, "submit --from-file - --backend local"),
        fails(
            lists_with_bad_lines,
            "submit --from-file ops.ndjson --backend local",
            2,
            "bad_inputs",
        ),
        fails(
            lists_with_bad_lines,
            "submit --from-file ops.ndjson --backend local --keep-going",
            1,
            "+bad_inputs",
        ),
        fails(lists_with_bad_lines, "submit --from-file good.ndjson pin", 2, "usage"),
        fails(nothing, "submit --from-file no.ndjson --backend local", 2, "usage"),
        fails(nothing, "submit --backend local", 2, "usage"),
        fails(logging_disabled, "submit --from-file - --backend local", 2, "disabled"),
        fails(nothing, "submit rm /nowhere --backend local --wait", 1, "+operation_failed"),
        fails(nothing, "submit pin nocid --backend local", 2, "bad_parameters"),
        fails(nothing, "submit pin a b --backend local", 2, "usage"),
        fails(nothing, "submit pin a --param cid=b --backend local", 2, "usage"),
        fails(nothing, "submit mkdir path=/d --backend local", 2, "usage"),
        fails(nothing, "submit add path=/d --backend local", 2, "usage"),
        works(nothing, "submit mkdir source=/d --backend local"),
        works(nothing, "submit mkdir --param path=path=/d --backend local"),
        fails(nothing, "submit dance --backend local", 2, "unsupported"),
        fails(nothing, "submit uplod a /b --backend local", 2, "usage"),
        fails(nothing, "submit upload no.txt /x --backend local", 2, "bad_inputs"),
        fails(nothing, "submit mkdir /d --backend elsewhere", 2, "unknown_backend"),
        fails(full_disk, "submit mkdir /d --backend local", 7, "no_space"),
        //
        works(nothing, "status"),
        works(one_failed, "status"),
        works(log_locked, "status"),
        works(full_disk, "status"),
        works(nothing, "status --fail-if failed>0,oldest_pending>1h"),
        fails(one_failed, "status --fail-if failed>0,completed>=1", 1, "+condition_holds"),
        fails(log_not_mounted, "status --fail-if failed>0", 6, "no_log"),
        fails(nothing, "status --fail-if failed", 2, "usage"),
        fails(nothing, "status --fail-if falied>0", 2, "usage"),
        fails(damaged, "status --fail-if failed>0", 6, "+damaged"),
        fails(damaged, "status", 6, "+damaged"),
        fails(newer_format, "status", 6, "newer_format"),
        fails(invalid_settings, "status", 2, "config"),
        fails(log_in_a_file, "status", 7, "disk"),
        fails(nothing, "status now", 2, "usage"),
        //
        works(nothing, "list"),
        works(one_failed, "list failed --since 2h --type add --backend local"),
        works(one_failed, "list -q --limit 1"),
        works(one_failed, "list all --cursor 2 --limit 0"),
        works(one_held, "list --held"),
        works(one_with_a_key, "list --key k"),
        works(one_with_a_dependent, "list --after 1"),
        works(one_failed, "list --error-type not_found --until 2100-01-01"),
        works(one_failed, "list failed --cause bb72"),
        fails(one_failed, "list --cause 17", 2, "usage"),
        fails(one_pending, "list --after 9", 3, "no_such_operation"),
        works(log_locked, "list"),
        fails(nothing, "list pendin", 2, "usage"),
        fails(nothing, "list pending --status failed", 2, "usage"),
        fails(nothing, "list --backend loca", 2, "unknown_backend"),
        fails(nothing, "list --since tomorrow", 2, "usage"),
        fails(damaged, "list", 6, "+damaged"),
        fails(newer_format, "list", 6, "newer_format"),
        //
        works(one_completed, "show 1"),
        works(one_completed, "show @last --history"),
        works(one_failed, "show 1 2"),
        works(one_failed, "show @failed"),
        fails(one_pending, "show 99", 3, "no_such_operation"),
        fails(one_pending, "show 1 01a20456-d137-7000-915b-c6f5e991cfae", 3, "no_such_operation"),
        fails(nothing, "show @last", 3, "no_such_operation"),
        fails(one_pending, "show first", 2, "bad_reference"),
        fails(nothing, "show", 2, "usage"),
        fails(damaged, "show 1", 6, "+damaged"),
        fails(damaged, "show 3", 6, "damaged"),
        fails(newer_format, "show 1", 6, "newer_format"),
        //
        works(one_completed, "wait 1"),
        fails(one_failed, "wait 1 2", 1, "+operation_failed"),
        fails(one_pending, "wait 1 --timeout 50ms", 4, "+timed_out"),
        fails(one_pending, "wait 9 --timeout 50ms", 3, "no_such_operation"),
        fails(one_pending, "wait x", 2, "bad_reference"),
        fails(damaged, "wait 1", 6, "+damaged"),
        fails(newer_format, "wait 1", 6, "newer_format"),
        //
        works(one_failed, "retry 1"),
        works(one_failed, "retry --failed"),
        works(one_failed, "retry @failed"),
        works(nothing, "retry --failed"),
        works(one_failed, "retry --cause bb72"),
        works(one_failed, "retry --cause 00000000"),
        works(one_failed, "retry --error-type not_found --since 1h"),
        works(one_failed, "retry --backend local"),
        works(one_failed, "retry --since 2001-01-01"),
        works(one_failed, "retry 1 --backend mock"),
        works(one_failed, "retry -"),
        works(one_retrying, "retry --now"),
        works(one_retrying, "retry 2 --now"),
        works(one_retrying, "retry --failed"),
        works(one_cancelled, "retry --failed"),
        works(one_cancelled, "retry 1"),
        works(chain_failed, "retry 1"),
        works(one_pending, "retry 1 --backend mock"),
        works(one_redirected, "retry @failed"),
        fails(one_completed, "retry 1", 2, "not_applicable"),
        fails(one_completed, "retry 1 --backend mock", 2, "not_applicable"),
        fails(one_failed, "retry 1 2", 2, "not_applicable"),
        fails(one_failed, "retry 1 --backend local", 2, "not_applicable"),
        fails(one_redirected, "retry 1", 2, "not_applicable"),
        fails(one_failed, "retry 1 --backend s3", 2, "not_applicable"),
        fails(one_failed, "retry 1 --backend loca", 2, "unknown_backend"),
        fails(one_failed, "retry 1 --failed", 2, "usage"),
        fails(one_failed, "retry --cause zz", 2, "usage"),
        fails(one_failed, "retry --now --failed", 2, "usage"),
        fails(one_failed, "retry x", 2, "bad_reference"),
        fails(one_failed, "retry 9", 3, "no_such_operation"),
        fails(log_locked, "retry 1 --lock-timeout 30ms", 2, "not_applicable"),
        fails(nothing, "retry", 2, "usage"),
        fails(damaged, "retry 1", 6, "damaged"),
        //
        works(one_pending, "cancel 1"),
        works(one_pending, "cancel 1 --permanent"),
        works(one_with_a_dependent, "cancel 1 2"),
        works(one_retrying, "cancel 2"),
        works(one_left_claimed, "cancel 2"),
        fails(one_left_claimed, "cancel 2 --permanent", 2, "not_applicable"),
        works(one_asked_to_stop, "cancel 2"),
        works(one_failed, "cancel 1 --permanent"),
        works(one_failed, "cancel @failed"),
        works(one_failed, "cancel -"),
        works(nothing, "cancel @failed"),
        fails(one_completed, "cancel 1", 2, "not_applicable"),
        fails(one_failed, "cancel 1 2", 2, "not_applicable"),
        fails(one_pending, "cancel 9", 3, "no_such_operation"),
        fails(one_pending, "cancel x", 2, "bad_reference"),
        fails(nothing, "cancel", 2, "usage"),
        fails(log_locked, "cancel 1 --lock-timeout 30ms", 5, "busy"),
        fails(damaged, "cancel 1", 6, "damaged"),
        fails(newer_format, "cancel 1", 6, "newer_format"),
        //
        works(one_pending, "hold 1"),
        works(one_held, "hold 1"),
        works(one_left_claimed, "hold 2"),
        works(one_failed, "hold @failed"),
        works(nothing, "hold -"),
        fails(one_completed, "hold 1", 2, "not_applicable"),
        fails(one_pending, "hold 9", 3, "no_such_operation"),
        fails(one_pending, "hold x", 2, "bad_reference"),
        fails(nothing, "hold", 2, "usage"),
        fails(log_locked, "hold 1 --lock-timeout 30ms", 5, "busy"),
        fails(damaged, "hold 1", 6, "damaged"),
        //
        works(one_held, "release 1"),
        works(one_pending, "release 1"),
        works(one_completed, "release 1"),
        works(one_failed, "release @failed"),
        works(nothing, "release -"),
        fails(one_pending, "release 9", 3, "no_such_operation"),
        fails(one_pending, "release x", 2, "bad_reference"),
        fails(nothing, "release", 2, "usage"),
        fails(damaged, "release 1", 6, "damaged"),
        //
        works(one_pending, "delete 1"),
        works(one_completed, "delete 1"),
        works(one_failed, "delete @failed"),
        works(one_with_a_dependent, "delete 1 2"),
        works(chain_failed, "delete @failed"),
        works(nothing, "delete -"),
        fails(one_with_a_dependent, "delete 1", 2, "not_applicable"),
        fails(one_left_claimed, "delete 2", 2, "not_applicable"),
        fails(one_pending, "delete 9", 3, "no_such_operation"),
        fails(one_pending, "delete x", 2, "bad_reference"),
        fails(nothing, "delete", 2, "usage"),
        fails(log_locked, "delete 1 --lock-timeout 30ms", 5, "busy"),
        fails(damaged, "delete 1", 6, "damaged"),
        //
        works(one_pending, "prioritize 1 --priority 5"),
        works(one_pending, "prioritize 1 --priority 0"),
        works(one_left_claimed, "prioritize 2 --priority -5"),
        works(one_failed, "prioritize @failed --priority 5"),
        works(nothing, "prioritize - --priority 5"),
        fails(one_completed, "prioritize 1 --priority 5", 2, "not_applicable"),
        fails(one_pending, "prioritize 9 --priority 5", 3, "no_such_operation"),
        fails(one_pending, "prioritize x --priority 5", 2, "bad_reference"),
        fails(one_pending, "prioritize 1", 2, "usage"),
        fails(one_pending, "prioritize 1 --priority high", 2, "usage"),
        fails(log_locked, "prioritize 1 --priority 5 --lock-timeout 30ms", 5, "busy"),
        fails(damaged, "prioritize 1 --priority 5", 6, "damaged"),
        //
        works(one_pending, "why 1"),
        works(one_completed, "why 1"),
        works(one_failed, "why 1 2"),
        works(one_held, "why 1"),
        works(one_with_a_dependent, "why 2"),
        works(chain_failed, "why 1 2"),
        works(one_cancelled, "why 1"),
        works(one_retrying, "why 2"),
        works(one_redirected, "why 1 2"),
        works(one_left_claimed, "why 2"),
        works(drain_locked, "why 1"),
        works(log_locked, "why 1"),
        works(nothing, "why @failed"),
        fails(one_pending, "why 9", 3, "no_such_operation"),
        fails(one_pending, "why x", 2, "bad_reference"),
        fails(nothing, "why", 2, "usage"),
        fails(damaged, "why 1", 6, "+damaged"),
        fails(damaged, "why 3", 6, "damaged"),
        fails(newer_format, "why 1", 6, "newer_format"),
        //
        works(nothing, "failures"),
        works(one_failed, "failures"),
        works(one_failed, "failures --backend s3"),
        works(one_retrying, "failures --backend mock"),
        works(chain_failed, "failures"),
        works(log_locked, "failures"),
        fails(nothing, "failures --backend loca", 2, "unknown_backend"),
        fails(nothing, "failures now", 2, "usage"),
        fails(damaged_with_a_failure, "failures", 6, "+damaged"),
        fails(newer_format, "failures", 6, "newer_format"),
        //
        works(nothing, "process"),
        works(one_with_a_dependent, "process 2"),
        works(one_held, "process 1"),
        works(nothing, "process --dry-run"),
        works(one_with_a_dependent, "process --dry-run"),
        works(one_with_a_dependent, "process 1 --dry-run --limit 1"),
        works(one_held, "process --dry-run --backend local"),
        works(one_retrying, "process --dry-run"),
        works(one_left_claimed, "process --dry-run"),
        works(drain_locked, "process --dry-run"),
        fails(one_pending, "process 9", 3, "no_such_operation"),
        fails(one_pending, "process x", 2, "bad_reference"),
        fails(nothing, "process --dry-run --follow", 2, "usage"),
        fails(damaged, "process --dry-run", 6, "+damaged"),
        works(one_pending, "process --limit 1 --jobs 2 --max-time 10s --grace 1s --backend local"),
        works(full_disk, "process"),
        works(logging_disabled, "process"),
        fails(log_not_mounted, "process", 6, "no_log"),
        works(drain_locked, "process --skip-if-running"),
        fails(one_will_fail, "process", 1, "+operation_failed"),
        fails(drain_locked, "process", 5, "busy"),
        fails(drain_locked, "process --lock-timeout 10ms", 5, "busy"),
        fails(nothing, "process --backend loca", 2, "unknown_backend"),
        fails(nothing, "process --jobs 0", 2, "usage"),
        fails(damaged, "process", 6, "damaged"),
        fails(newer_format, "process", 6, "newer_format"),
        //
        works(nothing, "archive list"),
        works(one_completed, "archive list"),
        works(original, "archive list"),
        works(past_archives, "archive list"),
        works(past_archives_pushed, "archive list"),
        works(nothing, "archive push /h --backend local --host web1"),
        works(past_archives, "archive push /h --backend local --host web1 --dry-run"),
        works(past_archives, "archive push /h --backend local --host web1"),
        works(past_archives, "archive push /h --backend local --host web1 --wait"),
        works(past_archives_pushed, "archive push /h --backend local --host web1"),
        works(past_archives_pushed, "archive push /h --backend local --host web1 --wait"),
        fails(past_archives, "archive push", 2, "bad_parameters"),
        fails(past_archives, "archive push /h --backend local --host a/b", 2, "bad_parameters"),
        fails(past_archives, "archive push s3:// --host web1", 2, "bad_parameters"),
        fails(past_archives, "archive push h --backend local --host web1", 2, "bad_parameters"),
        fails(past_archives, "archive push /h --backend nowhere --host web1", 2, "unknown_backend"),
        fails(
            past_archives,
            "archive push /h --backend local --host web1 --dry-run --wait",
            2,
            "usage",
        ),
        fails(past_archives, "archive push /h --backend local --host web1 --timeout 5", 2, "usage"),
        fails(
            past_archives_in_the_way,
            "archive push /h --backend local --host web1 --wait",
            1,
            "+operation_failed",
        ),
        fails(
            past_archives_drain_locked,
            "archive push /h --backend local --host web1 --wait --timeout 100ms",
            4,
            "+timed_out",
        ),
        fails(logging_disabled, "archive push /h --backend local --host web1", 2, "disabled"),
        fails(
            checkpoint_locked,
            "archive push /h --backend local --host web1 --lock-timeout 30ms",
            5,
            "busy",
        ),
        fails(damaged, "archive push /h --backend local --host web1", 6, "damaged"),
        fails(nothing, "archive", 2, "usage"),
        works(past_archives, "cleanup"),
        works(nothing, "cleanup"),
        works(one_failed, "cleanup --failed --age 0"),
        works(one_failed, "cleanup --failed --dry-run"),
        works(one_completed, "cleanup --age 0 --dry-run"),
        works(one_completed, "cleanup --age 0"),
        fails(nothing, "cleanup --age -1", 2, "usage"),
        fails(checkpoint_locked, "cleanup --lock-timeout 30ms", 5, "busy"),
        fails(damaged, "cleanup", 6, "damaged"),
        //
        works(one_completed, "checkpoint"),
        works(full_disk, "checkpoint"),
        fails(checkpoint_locked, "checkpoint --lock-timeout 30ms", 5, "busy"),
        fails(damaged, "checkpoint", 6, "damaged"),
        fails(newer_format, "checkpoint", 6, "newer_format"),
        //
        works(nothing, "verify"),
        works(one_failed, "verify"),
        works(one_completed, "verify"),
        works(log_locked, "verify"),
        works(checkpoint_locked, "verify"),
        works(original, "verify"),
        fails(damaged, "verify", 6, "+damaged"),
        fails(newer_format, "verify", 6, "newer_format"),
        fails(one_pending, "verify --repair --durability", 2, "usage"),
        fails(one_pending, "verify --rounds 3", 2, "usage"),
        works(nothing, "verify --repair"),
        works(one_failed, "verify --repair"),
        fails(damaged, "verify --repair", 1, "+lost"),
        fails(newer_format, "verify --repair", 6, "newer_format"),
        fails(damaged_and_draining, "verify --repair --lock-timeout 30ms", 5, "busy"),
        works(one_pending, "verify --durability --rounds 1"),
        works(nothing, "verify --durability . --rounds 2"),
        fails(nothing, "verify --durability no-such-place", 7, "disk"),
        fails(full_disk, "verify --durability --rounds 1", 1, "+unsafe_disk"),
        works(nothing, "verify --remote"),
        works(one_completed, "verify --remote --since 2h --backend local"),
        works(log_locked, "verify --remote"),
        fails(one_missing, "verify --remote", 1, "+not_intact"),
        works(one_missing, "verify --remote --backend mock"),
        fails(one_missing, "verify --remote --reopen", 1, "+not_intact"),
        fails(one_missing_with_its_source, "verify --remote --reopen", 1, "+not_intact"),
        fails(one_of_an_unconfigured_backend, "verify --remote", 1, "+not_intact"),
        fails(nothing, "verify --remote --backend loca", 2, "unknown_backend"),
        fails(nothing, "verify --remote --repair", 2, "usage"),
        fails(nothing, "verify --remote --durability", 2, "usage"),
        fails(nothing, "verify --reopen", 2, "usage"),
        fails(damaged, "verify --remote", 6, "damaged"),
        fails(newer_format, "verify --remote", 6, "newer_format"),
        //
        fails(kubo_unreachable, "health", 1, "+offline"),
        works(nothing, "health --backend local"),
        works(nothing, "health --backend s3"),
        works(log_locked, "health --backend local"),
        fails(mock_offline, "health", 1, "+offline"),
        fails(nothing, "health --backend loca", 2, "unknown_backend"),
        //
        works(nothing, "config show"),
        works(nothing, "config get jobs"),
        works(nothing, "config set jobs 7"),
        works(nothing, "config path"),
        works(nothing, "config check"),
        works(invalid_settings, "config path"),
        works(unparsable_settings, "config path"),
        works(invalid_settings, "completions bash"),
        works(unparsable_settings, "completions fish"),
        fails(nothing, "config get job", 2, "config"),
        fails(nothing, "config set jobs none", 2, "config"),
        fails(nothing, "config show --config no.toml", 2, "config"),
        fails(invalid_settings, "config check", 2, "config"),
        fails(unparsable_settings, "config check", 2, "config"),
        fails(unparsable_settings, "config set jobs 3", 2, "config"),
        fails(invalid_settings, "config show", 2, "config"),
        fails(nothing, "config", 2, "usage"),
        //
        works(nothing, "bench floor"),
        works(nothing, "bench append --threads 1 --blocks 1"),
        works(nothing, "bench batch --operations 1500 --blocks 1"),
        works(nothing, "bench verify --operations 1500 --blocks 1"),
        fails(nothing, "bench floor no-such-place", 7, "disk"),
        fails(nothing, "bench append --threads none", 2, "usage"),
        //
        works(nothing, "schema"),
        works(unparsable_settings, "schema status"),
        works(nothing, "schema config show"),
        works(nothing, "schema config-show"),
        fails(nothing, "schema config", 2, "usage"),
        fails(nothing, "schema statu", 2, "usage"),
        fails(nothing, "schema nonsense", 2, "usage"),
        //
        works(original_at_work, "status"),
        works(original_at_work, "list all"),
        works(original_at_work, "show 12"),
        works(original_at_work, "wait 1"),
        works(original_at_work, "cleanup --dry-run"),
        fails(original_at_work, "wait 5 --timeout 50ms", 4, "+timed_out"),
        fails(original_at_work, "add --backend local a.txt", 5, "original_at_work"),
        fails(original_at_work, "retry 4", 5, "original_at_work"),
        fails(original_at_work, "process", 5, "original_at_work"),
        fails(original_at_work, "checkpoint", 5, "original_at_work"),
        works(original, "list failed"),
        works(original, "retry 4"),
        works(original, "add --backend local a.txt --wait"),
        works(original, "checkpoint"),
        fails(original, "show 13", 3, "no_such_operation"),
        //
        fails(nothing, "", 2, "usage"),
        fails(nothing, "statu", 2, "usage"),
        fails(nothing, "--nonsense status", 2, "usage"),
        fails(nothing, "completions tcsh", 2, "usage"),
    ]
}

/// A command, and the documents that it printed.
pub type Printed = (&'static str, Vec<Value>);

/// Returns what every command printed in every outcome; `None` if the outcome was wrong.
pub fn printed() -> &'static [Option<Printed>] {
    static PRINTED: OnceLock<Vec<Option<Printed>>> = OnceLock::new();
    // All cases run before any is judged, so that one run reports every problem; several run at
    // once, since they mostly wait.
    PRINTED.get_or_init(|| {
        let cases = cases();
        std::thread::scope(|scope| {
            let check = |case| std::panic::catch_unwind(|| check(case)).ok();
            let every_eighth = |first| cases.iter().skip(first).step_by(8);
            let threads: Vec<_> = (0..8)
                .map(|first| {
                    scope.spawn(move || every_eighth(first).map(check).collect::<Vec<_>>())
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    })
}

#[test]
fn every_outcome_has_its_exit_code_and_a_valid_document() {
    assert!(printed().iter().all(Option::is_some), "see above");
}

fn check(case: &Case) -> Printed {
    let Case { setup, command, exit, error } = *case;
    let (error, with_data) = error.strip_prefix('+').map_or((error, false), |error| (error, true));

    let place = Place::new();
    let kept = setup(&place);
    let output = place.output(command);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(code(&output), Some(exit), "`{command}`\n{stdout}\n{stderr}");
    assert!(!stderr.contains("panicked"), "`{command}`\n{stderr}");
    if exit != 0 {
        assert_eq!(!stdout.is_empty(), with_data, "`{command}`: {stdout}");
        let says = stderr.starts_with("error: ")
            || stderr.contains("\nerror: ")
            || stderr.contains("Usage:");
        assert!(says, "`{command}`\n{stderr}");
    }
    drop(kept);

    let place = Place::new();
    let kept = setup(&place);
    // Flags may be anywhere among the arguments.
    let json = if command.len() % 2 == 0 {
        format!("--json {command}")
    } else {
        format!("{command} --json")
    };
    let output = place.output(&json);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(code(&output), Some(exit), "`{json}`\n{stdout}\n{stderr}");
    // A new log is announced, whatever the format.
    let announced = format!("created a new log in `{}`\n", place.log().display());
    assert_eq!(stderr.replace(&announced, ""), "", "`{json}`");
    let documents: Vec<Value> = serde_json::Deserializer::from_str(&stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("`{json}`: {error}\n{stdout}"));
    assert_eq!(documents.len(), stdout.lines().count(), "`{json}`: a document is a line\n{stdout}");
    if command.starts_with("process") {
        assert!(
            documents[..documents.len() - 1].iter().all(|document| document["event"] == "settled"),
            "{stdout}"
        );
    } else {
        assert_eq!(documents.len(), 1, "`{json}`\n{stdout}");
    }
    let last = documents.last().unwrap();
    assert_eq!(last["success"], exit == 0, "`{json}`\n{stdout}");
    let kind = last["error"]["type"].as_str().unwrap_or_default();
    assert_eq!(kind, error, "`{json}`\n{stdout}");
    if exit != 0 {
        assert!(
            last["error"]["message"].as_str().is_some_and(|message| !message.is_empty()),
            "{stdout}"
        );
        assert!(
            last["error"]["hint"].as_str().is_some() || error == "config",
            "`{json}`\n{stdout}"
        );
    }
    for document in &documents {
        contract::check(command, document);
    }
    drop(kept);
    (command, documents)
}
