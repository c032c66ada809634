"""Guest time. One clock object is behind mtime, the time CSR, SBI timers and the pacing of sound.

All clocks count nanoseconds since power-on and never go back. They differ in what passes time when the CPU waits.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from devices.errors import UsageError
from emu.timing.warp import WarpClock

__all__ = ["Clock", "HostClock", "ManualClock", "make_clock"]

#: Whoever sleeps is woken by messages, and each look for what else there may be costs an idle host more than the guest:
#: coming out of its deep sleep takes a millisecond of cold caches. But a stop of the process is only known at its end.
_LONGEST_SLEEP_NS = 200_000_000
#: So much later than planned, the next look at the clock means that the process was stopped, or not scheduled.
_STOPPED_NS = 50_000_000
#: How much of a stop counts as time.
_MARGIN_NS = 1_000_000
#: What HostClock.shared has.
_ORIGIN, _SEEN, _PAUSED, _STOPPED = range(4)


class Clock(Protocol):
    """What the machine needs of a clock; devices need ``now`` only."""

    def now(self) -> int:
        """Nanoseconds of guest time. For any thread."""
        ...

    def wait(self, deadline: int | None, sleep: Callable[[float], None]) -> None:
        """The CPU waits: pass the time until ``deadline`` (None: for ever), or less; the caller looks again.

        ``sleep(seconds)`` sleeps until then or until the doorbell rings.
        """
        ...

    def pause(self) -> None:
        """Stand still until ``resume``; the CPU does not run meanwhile."""
        ...

    def resume(self) -> None:
        """Go on where it was."""
        ...


class HostClock:
    """Real time, what a person hears.

    While the process is stopped (SIGSTOP, a debugger, a suspended host, a host with too much else to do) guest time
    stands still, so that timers and the pacing of sound go on together where they were, with nothing to catch up.
    That is seen by nobody having looked when somebody should have: while the process runs, ``now`` is called by the
    end of each ``wait``, and at least every 20 ms otherwise.

    ``shared`` is what it knows, for who tells the time without Python (native.c): the host time at which guest time
    began; that of the last look, or of the next one that is planned; how long it was paused; after how long without a
    look only ``now`` can tell. It is None if ``monotonic`` is not the host's.
    """

    def __init__(self, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic = self._host = monotonic
        self._resumed = monotonic()
        self._words = memoryview(bytearray(32)).cast("q")
        self._words[_ORIGIN] = self._words[_SEEN] = self._resumed
        self._words[_STOPPED] = _STOPPED_NS
        self.shared = self._words if monotonic is time.monotonic_ns else None
        self._lock = threading.Lock()

    def now(self) -> int:
        """Nanoseconds of guest time."""
        words = self._words
        while True:
            origin = words[_ORIGIN]
            host = self._monotonic()
            ahead = host - words[_SEEN]
            if ahead > _STOPPED_NS:
                self._resume(host)
            elif ahead > 0:
                words[_SEEN] = host
            if origin == words[_ORIGIN]:  # else another thread found, in between, that the process was stopped
                return host - origin

    def wait(self, deadline: int | None, sleep: Callable[[float], None]) -> None:
        """Sleep in real time."""
        left = _LONGEST_SLEEP_NS
        if deadline is not None:
            left = min(left, deadline - self.now())
        if left > 0:
            self._words[_SEEN] = self._monotonic() + left
            sleep(left / 1e9)
            self.now()

    def pause(self) -> None:
        """Stand still."""
        paused_at = self._monotonic()
        self._monotonic = lambda: paused_at

    def resume(self) -> None:
        """Go on where it was: what was paused is no time at all."""
        paused = self._words[_PAUSED] = self._host() - self._monotonic()
        self._monotonic = lambda: self._host() - paused  # one store, so that no thread finds anything in between

    def _resume(self, host: int) -> None:
        with self._lock:
            # Another thread may have come first; or one that was stopped has only now stored what it saw before.
            words = self._words
            gap = host - max(words[_SEEN], self._resumed)
            if gap > _STOPPED_NS:
                words[_ORIGIN] += gap - _MARGIN_NS
                self._resumed = host
            words[_SEEN] = max(words[_SEEN], host)


class ManualClock:
    """A clock that moves only when told, or to the next deadline when the CPU waits. For tests."""

    def __init__(self) -> None:
        self._now = 0

    def now(self) -> int:
        """Nanoseconds of guest time."""
        return self._now

    def advance(self, ns: int) -> None:
        """Let ``ns`` nanoseconds pass."""
        self._now += ns

    def wait(self, deadline: int | None, sleep: Callable[[float], None]) -> None:
        """Jump; with nothing to wait for, sleep until the doorbell rings."""
        if deadline is None:
            sleep(_LONGEST_SLEEP_NS / 1e9)
        else:
            self._now = max(self._now, deadline)

    def pause(self) -> None:
        """It stands still anyway."""

    def resume(self) -> None:
        """And goes on when it is told to."""


def make_clock(name: str) -> Clock:
    """Make the clock that the command line calls ``name``; raises UsageError for an unknown one."""
    clocks: dict[str, Callable[[], Clock]] = {"host": HostClock, "warp": WarpClock}
    try:
        return clocks[name]()
    except KeyError:
        raise UsageError(f"there is no clock {name!r}; use host or warp") from None
