//! Other programs read our files: names, types and order of the columns, and their values.

use super::binary::Place;
use super::tools;

#[test]
fn pyarrow_duckdb_and_polars_read_every_parquet_file() {
    let place = Place::new();
    place.file("a.txt", "hello world\n");
    place.run("add --backend local a.txt a.txt a.txt");
    place.run("process --quiet");
    place.run("add --backend local a.txt");
    place.run("add --backend mock a.txt");
    place.run("checkpoint");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/readers.py");
    let printed = tools::stdout_of(tools::python().arg(script).arg(place.log()));
    let seen: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(seen["files"], 2);
    let path = place.path("a.txt").to_str().unwrap().to_owned();
    let row = |number: u64| {
        let done = number <= 3;
        let (status, steps) = if done {
            ("completed", "pending-processing-completed")
        } else {
            ("pending", "pending")
        };
        serde_json::json!([number, status, steps, path])
    };
    let expected: Vec<_> = (1..=5).map(row).collect();
    assert_eq!(seen["rows"], serde_json::Value::from(expected));
}
