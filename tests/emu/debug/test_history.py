"""Backwards: the machine is again what it was, the user sees and hears nothing of that, and the future is the same."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from devices.audio.pcm import FORMATS, PcmParams
from emu import Machine, WavSink
from emu.cpu.engine import Reg
from emu.debug import history
from emu.snapshot.snapshot import Snapshot
from tests.emu import tiny
from tests.emu.asm import A0, A1, A2, ZERO, Item, addi, andi, assemble, beq, bne, j, lbu, li, nop, sb, sd
from tests.emu.debug.client import Client, debugged, pc, running
from tests.emu.debug.test_debugger import DATA, KERNEL, LETTERS, PRINTS, digest, undisturbed

Kernel = Callable[..., Path]


@pytest.fixture
def letters(kernel: Kernel) -> Path:
    return kernel(LETTERS)


def state(machine: Machine) -> bytes:
    return machine._engine.state.tobytes()[: 8 * Reg.MCOUNTEREN]


def test_only_warp_goes_back(letters: Path) -> None:
    with debugged(letters) as (_, client):
        assert b"ReverseStep+;ReverseContinue+" in client.ask(b"qSupported:")
    with debugged(letters, clock="host") as (_, client):
        assert b"Reverse" not in client.ask(b"qSupported:")
        assert client.ask(b"bs") == b"E16"


@pytest.mark.parametrize(("option", "way"), [("", False), (",readonly", True), (",snapshot", True)])
def test_a_disk_that_is_written_to_does_not_go_back(letters: Path, tmp_path: Path, option: str, way: bool) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    with debugged(letters, disk=f"{tmp_path / 'disk.img'}{option}") as (_, client):
        assert (b"Reverse" in client.ask(b"qSupported:")) == way


def test_each_step_back_is_where_a_step_was(letters: Path) -> None:
    with debugged(letters) as (machine, client):
        client.ask(b"Z0,%x,4" % PRINTS)
        client.ask(b"c")
        client.ask(b"c")
        client.ask(b"z0,%x,4" % PRINTS)
        states = []
        for _ in range(120):
            states.append((pc(client), state(machine)))
            client.ask(b"vCont;s:1")
        for expected in reversed(states):
            assert client.ask(b"bs") == b"T05thread:1;"
            assert (pc(client), state(machine)) == expected


def test_back_to_the_breakpoint_before(letters: Path) -> None:
    expected = undisturbed(letters)
    printed = bytearray()
    with debugged(letters, output=printed.extend) as (machine, client):
        client.ask(b"Z0,%x,4" % PRINTS)
        for _ in range(30):
            client.ask(b"c")
        assert client.register(12) == ord("d")  # of the second alphabet
        for letter in b"cbazy":
            assert client.ask(b"bc").startswith(b"T05hwbreak")
            assert (pc(client), client.register(12)) == (PRINTS, letter)
        assert client.ask(b"c").startswith(b"T05hwbreak")  # forward, in the past
        assert client.register(12) == ord("z")
        client.ask(b"z0,%x,4" % PRINTS)
        assert client.ask(b"bc").startswith(b"T05replaylog:begin;")
        assert pc(client) == 0x8020_0000
        assert len(printed) == 29
        assert client.ask(b"c") == b"W00"
        assert digest(machine) == expected
    assert printed == 20 * b"abcdefghijklmnopqrstuvwxyz"


def test_who_wrote_this_word(kernel: Kernel) -> None:
    """The last store to it is found, and stands there, about to be executed again."""
    writer: list[Item] = [li(A0, DATA), li(A1, 7), nop(), sd(A1, A0)]
    code: list[Item] = [
        writer,
        li(A1, 3000),
        "work",
        addi(A1, A1, -1),
        bne(A1, ZERO, "work"),
        sd(A1, A0, 8),
        tiny.POWER_OFF,
    ]
    end = KERNEL + len(assemble(KERNEL, code[:5]))
    with debugged(kernel(code)) as (_, client):
        client.ask(b"Z0,%x,4" % end)
        client.ask(b"c")
        client.ask(b"Z2,%x,8" % DATA)
        assert client.ask(b"m%x,1" % DATA) == b"07"
        assert client.ask(b"bc") == b"T05watch:%x;thread:1;" % DATA
        assert pc(client) == KERNEL + len(assemble(KERNEL, writer[:3]))
        assert client.ask(b"m%x,1" % DATA) == b"00"


def test_the_past_cannot_be_changed_and_a_change_begins_anew(letters: Path) -> None:
    with debugged(letters) as (_, client):
        client.ask(b"Z0,%x,4" % PRINTS)
        client.ask(b"c")
        client.ask(b"c")
        assert client.ask(b"bc").startswith(b"T05hwbreak")
        assert client.ask(b"M%x,1:00" % DATA) == client.ask(b"Pa=0000000000000000") == b"E16"
        assert client.ask(b"c").startswith(b"T05hwbreak")
        assert client.ask(b"c").startswith(b"T05hwbreak")  # one more: the front is behind
        assert client.ask(b"M%x,1:00" % DATA) == b"OK"
        assert client.ask(b"bc").startswith(b"T05replaylog:begin")


#: tiny.ECHO, which looks less often: each look costs the host as much as a thousand blocks.
SLOW_ECHO: list[Item] = [
    li(A0, 0x1000_0000), li(A2, 4), li(A1, 7), sb(A1, A0, 2), li(A1, 1), sb(A1, A0, 1),
    "again", li(A1, 5000), "work", addi(A1, A1, -1), bne(A1, ZERO, "work"),
    lbu(A1, A0, 5), andi(A1, A1, 1), beq(A1, ZERO, "again"),
    lbu(A1, A0), beq(A1, A2, "off"), sb(A1, A0), j("again"), "off", tiny.POWER_OFF,
]  # fmt: skip


def test_after_a_change_in_the_middle_of_a_turn_there_is_no_way_back_at_first(letters: Path) -> None:
    with debugged(letters) as (_, client):
        client.ask(b"Z0,%x,4" % PRINTS)
        client.ask(b"c")
        client.ask(b"s")
        assert client.ask(b"P5=%016x" % 1) == b"OK"
        for way in (b"bs", b"bc"):
            assert client.ask(way) == b"T05replaylog:begin;thread:1;"
        assert client.ask(b"s").startswith(b"T05thread")


def test_the_longer_marks_take_the_fewer_there_are(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over half a second of guest time, in turns of 20 ms, each of which takes a second here."""
    image = kernel([li(A0, 125_000_000), "work", addi(A0, A0, -1), bne(A0, ZERO, "work"), tiny.POWER_OFF])
    seconds, made, takes = 0.0, 0, 0.0
    begin_turn, snapshot = history.History.begin_turn, Machine.snapshot

    def slow_turn(self: history.History) -> None:
        nonlocal seconds
        seconds += 1.0
        begin_turn(self)

    def slow(machine: Machine) -> Snapshot:
        nonlocal seconds, made
        seconds, made = seconds + takes, made + 1
        return snapshot(machine)

    monkeypatch.setattr(history, "thread_time", lambda: seconds)
    monkeypatch.setattr(history.History, "begin_turn", slow_turn)
    monkeypatch.setattr(Machine, "snapshot", slow)
    counts = []
    for takes in (0.0, 1.0):  # noqa: B007 - see slow
        made = 0
        with debugged(image) as (_, client):
            assert client.ask(b"c") == b"W00"
        counts.append(made)
    assert counts[0] > 3 * counts[1] > 0


