"""Drains small files to `local` and `ipfs`, beside Kubo's own client. Usage: bench_drain.py WAL_CLI IPFS BLOCKS FILES"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAM, IPFS = (os.path.abspath(path) for path in sys.argv[1:3])
BLOCKS, FILES = int(sys.argv[3]), int(sys.argv[4])
JOBS = [1, 4, 16]
SIZE = 1000


def run(command, env, **options):
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, **options)


class Bench:
    def __init__(self, home):
        self.home = home
        self.count = 0
        self.env = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "IPFS_PATH": str(home / "ipfs")}
        self.env = {name: value for name, value in self.env.items() if not name.startswith("IPFS_KIT_WAL_")}
        run([IPFS, "init"], self.env, stderr=subprocess.DEVNULL)
        run([IPFS, "config", "Addresses.API", "/ip4/127.0.0.1/tcp/0"], self.env)
        run([IPFS, "config", "Addresses.Gateway", "/ip4/127.0.0.1/tcp/0"], self.env)
        self.daemon = subprocess.Popen([IPFS, "daemon", "--offline"], env=self.env, stdout=subprocess.PIPE, text=True)
        for line in self.daemon.stdout:
            if "Daemon is ready" in line:
                break
        address = (home / "ipfs/api").read_text().strip()
        port = address.rsplit("/", 1)[1]
        (home / "config/ipfs-kit").mkdir(parents=True)
        settings = f'[backends.ipfs]\nendpoint = "http://127.0.0.1:{port}/api/v0"\n'
        (home / "config/ipfs-kit/wal.toml").write_text(settings)

    def files(self):
        """Creates as many new files, with content that was never stored."""
        self.count += 1
        directory = self.home / f"files-{self.count}"
        directory.mkdir()
        paths = [directory / f"{nth}" for nth in range(FILES)]
        for path in paths:
            path.write_bytes(os.urandom(SIZE))
        os.sync()
        return paths

    def drain(self, backend, jobs):
        paths = self.files()
        base = ["--base-path", str(self.home / f"log-{self.count}")]
        listed = "".join(f"{path}\n" for path in paths).encode()
        add = [PROGRAM, *base, "add", "--backend", backend, "--spool", "never", "--from-file", "-"]
        run(add, self.env, input=listed)
        begin = time.monotonic()
        run([PROGRAM, *base, "process", "--jobs", str(jobs)], self.env)
        return FILES / (time.monotonic() - begin)

    def kubo(self):
        paths = self.files()
        begin = time.monotonic()
        # All of them in one call: Kubo pins each.
        run([IPFS, "add", "--quiet", "--progress=false", *map(str, paths)], self.env)
        return FILES / (time.monotonic() - begin)

    def end(self):
        self.daemon.terminate()
        self.daemon.wait()


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as home:
        bench = Bench(pathlib.Path(home))
        try:
            measure(bench)
        finally:
            bench.end()


def measure(bench):
    kinds = [(backend, jobs) for backend in ["local", "ipfs"] for jobs in JOBS]
    rates = {kind: [] for kind in kinds}
    beside = {kind: [] for kind in kinds}
    for _ in range(BLOCKS):
        for kind in kinds:
            own = bench.drain(*kind)
            kubo = bench.kubo()
            rates[kind].append(own)
            beside[kind].append((kubo, own / kubo))
    print("backend  jobs  ours/s  `ipfs add`/s  ours as a multiple of it")
    for kind in kinds:
        ratios = sorted(ratio for _, ratio in beside[kind])
        kubo = statistics.median(rate for rate, _ in beside[kind])
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{kind[0]:<7}  {kind[1]:>4}  {statistics.median(rates[kind]):>6.0f}  {kubo:>12.0f}  {spread}")


main()
