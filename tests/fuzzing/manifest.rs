//! Bytes as the manifest of a log. Its hash is corrected, so that the code behind it is reached.

use std::path::Path;

use serde_json::{Value, json};
use wal_cli::wal::manifest::{Manifest, sha256_hex};

use super::image::{self, Image, Seen};

const NAME: &str = "MANIFEST.json";

pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let bytes = match first {
        b'{' => hashed(data),
        _ => hashed(changed(rest).to_string().as_bytes()),
    };
    let mut image = image::sample().clone();
    if let Ok(manifest) = Manifest::decode(Path::new(NAME), &bytes) {
        let again = manifest.encode();
        assert_eq!(
            Manifest::decode(Path::new(NAME), &again)
                .expect("a manifest that was read can be written"),
            manifest
        );
    }
    image.files.insert(NAME.into(), bytes);
    check(&image);
}

/// The manifest may be wrong about files. Nothing may panic, and files that it does not name must
/// not be touched.
fn check(image: &Image) {
    let disk = image.machine(true).process();
    let outside = Path::new("/outside");
    let machine: &dyn wal_cli::disk::Disk = &disk;
    machine.create_dir_all_synced(outside).unwrap();
    machine.write_new_synced(&outside.join("file"), &image.files["MANIFEST.json"]).unwrap();
    Seen::by(&disk);
    if let Ok(wal) = image::open(&disk) {
        let _ = wal.append_new(vec![image::logged("/new"); 3]);
        let _ = wal.append_new(vec![image::logged("/new"); 1]);
        let _ = wal.checkpoint();
        let _ = wal.cleanup(
            wal_cli::wal::Retention { max_age_days: 0, failed: true, keep_unpushed: false },
            true,
        );
        let _ = wal.cleanup(
            wal_cli::wal::Retention { max_age_days: 0, failed: true, keep_unpushed: false },
            false,
        );
    }
    Seen::by(&disk);
    assert!(machine.read(&outside.join("file")).is_ok(), "a file outside the log was removed");
}

/// Returns the text with the correct hash at its end.
fn hashed(text: &[u8]) -> Vec<u8> {
    const MEMBER: &[u8] = b",\"hash\":\"";
    let end = text.windows(MEMBER.len()).rposition(|window| window == MEMBER);
    let end = end.or_else(|| text.iter().rposition(|byte| *byte == b'}')).unwrap_or(text.len());
    let mut bytes = text[..end].to_vec();
    let hash = sha256_hex(&bytes);
    bytes.extend_from_slice(format!(",\"hash\":\"{hash}\"}}\n").as_bytes());
    bytes
}

/// Returns the sample's manifest with values replaced; two bytes select each value and its
/// replacement.
fn changed(choices: &[u8]) -> Value {
    let mut manifest: Value = serde_json::from_slice(&image::sample().files[NAME]).unwrap();
    manifest.as_object_mut().unwrap().remove("hash");
    for choice in choices.chunks_exact(2).take(16) {
        let mut left = usize::from(choice[0]);
        replace_nth(&mut manifest, &mut left, &odd_value(choice[1]));
    }
    manifest
}

fn replace_nth(value: &mut Value, left: &mut usize, by: &Value) {
    if *left == 0 {
        *value = by.clone();
        *left = usize::MAX;
        return;
    }
    if *left == usize::MAX {
        return;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace_nth(item, left, by)),
        Value::Object(members) => {
            members.iter_mut().for_each(|(_, member)| replace_nth(member, left, by))
        }
        _ => {}
    }
}

fn odd_value(choice: u8) -> Value {
    if choice < 128 {
        return super::odd(choice).into();
    }
    let all = [
        json!(null),
        json!(true),
        json!(-1),
        json!(i64::MIN),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!("/outside/file"),
        json!("../outside/file"),
        json!("partitions/../../outside/file"),
        json!("partitions/../MANIFEST.json"),
        json!("partitions/wal_1_18446744073709551615.parquet"),
        json!("partitions/wal_1800000000_000001.parquet"),
        json!("lock"),
        json!("0-18446744073709551615"),
        json!("1-9223372036854775807"),
        json!("18446744073709551615"),
        json!("1,3-4,9"),
        json!("9-1"),
        json!("00000000-0000-0000-0000-000000000000"),
        json!("ffffffff-ffff-ffff-ffff-ffffffffffff"),
        json!([]),
        json!([1, 18_446_744_073_709_551_615_u64]),
        json!([0, 0]),
        json!([9, 1]),
        json!({}),
        json!([
            ["pending", "local", "pin", 18_446_744_073_709_551_615_u64],
            ["failed", "local", "pin", 2]
        ]),
        json!([["pending", "local", "pin", 1], ["pending", "local", "pin", 5]]),
        json!({"adopted": false, "files": [{"name": "partitions/x", "bytes": 5, "sha256": ""}]}),
        json!({"adopted": true, "files": [{"name": "../outside/file", "bytes": 5, "sha256": ""}]}),
        json!([{"name": "../outside/file", "offset": 18_446_744_073_709_551_615_u64, "what": "x"}]),
        json!("completed"),
    ];
    all[usize::from(choice - 128) % all.len()].clone()
}

/// Returns the sample's manifest, unchanged and with one or two values replaced.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds =
        vec![image::sample().files[NAME].clone(), b"{}".to_vec(), br#"{"format":2}"#.to_vec()];
    seeds.extend((0..40_u8).map(|n| vec![0, n, n.wrapping_mul(37)]));
    seeds.extend((0..40).map(|n| vec![0, n, 128 + n % 32, n + 5, n]));
    seeds
}

/// Replaces every value by every unusual one, or by some of them unless `WAL_CLI_LONG` is set.
#[cfg(test)]
#[test]
fn no_single_value_of_a_manifest_is_believed_blindly() {
    let all =
        (0..160_u8).flat_map(|place| (0..16).chain(128..160).map(move |value| (place, value)));
    let stride = if std::env::var_os("WAL_CLI_LONG").is_some() { 1 } else { 11 };
    for (place, value) in all.step_by(stride) {
        let found = std::panic::catch_unwind(|| run(&[0, place, value]));
        assert!(found.is_ok(), "value {place} as {}", odd_value(value));
    }
}

#[cfg(test)]
#[test]
fn the_manifest_of_the_sample_is_taken_as_it_is() {
    assert_eq!(
        &hashed(changed(&[]).to_string().as_bytes()).len(),
        &image::sample().files[NAME].len()
    );
    super::journal::check(image::sample());
}
