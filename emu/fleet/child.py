"""The process in which a test runs. It may hang or crash, and takes nobody with it; nor does it outlive its parent."""

import contextlib
import ctypes
import faulthandler
import os
import pickle
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from emu.fleet.job import Job
from emu.fleet.outcome import Failure, Report

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1  # prctl(2)
#: What the guest printed is kept for whoever finds this process dead: the newest of these bytes, or twice as many.
_CONSOLE = 32 << 10
#: Without work for so long, it ends: the sweep may have gone without a word.
_IDLE_S = 600.0


def main(channel: int, console: int, folder: str) -> None:
    """Run what comes from the descriptor ``channel``; the one of ``console`` shows what the guest printed.

    Files are made in ``folder``; it is the parent's to remove.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # if that is too late, the channel has been closed
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, ConnectionError), Connection(channel) as connection:
        _serve(connection, Path(folder), _keep(console))


def _serve(connection: "Connection[Any, Any]", folder: Path, show: Callable[[bytes], None]) -> None:
    job: Job = pickle.loads(connection.recv_bytes())  # noqa: S301 - from the process that has started this one
    try:
        from emu.fleet.bench import Bench  # noqa: PLC0415 - if that fails, it is told like anything else

        bench = Bench(job.target.load(), job.options, folder, show)
    except BaseException as error:  # noqa: BLE001 - the test's module may do anything
        connection.send_bytes(pickle.dumps(Report(failure=Failure.of(error), worn=True)))
        return
    connection.send_bytes(pickle.dumps(Report()))
    with bench:
        while connection.poll(_IDLE_S):
            data, seed = pickle.loads(connection.recv_bytes())  # noqa: S301
            try:
                case = pickle.loads(data)  # noqa: S301
            except Exception as error:  # noqa: BLE001 - a case of a type that isn't here
                report = Report(failure=Failure.of(error))
            else:
                report = bench.run(case, seed)
            connection.send_bytes(pickle.dumps(report))


def _keep(fd: int) -> Callable[[bytes], None]:
    """Return what appends to a file, of which the beginning is dropped from time to time."""

    def show(data: bytes) -> None:
        os.write(fd, data)
        size = os.fstat(fd).st_size
        if size > 2 * _CONSOLE:
            newest = os.pread(fd, _CONSOLE, size - _CONSOLE)
            os.ftruncate(fd, 0)
            os.write(fd, newest)

    return show
