//! Bytes as a Parquet file: one that the manifest names, with the right size and hash, or one of
//! the original system.

use std::path::Path;

use wal_cli::disk::{Disk, Machine};
use wal_cli::operation::Number;
use wal_cli::wal::manifest::{Manifest, sha256_hex};
use wal_cli::wal::original;
use wal_cli::wal::schema::Table;

use super::image::{self, Image, Seen, layout};

pub fn run(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    match first % 3 {
        0 => as_ours(bytes),
        1 => as_original(bytes, "partitions/wal_1735680000_0.parquet"),
        _ => as_original(bytes, "archives/archive_20250101.parquet"),
    }
}

/// Puts the bytes into a log whose manifest has their size and hash.
fn as_ours(bytes: &[u8]) {
    let machine = Machine::new();
    let process = machine.process();
    let disk: &dyn Disk = &process;
    let path = Path::new("/x.parquet");
    disk.write_new_synced(path, bytes).unwrap();
    if let Ok(table) = Table::open(disk, path, &sha256_hex(bytes)) {
        let _ = table.read_all();
        for group in table.groups() {
            let _ = (table.may_hold(group, group.ids.0), table.may_hold_key(group, "key"));
        }
    }
    let mut image = image::sample().clone();
    let mut manifest = Manifest::decode(path, &image.files["MANIFEST.json"]).unwrap();
    let entry = &mut manifest.files[0];
    (entry.bytes, entry.sha256) = (bytes.len() as u64, sha256_hex(bytes));
    image.files.insert(entry.name.clone(), bytes.to_vec());
    image.files.insert("MANIFEST.json".into(), manifest.encode());
    let disk = image.machine(false).process();
    // The journal may change rows that the file lacks, which is reported.
    let _ = read_leniently(&disk);
    if let Ok(wal) = image::open(&disk) {
        let _ = wal.append_new(vec![image::logged("/new")]);
        let _ = wal.checkpoint();
    }
    let _ = read_leniently(&disk);
}

/// Reads the log. Readers may show that a file repeats a number, or contradicts the manifest.
fn read_leniently(disk: &wal_cli::disk::MemoryDisk) -> usize {
    let Ok(view) = wal_cli::wal::View::open(std::sync::Arc::new(disk.clone()), layout()) else {
        return 0;
    };
    let mut found = 0;
    let count = |_| {
        found += 1;
        std::ops::ControlFlow::Continue(())
    };
    let _ = view.visit(wal_cli::wal::Order::OldestFirst, |_| true, |_| true, count);
    for number in 0..16 {
        let _ = view.operation(Number::new(number));
    }
    found
}

/// Asserts that an adoption keeps what readers show.
fn as_original(bytes: &[u8], name: &str) {
    let image = Image { files: [(name.to_owned(), bytes.to_vec())].into(), ..Image::default() };
    let disk = image.machine(false).process();
    let survey = original::survey(&disk, &layout()).unwrap();
    let rows = survey.rows();
    let before = Seen::by(&disk);
    if survey.ours.is_some() {
        return;
    }
    assert_eq!(before.operations.len() as u64, rows.count());
    if image::open(&disk).is_ok() {
        let after = Seen::by(&disk);
        assert_eq!(
            after.operations, before.operations,
            "adoption changed operations that were shown"
        );
        let aside = Path::new(image::BASE).join("quarantine/original").join(name);
        assert_eq!((&disk as &dyn Disk).read(&aside).unwrap(), bytes);
    }
}

/// Returns the files of the sample, and small files of the original system.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (name, bytes) in &image::sample().files {
        if name.ends_with(".parquet") {
            seeds.extend((0..2).map(|mode| [&[mode], &bytes[..]].concat()));
        }
    }
    let originals: [&[u8]; 8] = [
        include_bytes!("../data/original/appended/partitions/wal_1735700000_0.parquet"),
        include_bytes!("../data/original/appended/partitions/wal_1735700003_0.parquet"),
        include_bytes!("../data/original/lines/archives/archive_20250101.parquet"),
        include_bytes!("../data/original/lines/partitions/wal_1735720000_0.parquet"),
        include_bytes!("../data/original/mixed/archives/archive_20241231.parquet"),
        include_bytes!("../data/original/mixed/archives/archive_20250101.parquet"),
        include_bytes!("../data/original/mixed/partitions/wal_1735680000_0.parquet"),
        include_bytes!("../data/original/mixed/partitions/wal_1735766412_0.parquet"),
    ];
    for bytes in originals {
        seeds.push([&[1], bytes].concat());
        seeds.push([&[2], &bytes[..bytes.len().min(700)]].concat());
    }
    let row = |rest: &str| {
        format!(
            r#"{{"operation_id":"1715609f-7c74-4c6d-820f-c1e1d0a4e909","operation_type":"add","status":"pending","timestamp":1000{rest}}}"#
        )
    };
    let lines = [
        row(""),
        row(
            r#","updated_at":"2025-01-01T00:00:00+01:00","backend":"s3","parameters":{"path":"/x","n":[1,null]}"#,
        ),
        row(
            r#","status":"completed","completed_at":9223372036854775807,"result":{"cid":"Qm","size":-5,"x":{}}"#,
        ),
        row(
            r#","status":"retrying","next_retry_at":-9223372036854775808,"error":"e","retry_count":4294967296"#,
        ),
        row(r#","status":"failed","error":{"code":5},"max_retries":-1,"parameters":"{\"a\":1}""#),
        row(r#","operation_id":"job 17","operation_type":"Ä","backend":"","status":"processing""#),
        row(r#","timestamp":1e300,"updated_at":-1.5"#),
    ];
    seeds.extend(lines.iter().map(|line| [b"\x01", line.as_bytes()].concat()));
    seeds.push([b"\x02", lines.join("\n").as_bytes()].concat());
    seeds
}
