"""Which of the guest's terminals gets what is typed, and when."""

from collections.abc import Callable
from random import Random
from typing import Any, Self

import pytest

from devices.contracts import Moment
from devices.errors import UsageError
from devices.state import Stateful
from devices.uart import FCR, FCR_ENABLE, IER, IER_RECEIVED, LSR, LSR_DATA_READY, RBR, Uart16550
from emu.console import Console, ExpectError
from tests.fakes import FakeClock, FakeEvent, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

SOON = 5_000_000  # ns
PANIC = b"Kernel panic - not syncing: why\r\n"


class Line:
    """A line with ``room`` for that many more bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.got = bytearray()
        self.ready: Callable[[], None] | None = None

    def receive(self, data: bytes) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        self.got += taken
        return len(taken)


class Uart(Line):
    """A UART whose driver may have started."""

    def __init__(self, room: int, listening: bool) -> None:
        super().__init__(room)
        self.listening = listening

    def take(self, size: int) -> bytes:
        taken = bytes(self.got[:size])
        del self.got[:size]
        self.room += len(taken)
        assert self.ready is not None
        self.ready()
        return taken


@pytest.fixture
def events() -> FakeEvents:
    return FakeEvents(FakeClock())


@pytest.fixture
def console(events: FakeEvents) -> Console:
    return make_console(events)


def make_console(events: FakeEvents, output: Callable[[bytes], None] | None = None) -> Console:
    def later(action: Callable[[], None], moment: Moment | None = None) -> FakeEvent:
        return events.at(events.clock.now() + SOON, action) if moment is None else events.resume(moment, action)

    return Console(lambda _done, _timeout: False, output, later)


def test_the_uart_gets_what_is_typed_when_its_driver_has_started(console, events):
    uart = Uart(16, listening=False)
    console.connect(uart)
    console.send("early")
    assert uart.got == b""
    uart.listening = True
    events.advance(SOON)
    assert uart.got == b"early"
    assert events.pending == []


def test_the_other_line_gets_it_as_far_as_it_has_room(console, events):
    uart, other = Uart(16, listening=True), Line(0)
    console.connect(uart)
    console.type_on(other)
    console.send("x" * 10_000)
    assert console.pending == 10_000
    for room in (5000, 4999, 1):
        other.room = room
        other.ready()
    assert other.got == b"x" * 10_000
    assert uart.got == b""
    assert events.pending == []  # nothing checks whether a driver has started


def test_a_guest_that_asks_the_firmware_is_answered_from_then_on(console):
    """Some kernels' hvc0 is the firmware's console."""
    uart, other = Uart(16, listening=False), Line(0)
    console.connect(uart)
    console.type_on(other)
    console.send("a long line of input")
    assert console.take(16) + console.take(100) == b"a long line of input"
    other.room = 100
    console.send("more")
    assert console.take(2) + console.take(2) == b"more"
    assert other.got == b""


class Looks:
    """A pattern that is never found, and counts the bytes that were looked at."""

    pattern = b"never"
    work = 0

    def search(self, text: bytearray, start: int) -> None:
        self.work += len(text) - start


@pytest.mark.parametrize("pauses", [0, 1])
def test_expect_looks_at_what_flows_a_few_times_only(pauses):
    def run_until(done: Callable[[], bool], _timeout: float) -> bool:
        for _ in range(1000):
            console.print(b"\r\n" * 100)
            console.flush()
            done()
        for _ in range(1000 * pauses):
            done()
        return False

    console, looks = Console(run_until), Looks()
    with pytest.raises(ExpectError):
        console.expect(looks)
    assert looks.work < 5 * 200_000


def test_expect_finds_the_last_words():
    def run_until(done: Callable[[], bool], _timeout: float) -> bool:
        for text in (b"x" * 1000, b"the ", b"end"):
            console.print(text)
            console.flush()
            done()
        return False

    console = Console(run_until)
    assert console.expect("the end").end() == 1007


def test_expect_finds_at_once_what_comes_before_a_pause():
    def run_until(done: Callable[[], bool], _timeout: float) -> bool:
        console.print(b"x" * 1000)
        console.flush()
        assert not done()
        console.print(b"> ")
        console.flush()
        return done() or done()

    console = Console(run_until)
    assert console.expect("> ").end() == 1002


def test_what_is_printed_is_shown_soon_however_often_it_is_looked_after(events):
    output = bytearray()
    console = make_console(events, output.extend)
    for _ in range(10):
        console.print(b".")
        console.flush()
    console.print(b"!")
    assert events.pending == [SOON]
    assert output == b"." * 10
    events.advance(SOON)
    assert output == b"." * 10 + b"!"
    console.print(b"?")
    assert events.pending == [2 * SOON]


class Life:
    """All that can happen on the serial line; see tests/twins.py."""

    def __init__(self) -> None:
        self.events = FakeEvents(FakeClock())
        self.output = bytearray()
        self.console = make_console(self.events, self.output.extend)
        self.uart = Uart16550(lambda _level: None, self.events.clock, self.events, self.console.print)
        self.console.connect(self.uart)

    @property
    def parts(self) -> list[Stateful]:
        return [self.uart, self.console]

    def take_over(self, old: Self) -> None:
        self.output[:] = old.output

    def step(self, chance: Random) -> object:
        seen: object = None
        match chance.randrange(9):
            case 0:
                self.console.print(
                    chance.choice([b"x", b"# \r\n", b"Kernel panic - not syn", b"cing: why\r\n", PANIC, b"_" * 5000])
                )
            case 1:
                self.console.flush()
            case 2:
                self.console.send(b"typed" * chance.choice([1, 1, 20]))
            case 3:
                seen = bytes(self.uart.read(RBR, 1) for _ in range(16) if self.uart.read(LSR, 1) & LSR_DATA_READY)
            case 4 if chance.random() < 0.2:
                self.uart.write(IER, 1, IER_RECEIVED)
                self.uart.write(FCR, 1, FCR_ENABLE)
            case 5 if chance.random() < 0.2:
                seen = self.console.take(chance.randrange(20))
            case 6:
                self.events.advance(chance.choice([SOON // 100, SOON // 2, 300 * SOON]))
            case 7:
                seen = self.expect(chance.choice(["#", "why"]))
            case 8:
                seen, self.console.panic = self.console.panic, None  # it was a lie
        console = self.console
        shown = bytes(console.text), console.printed, console.panic, bytes(self.output), console.since(100)[-100:]
        return seen, shown, console.pending, self.events.pending

    def expect(self, text: str) -> object:
        try:
            return self.console.expect(text).span()
        except ExpectError as error:
            return str(error)


class OtherLife(Life):
    """The same, where the guest reads what is typed on another line, as long as it does not ask firmware."""

    def __init__(self) -> None:
        super().__init__()
        self.other = Line(0)
        self.console.type_on(self.other)

    def take_over(self, old: Self) -> None:
        super().take_over(old)
        self.other.room, self.other.got[:] = old.other.room, old.other.got

    def step(self, chance: Random) -> object:
        self.other.room += chance.choice([0, 0, 3])
        if self.other.ready is not None:
            self.other.ready()
        return super().step(chance), bytes(self.other.got)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("life", [Life, OtherLife])
def test_as_if_it_had_never_been_saved(life, seed, monkeypatch):
    monkeypatch.setattr("emu.console._KEPT", 7000)
    monkeypatch.setattr("emu.console._KNOCKS", 5)
    live_through_snapshots(life, seed)


def test_a_wrong_state_is_refused_or_harmless():
    live_with_wrong_states(Life, seed=1)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"text": b"1234"}, "printed"),
        ({"text": bytes((2 << 20) + 1), "printed": 3 << 20}, "printed"),
        ({"text": b"12", "seen": 3}, "printed"),
        ({"text": b"12", "panic_seen": 3}, "printed"),
        ({"unsent": bytes(4096)}, "printed"),
        ({"on_uart": False}, "line"),
        ({"flush": (1 << 62, 0)}, "deadline"),
        ({"knock": (1 << 62, 0)}, "deadline"),
    ],
)
def test_what_no_console_can_be(console, wrong, what):
    state: Any = {**console.state(), "printed": 3, **wrong}
    with pytest.raises(UsageError, match=f"damaged: .*{what}"):
        console.restore(state)
