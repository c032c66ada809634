"""Keeps the processes in which tests run: one for each thread that has cases, started anew when it had to be ended.

A test that hangs, crashes or grows is thus a matter between its process and the keeper. Neither the executor nor its
worker hears of it, whatever kind they are.
"""

import contextlib
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any, cast

from devices.errors import PyemuError
from emu.fleet.files import find, keep
from emu.fleet.job import Job, Limits
from emu.fleet.outcome import Failure, Report, tail

__all__ = ["Keeper", "run_cases"]

#: How often a running process is looked at.
_LOOK_S = 0.25
#: A process that hangs gets so long to write down where.
_LAST_WORDS_S = 5.0
_START = "import sys; sys.path[:] = {path!r}; from emu.fleet.child import main; main({channel}, {console}, {folder!r})"


class Keeper:
    """Runs cases in processes of its own, one for each of its callers' threads."""

    def __init__(self) -> None:
        self._of_thread = threading.local()
        self._children: tuple[weakref.ref[_Child], ...] = ()  # replaced, never changed: close() goes through it
        self._adding = threading.Lock()
        self._closed = False

    def run(self, job: Job, case: bytes, seed: int, fresh: bool) -> Report:
        """Run a case, pickled; in a new process, if it is to be ``fresh``. Never raises."""
        try:
            child: _Child | None = getattr(self._of_thread, "child", None)
            if child is None or child.job != job.key or fresh:
                self._drop()
                child = self._of_thread.child = _Child(job)
                self._add(child)
                report = child.ask(pickle.dumps(job), job.limits)
                if report.failure is not None:
                    self._drop()
                    return report
            report = child.ask(pickle.dumps((case, seed)), job.limits)
        except Exception as error:  # noqa: BLE001 - no more processes, or files: an outcome like another
            report = Report(failure=Failure.of(error), worn=True)
        if report.worn:
            self._drop()
        return report

    def close(self) -> None:
        """End all processes at once. Whoever waits for one gets a report of its death."""
        self._closed = True
        for known in self._children:
            child = known()
            if child is not None:
                child.kill()

    def _add(self, child: "_Child") -> None:
        with self._adding:
            self._children = (*(known for known in self._children if known() is not None), weakref.ref(child))
        if self._closed:  # which has not seen this one
            child.kill()

    def _drop(self) -> None:
        child: _Child | None = getattr(self._of_thread, "child", None)
        self._of_thread.child = None
        if child is not None:
            child.end()


