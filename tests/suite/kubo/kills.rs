//! `kill -9` of the drain loop during operations on Kubo: log and node agree in the end.
//!
//! `WAL_CLI_LONG` sets the number of rounds, `WAL_CLI_SEED` the seed of the first one (`tests/long
//! kubo`).
#![expect(clippy::disallowed_methods, reason = "waits as another program would")]

use std::time::Duration;

use super::configure;
use super::daemon::Kubo;
use crate::suite::binary::Place;

const HELLO_CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

/// A log for the shared node, with names that no other round uses.
struct Round {
    place: Place,
    kubo: &'static Kubo,
    names: String,
}

impl Round {
    fn new(kind: &str, seed: u64) -> Round {
        let (place, kubo) = (Place::in_memory(), Kubo::shared());
        configure(&place, kubo, "");
        let names = format!("/kills-{kind}-{seed}-{}", std::process::id());
        place.file("file", &format!("{names}\n"));
        Round { place, kubo, names }
    }

    /// Operations that prepare the round.
    fn now(&self, operation: &str) -> String {
        let document = self.place.json(&format!("submit {operation} --backend ipfs --wait"));
        document["operations"][0]["result"]["cid"].as_str().unwrap_or_default().to_owned()
    }

    /// Logs an operation, kills the loop that executes it after some time, and completes it with
    /// another one.
    fn killed(&self, operation: &str, delay: Duration) {
        let logged = self.place.json(&format!("submit {operation} --backend ipfs"));
        let number = logged["operations"][0]["number"].as_u64().unwrap();
        let mut loop_ = self.place.start("process");
        std::thread::sleep(delay);
        loop_.kill().unwrap();
        loop_.wait().unwrap();
        let output = self.place.output("process");
        let shown = self.place.run(&format!("show {number} --history"));
        assert!(output.status.success(), "{operation}, killed after {delay:?}:\n{shown}");
        assert!(shown.contains("completed"), "{operation}, killed after {delay:?}:\n{shown}");
    }

    fn hash_of(&self, name: &str) -> Option<String> {
        let listed = self.kubo.ipfs(&format!("files ls -l {}", self.names));
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        Some(line.split_whitespace().nth(1)?.to_owned())
    }
}

fn rounds(kind: &str, mut round: impl FnMut(&Round, Duration)) {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let first = number("WAL_CLI_SEED").unwrap_or(1);
    for seed in first..first + number("WAL_CLI_LONG").unwrap_or(10) {
        println!("WAL_CLI_SEED={seed} tests/long kubo 1");
        // A loop takes about 10 ms to start and 10 ms for one operation.
        let delay = Duration::from_micros(fastrand::Rng::with_seed(seed).u64(0..40_000));
        round(&Round::new(kind, seed), delay);
    }
}

#[test]
fn a_killed_add_is_pinned_in_the_end() {
    rounds("add", |round, delay| {
        round.killed("add file", delay);
        let cid =
            round.place.json("show 1")["operation"]["result"]["cid"].as_str().unwrap().to_owned();
        assert!(round.kubo.has_pin(&cid) && cid != HELLO_CID);
    });
}

#[test]
fn a_killed_pin_completes() {
    rounds("pin", |round, delay| {
        let cid = round.now("add file --param pin=false");
        assert!(!round.kubo.has_pin(&cid));
        round.killed(&format!("pin {cid}"), delay);
        assert!(round.kubo.has_pin(&cid));
    });
}

#[test]
fn a_killed_removal_removes_its_target_and_nothing_else() {
    rounds("rm", |round, delay| {
        let names = &round.names;
        for name in ["one", "two"] {
            round.now(&format!("upload file {names}/{name}"));
        }
        round.killed(&format!("rm {names}/one"), delay);
        assert_eq!(round.hash_of("one"), None);
        assert!(round.hash_of("two").is_some());
    });
}

#[test]
fn a_killed_move_leaves_one_copy() {
    rounds("move", |round, delay| {
        let names = &round.names;
        let cid = round.now(&format!("upload file {names}/from"));
        round.killed(&format!("move {names}/from {names}/to"), delay);
        assert_eq!((round.hash_of("from"), round.hash_of("to")), (None, Some(cid)));
    });
}
