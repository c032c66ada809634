"""Sweeps: each case has its outcome, once, whatever the test does to its process; and nothing is left behind."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from devices.errors import PyemuError, UsageError
from emu.fleet import Target, keeper, sweep
from emu.fleet.job import Job, Limits
from emu.fleet.outcome import Report
from emu.machine import Machine
from tests.emu import tiny
from tests.emu.fleet import subjects

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def hello(tmp_path_factory):
    return tiny.write_image(tmp_path_factory.mktemp("hello") / "Image", tiny.say("hello\n"), tiny.POWER_OFF)


@pytest.fixture(autouse=True)
def _last_words(monkeypatch):
    """A process on a busy host has time to write down where it was; and dies of that, so nobody waits in vain."""
    monkeypatch.setattr(keeper, "_LAST_WORDS_S", 1000.0)


@pytest.fixture
def run(hello):
    """``run(test, cases)``: the outcomes, in the order of their cases' n."""

    def run(test, cases=3, **options):
        cases = ({"n": n} for n in range(cases)) if isinstance(cases, int) else cases
        options = {"kernel": hello, "memory": "16M", "jobs": 1, **options}
        return sorted(sweep(test, cases, **options), key=lambda outcome: outcome.case.get("n", 0))

    return run


def processes_of(pid: int) -> list[int]:
    """Every process that a thread of ``pid`` has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def wait_until(condition):
    while not condition():  # pytest's timeout says if that never comes
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---------------------------------------------------------------- what comes out


def test_each_case_has_its_outcome_once_and_finds_the_same_machine(run, tmp_path):
    cases = [{"n": n, "folder": str(tmp_path)} for n in range(20)]
    outcomes = run(subjects.meets, cases, jobs=2)
    assert [outcome.case for outcome in outcomes] == cases
    assert {outcome.value[0] for outcome in outcomes} == {b"hello\n"}
    assert len({outcome.value[1] for outcome in outcomes}) == 2  # processes
    assert {outcome.error for outcome in outcomes} == {None}
    assert {outcome.console for outcome in outcomes} == {"hello"}
    assert len({(outcome.guest_ns, outcome.printed, outcome.played) for outcome in outcomes}) == 1
    assert min(outcome.guest_ns for outcome in outcomes) > 0


def test_a_machine_has_the_seed_of_the_sweep_or_of_its_case(run):
    outcomes = run(subjects.seed_of, [{"n": 0}, {"n": 1, "seed": 7}, {"n": 2, "seed": 7}, {"n": 3}], seed=5)
    assert [outcome.value for outcome in outcomes] == [5, 7, 7, 5]
    assert [outcome.seed for outcome in outcomes] == [5, 7, 7, 5]


def test_from_a_snapshots_file(run, hello, tmp_path):
    with Machine(hello, clock="warp", memory="16M") as machine:
        machine.save(tmp_path / "ready.pyemu")
    options = {"kernel": None, "memory": None}
    (one, two) = run(subjects.prints, 2, snapshot=tmp_path / "ready.pyemu", **options)
    assert one.value == two.value
    assert one.value[0] == b"hello\n"
    assert f"--kernel {tmp_path}/ready.pyemu" in one.repeat


@pytest.mark.parametrize("options", [{"clock": "host"}, {"audio": "null,streams=2+1"}, {"disks": ["disk,snapshot"]}])
def test_with_arguments_of_machine(run, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    Path("disk").write_bytes(bytes(4096))
    outcomes = run(subjects.prints, 3, **options)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert {outcome.value[0] for outcome in outcomes} == {b"hello\n"}
    (name, value), *_ = options.items()
    assert f"--{name.rstrip('s')} {value if isinstance(value, str) else value[0]}" in outcomes[0].repeat


def test_a_failure_tells_all_that_is_known(run):
    _, failed, _ = run(subjects.says_no)
    assert failed.error.type == "AssertionError"
    assert failed.error.message == "assert n != 1"
    assert "subjects.py" in failed.error.traceback
    assert failed.console == "hello"
    assert failed.output == "about to fail"
    assert "pyemu sweep tests.emu.fleet.subjects:says_no --case" in failed.repeat


# ---------------------------------------------------------------- what tests do


@pytest.mark.parametrize(
    ("test", "type_", "message"),
    [
        (subjects.segfaults, "Crash", "SIGSEGV"),
        (subjects.exits, "Crash", "status 3"),
        (subjects.is_killed, "Crash", "SIGKILL"),
        (subjects.leaves_a_child_with_the_channel, "Crash", "status 0"),
        (subjects.unpicklable_value, "AttributeError", "pickle"),
        (subjects.unpicklable_error, "OddError", "ValueError"),
        (subjects.shuts_down_python, "SystemExit", "5"),
    ],
)
def test_what_a_test_does_to_its_process_is_its_own_outcome(run, test, type_, message):
    before, bad, after = run(test)
    assert bad.error.type == type_
    assert message in bad.error.message
    assert before.passed
    assert after.passed


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """Cases with a file that a test makes when it hangs: from then on, it is much later by the keeper's clock."""
    mark = tmp_path / "hanging"
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * mark.exists())
    monkeypatch.setattr(keeper, "time", clock)
    return [{"n": n, "mark": str(mark)} for n in range(3)]


