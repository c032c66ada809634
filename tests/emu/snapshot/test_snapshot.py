"""Machines of a few instructions, saved and gone on from; tests/guest/test_snapshots.py has real guests."""

import contextlib
import copy
import ctypes
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.errors import MachineError, UsageError
from emu import HostClock, Machine, ManualClock, PowerAction, Snapshot, WarpClock
from emu.snapshot.file import _HEAD, read, write
from tests.emu import tiny
from tests.left import leaves_nothing

#: Counts its timer's interrupts in memory for ever, and echoes what is typed.
MEMORY = "32M"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Machine]:
    """Make a machine with a kernel of the given instructions."""

    def machine(*code: object, **options: Any) -> Machine:
        kernel = tiny.write_image(tmp_path / "Image", *(code or (tiny.ECHO,)))
        return Machine(kernel, **{"memory": MEMORY, "clock": "warp"} | options)

    return machine


def echo(machine: Machine, text: str) -> None:
    machine.console.send(text)
    machine.console.expect(text)


def test_any_number_of_machines_go_on_from_a_file(make, tmp_path):
    path = tmp_path / "ready.pyemu"
    with make(append="one two") as machine:
        echo(machine, "before")
        machine.save(path)
        now = machine.clock.now()
        echo(machine, "after")
    for _ in range(3):
        with Machine(path, clock="warp") as machine:
            assert machine.clock.now() == now
            assert (machine.append, bytes(machine.console.text)) == ("one two", b"before")
            echo(machine, "again")
            assert machine.console.since(0) == b"beforeagain"
            machine.console.send("\x04")
            assert machine.run().action is PowerAction.OFF


def test_a_machine_goes_back_as_often_as_one_likes(make):
    with make() as machine:
        echo(machine, "start")
        state = machine.snapshot()
        now = machine.clock.now()
        for text in ("one", "two", "\x04"):
            machine.console.send(text)
            machine.run_for(0.01)
            assert (machine.power is not None) == (text == "\x04")
            machine.restore(state)
            assert (machine.power, machine.clock.now(), machine.console.since(0)) == (None, now, b"start")
        echo(machine, "end")


def test_a_snapshot_in_memory_makes_machines_too(make):
    with make() as machine:
        echo(machine, "a")
        state = machine.snapshot()
        echo(machine, "b")
    with Machine(state, clock="warp") as one, Machine(state, clock="warp") as other:
        echo(one, "one")
        echo(other, "other")
        other.restore(state)
        assert (one.console.since(0), other.console.since(0)) == (b"aone", b"a")


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("native", ["on", "off"])
def test_it_is_the_run_that_was_not_saved(make, tmp_path, monkeypatch, native, seed):
    monkeypatch.setenv("PYEMU_NATIVE", native)
    chance = random.Random(seed)
    typed = [(chance.randrange(1, 10**6), chr(chance.randrange(97, 123)) * chance.randrange(1, 40)) for _ in range(30)]

    def go_on(machine: Machine, turns: list[tuple[int, str]]) -> tuple[int, int, bytes]:
        for ns, text in turns:
            machine.console.send(text)
            machine.run_for(ns / 1e9)
        machine.console.flush()
        return machine.clock.now(), machine.hart.traps, machine.console.since(0)

    with make(seed=seed) as machine:
        for turn in range(0, len(typed), 5):
            machine.save(tmp_path / str(turn))
            go_on(machine, typed[turn : turn + 5])
        straight = go_on(machine, [])
    for turn in range(0, len(typed), 5):
        with Machine(tmp_path / str(turn), clock="warp") as machine:
            for later in range(turn, len(typed), 5):
                go_on(machine, typed[later : later + 5])
            assert go_on(machine, []) == straight


def test_time_goes_on_by_any_clock(make, tmp_path):
    with make() as machine:
        machine.run_for(0.005)
        machine.save(tmp_path / "x")
        saved = machine.clock.now()
    for clock in (HostClock(), WarpClock(), ManualClock()):
        with Machine(tmp_path / "x", clock=clock) as machine:
            assert saved <= machine.clock.now() < saved + 1_000_000_000
            if type(clock) is not ManualClock:  # which a busy guest does not move
                echo(machine, "on")


