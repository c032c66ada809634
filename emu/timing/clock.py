"""Guest time. One clock object is behind mtime, the time CSR, SBI timers and the pacing of sound.

All clocks count nanoseconds since power-on and never go back. They differ in what passes time when the CPU waits.
"""

import time
from collections.abc import Callable
from typing import Protocol

from devices.errors import UsageError
from emu.timing.warp import ClockState, WarpClock, check_clock

__all__ = ["Clock", "ClockState", "HostClock", "ManualClock", "make_clock"]

#: Messages wake whoever sleeps, so nothing is missed. A wake-up costs 0.2 ms, as the host's caches are cold: five a
#: second would be most of what an idle machine costs. Of a stop of the process, at most this much counts as waiting.
_LONGEST_SLEEP_NS = 5_000_000_000
#: The most guest time that a block of code may take, in picoseconds. Unicorn executes one in 6 to 30 ns, so a host
#: that is not busy keeps real time. PipeWire, with programs starting beside it, has 2 to 4 xruns on a CPU as slow as
#: that, and ALSA misses nothing in 17 of 17 runs under warp; at 35 ns there are "Lost interrupts" in 5 of 12, at 100 in
#: all, although no device is late: Linux tells ALSA of a period in a work item, which waits for the CPU like a program.
SLOWEST_PS_PER_BLOCK = 30_000
#: How far guest time may be behind real time before the rest is given up. A busy host lets a process wait for some ms;
#: a slow one gets 42 behind while Linux writes back half a minute of recorded sound. With the host's sound 100 ms late,
#: 60 that are caught up with are not heard, and 80 are.
MOST_BEHIND_NS = 50_000_000
#: What HostClock.shared has.
_NOW, _BLOCKS, _ORIGIN, _GIVEN_UP, _SLOWEST_PS, _MOST_BEHIND = range(6)
_PS_PER_NS = 1_000
#: HostClock's limits, where there are to be none.
UNLIMITED_PS, UNLIMITED_NS = 10**12, 10**18


class Clock(Protocol):
    """What the machine needs of a clock; devices need ``now`` only."""

    def now(self) -> int:
        """Nanoseconds of guest time. For any thread."""
        ...

    @property
    def given_up(self) -> int:
        """How much real time has passed that the guest does not get (ns)."""
        ...

    def settle(self) -> None:
        """The CPU is back: what it did has taken time. On the machine's thread, as ``wait`` is."""
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

    def state(self) -> ClockState:
        """Return its state, which can be another clock's from then on. On the machine's thread, as ``restore`` is."""
        ...

    def restore(self, state: ClockState) -> None:
        """Go on from ``state``; the CPU has been restored. Raises UsageError for a time that no machine reaches."""
        ...


class Worker(Protocol):
    """A CPU that counts the blocks that it executes."""

    @property
    def blocks(self) -> int:
        """How many have begun."""
        ...