@pytest.mark.parametrize("test", [subjects.hangs, subjects.hangs_in_c])
def test_a_test_that_hangs_is_ended_and_says_where_it_was(run, hanging, test):
    before, bad, after = run(test, hanging, timeout=900)
    assert str(bad.error) == "Timeout: it took longer than 900 s"
    assert f"in {test.__name__}" in bad.error.traceback
    assert before.passed
    assert after.passed


def test_what_the_guest_had_printed_is_known_although_it_hangs(run, hanging, kernel):
    image = kernel(tiny.say("still here\n"), tiny.SPIN)
    _, bad, _ = run(subjects.stuck_guest, hanging, kernel=image, timeout=900)
    assert bad.error.type == "Timeout"
    assert bad.console == "still here"


def test_a_test_that_takes_all_memory_is_ended(run):
    before, bad, after = run(subjects.leaks_all, memory_limit="400M")
    assert bad.error.type == "OutOfMemory"
    assert before.passed
    assert after.passed


def test_who_leaves_much_behind_does_so_for_nobody(run):
    outcomes = run(subjects.leaves_threads, 4)
    assert len({outcome.value for outcome in outcomes}) > 1


def test_a_test_that_cannot_be_imported_where_it_runs(run, tmp_path):
    (tmp_path / "bad.py").write_text("raise OSError('not here')")
    outcomes = run(Target.parse(f"{tmp_path}/bad.py:check"))
    assert {str(outcome.error) for outcome in outcomes} == {"OSError: not here"}


# ---------------------------------------------------------------- how many at a time


def test_endless_cases_and_nobody_is_left_when_one_has_seen_enough(hello, tmp_path, monkeypatch):
    taken, before = itertools.count(), set(processes_of(os.getpid()))
    outcomes = sweep(subjects.nothing, ({"n": n} for n in taken), kernel=hello, memory="16M", jobs=1, in_flight=5)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    first = list(itertools.islice(outcomes, 30))
    assert sorted(outcome.value for outcome in first) == list(range(30))
    assert len(set(processes_of(os.getpid())) - before) == 1
    assert len(list(tmp_path.iterdir())) == 1
    outcomes.close()
    assert set(processes_of(os.getpid())) - before == set()
    assert list(tmp_path.iterdir()) == []
    assert next(taken) <= 30 + 5


def test_a_bounded_number_is_on_its_way_and_none_is_kept(run, hello):
    taken = landed = most = 0

    def cases():
        nonlocal taken, most
        for n in range(1000):
            taken += 1
            most = max(most, taken - landed)
            yield {"n": n}

    for outcome in sweep(subjects.nothing, cases(), kernel=hello, memory="16M", jobs=2):
        assert outcome.passed
        landed += 1
    assert landed == 1000
    assert most <= 9


# ---------------------------------------------------------------- executors


def test_any_executor_will_do(run):
    with ThreadPoolExecutor(2) as executor:
        outcomes = run(subjects.segfaults, 6, executor=executor)
        assert [outcome.passed for outcome in outcomes] == [True, False, True, True, True, True]
        assert executor.submit(lambda: 1).result() == 1  # it is the user's
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        outcomes = run(subjects.segfaults, executor=executor)
        assert [outcome.passed for outcome in outcomes] == [True, False, True]


def test_an_executor_that_loses_a_case_says_so_in_its_outcome(run):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(PyemuError, match="takes no more cases"):
        run(subjects.nothing, executor=executor)


