"""The cases that are on their way to an executor, and what becomes of them: an outcome, or another flight."""

import hashlib
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from devices.errors import PyemuError, UsageError
from emu.fleet.files import pack
from emu.fleet.job import Job
from emu.fleet.keeper import run_case
from emu.fleet.outcome import Failure, Outcome, Report

__all__ = ["Flights"]

_NUMBERS = 1 << 64
#: Flights that bring files to where they are lacking.
_MOST_LOADED = 4


@dataclass(slots=True, eq=False)
class _Flight:
    """A case on its way."""

    case: dict[str, Any]
    seed: int
    pickled: bytes = b""
    future: "Future[Report] | None" = None
    #: What came of it the first time, when this is the second.
    first: Report | None = None
    #: It has the job's files with it, for a worker that lacks them.
    loaded: bool = False


class Flights:
    """The flights of one sweep. ``check_repeat`` is the share of the cases that fly twice, to be compared."""

    def __init__(self, job: Job, seed: int, check_repeat: float) -> None:
        self.job, self._seed, self._check_repeat = job, seed, check_repeat
        #: What an executor is given to do, with a case, its seed, whether it needs a new process, and files.
        self.run: Callable[[bytes, int, bool, Mapping[str, bytes]], Report] = partial(run_case, pickle.dumps(job))
        self._packed: dict[str, bytes] = {}
        self._loaded = 0
        self._waiting: list[_Flight] = []  # for a file, wherever that arrives
        self._flying: set[_Flight] = set()
        self._landed: SimpleQueue[_Flight] = SimpleQueue()

    @property
    def count(self) -> int:
        """How many cases are on their way."""
        return len(self._flying)

    def start(self, executor: Executor, case: Mapping[str, Any]) -> None:
        """Send a case on its way; raises UsageError if it is none, PyemuError if the executor has been shut down."""
        if not isinstance(case, Mapping):
            raise UsageError(f"{case!r} is no case; give a dict of the test's arguments")
        flight = _Flight(dict(case), case.get("seed", self._seed))
        self._flying.add(flight)
        try:
            flight.pickled = pickle.dumps(flight.case)
        except Exception as error:  # noqa: BLE001 - whatever the case is made of
            flight.future = Future()
            flight.future.set_result(Report(failure=Failure.of(error)))
            self._landed.put(flight)
        else:
            self._submit(executor, flight)

    def _submit(self, executor: Executor, flight: _Flight) -> None:
        fresh, packed = flight.first is not None, self._packed if flight.loaded else {}
        try:
            flight.future = executor.submit(self.run, flight.pickled, flight.seed, fresh, packed)
        except Exception as error:  # shut down, or broken, in whatever way its kind is
            raise PyemuError(f"the executor takes no more cases: {error}") from error
        flight.future.add_done_callback(lambda _future: self._landed.put(flight))

    def land(self, executor: Executor) -> Outcome | None:
        """Wait for the next; return None if it has to start again. Raises PyemuError if the executor has given up."""
        flight = self._landed.get()
        assert flight.future is not None
        if flight.future.cancelled():  # not by us; as Dask does when it has lost its scheduler
            raise PyemuError("the executor has gone, or cancelled a case; those without an outcome can be run again")
        error = flight.future.exception()
        report = flight.future.result() if error is None else Report(failure=Failure.of(error))  # the executor's own
        self._supply(executor, flight, report)
        if report.lacks:
            return None
        if flight.first is None and self._is_sample(flight, report):
            flight.first = report
            self._submit(executor, flight)
            return None
        self._flying.discard(flight)
        if flight.first is not None:
            report = _compared(flight.first, report)
        return self._outcome(flight, report)

    def _supply(self, executor: Executor, flight: _Flight, report: Report) -> None:
        """Have some flights of those whose workers lack a file bring it there, while the others wait.

        An executor gives work to those who are idle: here, to the workers that lack it.
        """
        if flight.loaded:
            flight.loaded = False
            self._loaded -= 1
            again, self._waiting = self._waiting, []
            for one in again:
                self._submit(executor, one)
        if report.lacks and self._loaded < _MOST_LOADED:
            self._packed = self._packed or {name: pack(file) for name, file in self.job.files.items()}
            flight.loaded = True
            self._loaded += 1
            self._submit(executor, flight)
        elif report.lacks:
            self._waiting.append(flight)

    def _is_sample(self, flight: _Flight, report: Report) -> bool:
        """Whether a case is run again: always the same ones, of those whose process has lived."""
        if not self._check_repeat or not report.printed:
            return False
        number = int.from_bytes(hashlib.sha256(flight.pickled + str(flight.seed).encode()).digest()[:8])
        return number < self._check_repeat * _NUMBERS

    def _outcome(self, flight: _Flight, report: Report) -> Outcome:
        value, failure = None, report.failure
        try:
            value = None if report.value is None else pickle.loads(report.value)  # noqa: S301 - the user's own
        except Exception as error:  # noqa: BLE001 - of a type that isn't here
            failure = failure or Failure.of(error)
        return Outcome(
            flight.case, flight.seed, value, failure, report.console, report.output, report.guest_ns, report.host_ns,
            report.printed, report.played, report.sound, self.job.repeat(flight.case, flight.seed),
        )  # fmt: skip

    def cancel(self) -> None:
        """Have the executor forget what it has not begun."""
        for flight in self._flying:
            if flight.future is not None:
                flight.future.cancel()


def _compared(first: Report, second: Report) -> Report:
    """Return the first run's report; a failure, if the second was another."""
    different = first.differs(second)
    if not different:
        return first
    message = f"run again, it was not the same: {different}"
    was = "\n".join(f"{name}: {one.failure or 'passed'}" for name, one in (("first", first), ("then", second)))
    return first._replace(failure=Failure("NotRepeated", message, was))
