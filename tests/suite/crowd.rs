//! Many processes at once: adders, a drain loop, and readers that must never fail.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::binary::Place;

const ADDERS: usize = 8;

#[test]
fn adders_a_drain_loop_and_readers_do_not_conflict() {
    let each: usize = std::env::var("WAL_CLI_LONG").map_or(60, |n| n.parse().expect("a number"));
    let place = Place::new();
    place.file("a.txt", "hello world\n");
    let mut drain = place.start("process --follow --quiet");
    let over = AtomicBool::new(false);
    let mut ids: Vec<String> = Vec::new();
    let mut reads = 0;
    std::thread::scope(|scope| {
        let readers: Vec<_> = ["status", "list all --limit 20"]
            .into_iter()
            .map(|command| {
                let (place, over) = (&place, &over);
                scope.spawn(move || {
                    let mut reads = 0;
                    while !over.load(Ordering::Relaxed) {
                        place.json(command);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let adders: Vec<_> = (0..ADDERS)
            .map(|_| {
                scope.spawn(|| {
                    let added = (0..each).map(|_| place.json("add --backend local a.txt"));
                    added
                        .map(|json| json["operation_id"].as_str().unwrap().to_owned())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        adders.into_iter().for_each(|adder| ids.extend(adder.join().unwrap()));
        over.store(true, Ordering::Relaxed);
        reads = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    });
    let last = place.json("list all --limit 1")["operations"][0]["number"].as_u64().unwrap();
    place.run(&format!("wait {last} --timeout 120"));
    // The loop settles in order of completion, so others may still be running.
    for id in &ids {
        place.run(&format!("wait {id} --timeout 60"));
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&drain),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(drain.wait().unwrap().success(), "a loop that is asked to stop ends with 0");
    let total = ADDERS * each;
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), unique.len()), (total, total), "ids are unique");
    let stats = place.json("status")["stats"].clone();
    assert_eq!(
        (stats["completed"].as_u64(), stats["total"].as_u64()),
        (Some(total as u64), Some(total as u64))
    );
    for operation in place.json("list all --limit 0")["operations"].as_array().unwrap() {
        let history: Vec<_> = operation["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["to"].as_str().unwrap())
            .collect();
        assert_eq!(history, ["pending", "processing", "completed"], "no operation ran twice");
    }
    println!(
        "{total} acknowledged, {total} completed once each, {reads} reads meanwhile, none failed"
    );
}
