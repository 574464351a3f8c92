//! Held operations and spooled content in a repair.

use super::*;

#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
#[test]
fn operations_held_in_a_lost_frame_stay_held() {
    let place = crate::suite::binary::Place::new();
    place.run("submit mkdir /a --backend mock");
    place.run("submit mkdir /b --backend mock");
    place.run("hold 1");
    place.run("prioritize 1 --priority 5");
    place.run("submit mkdir /c --backend mock");
    let journal = place.log().join("journal/journal_0000000001.log");
    let mut bytes = std::fs::read(&journal).unwrap();
    let frames: Vec<usize> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, four)| *four == b"WFRM")
        .map(|(at, _)| at)
        .collect();
    bytes[frames[2] + 60] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    // The third operation is complete.
    assert_eq!(repaired(&place, 1)["held"], serde_json::json!([1, 2]));
    place.run("process");
    assert_eq!(place.json("status")["stats"]["completed"], 1);
}

#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
#[test]
fn content_is_moved_only_after_the_repaired_log_exists() {
    let place = with_content();
    let partition =
        std::fs::read_dir(place.log().join("partitions")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&partition).unwrap();
    std::fs::write(&partition, &whole[..1000]).unwrap();
    let mut dying = place.command("verify --repair");
    assert!(
        !dying
            .env("WAL_CLI_FAILPOINT", "before:rename:manifest")
            .output()
            .unwrap()
            .status
            .success()
    );
    // The file is restored from a backup.
    std::fs::write(&partition, whole).unwrap();
    std::fs::remove_file(place.path("a.txt")).unwrap();
    assert_eq!(place.json("verify")["sound"], true);
    place.run("process");
    assert_eq!(place.json("status")["stats"]["completed"], 1);
}

#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
#[test]
fn content_is_kept_without_a_manifest_and_without_files() {
    let place = with_content();
    place.run("submit mkdir /b --backend mock");
    std::fs::remove_dir_all(place.log().join("partitions")).unwrap();
    std::fs::remove_file(place.log().join("MANIFEST.json")).unwrap();
    let report = repaired(&place, 1);
    let content = report["set_aside"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| place.log().join(name.as_str().unwrap()));
    assert!(
        content
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .any(|text| text == "precious\n"),
        "{report:#}"
    );
}

/// If zeros follow the last frame, a bad block behind them hides nothing.
#[test]
fn a_bad_block_in_preallocated_space_costs_nothing() {
    let machine = machine();
    let before = seen(&machine);
    let last = journals(&machine).pop().unwrap();
    machine.corrupt(&last, |bytes| bytes.resize(1 << 16, 0));
    machine.spoil(&last, 40_960..41_000);
    assert!(!verified(&machine).unwrap().is_valid());
    let report = repair(machine.process()).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    check(&machine, &before, &report, "a bad block in preallocated space");
}

/// A flipped bit in a header whose frames are all readable holds no operation; nor does an
/// unfinished generation.
#[test]
fn losses_covered_elsewhere_hold_no_operation() {
    for damage in
        [(|machine: &Machine| flip(machine, &journals(machine)[0], 30)) as Damage, |machine| {
            flip(machine, &parquet(machine, 1), 900);
            put(machine, &layout().generation(99), b"");
        }]
    {
        let machine = machine();
        damage(&machine);
        let report = repair(machine.process()).unwrap();
        let elsewhere =
            report.held.iter().filter(|number| !report.doubtful.contains(*number)).count();
        assert_eq!(elsewhere, 0, "{report:#?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
#[test]
fn content_whose_operation_is_lost_is_kept() {
    let place = with_content();
    let partition =
        std::fs::read_dir(place.log().join("partitions")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&partition, &std::fs::read(&partition).unwrap()[..1000]).unwrap();
    let reported = place.output("verify");
    assert!(
        !String::from_utf8_lossy(&reported.stdout).contains("needs this content"),
        "{reported:?}"
    );
    let output = place.output("--json verify --repair");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let content = report["set_aside"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| place.log().join(name.as_str().unwrap()));
    let texts: Vec<String> =
        content.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    assert_eq!(texts, ["precious\n"], "{report:#}");
    place.run("checkpoint");
    assert_eq!(place.json("verify")["sound"], true);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "damages files as other programs would")]
fn an_operation_with_lost_content_falls_back_to_its_source() {
    let place = crate::suite::binary::Place::new();
    place.file("a.txt", "hello world\n");
    place.file("b.txt", "b\n");
    place.run("add --backend local --spool always a.txt b.txt");
    assert_eq!(place.json("verify")["sound"], true);
    let spool = place.log().join("spool");
    let of = |text: &str| {
        let entries = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| std::fs::read_to_string(path).unwrap() == text).collect::<Vec<_>>()
    };
    // The content of one is changed; of the other, only the shared name is left.
    std::fs::write(&of("hello world\n")[0], "hello w0rld\n").unwrap();
    let own = of("b\n").into_iter().find(|path| path.to_string_lossy().contains('.')).unwrap();
    if of("b\n").len() > 1 {
        std::fs::remove_file(&own).unwrap();
    }
    let output = place.output("verify");
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let output = place.output("--json verify --repair");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lost: Vec<&str> = report["losses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|loss| loss["what"].as_str().unwrap())
        .collect();
    assert!(lost.len() == 1 && lost[0].contains("operation 1"), "{report:#}");
    assert_eq!(place.json("verify")["sound"], true);
    // The source file is unchanged, so nothing is lost.
    place.run("process --quiet");
    assert!(place.run("list failed -q").is_empty());
}
