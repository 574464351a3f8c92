//! `kill -9` of the drain loop during operations on S3: log and service agree in the end, and no
//! unfinished upload is left.
//!
//! `WAL_CLI_LONG` sets the number of rounds, `WAL_CLI_SEED` the seed of the first one (`tests/long
//! s3`).

use std::time::Duration;

use super::large::noise;
use super::server::{BUCKET, OWNER, S3};
use super::{configure, shown};
use crate::suite::binary::Place;

/// The expected end: a key, and the size and SHA-256 of its content, or `None` for no object.
type Wanted = (String, Option<String>);

struct Round {
    place: Place,
    folder: String,
    /// Whether the operation is cancelled after its loop was killed.
    cancels: bool,
}

impl Round {
    /// Operations that prepare the round.
    fn now(&self, operation: &str) {
        self.place.run(&format!("submit {operation} --wait"));
    }

    /// Logs an operation, kills the loop that executes it after some time, and completes it with
    /// another one.
    fn killed(&self, operation: &str, delay: Duration) -> bool {
        let logged = self.place.json(&format!("submit {operation}"));
        let number = logged["operations"][0]["number"].as_u64().unwrap();
        let mut loop_ = self.place.start("process");
        std::thread::sleep(delay);
        loop_.kill().unwrap();
        loop_.wait().unwrap();
        if self.cancels {
            self.place.output(&format!("cancel {number}"));
        }
        self.place.output("process");
        self.place.run("cleanup");
        let status = shown(&self.place, number)["status"].as_str().unwrap().to_owned();
        assert!(
            status == "completed" || (self.cancels && status == "failed"),
            "{operation}, killed after {delay:?}: {}",
            self.place.run(&format!("show {number} --history"))
        );
        status == "completed"
    }

    fn sum(&self, name: &str) -> String {
        let output =
            std::process::Command::new("sha256sum").arg(self.place.path(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
    }
}

/// Runs many rounds, and checks their results; `longest` is the latest time of a kill, in
/// microseconds.
fn rounds(
    kind: &str,
    size: usize,
    longest: u64,
    mut round: impl FnMut(&Round, Duration) -> Vec<Wanted>,
) {
    let s3 = S3::shared();
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let first = number("WAL_CLI_SEED").unwrap_or(1);
    let mut wanted = Vec::new();
    let base = format!("kills-{kind}-{}", std::process::id());
    for seed in first..first + number("WAL_CLI_LONG").unwrap_or(10) {
        println!("WAL_CLI_SEED={seed} tests/long s3 1");
        let mut random = fastrand::Rng::with_seed(seed);
        let delay = Duration::from_micros(random.u64(0..longest));
        let place = Place::in_memory();
        configure(&place, &s3.endpoint(), OWNER, "part_size = \"5 MiB\"\npart_jobs = 2\n");
        noise(&place.path("file"), size, seed);
        let round_ = Round {
            place,
            folder: format!("{base}/{seed}"),
            cancels: kind == "multipart" && seed % 3 == 0,
        };
        wanted.extend(round(&round_, delay));
    }
    let there = s3.python(&format!(
        "pages = s3.get_paginator('list_objects_v2')\n\
         for page in pages.paginate(Bucket={BUCKET:?}, Prefix='{base}/'):\n \
         for o in page.get('Contents', []):\n  \
         body = s3.get_object(Bucket={BUCKET:?}, Key=o['Key'])['Body'].read()\n  \
         print(o['Key'], hashlib.sha256(body).hexdigest())"
    ));
    for (key, sum) in wanted {
        let found = there.lines().find_map(|line| line.strip_prefix(&format!("{key} ")));
        assert_eq!(found.map(str::to_owned), sum, "{key}:\n{there}");
    }
    assert_eq!(s3.uploads(&base), "", "unfinished uploads");
}

#[test]
fn a_killed_put_completes() {
    rounds("put", 100_000, 60_000, |round, delay| {
        let key = format!("{}/put", round.folder);
        round.killed(&format!("upload file {key}"), delay);
        vec![(key, Some(round.sum("file")))]
    });
}

#[test]
fn a_killed_upload_completes_and_a_cancelled_one_leaves_nothing() {
    rounds("multipart", 22_000_000, 500_000, |round, delay| {
        let key = format!("{}/parts", round.folder);
        let done = round.killed(&format!("upload file {key}"), delay);
        vec![(key, done.then(|| round.sum("file")))]
    });
}

#[test]
fn a_killed_copy_completes() {
    rounds("copy", 300_000, 60_000, |round, delay| {
        let [from, to] = ["from", "to"].map(|name| format!("{}/{name}", round.folder));
        round.now(&format!("upload file {from}"));
        round.killed(&format!("copy {from} {to}"), delay);
        let sum = Some(round.sum("file"));
        vec![(from, sum.clone()), (to, sum)]
    });
}

#[test]
fn a_killed_move_leaves_one_copy() {
    rounds("move", 300_000, 80_000, |round, delay| {
        let [from, to] = ["from", "to"].map(|name| format!("{}/{name}", round.folder));
        round.now(&format!("upload file {from}/a"));
        round.now(&format!("upload file {from}/b"));
        round.killed(&format!("move {from} {to}"), delay);
        let sum = Some(round.sum("file"));
        vec![
            (format!("{from}/a"), None),
            (format!("{from}/b"), None),
            (format!("{to}/a"), sum.clone()),
            (format!("{to}/b"), sum),
        ]
    });
}