def test_the_seed_is_the_snapshots_unless_there_is_another(make, tmp_path):
    path = tmp_path / "x"
    with make(seed=5) as machine:
        machine.chance.draw("entropy", 7)
        machine.save(path)
        expected = machine.chance.draw("entropy", 8)
    with Machine(path, clock="warp") as machine:
        assert (machine.chance.seed, machine.chance.draw("entropy", 8)) == (5, expected)
    with Machine(path, clock="warp", seed=6) as machine:
        assert machine.chance.draw("entropy", 8) != expected
        echo(machine, "another timing")
    with make(seed=7) as machine:
        early = machine.snapshot()
        with Machine(path, clock="warp", seed=7) as other:
            other.restore(early)
            echo(other, "back")
    with pytest.raises(UsageError, match="its own timing; go on with --clock warp --seed 5"):
        Machine(path, clock="host")
    with make() as machine:
        machine.save(path)
    with Machine(path, clock="host") as machine:
        assert machine.chance.seed is None


def test_a_disks_changes_go_with_it_and_an_image_must_be_as_it_was(make, tmp_path):
    image, path = tmp_path / "disk.img", tmp_path / "x"
    image.write_bytes(bytes(1 << 20))
    with make(disk=f"{image},snapshot") as machine:
        machine.disks[0].write(512, b"saved")
        machine.save(path)
        machine.disks[0].write(512, b"later")
        machine.restore(Snapshot.open(path))
        assert machine.disks[0].read(512, 5) == b"saved"
    with Machine(path, clock="warp") as machine:
        assert machine.disks[0].read(512, 5) == b"saved"
        machine.disks[0].write(512, b"mine!")
    assert image.read_bytes() == bytes(1 << 20)
    image.write_bytes(b"other" + bytes((1 << 20) - 5))
    with pytest.raises(UsageError, match=r"disk .* is not as it was when the machine was saved"):
        Machine(path, clock="warp")


def test_nothing_but_the_user_names_an_image_to_write_to(make, tmp_path):
    image, path = tmp_path / "disk.img", tmp_path / "x"
    image.write_bytes(bytes(1 << 20))
    with make(disk=str(image)) as machine:
        machine.save(path)
    with pytest.raises(UsageError, match=f"the snapshot's machine writes to .*; if you want that: --disk {image}"):
        Machine(path, clock="warp")
    with Machine(path, clock="warp", disk=str(image)) as machine:
        echo(machine, "on")
    with pytest.raises(UsageError, match="has disks: 1, and this machine 2"):
        Machine(path, clock="warp", disks=[f"{image},snapshot", f"{image},readonly"])


def test_what_a_snapshot_has_of_its_own_cannot_be_given(make, tmp_path):
    path = tmp_path / "x"
    with make() as machine:
        machine.save(path)
    for options in ({"initrd": "x"}, {"bios": "x"}, {"memory": "1G"}, {"append": "x"}):
        with pytest.raises(UsageError, match=f"a snapshot has its own {next(iter(options))}"):
            Machine(path, **options)
    with pytest.raises(UsageError, match=r"the snapshot has streams: \(1, 1\), and this machine \(2, 1\)"):
        Machine(path, audio="null,streams=2+1")
    with make(memory="64M") as other, pytest.raises(UsageError, match="the snapshot has memory"):
        other.restore(Snapshot.open(path))


def test_when_nothing_can_be_saved(make, tmp_path):
    with make() as machine:
        machine.console.output = lambda _data: machine.snapshot()
        machine.console.send("x")
        with pytest.raises(UsageError, match="in the middle of a step; post a message"):
            machine.run_for(1)
        machine.console.output = None
        machine.post(lambda: machine.save(tmp_path / "posted"))
        machine.run_for(0.001)
        machine.switch_off()
        with pytest.raises(UsageError, match="switched off"):
            machine.snapshot()
    with pytest.raises(UsageError, match="closed"):
        machine.save(tmp_path / "closed")
    assert Snapshot.open(tmp_path / "posted").made["memory"] == 32 << 20
    with (
        make(record=tmp_path / "run") as machine,
        pytest.raises(UsageError, match="recorded or replayed cannot go back"),
    ):
        machine.restore(Snapshot.open(tmp_path / "posted"))


