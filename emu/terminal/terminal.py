"""The user's terminal: raw mode and back, the C-a keys, and lines for the user beside the guest's output."""

import atexit
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

__all__ = ["EscapeKeys", "RawTerminal", "say", "show", "stderr"]

_ESCAPE = 0x01  # C-a


def say(text: str) -> None:
    """Show the user a line, on stderr, since stdout belongs to the guest."""
    show(f"pyemu: {text}\n")


def show(text: str) -> None:
    """Write ``text`` to stderr, for the user's eyes only; its lines start at the left edge even of a raw terminal."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        sys.stderr.write(text.replace("\n", "\r\n") if _is_raw(stderr()) else text)
        sys.stderr.flush()


def stderr() -> int:
    """Return the descriptor of sys.stderr, which need not be 2."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError):  # it is none of the system's
        return 2


def _is_raw(fd: int) -> bool:
    try:
        return not termios.tcgetattr(fd)[1] & termios.OPOST
    except termios.error:
        return False


class RawTerminal:
    """While entered, the terminal ``fd`` passes every key to us, and shows every byte of the guest's unchanged.

    ``resized`` gets the size of its window, columns and rows, when that may have changed; 0 is unknown.
    Only a foreground process may touch its terminal, so in the background everything stays as it is.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._cooked: list[Any] | None = None
        self.resized: Callable[[int, int], None] = lambda _columns, _rows: None

    def __enter__(self) -> Self:
        self._cooked = termios.tcgetattr(self._fd)
        atexit.register(self._leave)
        self.resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cooked, self._cooked = self._cooked, None  # first: a SIGCONT from now on makes nothing raw again
        self._restore(cooked)
        atexit.unregister(self._leave)

    def resume(self) -> None:
        """Enter raw mode (again): for SIGCONT. The shell sets its own mode while we are stopped."""
        if self._cooked is not None and self._is_ours():
            tty.setraw(self._fd, termios.TCSANOW)
            self.measure()  # changes were not reported while we were stopped

    def measure(self) -> None:
        """Measure the window: for SIGWINCH."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:  # it is gone
            return
        self.resized(*size)

    def suspend(self) -> None:
        """Stop the process, with the terminal restored, as SIGTSTP asks; returns when it continues."""
        self._leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.resume()

    def _leave(self) -> None:
        self._restore(self._cooked)

    def _restore(self, cooked: list[Any] | None) -> None:
        if cooked is not None and self._is_ours():
            termios.tcsetattr(self._fd, termios.TCSANOW, cooked)

    def _is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # it is gone
            return False


class EscapeKeys:
    """Passes what is typed to ``send``, except for keys after C-a that are in ``actions``.

    C-a C-a is one C-a. Any other key, together with the C-a before it, is for the guest.
    """

    def __init__(self, send: Callable[[bytes], None], actions: Mapping[str, Callable[[], None]]) -> None:
        self.send = send
        self._actions = {ord(key): action for key, action in actions.items()}
        self._escaped = False

    def __call__(self, data: bytes) -> None:
        """Handle ``data``, any piece of what is typed."""
        plain = bytearray()
        for key in data:
            if not self._escaped:
                if key == _ESCAPE:
                    self._escaped = True
                else:
                    plain.append(key)
                continue
            self._escaped = False
            if key in self._actions:
                self.send(bytes(plain))
                plain.clear()
                self._actions[key]()
            else:
                plain += bytes((_ESCAPE,)) if key == _ESCAPE else bytes((_ESCAPE, key))
        if plain:
            self.send(bytes(plain))