def test_what_is_typed_is_typed_again_at_the_same_instant(kernel: Kernel) -> None:
    """And what is typed in the past waits until the front is reached."""
    printed = bytearray()
    with debugged(kernel(SLOW_ECHO), output=printed.extend) as (machine, client):
        client.send(b"vCont;c")
        for text in (b"one", b"two"):
            machine.post(partial(machine.console.send, text))
            while not printed.endswith(text):
                time.sleep(0.01)
        client.interrupt()
        assert client.receive().startswith(b"T02")
        before = pc(client), client.ask(b"g"), machine.clock.now()
        for _ in range(3):
            assert client.ask(b"bs") == b"T05thread:1;"
        for _ in range(3):
            assert client.ask(b"s").startswith(b"T05")
        assert (pc(client), client.ask(b"g"), machine.clock.now()) == before
        assert client.ask(b"bc").startswith(b"T05replaylog:begin")
        machine.post(partial(machine.console.send, b"end\x04"))
        assert client.ask(b"c") == b"W00"
        machine.console.flush()
    assert printed == b"onetwoend"


def test_sound_is_heard_once(kernel: Kernel, tmp_path: Path) -> None:
    """What is played while the past is repeated has been played; what comes then has not."""
    from emu.debug.history import Muffler  # noqa: PLC0415

    class Past:
        repeats = False

    sink = WavSink(tmp_path / "out.wav")
    past = Past()
    muffler = Muffler(sink, past)  # type: ignore[arg-type]
    port = muffler.open_playback(0, PcmParams(FORMATS["S16"], 48000, 1))
    for value, past.repeats in ((1, False), (1, True), (2, False)):
        port.write(np.full(10, value, "<i2").tobytes())
    assert sink.frames.ravel().tolist() == [1] * 10 + [2] * 10
    sink.close()


def test_who_leaves_in_the_past_leaves_a_guest_in_the_present(letters: Path) -> None:
    expected = undisturbed(letters)
    printed = bytearray()
    with Machine(letters, clock="warp", memory="16M", output=printed.extend) as machine:
        port = machine.gdb(wait=True)
        with running(machine):
            client = Client(port)
            client.ask(b"Z0,%x,4" % PRINTS)
            for _ in range(40):
                client.ask(b"c")
            assert client.ask(b"bc").startswith(b"T05hwbreak")
            client.close()
            while machine.power is None:
                time.sleep(0.01)
        assert digest(machine) == expected
    assert printed == 20 * b"abcdefghijklmnopqrstuvwxyz"


def test_what_was_recorded_in_a_debugger_is_repeated_without(kernel: Kernel, tmp_path: Path) -> None:
    """Input that comes while the machine stands in the middle of a turn waits for the turn's end."""
    image, path = kernel(SLOW_ECHO), tmp_path / "run.pyemu"
    with debugged(image, record=path) as (machine, client):
        client.ask(b"Z0,%x,4" % (KERNEL + 4))
        client.ask(b"c")
        client.ask(b"vCont;s:1")
        machine.post(lambda: machine.console.send(b"x\x04"))
        client.ask(b"vCont;s:1")
        client.ask(b"z0,%x,4" % (KERNEL + 4))  # with one, all blocks are looked at, which takes seconds
        assert b"Reverse" not in client.ask(b"qSupported:")
        assert client.ask(b"c") == b"W00"
        expected = digest(machine)
    with Machine(image, clock="warp", memory="16M", replay=path) as machine:
        machine.run()
        assert digest(machine) == expected