class HostClock:
    """Real time, what a person hears, but never more of it than the guest could have worked in.

    While the CPU executes, each block of code takes as long as it really takes, and ``slowest_ps`` at most: where the
    host ran something else, or translated, or was in a device's model, the guest is behind real time. While the CPU
    waits that is caught up with, for then it costs the guest nothing; its next event comes exactly when it is due,
    however late the host woke up. What is behind by more than ``most_behind`` ns is given up: the process was stopped,
    the host was suspended or has too much else to do. So nothing that the host does makes the guest miss a deadline,
    and timers and the pacing of sound stay together.

    ``shared`` is all of that, for code that tells the time without Python (native.c); None if ``monotonic`` is not the
    host's clock.
    """

    def __init__(
        self,
        monotonic: Callable[[], int] = time.monotonic_ns,
        *,
        slowest_ps: int = SLOWEST_PS_PER_BLOCK,
        most_behind: int = MOST_BEHIND_NS,
    ) -> None:
        self._monotonic = monotonic
        self._words = memoryview(bytearray(48)).cast("q")
        self._words[_ORIGIN] = monotonic()
        self._words[_SLOWEST_PS], self._words[_MOST_BEHIND] = slowest_ps, most_behind
        self.shared = self._words if monotonic is time.monotonic_ns else None
        self._worker: Worker | None = None
        self._native = False
        self._paused_at: int | None = None

    def follow(self, worker: Worker, *, native: bool) -> None:
        """Let no more time pass than ``worker`` works, or waits; ``native``: it settles ``shared`` while it does."""
        self.settle()
        self._worker, self._native = worker, native
        self._words[_BLOCKS] = worker.blocks

    def now(self) -> int:
        """Nanoseconds of guest time. For any thread."""
        words = self._words
        if self._native:
            return words[_NOW]
        real = self._real()
        if self._worker is None:
            return real
        worked = (self._worker.blocks - words[_BLOCKS]) * words[_SLOWEST_PS] // _PS_PER_NS
        return max(words[_NOW], min(real, words[_NOW] + worked))

    @property
    def given_up(self) -> int:
        """How much real time has passed that the guest does not get (ns); that of a pause is not counted."""
        return self._words[_GIVEN_UP]

    def settle(self) -> None:
        """What the CPU did has taken time."""
        words, real, blocks = self._words, self._real(), 0
        now = real
        if self._worker is not None:
            blocks = self._worker.blocks
            now = min(real, words[_NOW] + (blocks - words[_BLOCKS]) * words[_SLOWEST_PS] // _PS_PER_NS)
        words[_BLOCKS], words[_NOW] = blocks, max(words[_NOW], now)
        self._give_up(real - words[_NOW] - words[_MOST_BEHIND])

    def wait(self, deadline: int | None, sleep: Callable[[float], None]) -> None:
        """Sleep in real time; catch up with it first."""
        self._pass(deadline)
        left = _LONGEST_SLEEP_NS
        if deadline is not None:
            left = min(left, deadline - self._real())
        if left > 0:
            begun = self._real()
            sleep(left / 1e9)
            self._give_up(self._real() - begun - left - self._words[_MOST_BEHIND])
            self._pass(deadline)

    def pause(self) -> None:
        """Stand still."""
        self._paused_at = self._monotonic()

    def resume(self) -> None:
        """Go on where it was: what was paused is no time at all."""
        if self._paused_at is not None:
            self._words[_ORIGIN] += self._monotonic() - self._paused_at
            self._paused_at = None

    def state(self) -> ClockState:
        """Return its state. How far it is behind real time is not part of it."""
        return {"now": self.now(), "given_up": self.given_up}

    def restore(self, state: ClockState) -> None:
        """Go on from ``state``, not behind real time; raises UsageError for a time that no machine reaches."""
        check_clock(state)
        words = self._words
        words[_NOW], words[_GIVEN_UP] = state["now"], state["given_up"]
        words[_BLOCKS] = 0 if self._worker is None else self._worker.blocks
        words[_ORIGIN] += self._real() - state["now"]

    def _real(self) -> int:
        return (self._monotonic() if self._paused_at is None else self._paused_at) - self._words[_ORIGIN]

    def _pass(self, deadline: int | None) -> None:
        """Nothing happens in the guest until ``deadline``: be there, if real time is."""
        real = self._real()
        self._words[_NOW] = max(self._words[_NOW], real if deadline is None else min(real, deadline))

    def _give_up(self, excess: int) -> None:
        if excess > 0:
            self._words[_ORIGIN] += excess
            self._words[_GIVEN_UP] += excess


class ManualClock:
    """A clock that moves only when told, or to the next deadline when the CPU waits. For tests."""

    given_up = 0

    def __init__(self) -> None:
        self._now = 0

    def now(self) -> int:
        """Nanoseconds of guest time."""
        return self._now

    def settle(self) -> None:
        """What the CPU does takes no time."""

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

    def state(self) -> ClockState:
        """Return its state."""
        return {"now": self._now, "given_up": 0}

    def restore(self, state: ClockState) -> None:
        """Show the time of ``state``; raises UsageError for one that no machine reaches."""
        check_clock(state)
        self._now = state["now"]


def make_clock(name: str) -> Clock:
    """Make the clock that the command line calls ``name``; raises UsageError for an unknown one."""
    clocks: dict[str, Callable[[], Clock]] = {"host": HostClock, "warp": WarpClock, "real": _real_clock}
    try:
        return clocks[name]()
    except KeyError:
        raise UsageError(f"there is no clock {name!r}; use host, warp or real") from None


def _real_clock() -> HostClock:
    """Make a clock that shows real time, whatever the guest makes of it."""
    return HostClock(slowest_ps=UNLIMITED_PS, most_behind=UNLIMITED_NS)
