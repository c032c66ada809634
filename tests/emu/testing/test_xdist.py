"""The pytest plugin under pytest-xdist: its workers share one snapshot, and nothing else."""

import re
from pathlib import Path

import pytest

from tests.emu.tiny import ECHO, say, write_image

pytest.importorskip("xdist")
WORKERS = 3
INI = "pyemu_kernel = Image\npyemu_memory = 32M\npyemu_ready = true"
#: The kernel's shell is its prompt. ``first`` is what the worker that makes the snapshot does instead of saving it, as
#: soon as all others wait for that.
CONFTEST = """
import os, time
from emu import Machine
from emu.terminal import terminal
from emu.console import CommandResult, Console

def run(console, command, timeout=60.0):
    console.expect("# ")
    return CommandResult(0, "")

Console.run = run
save, say = Machine.save, terminal.say

def say_and_note(line):
    say(line)
    if "waiting" in line:
        os.close(os.open(f"waiting/{{os.environ['PYTEST_XDIST_WORKER']}}", os.O_CREAT))

terminal.say = say_and_note

def save_when_all_wait(machine, path):
    try:
        os.close(os.open("begun", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return save(machine, path)
    while len(os.listdir("waiting")) < {workers} - 1:
        time.sleep(0.01)
    {first}

Machine.save = save_when_all_wait
"""
TESTS = """
import pytest

@pytest.mark.parametrize("n", range(6))
def test_it(fresh_machine, n):
    machine = fresh_machine()
    assert bytes(machine.console.text) == b"booted\\n# "  # it is the one that was saved
    machine.console.send(f"this is {{n}}")
    machine.console.expect(f"this is {{n}}")
    assert n < {passing}
"""
BOOTING, WAITING = "pyemu: booting the guest, for a snapshot", "pyemu: waiting for another build"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty one."""
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def spread(project, cache, tmp_path):
    """``spread(first, passing)``: what pytest prints of six tests on three workers, the first of which pass."""

    def run(first: str, passing: int) -> str:
        write_image(tmp_path / "Image", say("booted\n# "), ECHO)
        (tmp_path / "waiting").mkdir()
        (tmp_path / "conftest.py").write_text(CONFTEST.format(workers=WORKERS, first=first))
        return project(INI, TESTS.format(passing=passing), "-n", str(WORKERS))

    return run


def test_the_snapshot_is_made_once_and_what_failed_tests_leave_is_their_own(spread, project, cache):
    text = spread("return save(machine, path)", passing=4)
    assert "2 failed, 4 passed" in text, text
    assert text.count(BOOTING) == 1
    assert text.count(WAITING) == WORKERS - 1
    assert [path.name for path in cache.rglob("*.pyemu")] == ["ready.pyemu"]

    reports = re.findall(r"\n_+ test_it\[(\d)\] _+\n(.*?)(?=\n_+ test_it|\n=+ short)", text, re.DOTALL)
    assert [number for number, _ in sorted(reports)] == ["4", "5"]
    runs = [re.search(r"^(/.*/run.pyemu): the run;", report, re.MULTILINE)[1] for _, report in reports]
    assert len({Path(run).read_bytes() for run in runs}) == 2
    for number, report in reports:
        assert f"\nthis is {number}\n" in report

    text = project(INI, TESTS.format(passing=6), "-n", "2")  # again
    assert "6 passed" in text, text
    assert BOOTING not in text
    assert WAITING not in text


def test_a_worker_that_is_killed_while_it_makes_the_snapshot_leaves_it_to_another(spread, cache):
    """Its lock is there, with half of its work."""
    text = spread("path.write_bytes(b'half'); os.kill(os.getpid(), 9)", passing=6)
    assert "crashed while running" in text
    assert "1 failed, 5 passed" in text, text
    assert text.count(BOOTING) == 2
    (ready,) = cache.glob("ready-*")  # and neither NAME.lock nor NAME.work
    assert [path.name for path in ready.iterdir()] == ["ready.pyemu"]
