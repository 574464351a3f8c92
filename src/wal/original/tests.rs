//! Tests of lenient reading: every row is kept or reported, and damage hides no other row.

use serde_json::json;

use super::*;
use crate::wal::schema;

const PARQUET: &[u8] =
    include_bytes!("../../../tests/data/original/mixed/partitions/wal_1735680000_0.parquet");
/// The distance between the bytes that are damaged: trying every byte would take a minute.
const STRIDE: usize = 3;
const APPENDED: &[u8] =
    include_bytes!("../../../tests/data/original/appended/partitions/wal_1735700000_0.parquet");

fn rows(name: &str, bytes: &[u8]) -> Rows {
    Rows::of([(name, bytes)].into_iter())
}

fn row(changes: Value) -> Value {
    let mut row = json!({
        "operation_id": "1715609f-7c74-4c6d-820f-c1e1d0a4e909",
        "operation_type": "add",
        "status": "pending",
        "timestamp": 1000,
        "updated_at": 2000,
        "backend": "ipfs",
        "parameters": {"path": "/x"},
        "retry_count": 0,
        "max_retries": 5,
    });
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row
}

/// Fails unless the operations are unchanged after they were written to Parquet and read back.
fn assert_written(rows: &Rows) {
    use crate::disk::Machine;
    let mut operations = rows.operations().to_vec();
    let bytes = schema::encode(&mut operations).unwrap();
    let disk = Machine::new().process();
    let disk: &dyn Disk = &disk;
    let path = std::path::Path::new("/x.parquet");
    disk.write_new_synced(path, &bytes).unwrap();
    let read = schema::Table::open(disk, path, &sha256_hex(&bytes)).unwrap().read_all().unwrap();
    assert_eq!(read, operations);
}

#[test]
fn adopted_operations_are_unchanged_by_writing_them() {
    let long = "x".repeat(300);
    for changes in [
        json!({}),
        json!({"status": "processing", "error": "e", "retry_count": 2}),
        json!({"status": "retrying", "next_retry_at": 9000, "error": "e", "error_type": "t"}),
        json!({"status": "retrying", "next_retry_at": null, "error": null}),
        json!({"status": "failed", "error": "e", "retry_count": 5}),
        json!({"status": "failed", "error": {"code": 5}}),
        json!({
            "status": "completed",
            "completed_at": 1500,
            "error": "an attempt before",
            "result": {"cid": "Qm"},
        }),
        json!({
            "status": "completed",
            "result": {"size": -5, "x": [1], "destination": null, "success": true},
        }),
        json!({"status": "completed", "result": "done"}),
        json!({"timestamp": null}),
        json!({"updated_at": null, "timestamp": 1.5e12}),
        json!({"timestamp": "2025-01-01T00:00:00+01:00"}),
        json!({"timestamp": i64::MIN, "updated_at": i64::MAX}),
        json!({"retry_count": -3, "max_retries": 1_u64 << 40}),
        json!({"retry_count": "many", "max_retries": null}),
        json!({"parameters": null}),
        json!({"parameters": "{\"a\": {\"b\": 1}, \"c\": null}"}),
        json!({"parameters": ["a", 1]}),
        json!({"parameters": "no JSON"}),
        json!({"operation_type": long, "backend": long}),
        json!({"operation_type": 5, "backend": ""}),
        json!({"operation_type": null, "backend": null}),
        json!({"operation_id": "job 17"}),
        json!({"operation_id": 17}),
    ] {
        let row = row(changes);
        let rows = rows("partitions/x", row.to_string().as_bytes());
        assert_eq!((rows.count(), &rows.unread[..]), (1, &[][..]), "{row}");
        assert_written(&rows);
    }
    for (name, bytes) in [("partitions/a", PARQUET), ("partitions/b", APPENDED)] {
        let rows = rows(name, bytes);
        assert_eq!((rows.count(), rows.unread.len()), (3 + u64::from(name.ends_with('b')), 0));
        assert_written(&rows);
    }
}

