"""The cases that are on their way to an executor, and what becomes of them: an outcome, or another flight.

Quick cases fly together, as many as take half a second: to an executor, a task costs several milliseconds, on whatever
computer its scheduler is, and nobody waits longer than that for the other cases of a flight.
"""

import hashlib
import pickle
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from devices.errors import PyemuError, UsageError
from emu.fleet.files import pack
from emu.fleet.job import Job
from emu.fleet.keeper import run_cases
from emu.fleet.outcome import Failure, Outcome, Report

__all__ = ["Flights", "Run"]

#: What an executor is given to do: cases, pickled, with their seeds; whether they need a new process; and files.
Run = Callable[[Sequence[tuple[bytes, int]], bool, Mapping[str, bytes]], Sequence[Report]]

_NUMBERS = 1 << 64
#: Flights that bring files to where they are lacking.
_MOST_LOADED = 4
#: How long the cases of a flight take together.
_FLIGHT_NS = 500_000_000
#: How much the newest case counts for how long the next ones will take.
_NEWEST = 1 / 16


@dataclass(slots=True, eq=False)
class _Passenger:
    """A case on its way."""

    case: dict[str, Any]
    seed: int
    pickled: bytes
    #: What came of it the first time, when this is the second.
    first: Report | None = None


@dataclass(slots=True, eq=False)
class _Flight:
    """Cases that are run by the same worker, one after the other."""

    passengers: list[_Passenger]
    future: "Future[Sequence[Report]] | None" = None
    #: It has the job's files with it, for a worker that lacks them.
    loaded: bool = False


class Flights:
    """The flights of one sweep, of up to ``seats`` cases. ``check_repeat`` of the cases fly twice, to be compared."""

    def __init__(self, job: Job, seed: int, check_repeat: float, seats: int) -> None:
        self.job, self._seed, self._check_repeat, self._seats = job, seed, check_repeat, seats
        self.run: Run = partial(run_cases, pickle.dumps(job))
        self._packed: dict[str, bytes] = {}
        self._loaded = 0
        self._usual_ns = _FLIGHT_NS  # of a case
        self._boarding: list[_Passenger] = []
        self._waiting: list[_Flight] = []  # for a file, wherever that arrives
        self._flying: set[_Flight] = set()
        self._landed: SimpleQueue[_Flight] = SimpleQueue()
        self._outcomes: deque[Outcome] = deque()
        #: How many cases are on their way.
        self.cases = 0

    @property
    def count(self) -> int:
        """How many flights there are."""
        return len(self._flying)

    def start(self, executor: Executor, case: Mapping[str, Any]) -> None:
        """Send a case on its way; raises UsageError if it is none, PyemuError if the executor has been shut down."""
        if not isinstance(case, Mapping):
            raise UsageError(f"{case!r} is no case; give a dict of the test's arguments")
        passenger = _Passenger(dict(case), case.get("seed", self._seed), b"")
        self.cases += 1
        try:
            passenger.pickled = pickle.dumps(passenger.case)
        except Exception as error:  # noqa: BLE001 - whatever the case is made of
            self._end(passenger, Report(failure=Failure.of(error)))
            return
        self._boarding.append(passenger)
        if len(self._boarding) >= min(self._seats, _FLIGHT_NS // self._usual_ns):
            self._depart(executor)

    def _depart(self, executor: Executor) -> None:
        passengers, self._boarding = self._boarding, []
        if passengers:
            self._submit(executor, _Flight(passengers))

    def _submit(self, executor: Executor, flight: _Flight) -> None:
        cases = [(passenger.pickled, passenger.seed) for passenger in flight.passengers]
        fresh, packed = flight.passengers[0].first is not None, self._packed if flight.loaded else {}
        try:
            flight.future = executor.submit(self.run, cases, fresh, packed)
        except Exception as error:  # shut down, or broken, in whatever way its kind is
            raise PyemuError(f"the executor takes no more cases: {error}") from error
        self._flying.add(flight)
        flight.future.add_done_callback(lambda _future: self._landed.put(flight))

    def land(self, executor: Executor) -> Outcome | None:
        """Return the next outcome, or None if something has to start again before there is one.

        Raises PyemuError if the executor has given up.
        """
        if not self._outcomes:
            self._depart(executor)
            flight = self._landed.get()
            self._flying.discard(flight)
            self._unload(executor, flight)
        if not self._outcomes:
            return None
        self.cases -= 1
        return self._outcomes.popleft()

    def _unload(self, executor: Executor, flight: _Flight) -> None:
        """See what has come of those who were on a flight."""
        assert flight.future is not None
        error = None if flight.future.cancelled() else flight.future.exception()
        if flight.future.cancelled() or isinstance(error, BrokenExecutor):  # not by us; Dask has lost its scheduler
            raise PyemuError("the executor has gone, or cancelled a case; those without an outcome can be run again")
        if error is not None and len(flight.passengers) > 1:  # the executor's own: whose fault was it?
            for passenger in flight.passengers:
                self._submit(executor, _Flight([passenger]))
            return
        reports = [Report(failure=Failure.of(error))] if error is not None else flight.future.result()
        self._supply(executor, flight, lacks=reports[0].lacks)
        if reports[0].lacks:
            return
        for passenger, report in zip(flight.passengers, reports, strict=True):
            if passenger.first is not None:
                self._end(passenger, _compared(passenger.first, report))
            elif self._is_sample(passenger, report):
                passenger.first = report
                self._submit(executor, _Flight([passenger]))
            else:
                self._end(passenger, report)

    def _supply(self, executor: Executor, flight: _Flight, *, lacks: bool) -> None:
        """Have some flights of those whose workers lack a file bring it there, while the others wait.

        An executor gives work to those who are idle: here, to the workers that lack it.
        """
        if flight.loaded:
            flight.loaded = False
            self._loaded -= 1
            again, self._waiting = self._waiting, []
            for one in again:
                self._submit(executor, one)
        if lacks and self._loaded < _MOST_LOADED:
            self._packed = self._packed or {name: pack(file) for name, file in self.job.files.items()}
            flight.loaded = True
            self._loaded += 1
            self._submit(executor, flight)
        elif lacks:
            self._waiting.append(flight)

    def _is_sample(self, passenger: _Passenger, report: Report) -> bool:
        """Whether a case is run again: always the same ones, of those whose process has lived."""
        if not self._check_repeat or not report.printed:
            return False
        number = int.from_bytes(hashlib.sha256(passenger.pickled + str(passenger.seed).encode()).digest()[:8])
        return number < self._check_repeat * _NUMBERS

    def _end(self, passenger: _Passenger, report: Report) -> None:
        value, failure = None, report.failure
        try:
            value = None if report.value is None else pickle.loads(report.value)  # noqa: S301 - the user's own
        except Exception as error:  # noqa: BLE001 - of a type that isn't here
            failure = failure or Failure.of(error)
        self._usual_ns += max(1 - self._usual_ns, round(_NEWEST * (report.host_ns - self._usual_ns)))
        self._outcomes.append(Outcome(
            passenger.case, passenger.seed, value, failure, report.console, report.output, report.guest_ns,
            report.host_ns, report.printed, report.played, report.sound,
            self.job.repeat(passenger.case, passenger.seed),
        ))  # fmt: skip

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
