"""A sweep: as many cases on their way as the executor needs, and no more; and an outcome for each."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

from devices.errors import UsageError
from emu.fleet.flights import Flights
from emu.fleet.job import Job, Limits
from emu.fleet.keeper import Keeper
from emu.fleet.outcome import Outcome, Report
from emu.fleet.target import Target, Test

__all__ = ["sweep", "sweep_job"]

#: Cases in flight: for each process here; for an executor, whose number of workers nobody knows.
_PER_PROCESS, _IN_FLIGHT = 4, 4096
#: So many flights at most: enough for a hundred workers, each with one to go on with.
_FLIGHTS = 256


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
    have pyemu: it gets quick ones several at a time, and is not shut down. A case that takes longer than ``timeout``
    seconds, or whose process crashes or takes more memory than ``memory_limit``, has an outcome that says so, and the
    others go on. With ``check_repeat``, that share of the cases is run once more, in a new process, and one that was
    not the same to the bit has failed.

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
    flights = Flights(job if executor is None else job.to_send(), seed, check_repeat, max(1, most // _FLIGHTS))
    return _sweep(flights, iter(cases), executor or jobs, most)


def _sweep(
    flights: Flights, cases: Iterator[Mapping[str, Any]], executor: Executor | int, most: int
) -> Iterator[Outcome]:
    with ExitStack() as ended:
        if isinstance(executor, int):
            keeper = Keeper()
            executor = ended.enter_context(ThreadPoolExecutor(executor, "pyemu-fleet"))
            ended.callback(keeper.close)
            flights.run = partial(_run_here, keeper, flights.job)
        ended.callback(flights.cancel)
        while True:
            while flights.cases < most and flights.count < _FLIGHTS and (case := next(cases, None)) is not None:
                flights.start(executor, case)
            if not flights.cases:
                return
            outcome = flights.land(executor)
            if outcome is not None:
                yield outcome


def _run_here(
    keeper: Keeper, job: Job, cases: Sequence[tuple[bytes, int]], fresh: bool, _packed: Mapping[str, bytes]
) -> Sequence[Report]:
    """Run cases where all files are."""
    return [keeper.run(job, case, seed, fresh) for case, seed in cases]
