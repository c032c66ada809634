"""A run as a file, with kernels of a few instructions: what is recorded, and that its replay is the same run."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices.errors import MachineError, UsageError
from devices.power import PowerAction
from emu import Machine, ReplayError
from emu.recording import Reader, Writer
from tests.emu import tiny

US = 1_000


class Runs:
    """Records machines with one kernel in ``path``, and replays them."""

    def __init__(self, image: Path, path: Path) -> None:
        self.image, self.path = image, path

    def record(self, use: Callable[[Machine], object], **options: Any) -> tuple[bytes, int]:
        """Let ``use`` have a machine that is recorded; return what it printed, and its last guest time."""
        printed: list[bytes] = []
        record = options.pop("record", self.path)
        with Machine(self.image, clock="warp", output=printed.append, record=record, **options) as machine:
            use(machine)
            now = machine.clock.now()
        return b"".join(printed), now

    def replay(self, use: Callable[[Machine], object] = Machine.run, **options: Any) -> tuple[bytes, int]:
        printed: list[bytes] = []
        replay = options.pop("replay", self.path)
        with Machine(self.image, clock="warp", output=printed.append, replay=replay, **options) as machine:
            use(machine)
            now = machine.clock.now()
        return b"".join(printed), now

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def kinds(self) -> list[str]:
        return [line[2] for line in self.lines()[1:]]

    def change(self, change: Callable[[list[Any]], None]) -> None:
        lines = self.lines()
        change(lines)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def runs(kernel, tmp_path):
    """``runs(*code)`` is for a kernel of these instructions."""
    return lambda *code: Runs(kernel(*code), tmp_path / "run")


def type_in_pieces(machine: Machine) -> None:
    machine.run_for(0.00003)
    machine.console.send("ab")
    machine.run_for(0.000101)
    machine.console.send("c" * 100)
    machine.run_for(0.0002)
    machine.console.send(b"\xff\x00\x04")
    machine.run()


def test_what_is_typed_is_typed_again_at_the_same_moments(runs):
    echo = runs(tiny.ECHO)
    printed, now = echo.record(type_in_pieces)
    assert printed == b"ab" + b"c" * 100 + b"\xff\x00"
    assert echo.kinds().count("type") == 3
    assert echo.replay() == (printed, now)


def test_a_recording_changes_nothing(runs):
    echo = runs(tiny.ECHO)
    recorded = echo.record(type_in_pieces)
    with Machine(echo.image, clock="warp") as machine:
        type_in_pieces(machine)
        assert machine.clock.now() == recorded[1]
        assert machine.journal is None


def test_a_guest_that_waits_for_ever_for_its_input(runs):
    """Whatever time the host needs for typing: for the guest it is none."""
    waiting = runs(tiny.WAIT)

    def use(machine: Machine) -> None:
        assert not machine.run_until(lambda: False, timeout=0.05)
        machine.console.send("x")
        assert not machine.run_until(lambda: False, timeout=0.05)

    recorded = waiting.record(use)
    assert waiting.replay() == recorded


def test_windows_jacks_volume_and_the_power_switch(runs):
    size = runs(tiny.SIZE)

    def use(machine: Machine) -> None:
        machine.hvc.resize(80, 24)
        machine.run_for(0.0001)
        machine.monitor("jack mic unplug")
        machine.monitor("volume 30%")
        machine.hvc.resize(132, 43)
        machine.run_for(0.0001)
        machine.monitor("quit")
        machine.run()

    def look(machine: Machine) -> None:
        assert machine.run().action is PowerAction.OFF
        assert not machine.sound.jacks["mic"].connected
        assert machine.sound.controls["Master Playback Volume"].values == (30, 30)

    printed, now = size.record(use)
    assert bytes((80, 24)) in printed
    assert bytes((132, 43)) in printed
    assert [kind for kind in size.kinds() if kind not in {"at", "cancel"}] == [
        "resize", "jack", "control", "resize", "off", "end",
    ]  # fmt: skip
    assert size.replay(look) == (printed, now)


def test_held_output_is_held_again(runs):
    """Flow control is an input, too: a slow reader of the output changes the run."""
    echo = runs(tiny.ECHO)

    def use(machine: Machine) -> None:
        machine.console.hold(True)
        machine.run_for(0.0001)
        machine.console.hold(False)
        machine.console.send(b"\x04")
        machine.run()

    recorded = echo.record(use)
    assert echo.kinds().count("hold") == 2
    assert echo.replay() == recorded


def test_what_comes_in_the_middle_of_a_turn_waits_for_its_end(runs):
    """From an event, and from what takes the output while the guest prints."""
    echo = runs(tiny.ECHO)

    def use(machine: Machine) -> None:
        def tick() -> None:
            machine.console.send("tick")
            if machine.clock.now() < 300 * US:
                machine.events.at(machine.clock.now() + 70 * US, tick)
            else:
                machine.console.send(b"\x04")

        machine.events.at(50 * US, tick)
        machine.events.at(60 * US, tick).cancel()
        machine.run()

    printed, now = echo.record(use)
    assert printed == b"tick" * 5
    assert echo.replay() == (printed, now)


def test_what_the_output_brings_about_in_the_middle_of_a_turn(runs):
    """Whoever takes the output is called while the guest prints; no replay could do anything in just that block."""
    size = runs(tiny.SIZE)
    printed: list[bytes] = []

    def output(data: bytes) -> None:
        printed.append(data)
        machine.hvc.resize(len(printed), 7)

    with Machine(size.image, clock="warp", output=output, record=size.path) as machine:
        for _ in range(3):
            machine.run_for(0.0005)
        now = machine.clock.now()
    assert size.kinds().count("resize") == len(printed) > 5
    assert b"\x07" in b"".join(printed)
    assert size.replay() == (b"".join(printed), now)


def test_another_thread_is_told_to_post(runs):
    spinning = runs(tiny.SPIN)
    told = []

    def meddle(machine: Machine) -> None:
        with pytest.raises(UsageError) as caught:
            machine.console.send("x")
        told.append(str(caught.value))
        machine.post(machine.switch_off)

    def use(machine: Machine) -> None:
        machine.events.at(10 * US, threading.Thread(target=meddle, args=(machine,)).start)
        machine.run()

    recorded = spinning.record(use)
    assert told == ["the machine is running on another thread; use its post() from this one"]
    assert spinning.kinds() == ["at", "off", "end"]
    assert spinning.replay() == recorded


def test_a_cancelled_deadline_is_none(runs):
    """Else time would jump to it."""
    waiting = runs(tiny.WAIT)

    def use(machine: Machine) -> None:
        late = machine.events.at(10**15, lambda: None)
        machine.run_for(0.0001)
        late.cancel()
        machine.run_until(lambda: False, timeout=0.05)
        machine.switch_off()

    assert waiting.record(use)[1] < 2000 * US
    assert waiting.replay()[1] < 2000 * US


def test_a_pause_is_nothing(runs):
    echo = runs(tiny.ECHO)

    def use(machine: Machine) -> None:
        machine.run_for(0.0001)
        machine.monitor("pause")
        machine.run_until(lambda: False, timeout=0.02)
        machine.console.send("x")
        machine.run_until(lambda: False, timeout=0.02)
        machine.monitor("resume")
        machine.console.send(b"\x04")
        machine.run()

    recorded = echo.record(use)
    assert echo.replay() == recorded


def test_what_python_waits_for_in_a_replay_changes_nothing(runs):
    echo = runs(tiny.ECHO)
    recorded = echo.record(type_in_pieces)
    times = []

    def use(machine: Machine) -> None:
        machine.events.at(10 * US, lambda: times.append(machine.clock.now()))
        machine.run_for(0.00005)
        times.append(machine.clock.now())
        machine.run()

    assert echo.replay(use) == recorded
    assert times == sorted(times)
    assert times[0] >= 10 * US
    assert times[1] >= 50 * US


def test_nothing_comes_from_outside_in_a_replay(runs):
    echo = runs(tiny.ECHO)
    recorded = echo.record(type_in_pieces)

    def use(machine: Machine) -> None:
        machine.run_for(0.0001)
        for act in (
            lambda: machine.console.send("x"),
            lambda: machine.console.run("true"),
            lambda: machine.monitor("jack mic unplug"),
            lambda: machine.monitor("mute"),
        ):
            with pytest.raises(UsageError, match="this is a replay"):
                act()
        machine.hvc.resize(1, 2)  # as the window of a terminal does
        machine.console.hold(True)  # as its reader does
        machine.run()

    assert echo.replay(use) == recorded


def test_a_panic_is_replayed(runs):
    dead = runs(tiny.panic("no working init found."))

    def use(machine: Machine) -> None:
        with pytest.raises(MachineError, match="kernel panicked: no working init"):
            machine.run()

    recorded = dead.record(use)
    assert dead.replay(use) == recorded


def test_a_hart_that_cannot_go_on_is_replayed(runs):
    dead = runs(tiny.TRAP)

    def use(machine: Machine) -> None:
        with pytest.raises(MachineError):
            machine.run()

    recorded = dead.record(use)
    assert dead.replay(use) == recorded
    assert dead.kinds()[-1] == "cut"


def test_resets_follow_each_other_in_one_file(runs, tmp_path):
    again = runs(tiny.say("hello\n"), tiny.RESET)
    with Writer(again.path) as writer:
        first = again.record(Machine.run, record=writer)
        assert again.record(Machine.run, record=writer) == first
    with Reader(again.path) as reader:
        assert again.replay(replay=reader) == first
        assert again.replay(replay=reader) == first
        assert reader.same
        with pytest.raises(UsageError, match="ends here"):
            again.replay(replay=reader)


def test_the_seed_belongs_to_it(runs):
    echo = runs(tiny.ECHO)
    echo.record(type_in_pieces, seed=5)
    assert echo.lines()[0]["seed"] == 5
    echo.replay(seed=5)
    with pytest.raises(UsageError, match="recorded with seed 5, not 0"):
        echo.replay()


# ---------------------------------------------------------------- the file


def test_whatever_kills_the_process_the_file_can_be_replayed(runs, caplog):
    """Each line is written when it happens; the last one may be cut anywhere."""
    echo = runs(tiny.ECHO)
    recorded = echo.record(type_in_pieces)
    whole = echo.path.read_bytes()
    end = whole.rindex(b"\n", 0, -1) + 1
    for cut in (end, end + 1, len(whole) - 1):
        caplog.clear()
        echo.path.write_bytes(whole[:cut])
        assert echo.replay() == recorded
        assert "has no end" in caplog.text


def test_it_is_written_at_once(runs):
    echo = runs(tiny.ECHO)

    def use(machine: Machine) -> None:
        machine.console.send("x")
        assert echo.kinds() == ["type"]

    echo.record(use)


def test_without_its_end_a_guest_that_waits_for_ever_is_over(runs):
    waiting = runs(tiny.WAIT)
    waiting.record(lambda machine: machine.run_until(lambda: False, timeout=0.02))
    waiting.change(lambda lines: lines.pop())
    waiting.replay()


def test_a_run_that_differs_says_so_and_where(runs):
    echo = runs(tiny.ECHO)
    echo.record(type_in_pieces)
    good = echo.path.read_bytes()

    def spoil(kind: str, change: Callable[[list[Any]], None]) -> str:
        echo.path.write_bytes(good)
        echo.change(lambda lines: change(next(line for line in lines[1:] if line[2] == kind)))
        with pytest.raises(ReplayError) as caught:
            echo.replay()
        assert caught.value.exit_status == 1
        return str(caught.value)

    assert "are not the same" in spoil("type", lambda line: line[3].__setitem__(0, "xy"))
    assert "bytes were printed, and now" in spoil("end", lambda line: line[3].__setitem__(0, 7))
    assert "the power was reset, and now it is off" in spoil("end", lambda line: line[3].__setitem__(2, "reset"))
    assert "it should be at" in spoil("end", lambda line: line.__setitem__(1, line[1] + 1))
    assert "the guest was switched off" in spoil("end", lambda line: line.__setitem__(0, line[0] + 1))


# ---------------------------------------------------------------- what does not fit


def test_another_kernel_memory_disk_or_clock_is_refused(runs, tmp_path):
    echo = runs(tiny.ECHO)
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4096))
    echo.record(lambda machine: machine.switch_off(), disk=str(disk))
    for options, why in (
        ({"memory": "64M"}, "recorded with memory 268435456, not 67108864"),
        ({"append": "x"}, "recorded with append 'console=ttyS0', not 'x'"),
        ({"initrd": disk}, "recorded with no root file system"),
        ({"disks": (f"{disk},readonly",), "disk": None}, "another disk 0: 4096 bytes, not 4096 bytes, read-only"),
        ({"disks": (), "disk": None}, "disks: 1; here: 0"),
        ({"audio": "null,streams=2+1"}, r"recorded with streams \[1, 1\], not \[2, 1\]"),
    ):
        arguments = {"disk": str(disk)} | options
        if arguments["disk"] is None:
            del arguments["disk"]
        with pytest.raises(UsageError, match=why):
            echo.replay(**arguments)
    disk.write_bytes(b"x" * 4096)
    with pytest.raises(UsageError, match="disk 0 is not what it was"):
        echo.replay(disk=str(disk))
    disk.write_bytes(bytes(4096))
    tiny.write_image(echo.image, tiny.WAIT)
    with pytest.raises(UsageError, match="recorded with another kernel"):
        echo.replay(disk=str(disk))


def test_another_version_is_refused(runs):
    echo = runs(tiny.ECHO)
    echo.record(Machine.switch_off)
    echo.change(lambda lines: lines[0].__setitem__("version", "99"))
    with pytest.raises(UsageError, match="recorded with pyemu '99'"):
        echo.replay()
    echo.change(lambda lines: lines[0].__setitem__("pyemu recording", 3))
    with pytest.raises(UsageError, match="has format 3, and this pyemu knows 2"):
        echo.replay()


@pytest.mark.parametrize("clock", ["host"])
@pytest.mark.parametrize("use", ["record", "replay"])
def test_other_clocks_are_refused(runs, clock, use):
    echo = runs(tiny.ECHO)
    echo.record(Machine.switch_off)
    kept = echo.path.read_bytes()
    with pytest.raises(UsageError, match="with the warp clock only"):
        Machine(echo.image, clock=clock, **{use: echo.path})
    assert echo.path.read_bytes() == kept


def test_record_and_replay_exclude_each_other(runs, tmp_path):
    echo = runs(tiny.ECHO)
    echo.record(Machine.switch_off)
    with pytest.raises(UsageError, match="use one of"):
        Machine(echo.image, clock="warp", record=tmp_path / "other", replay=echo.path)
