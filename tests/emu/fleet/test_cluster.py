"""Sweeps on Dask: a scheduler and two workers, processes of their own, by TCP."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from devices.errors import PyemuError, UsageError
from emu.fleet import keeper, sweep
from emu.fleet.cluster import connect
from emu.fleet.files import find
from tests.emu import tiny
from tests.emu.fleet import subjects
from tests.emu.fleet.cluster import cluster

pytest.importorskip("distributed")
ROOT = Path(__file__).parents[3]
TEST = """
import time

def slow(machine, n):
    machine.run()
    time.sleep(0.02)
    assert n != 30, "it is thirty"
    return n
"""


@pytest.fixture(scope="module")
def dask():
    with cluster() as started, connect(started.address) as executor:
        executor.client.wait_for_workers(2)
        yield executor


@pytest.fixture(scope="module")
def hello(tmp_path_factory):
    return tiny.write_image(tmp_path_factory.mktemp("hello") / "Image", tiny.say("hello\n"), tiny.POWER_OFF)


@pytest.fixture
def run(dask, hello):
    """``run(test, cases)``: the outcomes, in the order of their cases' n."""

    def run(test, cases=3, **options):
        cases = ({"n": n} for n in range(cases)) if isinstance(cases, int) else cases
        return sorted(
            sweep(test, cases, dask, kernel=hello, memory="16M", **options), key=lambda outcome: outcome.case["n"]
        )

    return run


def test_both_workers_run_cases_each_once(run, tmp_path):
    cases = [{"n": n, "folder": str(tmp_path)} for n in range(40)]
    outcomes = run(subjects.meets, cases)
    assert [outcome.case for outcome in outcomes] == cases
    assert {outcome.error for outcome in outcomes} == {None}
    assert {outcome.value[0] for outcome in outcomes} == {b"hello\n"}
    assert len({outcome.value[1] for outcome in outcomes}) >= 2  # processes


def test_what_a_test_does_to_its_process_is_its_own_outcome(run):
    ways = {
        "segfaults": ("Crash", "SIGSEGV"),
        "leaks_all": ("OutOfMemory", "400 MB"),
        "unpicklable_value": ("AttributeError", "pickle"),
        "unpicklable_error": ("OddError", "ValueError"),
    }
    cases = [{"n": n, "how": how} for n, how in enumerate(["nothing", *ways, "nothing"])]
    before, *bad, after = run(subjects.does, cases, memory_limit="400M")
    assert before.passed
    assert after.passed
    for outcome, (type_, message) in zip(bad, ways.values(), strict=True):
        assert outcome.error.type == type_
        assert message in outcome.error.message


def test_a_test_that_hangs_is_ended(run, dask, tmp_path):
    mark = tmp_path / "hanging"
    dask.client.run(_make_it_late, str(mark))
    (bad,) = run(subjects.hangs, [{"n": 1, "mark": str(mark)}], timeout=900)
    assert str(bad.error) == "Timeout: it took longer than 900 s"
    (after,) = run(subjects.nothing, 1)
    assert after.passed


def _make_it_late(mark: str) -> None:
    """On a worker: once a test has made the file ``mark``, it is much later by the keeper's clock."""
    keeper.time = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * Path(mark).exists())


def test_workers_on_computers_without_the_kernel_get_it_with_a_case(run, dask, hello, tmp_path):
    dask.client.run(_are_elsewhere, str(tmp_path))
    outcomes = run(subjects.prints, 6)
    assert {outcome.error for outcome in outcomes} == {None}
    assert {outcome.value[0] for outcome in outcomes} == {b"hello\n"}
    (kept,) = (tmp_path / "fleet").iterdir()
    assert kept.read_bytes() == hello.read_bytes()


def _are_elsewhere(cache: str) -> None:
    """On a worker: no path is of this computer."""
    os.environ["PYEMU_CACHE"] = cache
    keeper.find = lambda file: find(file._replace(path="/nowhere"))


def test_a_worker_that_is_killed_costs_no_case(hello, tmp_path):
    """From the command line; its status is that of a sweep without the kill, and so are its results."""
    (tmp_path / "checks.py").write_text(TEST)
    results = tmp_path / "r.jsonl"
    with cluster() as started:
        command = [
            *(sys.executable, "-m", "emu", "sweep", "checks.py:slow", "--kernel", str(hello), "-m", "16M"),
            *("--matrix", f"n={','.join(map(str, range(60)))}", "--dask", started.address, "-o", "r.jsonl"),
        ]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not (results.exists() and results.read_text().count("\n") >= 10):
            time.sleep(0.01)
        started.workers[0].kill()
        said = process.communicate()[1]
    assert process.returncode == 1, said
    assert "60 cases: 59 passed, 1 failed" in said
    outcomes = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(outcome["case"]["n"] for outcome in outcomes) == list(range(60))
    assert [outcome["case"]["n"] for outcome in outcomes if not outcome["passed"]] == [30]


def test_without_its_scheduler_a_sweep_ends(hello):
    with cluster() as started, connect(started.address) as executor:
        cases = ({"n": n} for n in range(10_000))
        outcomes = sweep(subjects.nothing, cases, executor, kernel=hello, memory="16M")
        assert next(outcomes).passed
        started.scheduler.kill()
        with pytest.raises(PyemuError, match="the executor"):
            assert all(outcome.passed for outcome in outcomes)


def test_a_scheduler_that_is_not_there_is_a_line():
    with pytest.raises(UsageError, match=r"there is no Dask scheduler at tcp://127\.0\.0\.1:1: "):
        connect("tcp://127.0.0.1:1", timeout=1).__enter__()
