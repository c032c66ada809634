"""Time is work: a clock that counts what the guest does, so that a run is the same every time, to the bit."""

from collections.abc import Callable
from typing import Protocol, TypedDict

from devices.state import Ns, check

__all__ = ["PS_PER_BLOCK", "ClockState", "WarpClock", "Worker", "check_clock"]

#: Guest time that a block of code takes, in picoseconds. Booting the default guest and its programs execute 4.7
#: instructions a block; a board with a U74 at 1.5 GHz (VisionFive 2), which mostly completes one in 1.3 cycles,
#: needs 4 ns for them.
PS_PER_BLOCK = 4_000
_PS_PER_NS = 1_000
#: What is shared: ns that were jumped over, ps for each block.
_JUMPED, _PS = range(2)
#: Without a deadline nothing but a message can wake the guest, and that rings.
_LONGEST_SLEEP_S = 0.2
#: Blocks that the guest executes between two events, 1 us: no device is faster. A guest that is interrupted again at
#: once, whatever it does, would never get on.
_LEAST = 250
#: More blocks than any run has.
_MANY = 1 << 60
#: What guest time in ns, and work in ps, can be: so much that as much again can pass.
_MOST = 1 << 62


class ClockState(TypedDict):
    """Guest time, and what was given up of real time: of every clock, so that one can go on where another was."""

    now: Ns
    given_up: Ns


class Worker(Protocol):
    """A CPU that counts its blocks; the engine is one."""

    @property
    def blocks(self) -> int:
        """How many have begun."""
        ...

    def count_blocks(self) -> None:
        """Count them from now on."""
        ...

    def stop_after(self, blocks: int) -> None:
        """Stop after so many more."""
        ...

    def share_work(self, shared: memoryview) -> None:
        """Tell the time by them: for each ``shared[1]`` ps, and ``shared[0]`` ns on top of that."""
        ...


class WarpClock:
    """So many picoseconds for each block that the CPU executes; when it waits, time jumps to the next deadline.

    Nothing of the host's is in it. It belongs to the machine's thread; before a CPU is there, it shows 0.
    """

    def __init__(self, ps_per_block: int = PS_PER_BLOCK) -> None:
        self._shared = memoryview(bytearray(16)).cast("q")
        self._shared[_PS] = ps_per_block
        self._worker: Worker | None = None

    given_up = 0

    @property
    def ps_per_block(self) -> int:
        """Guest time that a block takes, in picoseconds."""
        return int(self._shared[_PS])

    def settle(self) -> None:
        """It has counted what the CPU did."""

    def follow(self, worker: Worker) -> None:
        """Count the work of ``worker``, which has done none yet."""
        self._shared[_JUMPED] = self.now()
        self._worker = worker
        worker.count_blocks()
        worker.share_work(self._shared)

    def now(self) -> int:
        """Nanoseconds of guest time. Of the machine's thread."""
        jumped, ps = self._shared
        return jumped if self._worker is None else jumped + self._worker.blocks * ps // _PS_PER_NS

    def state(self) -> ClockState:
        """Return its state. How far the last ns has got follows from the worker's blocks."""
        return {"now": self.now(), "given_up": 0}

    def restore(self, state: ClockState) -> None:
        """Go on from ``state``; the worker has to have the blocks that it had then.

        Raises UsageError for a time that no machine reaches.
        """
        check_clock(state)
        worked = 0 if self._worker is None else self._worker.blocks * self.ps_per_block
        check(worked < _MOST, "the number of the CPU's blocks")
        self._shared[_JUMPED] = state["now"] - worked // _PS_PER_NS

    def wait(self, deadline: int | None, sleep: Callable[[float], None]) -> None:
        """Jump; with nothing to wait for, sleep until the doorbell rings."""
        if deadline is None:
            sleep(_LONGEST_SLEEP_S)
        else:
            self._shared[_JUMPED] += max(deadline - self.now(), 0)

    def stop_at(self, deadline: int) -> None:
        """Have the CPU stop before the first block that begins at ``deadline`` or later, or 1 us from now."""
        worker = self._worker
        if worker is not None:
            jumped, ps = self._shared
            last = -((jumped - deadline) * _PS_PER_NS // ps)  # rounded up
            worker.stop_after(min(max(last - worker.blocks, _LEAST), _MANY))

    def pause(self) -> None:
        """It stands still while the CPU does not run, anyway."""

    def resume(self) -> None:
        """And goes on with it."""


def check_clock(state: ClockState) -> None:
    """Raise UsageError for a time that no machine reaches."""
    check(state["now"] < _MOST, "the guest's time")
