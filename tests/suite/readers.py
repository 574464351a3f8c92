"""Reads partitions and archives of a log with pyarrow, DuckDB and polars; prints them as JSON."""
import glob
import json
import sys

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq

ms = pa.timestamp("ms")
fields = lambda **kinds: pa.struct(list(kinds.items()))
EXPECTED = [
    ("operation_id", pa.string()), ("operation_type", pa.string()), ("status", pa.string()),
    ("timestamp", ms), ("updated_at", ms), ("completed_at", ms), ("backend", pa.string()),
    ("parameters", pa.map_(pa.string(), pa.string())),
    ("result", fields(cid=pa.string(), size=pa.int64(), destination=pa.string())),
    ("error", pa.string()), ("error_type", pa.string()),
    ("retry_count", pa.int32()), ("max_retries", pa.int32()), ("next_retry_at", ms),
    ("number", pa.int64()), ("revision", pa.int64()), ("priority", pa.int32()),
    ("depends_on", pa.list_(pa.string())), ("idempotency_key", pa.string()), ("hold", pa.bool_()),
    ("not_before", ms), ("failure_class", pa.string()), ("interruptions", pa.int32()),
    ("source", fields(size=pa.int64(), mtime_ns=pa.int64(), inode=pa.int64(), sha256=pa.string(), spool=pa.string(),
                      ctime_ns=pa.int64())),
    ("claim", fields(pid=pa.int64(), host=pa.string(), started=ms)),
    ("redirected_from", pa.string()), ("redirected_to", pa.string()),
    ("receipt", pa.map_(pa.string(), pa.string())),
    ("history", pa.list_(pa.struct([
        ("revision", pa.int64()), ("at", ms), ("from", pa.string()), ("to", pa.string()),
        ("actor", pa.string()), ("reason", pa.string()), ("error", pa.string())]))),
    ("cancel_requested", pa.bool_()),
]

files = sorted(glob.glob(sys.argv[1] + "/*/*.parquet"))
assert files, "no files"
for file in files:
    schema = pq.read_schema(file)
    assert pq.read_metadata(file).metadata[b"wal-cli.format"] == b"1"
    assert schema.names == [name for name, _ in EXPECTED], schema.names
    for name, kind in EXPECTED:
        found = schema.field(name).type
        # Inner field names of lists and maps differ between writers and mean nothing.
        assert str(found).replace("item:", "element:") == str(kind).replace("item:", "element:") or found.equals(kind), \
            f"{name}: {found} instead of {kind}"
    assert schema.field("timestamp").type.tz is None

rows = [row for file in files for row in pq.read_table(file).to_pylist()]
statuses = lambda history: "-".join(entry["to"] for entry in history)
seen = {
    "pyarrow": sorted([row["number"], row["status"], statuses(row["history"]), dict(row["parameters"])["path"]] for row in rows),
}
table = duckdb.sql(f"select number, status, list_transform(history, lambda x: x['to']) as steps, parameters['path'] as path "
                   f"from read_parquet({files!r}) order by number").fetchall()
text = lambda value: value[0] if isinstance(value, list) else value
seen["duckdb"] = [[number, status, "-".join(steps), text(path)] for number, status, steps, path in table]
frame = polars.concat([polars.read_parquet(file) for file in files]).sort("number")
seen["polars"] = [
    [row["number"], row["status"], statuses(row["history"]),
     # Newer versions give maps as such, older ones as lists of pairs.
     dict(row["parameters"] if isinstance(row["parameters"], dict) else
          ((pair["key"], pair["value"]) for pair in row["parameters"]))["path"]]
    for row in frame.iter_rows(named=True)
]
assert seen["pyarrow"] == seen["duckdb"], (seen["pyarrow"][:3], seen["duckdb"][:3])
assert seen["pyarrow"] == seen["polars"], (seen["pyarrow"][:3], seen["polars"][:3])
print(json.dumps({"files": len(files), "rows": seen["pyarrow"]}))
