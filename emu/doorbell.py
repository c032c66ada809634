"""How the machine's thread is called back: out of the guest, or out of its sleep.

One small thread sleeps until the earliest deadline and then stops the CPU. A stop that comes just before the CPU
starts is lost, so it is repeated until the machine's thread has acknowledged.
"""

import contextlib
import threading
from collections.abc import Callable

__all__ = ["Doorbell"]

_AGAIN_S = 0.0005
_HEARTBEAT_NS = 20_000_000
_FOREVER = 1 << 64


class Doorbell:
    """Rings at a deadline (guest time, ns), or when another thread asks.

    ``stop`` stops the CPU, from any thread; ``now`` is guest time. All methods but ``ring`` are for the machine's
    thread. Each side first stores what it wants and then looks at the other's, so neither can miss it.
    """

    def __init__(self, stop: Callable[[], None], now: Callable[[], int]) -> None:
        self._stop, self._now = stop, now
        self._deadline = self._wakes_at = _FOREVER
        self._in_guest = self._rung = self._closed = False
        # Two locks as binary semaphores: a timed acquire is the most precise sleep that Python has.
        self._thread_sleep, self._cpu_sleep = threading.Lock(), threading.Lock()
        self._thread_sleep.acquire()
        self._cpu_sleep.acquire()
        self._thread = threading.Thread(target=self._run, name="pyemu doorbell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Call the machine's thread. For any thread."""
        self._rung = True
        _release(self._cpu_sleep)
        if self._in_guest:
            _release(self._thread_sleep)

    def enter(self, deadline: int | None) -> None:
        """The guest is entered now: call back at ``deadline``."""
        self._deadline = _FOREVER if deadline is None else deadline
        self._in_guest = True
        if self._rung or self._deadline < self._wakes_at:
            _release(self._thread_sleep)

    def nearer(self, deadline: int) -> None:
        """Call back at ``deadline`` already: the guest has asked for something earlier."""
        if self._in_guest and deadline < self._deadline:
            self._deadline = deadline
            if deadline < self._wakes_at:
                _release(self._thread_sleep)

    def acknowledge(self) -> None:
        """The machine's thread is back and is going to look at everything: stop ringing."""
        self._in_guest = False
        self._rung = False

    def sleep(self, seconds: float) -> None:
        """Sleep until the doorbell rings, at most ``seconds``."""
        if not self._rung:
            self._cpu_sleep.acquire(timeout=seconds)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        _release(self._thread_sleep)
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._wakes_at = _FOREVER
            wait = -1.0
            if self._in_guest:
                now = self._now()  # this is the clock's heartbeat, too
                if self._rung or self._deadline <= now:
                    self._stop()
                    wait = _AGAIN_S
                else:
                    self._wakes_at = min(self._deadline, now + _HEARTBEAT_NS)
                    wait = (self._wakes_at - now) / 1e9
            self._thread_sleep.acquire(timeout=wait)


def _release(lock: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # it has been rung already
        lock.release()
