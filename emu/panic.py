"""Whether the guest's kernel has panicked, told by what it does.

What it prints, any program can print, through /dev/kmsg even with the kernel's time stamp. But Linux's panic() ends in
mdelay(), for ever or until it reboots: the hart reads the time again and again, prints nothing, neither waits nor runs
a program, and takes no exception but the timer's calls to the firmware. No program can have all of that done for long:
a system call as long computes something, or waits.
"""

from emu.cpu.engine import Engine, Reg
from emu.cpu.hart import Hart

__all__ = ["Suspicion"]

_USER = 0
#: It must do nothing else for so long (guest time, ns),
_LONG_NS = 300_000_000
#: and read the time so often: mdelay() does so 1000 times in a millisecond, a busy kernel with its ticks 5 times.
_NS_PER_READ = 50_000


class Suspicion:
    """Watches ``hart`` since something that reads like a panic was printed."""

    def __init__(self, engine: Engine, hart: Hart) -> None:
        self._engine, self._hart = engine, hart
        self._reads = self._begin = 0
        self._activity = (-1, -1)

    def look(self, now: int, printed: int, waiting: bool) -> bool | None:
        """Whether the kernel is dead, or None if it is not known yet; ask whenever the CPU is back.

        ``printed`` bytes were there in all, and ``waiting`` is said of a hart that executed WFI.
        """
        if waiting or self._engine.state[Reg.PRIV] == _USER:
            return False
        activity = printed, self._hart.traps - self._hart.supervisor_calls
        if activity != self._activity:
            self._activity, self._begin, self._reads = activity, now, self._engine.time_reads
        elapsed = now - self._begin
        reads = self._engine.time_reads - self._reads
        return True if elapsed >= _LONG_NS and reads * _NS_PER_READ >= elapsed else None
