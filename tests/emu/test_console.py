"""Which of the guest's terminals gets what is typed, and when."""

from collections.abc import Callable

import pytest

from emu.console import Console, ExpectError


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
def later() -> list[Callable[[], None]]:
    return []


@pytest.fixture
def console(later: list[Callable[[], None]]) -> Console:
    return Console(lambda _done, _timeout: False, later=later.append)


def test_the_uart_gets_what_is_typed_when_its_driver_has_started(console, later):
    uart = Uart(16, listening=False)
    console.connect(uart)
    console.send("early")
    assert uart.got == b""
    uart.listening = True
    later.pop()()
    assert uart.got == b"early"


def test_the_other_line_gets_it_as_far_as_it_has_room(console, later):
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
    assert later == []  # nothing checks whether a driver has started


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
