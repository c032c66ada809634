"""How the machine's thread is called back: out of the guest, or out of its sleep."""

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol
from weakref import ref

__all__ = ["Alarm", "AlarmThread", "Doorbell"]

_AGAIN_S = 0.0005
_HEARTBEAT_NS = 20_000_000
_AT_ONCE, _FOREVER = 0, (1 << 63) - 1


class Alarm(Protocol):
    """What stops the CPU at a deadline; the engine's native part is one."""

    def stop_at(self, deadline: int) -> None:
        """Stop the CPU at ``deadline`` (guest time, ns), and no more at the one before. For any thread."""
        ...


class Doorbell:
    """Rings at a deadline (guest time, ns), or when another thread asks; ``alarm`` is what rings in the guest.

    With ``deadlines_only``, whoever rings while the guest runs waits until it comes back by itself: where time is
    counted, the host must not choose when.

    All methods but ``ring`` are for the machine's thread. Each side first stores what it wants and then looks at the
    other's, so neither can miss it.
    """

    def __init__(self, alarm: Alarm, *, deadlines_only: bool = False) -> None:
        self._alarm = alarm
        self._deadlines_only = deadlines_only
        self._deadline = _FOREVER
        self._in_guest = self._rung = False
        self._sleep = threading.Lock()  # as a semaphore: a timed acquire is the most precise sleep that Python has
        self._sleep.acquire()

    @property
    def deadline(self) -> int:
        """When it rings, or would have, in the guest that was entered last."""
        return self._deadline

    def ring(self) -> None:
        """Call the machine's thread. For any thread."""
        self._rung = True
        _release(self._sleep)
        if self._in_guest and not self._deadlines_only:
            self._alarm.stop_at(_AT_ONCE)

    def enter(self, deadline: int | None) -> None:
        """The guest is entered now: call back at ``deadline``."""
        self._in_guest = True
        self._call_back(_FOREVER if deadline is None else deadline)

    def nearer(self, deadline: int) -> None:
        """Call back at ``deadline`` already: the guest has asked for something earlier."""
        if self._in_guest and deadline < self._deadline:
            self._call_back(deadline)

    def _call_back(self, deadline: int) -> None:
        self._deadline = deadline
        self._alarm.stop_at(deadline)
        if self._rung and not self._deadlines_only:  # who rings may have come first
            self._alarm.stop_at(_AT_ONCE)

    def acknowledge(self) -> None:
        """The machine's thread is back and is going to look at everything: stop ringing."""
        self._in_guest = False
        self._alarm.stop_at(_FOREVER)
        self._rung = False

    def sleep(self, seconds: float) -> None:
        """Sleep until the doorbell rings, at most ``seconds``."""
        if not self._rung:
            self._sleep.acquire(timeout=seconds)


class AlarmThread:
    """Stops the CPU from a small thread, which sleeps until the deadline: an alarm for every engine and every clock.

    A stop that comes just before the CPU starts is lost, so it is repeated until there is another deadline. ``stop``
    stops the CPU; ``now`` is guest time, and is asked every 20 ms at least, which is the clock's heartbeat.
    """

    def __init__(self, stop: Callable[[], None], now: Callable[[], int]) -> None:
        self._stop, self._now = stop, now
        self._deadline = self._wakes_at = _FOREVER
        self._closed = False
        self._sleep = threading.Lock()
        self._sleep.acquire()
        self._thread = threading.Thread(target=_watch, args=(ref(self), self._sleep), name="pyemu alarm", daemon=True)
        self._thread.start()

    def stop_at(self, deadline: int) -> None:
        """Stop the CPU at ``deadline``. For any thread."""
        self._deadline = deadline
        if deadline < self._wakes_at:
            _release(self._sleep)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        _release(self._sleep)
        if self._thread is not threading.current_thread():  # where cycles may be collected, too
            self._thread.join()

    def look(self) -> float:
        """Stop the CPU if it is time, and return after how many seconds to look again (-1: when woken)."""
        self._wakes_at = _FOREVER
        deadline = self._deadline
        if self._closed or deadline == _FOREVER:
            return -1.0
        now = self._now()
        if deadline <= now:
            self._stop()
            return _AGAIN_S
        self._wakes_at = min(deadline, now + _HEARTBEAT_NS)
        return (self._wakes_at - now) / 1e9

    @property
    def closed(self) -> bool:
        """Whether the thread is to end."""
        return self._closed


def _watch(alarm: "ref[AlarmThread]", sleep: threading.Lock) -> None:
    """Look whenever it is time. Asleep, the thread keeps nobody's machine alive."""
    while (awake := alarm()) is not None and not awake.closed:
        seconds = awake.look()
        del awake
        sleep.acquire(timeout=seconds)


def _release(lock: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # it has been rung already
        lock.release()
