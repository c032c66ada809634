"""A line of our own at the bottom of the user's terminal, below where the guest prints.

The terminal scrolls only what is above that line (DECSTBM). The line is drawn between two of the guest's control
sequences, never within one, and cursor and attributes are restored (DECSC, DECRC); what the guest prints therefore
looks as it would in a terminal with one line less.
"""

import contextlib
import os
import re
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

__all__ = ["StatusLine"]

#: The smallest terminal that can spare a line.
_LINES, _COLUMNS = 4, 20
#: After this many postponed draws, the guest's sequence is taken for one without an end.
_PATIENCE = 8

_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])")
_UNFINISHED = re.compile(
    rb"(?:\x1b(?:\[[0-?]*[ -/]*|[\]P^_X][^\x07\x1b]*\x1b?|[ -/]*)"
    rb"|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
)
_FULL_SCREEN = re.compile(rb"\x1b(?:c|\[r|\[!p)")
#: How many bytes of an unfinished sequence are examined again with what follows them.
_LONGEST = 256

_SAVE, _RESTORE, _CANCEL = b"\x1b7", b"\x1b8", b"\x18"
_ALL_LINES = b"\x1b[r"
_MAKE_ROOM = b"\x1bD\x1b[A"  # if the cursor is in the last line, everything moves up by one
_CLEAR_BELOW = b"\x1b[B\r\x1b[J"
_PLAIN_TEXT = b"\x0f\x1b(B\x1b[0;7m"  # no line graphics, reversed colours


class StatusLine:
    """While entered, owns the last line of the terminal ``fd``.

    ``write`` writes to the terminal, and ``settle`` waits until that has happened: a stopped process writes nothing.
    ``watch`` must see everything that the guest prints there. Only a foreground process touches its terminal; one that
    is stopped gives the line back, and takes it again when it continues. All methods are for the main thread.
    """

    def __init__(self, fd: int, write: Callable[[bytes], None], settle: Callable[[], None] = lambda: None) -> None:
        self._fd, self.write, self.settle = fd, write, settle
        self._size: os.terminal_size | None = None  # of the terminal when the line was reserved
        self._lost = False  # the terminal may scroll the line
        self._tail = b""  # the beginning of a control sequence that the guest has yet to finish
        self._saved = False  # the guest has saved the cursor: saving it again would lose that
        self._put_off = 0
        self._before: list[tuple[int, signal._HANDLER]] = []

    # ---------------------------------------------------------------- the guest's side

    def watch(self, output: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Wrap ``output`` for the guest's output."""

        def watched(data: bytes) -> None:
            output(data)
            self._look_at(data)

        return watched

    def _look_at(self, data: bytes) -> None:
        data = self._tail + data
        if b"\x1b" in data:
            for sequence in _SEQUENCE.findall(data):
                if sequence in (_SAVE, _RESTORE):
                    self._saved = sequence == _SAVE
                elif _FULL_SCREEN.fullmatch(sequence):
                    self._lost = True
        unfinished = _UNFINISHED.search(data, max(0, len(data) - _LONGEST))
        self._tail = b"" if unfinished is None else unfinished[0]

    # ---------------------------------------------------------------- our side

    def show(self, text: Callable[[int], str]) -> None:
        """Show ``text(columns)``, ASCII, unless this is a bad moment: the next call will do."""
        if not self._is_ours() or self._is_busy():
            return
        size = self._terminal_size()
        if size is None:
            self.leave()
            return
        line = text(size.columns - 1)[: size.columns - 1].ljust(size.columns - 1)
        where = b"\x1b[%d;1H" % size.lines
        self.write(
            self._reserve(size) + _SAVE + where + _PLAIN_TEXT + line.encode("ascii", "replace") + b"\x1b[0m" + _RESTORE
        )

    def leave(self) -> None:
        """Give the line back to the terminal."""
        if self._size is None or not self._is_ours():
            return
        size = self._terminal_size() or self._size
        clear = b"\x1b[%d;1H\x1b[2K" % size.lines
        self.write(_CANCEL * bool(self._tail) + _SAVE + _ALL_LINES + clear + _RESTORE)
        self._size = None

    def _reserve(self, size: os.terminal_size) -> bytes:
        """Return the sequences that make the last line ours, if it is not."""
        if size == self._size and not self._lost:
            return b""
        resized = self._size is not None and size != self._size
        self._size, self._lost = size, False
        everything = _SAVE + _ALL_LINES + _RESTORE + _MAKE_ROOM
        stale = _SAVE + _CLEAR_BELOW + _RESTORE if resized else b""  # our line, wherever it went
        return everything + stale + _SAVE + b"\x1b[1;%dr" % (size.lines - 1) + _RESTORE

    def _is_busy(self) -> bool:
        busy = bool(self._tail) or self._saved
        self._put_off = self._put_off + 1 if busy and self._put_off < _PATIENCE else 0
        if self._put_off:
            return True
        self._saved = False
        return False

    def _terminal_size(self) -> os.terminal_size | None:
        """Return the size of the terminal, if it is large enough."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._fd)
            if size.lines >= _LINES and size.columns >= _COLUMNS:
                return size
        return None

    def _is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # it is nobody's controlling terminal
            return True

    # ---------------------------------------------------------------- stopping and going on

    def handle_signals(self) -> None:
        """Handle SIGTSTP and SIGCONT, ahead of the handlers installed so far; call it once, after those are."""
        for number, handler in ((signal.SIGTSTP, self._on_stop), (signal.SIGCONT, self._on_continue)):
            self._before.append((number, signal.signal(number, handler)))

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.leave()
        self.settle()
        before = self._before[0][1]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            signal.signal(number, self._on_stop)

    def _on_continue(self, number: int, frame: FrameType | None) -> None:
        self._lost = True  # whatever the shell did to the terminal meanwhile
        before = self._before[1][1]
        if callable(before):
            before(number, frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._before:
            signal.signal(*self._before.pop())
        self.leave()
