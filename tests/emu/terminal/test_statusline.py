"""A line at the bottom of a terminal, which pyte emulates: where it is, and that the guest's screen is unchanged."""

import os
import signal
import termios
from collections.abc import Iterator

import pyte
import pytest

from emu.terminal.statusline import StatusLine

COLUMNS, LINES = 40, 10


class Terminal:
    """A screen, the guest that prints on it, and the line."""

    def __init__(self) -> None:
        self._master, self.fd = os.openpty()
        self.screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self.screen)
        self.drawn = 0
        self.resize(COLUMNS, LINES)
        self.line = StatusLine(self.fd, self._draw)
        self.print = self.line.watch(self._stream.feed)

    def _draw(self, data: bytes) -> None:
        self.drawn += 1
        self._stream.feed(data)

    def show(self, text: str = "status") -> bool:
        """Draw; return whether it was drawn."""
        before = self.drawn
        self.line.show(lambda _columns: text)
        return self.drawn > before

    def resize(self, columns: int, lines: int) -> None:
        termios.tcsetwinsize(self.fd, (lines, columns))
        self.screen.resize(lines, columns)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def cursor(self) -> tuple[int, int]:
        return self.screen.cursor.y, self.screen.cursor.x

    def close(self) -> None:
        os.close(self._master)
        os.close(self.fd)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def count(first: int, last: int) -> bytes:
    return b"".join(b"%d\r\n" % number for number in range(first, last + 1))


def test_it_is_the_last_line_and_the_cursor_stays_where_it_was(terminal):
    terminal.print(b"one\r\ntwo")
    terminal.show()
    assert terminal.lines == ["one", "two", "", "", "", "", "", "", "", "status"]
    assert terminal.cursor == (1, 3)


def test_the_guest_scrolls_above_it(terminal):
    terminal.show()
    terminal.print(count(1, 30))
    assert terminal.lines == ["23", "24", "25", "26", "27", "28", "29", "30", "", "status"]
    assert terminal.cursor == (8, 0)


def test_nothing_is_lost_when_it_begins_on_a_full_screen(terminal):
    terminal.print(count(1, 30) + b"prompt")
    terminal.show()
    assert terminal.lines == ["23", "24", "25", "26", "27", "28", "29", "30", "prompt", "status"]
    assert terminal.cursor == (8, 6)


def test_what_the_guest_prints_looks_as_in_a_terminal_of_a_line_less(terminal):
    reference = pyte.Screen(COLUMNS, LINES - 1)
    stream = pyte.ByteStream(reference)
    output = b"\x1b[1mbold\x1b[0m\r\n" * 9 + b"\x1b[3;5Hthere\x1b[31mred" + b"x" * 100 + b"\x1b[H\x1b[2Ktop"
    terminal.show()
    for start in range(0, len(output), 7):
        piece = output[start : start + 7]
        stream.feed(piece)
        terminal.print(piece)
        terminal.show(f"status {start}")
    assert terminal.screen.display[:-1] == reference.display
    assert terminal.cursor == (reference.cursor.y, reference.cursor.x)
    assert [terminal.screen.buffer[y] for y in range(9)] == [reference.buffer[y] for y in range(9)]
    assert terminal.lines[-1].startswith("status")


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"\x1b", b"[1;1H"),
        (b"\x1b[3", b"1m"),
        (b"\x1b[?25", b"l"),
        (b"\x1b]0;a tit", b"le\x07"),
        (b"\x1b]0;a title\x1b", b"\\"),
        (b"\x1b(", b"B"),
        ("ü".encode()[:1], "ü".encode()[1:]),
        ("🎵".encode()[:3], "🎵".encode()[3:]),
        (b"\x1b7away", b"\x1b8"),
    ],
)
def test_never_in_the_middle_of_what_the_guest_prints(terminal, first, rest):
    terminal.print(b"text" + first)
    assert not terminal.show()
    terminal.print(rest)
    assert terminal.show()


@pytest.mark.parametrize("first", [b"\x1b", b"\x1b7", b"\xc3"])
def test_a_sequence_without_an_end_does_not_stop_it_for_ever(terminal, first):
    terminal.print(first)
    assert [terminal.show() for _ in range(20)].index(True) == 8


@pytest.mark.parametrize("reset", [b"\x1b[r", b"\x1bc", b"text\x1b[0m\x1b[rtext"])
def test_a_guest_that_takes_all_lines_gives_the_last_back(terminal, reset):
    terminal.show()
    terminal.print(reset)
    terminal.show()
    terminal.print(count(1, 30))
    assert terminal.lines[-2:] == ["", "status"]


def test_a_region_of_the_guests_own_stays(terminal):
    terminal.show()
    terminal.print(b"\x1b[2;4r")
    terminal.show()
    assert terminal.screen.margins == (1, 3)


@pytest.mark.parametrize("size", [(60, 20), (30, 6), (40, 11), (25, 10)])
def test_a_new_size(terminal, size):
    terminal.print(count(1, 5))
    terminal.show()
    terminal.resize(*size)
    terminal.show()
    terminal.print(count(6, 30))
    terminal.show()
    assert terminal.lines[-4:] == ["29", "30", "", "status"]
    assert terminal.lines.count("status") == 1


def test_it_is_no_longer_than_the_terminal(terminal):
    terminal.show("x" * 100)
    terminal.print(b"here")
    assert terminal.lines == ["here", "", "", "", "", "", "", "", "", "x" * (COLUMNS - 1)]


def test_a_terminal_too_small_has_none_until_it_grows(terminal):
    terminal.resize(40, 3)
    assert not terminal.show()
    terminal.resize(40, 8)
    assert terminal.show()
    terminal.resize(19, 8)
    terminal.show()
    assert terminal.screen.margins is None or terminal.screen.margins == (0, 7)


def test_at_the_end_the_terminal_gets_its_line_back(terminal):
    with terminal.line:
        terminal.print(b"words")
        terminal.show()
    assert terminal.lines == ["words"] + [""] * 9
    assert terminal.cursor == (0, 5)
    terminal.print(count(1, 30))
    assert terminal.lines[-2:] == ["30", ""]
    assert terminal.lines[0] == "22"


def test_it_ends_within_a_sequence_of_the_guests(terminal):
    with terminal.line:
        terminal.show()
        terminal.print(b"words\x1b[3")
    assert terminal.lines == ["words"] + [""] * 9


def test_one_that_was_never_shown_leaves_no_trace(terminal):
    with terminal.line:
        pass
    assert terminal.drawn == 0


def test_signals_reach_the_earlier_handlers_which_are_restored(terminal):
    heard = []
    before = signal.signal(signal.SIGTSTP, lambda *_: heard.append(terminal.lines[-1]))
    try:
        with terminal.line:
            terminal.line.handle_signals()
            terminal.show()
            signal.raise_signal(signal.SIGTSTP)
            assert heard == [""], "the line is given back first"
            signal.raise_signal(signal.SIGCONT)
            terminal.show()
            assert terminal.lines[-1] == "status"
        signal.raise_signal(signal.SIGTSTP)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGTSTP, before)


def test_the_line_is_given_back_before_the_process_stops_whoever_writes_it(terminal):
    order = []
    before = signal.signal(signal.SIGTSTP, lambda *_: order.append("stops"))
    try:
        with terminal.line as line:
            line.handle_signals()
            terminal.show()
            line.write, line.settle = lambda _data: order.append("queued"), lambda: order.append("written")
            signal.raise_signal(signal.SIGTSTP)
        assert order == ["queued", "written", "stops"]
    finally:
        signal.signal(signal.SIGTSTP, before)
