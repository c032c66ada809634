"""Whether the guest's kernel has panicked, judged by its behaviour.

Any program can print what a panic prints, through /dev/kmsg even with the kernel's time stamp. But Linux's panic()
ends in mdelay(), for ever or until it reboots: the hart reads the time over and over, prints nothing, neither waits nor
runs a program, and takes no exception except the timer's calls to the firmware. No program can cause all of that for
long: a system call that takes as long computes something, or waits.
"""

from emu.cpu.engine import Engine, Reg
from emu.cpu.hart import Hart

__all__ = ["Suspicion"]

_USER = 0
#: It must do nothing else for this long (guest time, ns),
_LONG_NS = 300_000_000
#: and read the time this often: mdelay() does so 1000 times a millisecond, the ticks of a busy kernel 5 times.
_NS_PER_READ = 50_000


class Suspicion:
    """Watches ``hart`` from when something that looks like a panic was printed."""

    def __init__(self, engine: Engine, hart: Hart) -> None:
        self._engine, self._hart = engine, hart
        self._reads = self._begin = 0
        self._activity = (-1, -1)

    def look(self, now: int, printed: int, waiting: bool) -> bool | None:
        """Whether the kernel has panicked, or None if not known yet; call whenever the CPU has stopped.

        ``printed`` is the number of bytes printed so far; ``waiting`` is true if the hart executed WFI.
        """
        if waiting or self._engine.state[Reg.PRIV] == _USER:
            return False
        activity = printed, self._hart.traps - self._hart.supervisor_calls
        if activity != self._activity:
            self._activity, self._begin, self._reads = activity, now, self._engine.time_reads
        elapsed = now - self._begin
        reads = self._engine.time_reads - self._reads
        return True if elapsed >= _LONG_NS and reads * _NS_PER_READ >= elapsed else None
