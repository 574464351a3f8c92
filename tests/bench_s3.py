"""Uploads 1 GiB in parts with wal-cli and rclone in alternation; prints rates and peak memory."""

import hashlib
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import boto3
import botocore.config

BUCKET = "bench"
KEY, SECRET = "benchaccesskey01", "benchsecretkey000000000000000001"
PART, JOBS = 16 << 20, 4


def free_ports(count):
    held, ports = [], []
    while len(ports) < count:
        port = random.randrange(15_000, 45_000)
        pair = [socket.socket(), socket.socket()]
        try:
            pair[0].bind(("127.0.0.1", port))
            pair[1].bind(("127.0.0.1", port + 10_000))
        except OSError:
            continue
        held.append(pair)
        ports.append(port)
    for pair in held:
        for one in pair:
            one.close()
    return ports


def timed(command, environment):
    """Returns the seconds that a command took, and its peak memory in KiB."""
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command}: {said.decode()}")
    return took, usage.ru_maxrss


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    program, weed, rclone, pairs, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]) << 20
    # In memory: what is compared are programs, not what this disk does at the moment.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    home = pathlib.Path(tempfile.mkdtemp(dir=memory))
    names = ["master", "volume", "filer", "s3", "admin"]
    ports = free_ports(len(names))
    endpoint = f"http://127.0.0.1:{ports[3]}"
    arguments = [weed, "mini", f"-dir={home}/store", f"-bucket={BUCKET}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false",
                 "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    for name, port in zip(names, ports):
        arguments += [f"-{name}.port={port}", f"-{name}.port.grpc={port + 10_000}"]
    os.mkdir(home / "store")
    keys = dict(os.environ, AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, TMPDIR=str(home))
    server = subprocess.Popen(arguments, env=keys, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        config = botocore.config.Config(s3={"addressing_style": "path"})
        s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config, aws_access_key_id=KEY,
                          aws_secret_access_key=SECRET)
        for _ in range(300):
            try:
                s3.head_bucket(Bucket=BUCKET)
                break
            except Exception:
                time.sleep(0.1)
        big, wanted = home / "big", hashlib.sha256()
        with open(big, "wb") as file:
            for _ in range(size >> 20):
                piece = os.urandom(1 << 20)
                wanted.update(piece)
                file.write(piece)
        settings = home / "wal.toml"
        settings.write_text(
            f'default_backend = "s3"\n[backends.s3]\nendpoint = "{endpoint}"\nregion = "us-east-1"\nbucket = "{BUCKET}"\n'
            f"part_size = {PART}\npart_jobs = {JOBS}\n")
        ours = dict(keys, IPFS_KIT_WAL_PATH=str(home / "log"), XDG_CONFIG_HOME=str(home))
        remote = f":s3,provider=Other,env_auth=true,endpoint='{endpoint}',region=us-east-1"
        sides = {
            "wal-cli": lambda key: ([program, "--config", str(settings), "--quiet", "submit", "upload", str(big),
                                     f"s3://{BUCKET}/{key}", "--spool", "never", "--wait"], ours),
            "rclone": lambda key: ([rclone, "--config", "/dev/null", "copyto", str(big), f"{remote}:{BUCKET}/{key}",
                                    f"--s3-chunk-size={PART}B", f"--s3-upload-cutoff={PART}B", f"--s3-upload-concurrency={JOBS}",
                                    "--s3-no-check-bucket"], keys),
        }
        took, memory_used = {name: [] for name in sides}, {name: [] for name in sides}
        for pair in range(pairs + 1):
            for name, side in sides.items():
                key = f"{name}-{pair}"
                seconds, peak = timed(*side(key))
                if name == "wal-cli" and pair == 0:
                    found, body = hashlib.sha256(), s3.get_object(Bucket=BUCKET, Key=key)["Body"]
                    for piece in body.iter_chunks(1 << 20):
                        found.update(piece)
                    if found.digest() != wanted.digest():
                        sys.exit("another client reads something else")
                s3.delete_object(Bucket=BUCKET, Key=key)
                # The first of each warms the service up.
                if pair > 0:
                    took[name].append(seconds)
                    memory_used[name].append(peak)
        ratios = [theirs / mine for mine, theirs in zip(took["wal-cli"], took["rclone"])]
        print(f"{size >> 20} MiB in parts of {PART >> 20} MiB, {JOBS} at once; another client reads the same SHA-256")
        for name in sides:
            rate = (size >> 20) / statistics.median(took[name])
            print(f"{name:8} {rate:6.0f} MiB/s, peak memory {max(memory_used[name]) / 1024:.1f} MiB")
        print(f"ours as a multiple of rclone's rate, {pairs} pairs in alternation: {spread(ratios)}")
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(home, ignore_errors=True)


main()