def test_a_run_from_a_file_is_recorded_and_replayed(make, tmp_path):
    path, other, run = tmp_path / "x", tmp_path / "y", tmp_path / "run"
    with make() as machine:
        echo(machine, "before")
        machine.save(path)
        echo(machine, "more")
        machine.save(other)
        state = machine.snapshot()
    with Machine(path, clock="warp", record=run) as machine:
        echo(machine, "after")
        machine.switch_off()
        recorded = machine.console.since(0), machine.clock.now()
    with Machine(path, clock="warp", replay=run) as machine:
        machine.run()
        assert (machine.console.since(0), machine.clock.now()) == recorded
    with pytest.raises(UsageError, match="recorded with another snapshot"):
        Machine(other, clock="warp", replay=run)
    with pytest.raises(UsageError, match="begin with a snapshot's file only"):
        Machine(state, clock="warp", record=run)


def wrong(state: Any, chance: random.Random) -> None:
    """Put another value, of the same kind, somewhere into a state as it is in JSON."""
    while True:
        keys = list(state) if isinstance(state, dict) else range(len(state))
        if not keys:
            return
        key = chance.choice(keys)
        value = state[key]
        if not isinstance(value, dict | list) or not value:
            break
        state = value
    if type(value) is int:
        state[key] = chance.choice([0, 1, value + 1, value ^ 1 << chance.randrange(64), (1 << 64) - 1, 1 << 40, -1])
    elif isinstance(value, bool):
        state[key] = not value
    elif isinstance(value, str):
        state[key] = chance.choice(["", "AAAA", value * 2, value[: len(value) // 2], None])
    else:
        state[key] = chance.choice([None, [], {}, [0] * 1000, 0])


ALTERED = """
import sys, resource
from devices.errors import PyemuError
from emu import Machine
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        with Machine(path, clock="warp") as machine:
            machine.run_until(lambda: False, timeout=0.02)
    except PyemuError as error:
        assert chr(10) not in str(error), error
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
print("done")
"""


def test_altered_files_are_one_line_or_a_machine(make, tmp_path):
    """Though their checksums are right; in a process of their own, so that a crash is seen."""
    chance = random.Random(1)
    with make() as machine:
        echo(machine, "x")
        machine.save(tmp_path / "x")
        plain = read(tmp_path / "x").plain
        paths = [tmp_path / f"x{number}" for number in range(100)]
        for path in paths:
            altered = copy.deepcopy(plain)
            for _ in range(chance.randrange(1, 3)):
                wrong(altered, chance)
            write(path, json.dumps(altered).encode(), {"ram": (32 << 20, machine._ram.save)})
    command = [sys.executable, "-c", ALTERED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_altered_ram_is_a_machine(make, tmp_path):
    with make() as machine:
        machine.save(tmp_path / "x")
    with (tmp_path / "x").open("r+b") as file:
        for offset in range(_HEAD.size + _HEAD.unpack(file.read(_HEAD.size))[3] + 8192, 4 << 20, 64):
            file.seek(offset)
            file.write(b"\xff")
    with Machine(tmp_path / "x", clock="warp") as machine, contextlib.suppress(MachineError):
        machine.run_until(lambda: False, timeout=0.1)


def test_restoring_takes_nothing_with_it(make):
    """No memory, no thread, no descriptor, however often."""
    with make() as machine:
        echo(machine, "x")
        state = machine.snapshot()

        def pages() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1])

        def use(times: int) -> None:
            for _ in range(times):
                machine.restore(state)
                machine.console.send("y")
                machine.run_for(0.0001)

        use(100)
        with leaves_nothing(), no_huge_pages():
            before = pages()
            use(200)
            assert pages() - before < 256


@contextlib.contextmanager
def no_huge_pages() -> Iterator[None]:
    """Else the system may make one, of 512, at any time."""
    prctl, set_disable = ctypes.CDLL(None).prctl, 41
    prctl(set_disable, 1, 0, 0, 0)
    yield
    prctl(set_disable, 0, 0, 0, 0)
