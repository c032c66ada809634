"""A cluster of Dask's on this computer: a scheduler and two workers, each a process of its own, by TCP."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cluster", "cluster"]


class Cluster(NamedTuple):
    """Its scheduler's address, and its processes."""

    address: str
    scheduler: "subprocess.Popen[bytes]"
    workers: list["subprocess.Popen[bytes]"]


@contextlib.contextmanager
def cluster(workers: int = 2, **environment: str) -> Iterator[Cluster]:
    """Start it; at the end, its processes end at once. The ``environment`` is the workers'."""
    with contextlib.ExitStack() as ended, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:

        def start(what: str, *options: str) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options, "--no-dashboard"]
            # Who is killed leaves files, and here that is everyone.
            whole = {**os.environ, "TMPDIR": name, **environment}
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=whole)
            ended.callback(process.wait)
            ended.callback(process.kill)
            return process

        file = Path(name) / "scheduler.json"
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        while not file.exists() or not file.read_text():
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        options = ("--no-nanny", "--nthreads", "1", "--local-directory", name)
        started = [start("worker", address, *options) for _ in range(workers)]
        yield Cluster(address, scheduler, started)