def test_an_executor_that_cancels_a_case_has_given_up(run):
    """As Dask's does when its scheduler is gone: these cases have no outcome, and can be run again."""

    class Gone(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(PyemuError, match="can be run again"):
        run(subjects.nothing, executor=Gone(1))


# ---------------------------------------------------------------- the end of processes


def test_a_process_killed_from_outside_costs_one_case(run, tmp_path):
    cases = ({"n": n, "folder": str(tmp_path), "wait": True} for n in range(5))

    def kill_the_first():
        yield from cases
        wait_until(lambda: (tmp_path / "0").exists() and (tmp_path / "0").read_text().endswith("\n"))
        os.kill(int((tmp_path / "0").read_text()), signal.SIGKILL)

    outcomes = run(subjects.notes, kill_the_first(), jobs=1, in_flight=10)
    assert [outcome.passed for outcome in outcomes] == [False, True, True, True, True]
    assert "SIGKILL" in outcomes[0].error.message


class Idle:
    """Stands for a process, which only needs to know whether it was killed."""

    all: ClassVar[list["Idle"]] = []
    when_started: ClassVar[Callable[[], None]]
    when_killed: ClassVar[Callable[[], None]]

    def __init__(self, job):
        self.job, self.dead = job.key, False
        self.all.append(self)
        type(self).when_started()

    def ask(self, request, limits):
        return Report()

    def kill(self):
        self.dead = True
        type(self).when_killed()

    def end(self):
        self.dead = True


@pytest.fixture
def kept(monkeypatch, hello):
    """A keeper of processes that are idle; ``kept.start()`` starts another."""
    monkeypatch.setattr(keeper, "_Child", Idle)
    monkeypatch.setattr(Idle, "all", [])
    monkeypatch.setattr(Idle, "when_started", staticmethod(lambda: None), raising=False)
    monkeypatch.setattr(Idle, "when_killed", staticmethod(lambda: None), raising=False)
    job = Job.make(Target.of(subjects.nothing), {"kernel": hello}, Limits(1.0, 1))
    kept = keeper.Keeper()
    kept.start = lambda: kept.run(job, b"", 0, True)
    return kept


def test_a_process_that_starts_while_the_sweep_ends_is_ended_too(kept):
    Idle.when_started = staticmethod(kept.close)  # which cannot know of it yet
    kept.start()
    assert [child.dead for child in Idle.all] == [True]


def test_all_processes_are_ended_while_others_start(kept):
    def start_another():
        if len(Idle.all) < 20:
            start_in_a_thread()

    def start_in_a_thread():
        thread = threading.Thread(target=kept.start)
        thread.start()
        thread.join()

    for _ in range(10):
        start_in_a_thread()
    Idle.when_killed = staticmethod(start_another)
    kept.close()
    assert [child.dead for child in Idle.all] == [True] * 20


def test_processes_end_with_the_one_that_has_started_them(hello, tmp_path):
    code = (
        "from emu.fleet import sweep\nfrom tests.emu.fleet import subjects\n"
        f"cases = ({{'n': n, 'folder': {str(tmp_path)!r}, 'wait': n == 0}} for n in range(3))\n"
        f"list(sweep(subjects.notes, cases, kernel={str(hello)!r}, memory='16M', jobs=2))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        wait_until(lambda: all((tmp_path / str(n)).exists() for n in range(3)))
        started = processes_of(process.pid)
        assert len(started) == 2
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in started))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_of_the_sweeps_process_ends_nobody(run, tmp_path):
    cases = [{"n": n, "folder": str(tmp_path), "wait": False} for n in range(4)]

    def fork_in_the_middle():
        yield cases[0]
        wait_until((tmp_path / "0").exists)
        for case in cases[1:]:
            if (pid := os.fork()) == 0:
                gc.collect()
                os._exit(0)
            assert os.waitpid(pid, 0) == (pid, 0)
            yield case

    outcomes = run(subjects.notes, fork_in_the_middle())
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert len({(tmp_path / str(n)).read_text() for n in range(4)}) == 1  # one process


# ---------------------------------------------------------------- the same again


def test_a_sample_is_run_again_and_must_be_the_same(run, kernel):
    image = kernel(tiny.ECHO)
    outcomes = run(subjects.by_the_clock, kernel=image, check_repeat=1.0)
    assert [outcome.passed for outcome in outcomes] == [True, False, True]
    assert outcomes[1].error.type == "NotRepeated"
    assert "console" in outcomes[1].error.message


def test_python_repeats_itself_too(run):
    assert [outcome.error for outcome in run(subjects.letters, check_repeat=1.0)] == [None] * 3


def test_the_sample_is_a_share_of_the_cases(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = [{"n": n, "folder": ".", "wait": False} for n in range(40)]  # the same ones each time, and so the sample
    assert all(outcome.passed for outcome in run(subjects.notes, cases, check_repeat=0.1))
    runs = [len(file.read_text().splitlines()) for file in tmp_path.iterdir()]
    assert len(runs) == 40
    assert 1 <= sum(runs) - 40 <= 12
    pids = [file.read_text().splitlines() for file in tmp_path.iterdir()]
    assert all(len(set(each)) == len(each) for each in pids)  # in another process


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout"),
        ({"jobs": 0}, "jobs"),
        ({"in_flight": 0}, "in_flight"),
        ({"check_repeat": 2}, "check_repeat"),
        ({"check_repeat": 0.5, "clock": "host"}, "warp"),
        ({"output": print}, "output"),
        ({"kernel": "/nowhere/Image"}, "/nowhere/Image"),
        ({"snapshot": "/nowhere/ready.pyemu"}, "leave one of them out"),
        ({"memory_limit": "much"}, "size"),
    ],
)
def test_what_cannot_work_is_refused_at_once(hello, options, message):
    with pytest.raises(UsageError, match=message):
        sweep(subjects.nothing, [], **{"kernel": hello, **options})


@pytest.mark.parametrize("test", [lambda machine: None, print, "subjects.py"])
def test_a_test_that_others_cannot_find_is_refused(hello, test):
    with pytest.raises(UsageError, match="cannot be found"):
        sweep(test, [], kernel=hello)


def test_what_is_no_case_is_refused(run):
    with pytest.raises(UsageError, match="no case"):
        run(subjects.nothing, [5])
