"""How a run ends from outside: signals, the time limit and the quit key, all as one exception at a safe point.

Python runs signal handlers on the main thread, between two of its own instructions: while the guest computes that may
be never, and in the middle of a device model it may be too soon. A handler therefore only posts a message to the
machine, and the listener (emu/cli/listener.py), which the C part of the handler wakes, makes the CPU return.
"""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, Self

from emu.timing.signals import posts

__all__ = ["Ending", "Signals"]

#: Exit status of a run that exceeded its time limit, as with timeout(1).
TIMED_OUT = 124
_FATAL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Ending(BaseException):
    """The run ends with ``status``: not an error, and not to be caught as one. ``message`` says why, if not empty."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class Signals:
    """While entered, turns each signal that would kill the process, and the end of ``timeout`` seconds, into an Ending.

    It is raised wherever the main thread is or, once ``post`` is set (to Machine.post), from a message.
    ``interruptible`` says that the main thread may be blocked where raising at once does no harm.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.post: Callable[[Callable[[], None]], None] | None = None
        self.interruptible = False
        self._timeout = timeout
        self._ending: Ending | None = None
        self._before: list[tuple[int, signal._HANDLER]] = []

    def check(self) -> None:
        """Raise the Ending, if any, whose message came too late for the machine that it was posted to."""
        if self._ending is not None:
            raise self._ending

    def handle(self, number: int, action: Callable[[], None]) -> None:
        """Call ``action``, which must not raise, for a signal that does not end the run."""
        self._install(number, posts(lambda _number, _frame: action()))

    def _install(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._before.append((number, signal.signal(number, handler)))

    @posts
    def _on_fatal(self, number: int, _frame: FrameType | None) -> None:
        self._end(Ending(128 + number))

    @posts
    def _on_timeout(self, _number: int, _frame: FrameType | None) -> None:
        self._end(Ending(TIMED_OUT, f"stopped after {self._timeout:g} s (--timeout)"))

    def _end(self, ending: Ending) -> None:
        self._ending = self._ending or ending

        def raise_() -> NoReturn:
            raise ending

        if self.post is None or self.interruptible:
            raise_()
        self.post(raise_)

    def __enter__(self) -> Self:
        for number in _FATAL:
            # under nohup(1), and in a shell's background jobs, some signals are ignored on purpose
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._install(number, self._on_fatal)
        if self._timeout is not None:
            self._install(signal.SIGALRM, self._on_timeout)
            signal.setitimer(signal.ITIMER_REAL, self._timeout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        while self._before:
            signal.signal(*self._before.pop())
