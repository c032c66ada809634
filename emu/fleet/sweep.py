"""The cases on their way to an executor, and the outcomes back: as many in flight as it needs, and no more."""

import hashlib
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from devices.errors import PyemuError, UsageError
from emu.fleet.files import pack
from emu.fleet.job import Job, Limits
from emu.fleet.keeper import Keeper, run_case
from emu.fleet.outcome import Failure, Outcome, Report
from emu.fleet.target import Target, Test

__all__ = ["sweep", "sweep_job"]

#: Cases in flight: for each process here; for an executor, whose number of workers nobody knows.
_PER_PROCESS, _IN_FLIGHT = 4, 512
_SEEDS = 1 << 64
#: Flights that bring files to where they are lacking.
_MOST_LOADED = 4


def sweep(
    test: Test | Target,
    cases: Iterable[Mapping[str, Any]],
    executor: Executor | None = None,
    *,
    snapshot: str | os.PathLike[str] | None = None,
    seed: int = 0,
    jobs: int | None = None,
    timeout: float = 60.0,
    memory_limit: str | int = "4G",
    in_flight: int | None = None,
    check_repeat: float = 0.0,
    **options: Any,
) -> Iterator[Outcome]:
    """Run ``test(machine, **case)`` for each of the ``cases``; yield an Outcome for each, as they end.

    Each case finds the machine as it is in the file ``snapshot``; or, without one, at the shell of the default guest;
    or, with Machine's arguments ``kernel`` or ``bios`` among the ``options``, just switched on. ``clock`` is "warp"
    unless it is another, ``machine.audio.frames`` is what was played in this case, unless ``audio`` is another backend,
    as a text. All chance comes from ``seed``, or the case's own item of that name, which its test gets, too.

    ``test`` is a function at the top level of a file or module, since each runs in a process of its own; what it
    returns must be picklable. ``cases`` may be endless: a bounded number, ``in_flight``, is taken ahead. They are
    spread over this computer, ``jobs`` at a time (default: one for each core), or by any ``executor``, whose workers
    have pyemu; it is not shut down. A case that takes longer than ``timeout`` seconds, or whose process crashes or
    takes more memory than ``memory_limit``, has an outcome that says so, and the others go on. With ``check_repeat``,
    that share of the cases is run once more, in a new process, and one that was not the same to the bit has failed.

    Whoever stops iterating ends the machines that still run. Raises UsageError for arguments that can't work.
    """
    target = Target.of(test)
    limits = Limits.of(timeout, memory_limit)
    if snapshot is not None:
        if options.get("kernel") is not None:
            raise UsageError("a snapshot has its own kernel; leave one of them out")
        options["kernel"] = snapshot
    job = Job.make(target, options, limits)
    return sweep_job(job, cases, executor, seed=seed, jobs=jobs, in_flight=in_flight, check_repeat=check_repeat)


def sweep_job(
    job: Job,
    cases: Iterable[Mapping[str, Any]],
    executor: Executor | None = None,
    *,
    seed: int = 0,
    jobs: int | None = None,
    in_flight: int | None = None,
    check_repeat: float = 0.0,
) -> Iterator[Outcome]:
    """Do what ``sweep`` does, for a job."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs={jobs} is no number of processes")
    if in_flight is not None and in_flight < 1:
        raise UsageError(f"in_flight={in_flight} is no number of cases")
    if not 0 <= check_repeat <= 1:
        raise UsageError(f"check_repeat={check_repeat} is no share of the cases")
    if check_repeat and job.options["clock"] != "warp":
        raise UsageError("only the warp clock makes a run that repeats itself; leave out check_repeat")
    jobs = jobs or len(os.sched_getaffinity(0))
    most = in_flight or (_PER_PROCESS * jobs if executor is None else _IN_FLIGHT)
    flights = _Flights(job if executor is None else job.to_send(), seed, check_repeat)
    return _sweep(flights, iter(cases), executor or jobs, most)


def _sweep(
    flights: "_Flights", cases: Iterator[Mapping[str, Any]], executor: Executor | int, most: int
) -> Iterator[Outcome]:
    with ExitStack() as ended:
        if isinstance(executor, int):
            keeper = Keeper()
            executor = ended.enter_context(ThreadPoolExecutor(executor, "pyemu-fleet"))
            ended.callback(keeper.close)
            flights.run = partial(_run_here, keeper, flights.job)
        ended.callback(flights.cancel)
        while True:
            while flights.count < most and (case := next(cases, None)) is not None:
                flights.start(executor, case)
            if not flights.count:
                return
            outcome = flights.land(executor)
            if outcome is not None:
                yield outcome


def _run_here(keeper: Keeper, job: Job, case: bytes, seed: int, fresh: bool, _packed: Mapping[str, bytes]) -> Report:
    """Run a case where all files are."""
    return keeper.run(job, case, seed, fresh)


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


class _Flights:
    """The cases that are on their way."""

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
        return len(self._flying)

    def start(self, executor: Executor, case: Mapping[str, Any]) -> None:
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
        except RuntimeError as error:  # shut down, or broken
            raise PyemuError(f"the executor takes no more cases: {error}") from error
        flight.future.add_done_callback(lambda _future: self._landed.put(flight))

    def land(self, executor: Executor) -> Outcome | None:
        """Wait for the next; return None if it has to start again."""
        flight = self._landed.get()
        assert flight.future is not None
        error = CancelledError() if flight.future.cancelled() else flight.future.exception()
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
        return number < self._check_repeat * _SEEDS

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