class _Child:
    """A process that runs one case after another. It ends when nobody knows of it any more, or with this process."""

    def __init__(self, job: Job) -> None:
        self.job = job.key
        ours, theirs = socket.socketpair()
        self._channel = Connection(ours.detach())
        # What is written there is there, however the process ends.
        self._console, self._output = _scratch(), _scratch()
        folder = tempfile.mkdtemp(prefix="pyemu-")
        with theirs:
            command = _START.format(path=sys.path, channel=theirs.fileno(), console=self._console, folder=folder)
            self._process = subprocess.Popen(  # noqa: S603 - this Python
                [sys.executable, "-u", "-c", command],
                pass_fds=(theirs.fileno(), self._console),
                env={"PYTHONHASHSEED": "0", **os.environ},  # the order of a set is no chance either
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                process_group=0,  # a C-c in the terminal is for us
            )
        self.end = weakref.finalize(
            self, _end, os.getpid(), self._process, self._channel, folder, self._console, self._output
        )

    def kill(self) -> None:
        """End the process. For any thread: another may be waiting for its answer."""
        _kill(self._process)

    def ask(self, request: bytes, limits: Limits) -> Report:
        """Have it do what ``request`` says; the report says so if it did not live to answer."""
        os.ftruncate(self._console, 0)
        os.ftruncate(self._output, 0)
        began = time.monotonic()
        failure = self._send_and_wait(request, limits)
        if failure is None:
            with contextlib.suppress(EOFError, OSError):
                report: Report = pickle.loads(self._channel.recv_bytes())  # noqa: S301 - our own code's answer
                return report._replace(output=self._printed(self._output))
            failure = Failure("Crash", "")
        if failure.type != "Crash":
            self._process.send_signal(signal.SIGABRT)  # faulthandler writes down where it is
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)
        output = self._printed(self._output)
        if failure.type == "Crash":
            self._process.kill()
            failure = Failure.crash(self._process.wait())
        return Report(
            failure=failure._replace(traceback=output), console=self._printed(self._console),
            host_ns=round((time.monotonic() - began) * 1e9), worn=True,
        )  # fmt: skip

    def _send_and_wait(self, request: bytes, limits: Limits) -> Failure | None:
        """Return when there is an answer; or why there won't be one."""
        deadline = time.monotonic() + limits.seconds
        try:
            self._channel.send_bytes(request)
            while not self._channel.poll(min(_LOOK_S, max(0.0, deadline - time.monotonic()))):
                if self._process.poll() is not None:  # and has left the channel to a process of its own
                    return Failure("Crash", "")
                if time.monotonic() >= deadline:
                    return Failure("Timeout", f"it took longer than {limits.seconds:g} s")
                if self._memory() > limits.memory:
                    return Failure("OutOfMemory", f"it took more than {limits.memory >> 20} MB of memory")
        except OSError:
            return Failure("Crash", "")
        return None

    def _memory(self) -> int:
        """Return the bytes that it has in memory, with what it has printed."""
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{self._process.pid}/statm") as file:  # noqa: PTH123
            pages = int(file.read().split()[1])
            return pages * os.sysconf("SC_PAGESIZE") + os.fstat(self._output).st_size
        return 0

    @staticmethod
    def _printed(fd: int) -> str:
        size = os.fstat(fd).st_size
        most = 64 << 10
        return tail(os.pread(fd, most, max(0, size - most)))


def _scratch() -> int:
    """Make a file that is in memory only, and in which nobody overwrites what another has written."""
    made = os.memfd_create("pyemu")
    try:
        return os.open(f"/proc/self/fd/{made}", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    finally:
        os.close(made)


def _end(
    owner: int, process: "subprocess.Popen[bytes]", channel: "Connection[Any, Any]", folder: str, *files: int
) -> None:
    """End a process and those that it has started, if they are ours: a fork of ``owner`` forgets its threads, too."""
    if os.getpid() == owner:
        _kill(process)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    channel.close()
    for file in files:
        os.close(file)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


#: Of the process that an executor of any kind calls ``run_cases`` in.
_KEEPER = Keeper()


def run_cases(
    job: bytes, cases: Sequence[tuple[bytes, int]], fresh: bool, packed: Mapping[str, bytes]
) -> Sequence[Report]:
    """Run cases on this computer: what an executor of any kind is given to do.

    The ``job`` and the ``cases`` are pickled, and ``packed`` may have the contents of its files, by their names. If one
    is lacking, there is one report, which says so.
    """
    sent = _job(job)
    try:
        for name in packed:
            if find(sent.files[name]) is None:
                keep(sent.files[name], packed[name])
        found = {name: find(file) for name, file in sent.files.items()}
    except (OSError, PyemuError) as error:
        return [Report(failure=Failure.of(error))] * len(cases)
    if None in found.values() and not packed:
        return [Report(lacks=True)]
    if None in found.values():
        return [Report(failure=Failure("OSError", "a file that came with the case is gone at once"))] * len(cases)
    complete = sent._replace(options=sent.options | found)
    return [_KEEPER.run(complete, case, seed, fresh) for case, seed in cases]


@lru_cache(maxsize=4)
def _job(pickled: bytes) -> Job:
    return cast("Job", pickle.loads(pickled))  # noqa: S301 - from the user's own sweep
