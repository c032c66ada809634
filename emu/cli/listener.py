"""The thread that listens to the outside: standard input, a clock, and signals. It only posts messages."""

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from emu.console import Console

__all__ = ["Listener"]

_CHUNK = 64 << 10
#: When the guest has left this much input unread, no more is read: whoever pastes or pipes has to wait.
_ENOUGH = 1 << 20
_LOOK_AGAIN_S = 0.02


class Target(Protocol):
    """What the listener needs from a machine."""

    @property
    def console(self) -> Console:
        """Where input goes."""
        ...

    def post(self, message: Callable[[], None]) -> None:
        """Call ``message()`` on the machine's thread."""
        ...


class Listener:
    """While entered, posts a message to the attached machine for everything that arrives.

    What is read from the file descriptor ``stdin`` (None: nothing) is given to ``receive`` on the machine's thread;
    initially that is ``send``, which types it on the machine's console. At the end of the input the guest runs on.
    """

    def __init__(self, stdin: int | None) -> None:
        self.receive: Callable[[bytes], None] = self.send
        self._stdin = stdin
        self._machine: Target | None = None
        self._arrived: deque[bytes] = deque()  # what no machine has taken yet: the next one may
        self._read = self._received = 0  # bytes: by this thread, and by the machine's
        self._reminders: deque[tuple[float, Callable[[], None]]] = deque()  # that this thread has not seen
        self._reminder: tuple[float, Callable[[], None]] | None = None  # the newest that it has, until it is posted
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pyemu listener", daemon=True)

    def attach(self, machine: Target) -> None:
        """Send messages to ``machine`` from now on."""
        self._machine = machine
        machine.post(self._hand_over)

    def remind(self, seconds: float, message: Callable[[], None]) -> None:
        """Post ``message`` after ``seconds`` of real time; it replaces one that has not been posted yet."""
        self._reminders.append((time.monotonic() + seconds, message))
        os.write(self._waker, b"\0")

    def send(self, data: bytes) -> None:
        """Type ``data`` on the machine's console."""
        assert self._machine is not None
        self._machine.console.send(data)

    def _run(self) -> None:
        while not self._closed:  # which may have happened during the last read
            full = self._stdin is not None and self._waiting() > _ENOUGH
            inputs = [self._wake] if self._stdin is None or full else [self._wake, self._stdin]
            ready = select.select(inputs, [], [], _LOOK_AGAIN_S if full else self._time_left())[0]
            if self._closed:
                return
            if self._time_left() == 0:
                assert self._reminder is not None
                (_, message), self._reminder = self._reminder, None
                self._post(message)
            if self._wake in ready:
                os.read(self._wake, _CHUNK)
                self._post(_nothing)  # merely posting makes the CPU return, and Python run its signal handlers
            if self._stdin in ready:
                self._read_input(self._stdin)

    def _time_left(self) -> float | None:
        while self._reminders:
            self._reminder = self._reminders.popleft()
        return None if self._reminder is None else max(0.0, self._reminder[0] - time.monotonic())

    def _read_input(self, stdin: int) -> None:
        try:
            data = os.read(stdin, _CHUNK)
        except BlockingIOError:  # another process made it non-blocking, and another one read first
            return
        except OSError:  # the terminal is gone
            data = b""
        if data:
            self._read += len(data)
            self._arrived.append(data)
            self._post(self._hand_over)
        else:
            self._stdin = None

    def _hand_over(self) -> None:
        while self._arrived:
            data = self._arrived.popleft()
            self._received += len(data)
            self.receive(data)

    def _waiting(self) -> int:
        return self._read - self._received + (0 if self._machine is None else self._machine.console.pending)

    def _post(self, message: Callable[[], None]) -> None:
        if self._machine is not None:
            self._machine.post(message)

    def __enter__(self) -> Self:
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._wakeup_fd = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_fd)
        self._closed = True
        os.write(self._waker, b"\0")
        self._thread.join()
        os.close(self._wake)
        os.close(self._waker)


def _nothing() -> None:
    pass
