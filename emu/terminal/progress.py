"""A percentage on the user's terminal, for work that takes longer than a moment."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

__all__ = ["Progress", "part", "unseen"]

_DELAY_S = 2.0
_INTERVAL_S = 0.2


def unseen(_share: float) -> None:
    """Show nothing: for work that nobody watches."""


def part(progress: Callable[[float], None], start: float, share: float) -> Callable[[float], None]:
    """Return the progress of a part of the work that starts at ``start`` of the whole and makes up ``share`` of it."""
    return lambda done: progress(start + share * done)


class Progress:
    """While entered, call it with the share (0 to 1) that is done: the terminal shows ``pyemu: what: 42 %``, and more.

    It does so only after two seconds, and only on a terminal: a log has no use for it. The line is erased at the end.
    """

    def __init__(self, what: str, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._file = sys.stderr if file is None else file
        self._clock = clock
        self._next = clock() + _DELAY_S
        self._seen = self._file.isatty()
        self._width = 0

    def __call__(self, share: float, more: str = "") -> None:
        """Show ``share``, and ``more``, from time to time."""
        now = self._clock()
        if not self._seen or now < self._next:
            return
        self._next = now + _INTERVAL_S
        text = f"pyemu: {self._what}: {100 * share:.0f} %{more}"
        self._write(f"\r{text.ljust(self._width)}")
        self._width = len(text)

    def clear(self) -> None:
        """Erase the line, for another; the next call shows it again."""
        if self._width:
            self._write(f"\r{' ' * self._width}\r")
            self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError):  # the terminal is gone
            self._seen = False
