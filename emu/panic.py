"""Whether the guest's kernel has panicked, judged by its behaviour.

Any program can print what a panic prints, through /dev/kmsg even with the kernel's time stamp. But Linux's panic()
ends in mdelay(), for ever or until it reboots: the hart reads the time over and over, prints nothing, neither waits nor
runs a program, and takes no exception except the timer's calls to the firmware. No program can cause all of that for
long: a system call that takes as long computes something, or waits.
"""

import os
from typing import TYPE_CHECKING

from devices.contracts import Clock
from devices.errors import MachineError
from emu.cpu.engine import Engine, Reg
from emu.cpu.hart import Hart

if TYPE_CHECKING:
    from emu.console import Console

__all__ = ["PanicWatch"]

_USER = 0
#: It must do nothing else for this long (guest time, ns),
_LONG_NS = 300_000_000
#: and read the time this often: mdelay() does so 1000 times a millisecond, the ticks of a busy kernel 5 times.
_NS_PER_READ = 50_000


class PanicWatch:
    """Finds out whether what ``console`` takes for a panic of the guest's kernel is one.

    ``initrd`` is the root file system that the guest was given.
    """

    def __init__(
        self, engine: Engine, hart: Hart, clock: Clock, console: "Console", initrd: str | os.PathLike[str] | None
    ) -> None:
        self._engine, self._hart, self._clock = engine, hart, clock
        self._console, self._initrd = console, initrd
        self._suspicion: _Suspicion | None = None

    def look(self, *, waiting: bool) -> None:
        """Raise MachineError if it is true that the kernel panicked, or forget it if that is a lie.

        Call it whenever the CPU has stopped, while ``console.panic`` says so; ``waiting`` is true if the hart executed
        WFI.
        """
        why = self._console.panic
        if why is None:
            return
        if self._suspicion is None:
            self._suspicion = _Suspicion(self._engine, self._hart)
        dead = self._suspicion.look(self._clock.now(), self._console.printed, waiting)
        if dead is None:
            return
        self._suspicion = self._console.panic = None
        if dead:
            raise MachineError(f"the guest's kernel panicked: {why}{self._advice(why)}")

    def forget(self) -> None:
        """The machine has become another."""
        self._suspicion = None

    def _advice(self, why: str) -> str:
        if "mount root fs" not in why:
            return ""
        if self._initrd is None:
            return "; give it an initramfs, or a disk and root=/dev/vda"
        return f"; {self._initrd} has no /init, or is damaged, or compressed in a way that this kernel does not know"


class _Suspicion:
    """Watches ``hart`` from when something that looks like a panic was printed."""

    def __init__(self, engine: Engine, hart: Hart) -> None:
        self._engine, self._hart = engine, hart
        self._reads = self._begin = 0
        self._activity = (-1, -1)

    def look(self, now: int, printed: int, waiting: bool) -> bool | None:
        """Whether the kernel has panicked, or None if not known yet.

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
