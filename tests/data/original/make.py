"""Makes directories as the original system leaves them behind, with its own code: `make.py TARGET`.

It needs ipfs_kit_py and pyarrow (tests/requirements.txt). Of ipfs_kit_py only the module of the log is loaded,
since the package itself fetches programs from the network. Time, ids and the process's time zone are fixed,
so that every run gives the same bytes.
"""
import importlib.util
import logging
import os
import sys
import time as real_time
import uuid as real_uuid

os.environ["TZ"] = "UTC"
real_time.tzset()


def load():
    """The original's module of the log, with clock and ids of ours."""
    package = importlib.util.find_spec("ipfs_kit_py").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("original_wal", os.path.join(package, "storage_wal.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logging.disable(logging.CRITICAL)
    return module


class Clock:
    """Stands in for the modules `time` and `datetime` of the original."""

    def __init__(self, at):
        self.at = at
        self.datetime = self

    def time(self):
        self.at += 0.25
        return self.at

    def sleep(self, seconds):
        self.at += 0.25

    def now(self):
        return self

    def strftime(self, form):
        return real_time.strftime(form, real_time.gmtime(self.at))


class Ids:
    """Stands in for the module `uuid` of the original: versions 4 that are always the same."""

    def __init__(self):
        self.given = 0

    def uuid4(self):
        self.given += 1
        return real_uuid.UUID(int=self.given * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128, version=4)


def original(module, clock, base, **options):
    """A log of the original whose operations are carried out only when we say so."""
    wal = type("Wal", (module.StorageWriteAheadLog,), {"_start_processing": lambda self: None})
    module.time, module.datetime, module.uuid = clock, clock, module.uuid
    return wal(base_path=base, **options)


def add(wal, kind, backend, parameters=None, **options):
    return wal.add_operation(kind, backend, parameters, **options)["operation_id"]


def fail(wal, id, message):
    wal.update_operation_status(id, "failed", {"error": message, "error_type": "ValueError"})


def mixed(module, base):
    """Partitions with rows in every status, archives of two days, an id in two files."""
    clock = Clock(1735680000)  # 2024-12-31 21:20 UTC
    wal = original(module, clock, base, partition_size=5)
    first = add(wal, "add", "ipfs", {"path": "/data/cat.jpg", "pin": True})
    done = add(wal, "upload", "s3", {"path": "/data/notes.txt", "bucket": "b", "tags": {"a": 1}})
    retrying = add(wal, "pin", "storacha", {"cid": "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"})
    failed = add(wal, "add", "local", {"path": "/data/gone"}, max_retries=0)
    add(wal, "rm", "local")
    clock.at += 2
    stuck = add(wal, "pin", "ipfs", {"cid": "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"})
    add(wal, "add", "filesystem", {"path": "/data/ünïcode\n.txt", "depth": None})
    add(wal, "upload", "huggingface", {"source": "/data/model", "repo": "me/model"})
    late = add(wal, "add", "s3", {"path": "/data/late.txt"})
    twice = add(wal, "add", "s3", {"path": "/data/twice.txt"})
    wal._process_operation(retrying)
    fail(wal, failed, "no such file: /data/gone")
    whole = {"cid": "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o", "size": 12, "destination": "s3://b/notes"}
    wal.update_operation_status(done, "completed", {"completed_at": int(clock.time() * 1000), "result": whole})
    wal._process_operation(first)
    # A process that dies here leaves it behind like this.
    wal.update_operation_status(stuck, "processing")
    clock.at += 86400
    for id in (late, twice):
        partition = wal.current_partition_path
        before = open(partition, "rb").read()
        wal.update_operation_status(id, "completed", {"completed_at": int(clock.time() * 1000)})
        if id == twice:
            # Another process of the original had read the partition before, and writes it back with its own change.
            open(partition, "wb").write(before)
    # One that archives nothing leaves what is completed where it is.
    clock.at += 2
    keeps = original(module, clock, base, partition_size=5, archive_completed=False)
    kept = add(keeps, "mkdir", "local", {"path": "/dir"})
    keeps.update_operation_status(kept, "completed", {"completed_at": int(clock.time() * 1000)})
    add(keeps, "get", "ipfs", {})


def appended(module, base):
    """A partition to which JSON lines were appended, since a value did not fit the columns."""
    clock = Clock(1735700000)
    wal = original(module, clock, base)
    add(wal, "add", "ipfs", {"path": "/data/one"})
    add(wal, "Pin!", "My Cloud", {"path": "/data/two"})
    add(wal, "add", "ipfs", {"path": "/data/three"}, max_retries=2**40)
    # From here on the file is no Parquet for the original either: everything goes the same way.
    add(wal, "add", "s3", {"path": "/data/four", "options": {"acl": ["x", 1]}})
    # Opened anew, it cannot count the rows of its last partition, and begins another one.
    clock.at += 2
    again = original(module, clock, base)
    add(again, "add", "ipfs", {"path": "/data/five"})


def lines(module, base):
    """What it writes where pyarrow is missing: JSON lines under the same names."""
    clock = Clock(1735720000)
    module.ARROW_AVAILABLE = False
    try:
        wal = original(module, clock, base)
        done = add(wal, "add", "ipfs", {"path": "/data/a"})
        retrying = add(wal, "pin", "storacha", {"cid": "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"})
        stuck = add(wal, "upload", "s3", {"path": "/data/b", "parts": [1, 2]})
        odd = add(wal, "add", "ipfs", {"path": "/data/c"})
        wal._process_operation(done)
        wal._process_operation(retrying)
        wal.update_operation_status(stuck, "processing")
        # A status of a caller's own: nothing in the original checks it.
        wal.update_operation_status(odd, "queued")
        add(wal, "list", "local")
    finally:
        module.ARROW_AVAILABLE = True


def main(target):
    module = load()
    module.uuid = Ids()
    for scenario in (mixed, appended, lines):
        scenario(module, os.path.join(target, scenario.__name__))


if __name__ == "__main__":
    main(sys.argv[1])
