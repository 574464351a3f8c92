"""Prints a directory of the original system as JSON, read by its own code or by pyarrow.

`adoption.py own DIR`: as the original system shows it. `adoption.py all DIR`: every readable row.
`adoption.py make DIR`: makes the directories of tests/data/original there.
"""
import datetime
import glob
import json
import logging
import os
import runpy
import sys

import pyarrow as pa
import pyarrow.parquet as pq

make = runpy.run_path(os.path.join(os.path.dirname(__file__), "../data/original/make.py"))


def millis(value):
    if isinstance(value, datetime.datetime):
        return round(value.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
    return value


def text(value):
    at = millis(value)
    if at is None:
        return None
    whole = datetime.datetime.fromtimestamp(at // 1000, datetime.timezone.utc)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{at % 1000:03}Z"


def shown(row):
    times = ["timestamp", "updated_at", "completed_at"]
    return [row["operation_id"], row["status"]] + [text(row.get(name)) for name in times]


def own(directory):
    module = make["load"]()
    wal = make["original"](module, make["Clock"](1_800_000_000), directory)
    statistics = wal.get_statistics()
    statistics.pop("processing_active")
    return {"rows": sorted(shown(row) for row in wal.get_all_operations()), "statistics": statistics}


def rows_of(path):
    content = open(path, "rb").read()
    end = content.rfind(b"PAR1") + 4 if content.startswith(b"PAR1") else 0
    # Read by a file object of Python, pyarrow's threads may abort the interpreter while it exits (apache/arrow#50482).
    source = pa.BufferReader(content[:end])
    yield from pq.read_table(source, use_threads=False).to_pylist() if end else []
    yield from (json.loads(line) for line in content[end:].splitlines() if line.strip())


def everything(directory):
    newest = {}
    for path in sorted(glob.glob(f"{directory}/partitions/*.parquet")) + sorted(glob.glob(f"{directory}/archives/*")):
        for row in rows_of(path):
            known = newest.get(row["operation_id"])
            if known is None or millis(known["updated_at"]) <= millis(row["updated_at"]):
                newest[row["operation_id"]] = row
    return {"rows": sorted(map(shown, newest.values()))}


logging.disable(logging.CRITICAL)
what, directory = sys.argv[1:]
if what == "make":
    make["main"](directory)
else:
    print(json.dumps({"own": own, "all": everything}[what](directory)))
