"""What a backend with a thread is plugged into in tests: a card that collects frames, and its machine's thread."""

import threading
import time
from collections import deque
from collections.abc import Callable

from devices.net.base import NetBackend, Plug

__all__ = ["OtherEnd"]


class OtherEnd:
    """A card on ``backend``; all frames that it gets are ``received``."""

    def __init__(self, backend: NetBackend) -> None:
        self.backend = backend
        self.received: list[bytes] = []
        self._inbox: deque[Callable[[], None]] = deque()
        self._posted = threading.Event()
        backend.plug(Plug(self, self._post, time.monotonic_ns))

    def look(self) -> None:
        while (frame := self.backend.fetch()) is not None:
            self.received.append(frame)

    def look_later(self) -> None:
        self.look()

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.until(self.backend.ready)
            self.backend.transmit(frame)

    def until(self, done: Callable[[], bool]) -> None:
        """Run the machine's thread until ``done()``; pytest's timeout says if that never comes."""
        while not done():
            self._posted.wait(0.01)
            self._posted.clear()
            while self._inbox:
                self._inbox.popleft()()

    def _post(self, message: Callable[[], None]) -> None:
        self._inbox.append(message)
        self._posted.set()
