"""What has happened since the machine was switched on, in numbers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["Counters", "count"]


@dataclass(frozen=True, slots=True)
class Counters:
    """A snapshot; two of them say what happened in between. Times are in ns."""

    #: Guest time, and real time, since power-on.
    guest_ns: int
    real_ns: int
    #: Exceptions: page faults, system calls, calls to the firmware.
    traps: int
    #: Interrupts of devices that were claimed, by their source; timer interrupts are not the PLIC's.
    interrupts: tuple[int, ...]
    #: Bytes that the guest printed.
    printed: int
    #: Of all streams together: frames and periods completed.
    frames_played: int
    frames_recorded: int
    periods: int
    #: Gaps in what was played, and frames that were not recorded, because the driver was late.
    underruns: int
    silence_ns: int
    overruns: int
    lost_frames: int
    #: How often the machine itself was too late to catch up; and the worst that it was ever late for a period.
    stalls: int
    lateness_max_ns: int
    #: Periods of the very bytes that were played a buffer ago, silence not counted: old sound, heard again because the
    #: guest was late (it may not know that), or a sound that repeats itself just so.
    repeats: int

    @property
    def skew_ns(self) -> int:
        """How far guest time is ahead of real time: far, under warp; behind, after a pause or a stop."""
        return self.guest_ns - self.real_ns


def count(machine: "Machine", real_ns: int) -> Counters:
    """Take a snapshot of ``machine``, on its thread."""
    outputs = machine.audio.streams[0]
    stats = machine.sound.stats
    return Counters(
        guest_ns=machine.clock.now(),
        real_ns=real_ns,
        traps=machine.hart.traps,
        interrupts=tuple(machine.plic.claims),
        printed=machine.console.printed,
        frames_played=sum(one.frames for one in stats[:outputs]),
        frames_recorded=sum(one.frames for one in stats[outputs:]),
        periods=sum(one.messages for one in stats),
        underruns=sum(one.underruns for one in stats),
        silence_ns=sum(one.silence_ns for one in stats),
        overruns=sum(one.overruns for one in stats),
        lost_frames=sum(one.lost_frames for one in stats),
        stalls=sum(one.stalls for one in stats),
        lateness_max_ns=max((one.lateness_max_ns for one in stats), default=0),
        repeats=sum(one.repeats for one in stats),
    )