#[test]
fn an_invalid_row_is_reported_and_hides_no_other() {
    for (changes, what) in [
        (json!({"status": "queued"}), "unknown status `queued`"),
        (json!({"status": null}), "it has no `status`"),
        (json!({"operation_id": null}), "it has no `operation_id`"),
        (json!({"operation_id": ""}), "it has no `operation_id`"),
        (json!({"timestamp": null, "updated_at": null}), "it has no time"),
        (json!({"updated_at": "soon"}), "its `updated_at` is not a time: \"soon\""),
    ] {
        let content = format!("{}\n[]\n{}\n\n", row(changes), row(json!({})));
        let rows = rows("partitions/x", content.as_bytes());
        assert_eq!(rows.count(), 1, "{content}");
        let expected = format!("the line at byte 0: {what} (and 1 more)");
        let unread = &rows.unread[0];
        assert_eq!((unread.offset, unread.what.as_str()), (Some(0), expected.as_str()));
    }
}

#[test]
fn of_rows_with_one_id_the_newest_or_archived_one_counts() {
    let line = |status: &str, at: i64| row(json!({"status": status, "updated_at": at})).to_string();
    for (first, second, expected) in [
        (line("pending", 5), line("completed", 6), Status::Completed),
        (line("pending", 6), line("completed", 6), Status::Completed),
        (line("failed", 7), line("completed", 6), Status::Failed),
    ] {
        let rows = Rows::of(
            [("partitions/a", first.as_bytes()), ("archives/b", second.as_bytes())].into_iter(),
        );
        assert_eq!((rows.count(), rows.operations()[0].status()), (1, expected));
        assert_eq!(rows.archived(), u64::from(expected == Status::Completed));
    }
}

#[test]
fn numbers_follow_time_then_id() {
    let line = |id: &str, at: i64| row(json!({"operation_id": id, "timestamp": at})).to_string();
    let content = [line("b", 2), line("a", 2), line("c", 1)].join("\n");
    let rows = rows("partitions/x", content.as_bytes());
    let mut last = [id_of("a"), id_of("b")];
    last.sort();
    let ids: Vec<OperationId> = rows.operations().iter().map(|operation| operation.id).collect();
    assert_eq!(ids, [id_of("c"), last[0], last[1]]);
    assert!(rows.operation(Number::new(0)).is_none() && rows.operation(Number::new(4)).is_none());
    assert_eq!(rows.operation_by_id(id_of("c")).unwrap().number, Number::new(1));
}

/// Nothing checks the bytes of a page. Damage to them must cause no panic, and the appended lines
/// must still be read.
#[test]
fn damage_at_any_byte_hides_no_appended_line() {
    let lines = APPENDED.len() - APPENDED.iter().rev().position(|byte| *byte == 0).unwrap();
    let begins = lines + APPENDED[lines..].iter().position(|byte| *byte == b'\n').unwrap();
    for at in (0..begins).step_by(STRIDE) {
        let mut bytes = APPENDED.to_vec();
        bytes[at] ^= 1 << (at / STRIDE % 8);
        let rows = rows("partitions/x", &bytes);
        let appended =
            rows.operations().iter().filter(|of| of.logged_at.as_millis() >= 1_735_700_001_000);
        assert!(appended.count() >= 2, "byte {at}");
    }
    for len in (0..APPENDED.len()).step_by(STRIDE) {
        let rows = rows("partitions/x", &APPENDED[..len]);
        assert!(rows.count() == 2 || rows.count() == 3 || !rows.unread.is_empty(), "{len} bytes");
    }
}

#[test]
fn our_files_are_distinguished_from_original_ones() {
    let mut operations = rows("partitions/x", PARQUET).operations().to_vec();
    let ours = schema::encode(&mut operations).unwrap();
    assert!(is_ours("wal_1735680000_000001.parquet", &ours));
    assert!(is_ours("x.parquet", &ours));
    assert!(
        is_ours("wal_1735680000_000001.parquet", &ours[..ours.len() - 1]),
        "one of this program, truncated"
    );
    assert!(!is_ours("wal_1735680000_0.parquet", PARQUET));
    let tricky = row(json!({"parameters": {"path": FORMAT_KEY}})).to_string();
    assert!(!is_ours("wal_1735680000_0.parquet", tricky.as_bytes()));
}
