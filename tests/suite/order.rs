//! The order of system calls of the real program: nothing is acknowledged before it is durable.
#![expect(clippy::disallowed_methods, reason = "reads the output of strace")]

use super::binary::Place;
use super::tools;

/// Returns the relevant system calls in order, one line each, with paths instead of descriptors.
fn trace(place: &Place, arguments: &str) -> Vec<String> {
    let output = place.path("trace");
    let mut strace = tools::strace();
    strace
        .args([
            "-f",
            "-y",
            "-s",
            "200",
            "-e",
            "trace=pwrite64,write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat",
        ])
        .arg("-o")
        .arg(&output);
    let run = place.command_under(strace, arguments).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    std::fs::read_to_string(&output).unwrap().lines().map(str::to_owned).collect()
}

/// Returns the index of the first line, from `from` on, that contains all of these texts.
fn find(lines: &[String], from: usize, texts: &[&str]) -> usize {
    let found = lines[from..].iter().position(|line| texts.iter().all(|text| line.contains(text)));
    from + found
        .unwrap_or_else(|| panic!("no {texts:?} after line {from} of\n{}", lines.join("\n")))
}

#[test]
fn an_id_is_printed_only_after_its_frame_was_flushed() {
    let place = Place::new();
    place.file("a.txt", "hello world\n");
    place.run("add --spool never --backend local a.txt");
    let lines = trace(&place, "add --spool never --backend local a.txt");
    let frame = find(&lines, 0, &["pwrite64(", "journal_", "WFRM"]);
    let flush = find(&lines, frame, &["fdatasync(", "journal_"]);
    let printed = find(&lines, 0, &["write(1", "a.txt"]);
    assert!(frame < flush && flush < printed, "{}", lines.join("\n"));
    let between = lines[flush..printed].iter().filter(|line| line.contains("WFRM")).count();
    assert_eq!(between, 0, "nothing is written to the journal between flush and acknowledgement");
}

#[test]
fn a_claim_is_flushed_before_its_backend_is_called() {
    let place = Place::new();
    place.file("a.txt", "hello world\n");
    place.run("add --spool never --backend local a.txt");
    let lines = trace(&place, "process --quiet");
    let claim = find(&lines, 0, &["pwrite64(", "journal_", "WFRM"]);
    let flush = find(&lines, claim, &["fdatasync(", "journal_"]);
    let effect = find(&lines, 0, &["hello world"]);
    let settled = find(&lines, effect, &["pwrite64(", "journal_", "WFRM"]);
    find(&lines, settled, &["fdatasync(", "journal_"]);
    assert!(claim < flush && flush < effect, "{}", lines.join("\n"));
}

#[test]
fn a_checkpoint_removes_only_after_the_last_flush() {
    let place = Place::new();
    place.file("a.txt", "hello world\n");
    place.run("add --spool never --backend mock a.txt a.txt a.txt");
    place.run("checkpoint");
    place.run("process --quiet");
    let lines = trace(&place, "checkpoint");
    let file = find(&lines, 0, &["sync(", "/tmp/archive_"]);
    let renamed = find(&lines, file, &["rename", "archives/archive_"]);
    let directory = find(&lines, renamed, &["fsync(", "/archives>"]);
    let manifest = find(&lines, directory, &["sync(", "/tmp/MANIFEST.json"]);
    let committed = find(&lines, manifest, &["rename", "MANIFEST.json"]);
    let durable = find(&lines, committed, &["fsync(", "/wal>"]);
    let removed = find(&lines, 0, &["unlink", "partitions/wal_"]);
    let forgotten = find(&lines, 0, &["unlink", "journal_"]);
    assert!(durable < removed && durable < forgotten, "{}", lines.join("\n"));
}
