//! Logs of several generations, of which one is lost: readers report it, writers stop, and nothing
//! is removed or numbered again.

use wal_cli::operation::Revision;
use wal_cli::wal::WalError;
use wal_cli::wal::journal::{FrameKind, HEADER_LEN, decode_frame, encode_frame};

use super::fuzzing::image::{self, Image, Seen};

/// Returns a log of five generations, each with operations that no checkpoint has folded.
fn five_generations() -> Image {
    let machine = wal_cli::disk::Machine::new();
    for nth in 0..5 {
        let disk = machine.process();
        let wal = image::open(&disk).unwrap();
        for part in 0..3 {
            wal.append_new(vec![image::logged(&format!("/{nth}/{part}"))]).unwrap();
        }
        drop(wal);
        // The next write recovers the journal, which begins another generation.
        machine.power_cut(|| false);
    }
    // The notes are of the boot before the last power cut.
    Image { boots: 4, ..Image::of(&machine.process()) }
}

#[test]
fn a_generation_between_others_is_not_lost_silently() {
    let image = five_generations();
    let journals: Vec<&String> =
        image.files.keys().filter(|name| name.starts_with("journal/")).collect();
    assert_eq!(journals.len(), 5, "{journals:?}");
    let whole = Seen::by(&image.machine(false).process());
    assert_eq!((whole.operations.len(), whole.reported.len()), (15, 0), "{whole:?}");
    type Change = fn(&mut Vec<u8>) -> bool;
    // True: the file stays.
    let changes: [(&str, Change); 5] = [
        ("removed", |_| false),
        ("empty", |bytes| {
            bytes.clear();
            true
        }),
        ("cut to 64 bytes", |bytes| {
            bytes.truncate(64);
            true
        }),
        ("without its first sector", |bytes| {
            bytes[..512].fill(0);
            true
        }),
        ("all zeros", |bytes| {
            bytes.fill(0);
            true
        }),
    ];
    // Nothing follows the last one: only a note shows that it existed.
    for name in &journals[..4] {
        for (what, change) in changes {
            for another_boot in [false, true] {
                let case = format!("{name} {what}, another boot: {another_boot}");
                let mut damaged = image.clone();
                let mut bytes = damaged.files.remove(*name).unwrap();
                if change(&mut bytes) {
                    damaged.files.insert((*name).clone(), bytes);
                }
                let disk = damaged.machine(another_boot).process();
                let seen = Seen::by(&disk);
                assert!(!seen.reported.is_empty(), "{case}: {seen:?}");
                for (number, operation) in &seen.operations {
                    assert_eq!(Some(operation), whole.operations.get(number), "{case}");
                }
                let refused = image::open(&disk)
                    .and_then(|wal| wal.append_new(vec![image::logged("/later")]).map(drop));
                assert!(refused.is_err(), "{case}: a writer continues");
                let folded = image::open(&disk).and_then(|wal| wal.checkpoint().map(drop));
                assert!(folded.is_err(), "{case}: a checkpoint runs");
                let left = Image::of(&disk).files;
                let kept = damaged.files.iter().filter(|(name, _)| name.starts_with("journal/"));
                for (name, bytes) in kept {
                    assert_eq!(left.get(name), Some(bytes), "{case}: {name} was changed");
                }
            }
        }
    }
}

#[test]
fn a_record_of_an_unknown_kind_is_not_taken_for_a_torn_write() {
    for another_boot in [false, true] {
        let machine = wal_cli::disk::Machine::new();
        let disk = machine.process();
        let wal = image::open(&disk).unwrap();
        wal.append_new(vec![image::logged("/known")]).unwrap();
        drop(wal);
        let image = Image::of(&disk);
        let (name, bytes) = image.files.iter().find(|(name, _)| name.contains("journal_")).unwrap();
        let mut end = HEADER_LEN;
        while let Some(frame) = decode_frame(bytes, 0, end, 1) {
            end = frame.end;
        }
        // As a newer program would continue.
        let kind = FrameKind::Unknown(200);
        let (newer, _) = encode_frame(1, kind, end, Revision::new(2), b"from the future");
        let mut changed = image.clone();
        let at = usize::try_from(end).unwrap();
        changed.files.get_mut(name).unwrap()[at..at + newer.len()].copy_from_slice(&newer);
        let disk = changed.machine(another_boot).process();
        let is_newer = |error: &WalError| matches!(error, WalError::NewerFrame { kind: 200, .. });
        assert!(Seen::by(&disk).reported[0].contains("of kind 200"), "a reader");
        let appended = image::open(&disk)
            .and_then(|wal| wal.append_new(vec![image::logged("/later")]).map(drop));
        assert!(appended.as_ref().is_err_and(is_newer), "{appended:?}");
        let folded = image::open(&disk).and_then(|wal| wal.checkpoint().map(drop));
        assert!(folded.as_ref().is_err_and(is_newer), "{folded:?}");
        assert_eq!(Image::of(&disk).files.get(name), changed.files.get(name));
    }
}
