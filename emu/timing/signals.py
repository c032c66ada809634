"""Signals while the guest runs on the main thread.

Python calls a signal's handler on the main thread between two of its instructions. While the guest runs, the only ones
are those of a callback: what a handler raises there, KeyboardInterrupt for one, is swallowed by C, and with it the trap
or the store to a device that the callback was for. So handlers are held back until the CPU has returned.
"""

import signal
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

__all__ = ["HeldSignals", "posts"]

_NUMBERS = tuple(map(int, signal.valid_signals()))

Handler = Callable[..., Any]
AnyHandler = TypeVar("AnyHandler", bound=Handler)


def posts(handler: AnyHandler) -> AnyHandler:
    """Mark a handler that raises nothing while a machine runs, but posts to it: it needs no holding back."""
    handler.__dict__["posts"] = True
    return handler


class HeldSignals:
    """While it is entered, on the main thread, handlers wait from ``hold`` to ``release``, for which ``ring`` calls.

    Each call of a handler is made once, in order, with the frame that the signal had found. Out of ``hold``, signals
    are handled at once, as always.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._holding = False
        self._pending: deque[Callable[[], None]] = deque()
        self._taken: list[tuple[int, _Held]] = []

    def hold(self) -> None:
        """Let handlers wait from now on."""
        self._holding = True

    def release(self) -> None:
        """Call those that wait, and the others at once from now on; raises what they do."""
        self._holding = False
        if self._pending:
            try:
                self._pending.popleft()()
            finally:
                self.release()

    def take(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        """Take a signal in the place of its handler."""
        if self._holding:
            self._pending.append(lambda: handler(number, frame))
            self._ring()
        else:
            handler(number, frame)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other handles signals
            for number in _NUMBERS:
                handler = signal.getsignal(number)
                if callable(handler) and not hasattr(handler, "posts"):
                    held = _Held(self, handler)
                    self._taken.append((number, held))
                    signal.signal(number, held)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A handler may raise at any of these lines: what is not given back then works as well as the original.
        while self._taken:
            number, held = self._taken[-1]
            handler = held.handler
            if signal.getsignal(number) is held:  # and not what somebody has set meanwhile
                signal.signal(number, handler)
            self._taken.pop()


class _Held:
    """What stands in a handler's place."""

    def __init__(self, owner: HeldSignals, handler: Handler) -> None:
        self._owner, self.handler = owner, handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._owner.take(self.handler, number, frame)
