"""What has happened since power-on, in numbers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["Counters", "count"]


@dataclass(frozen=True, slots=True)
class Counters:
    """A snapshot; subtract two to see what happened in between. Times are in ns."""

    #: Guest time and real time since power-on.
    guest_ns: int
    real_ns: int
    #: Real time that the guest does not get, because the host had none for it (``clock="host"``).
    given_up_ns: int
    #: Exceptions: page faults, system calls, calls to the firmware.
    traps: int
    #: Device interrupts claimed, by source; timer interrupts do not go through the PLIC.
    interrupts: tuple[int, ...]
    #: Bytes the guest has printed.
    printed: int
    #: Frames and periods completed, over all streams.
    frames_played: int
    frames_recorded: int
    periods: int
    #: Gaps in playback, and frames not recorded, because the driver was late.
    underruns: int
    silence_ns: int
    overruns: int
    lost_frames: int
    #: How often the machine itself was later for a period than a whole buffer lasts, and the latest that it ever was.
    stalls: int
    lateness_max_ns: int
    #: Periods with exactly the bytes played one buffer earlier, silence excluded: old sound heard again because the
    #: guest was late (it may not know), or a sound that happens to repeat itself.
    repeats: int
    #: Frames of all network cards, and the bytes in them; what was dropped by a card or by what it is plugged into.
    net_sent: int
    net_sent_bytes: int
    net_received: int
    net_received_bytes: int
    net_lost: int

    @property
    def skew_ns(self) -> int:
        """How far guest time is ahead of real time: far ahead under warp, behind after a pause or a stop."""
        return self.guest_ns - self.real_ns


def count(machine: "Machine", real_ns: int) -> Counters:
    """Take a snapshot of ``machine``, on its thread."""
    outputs = machine.audio.streams[0]
    stats, cards = machine.sound.stats, [card.stats for card in machine.cards]
    return Counters(
        guest_ns=machine.clock.now(),
        real_ns=real_ns,
        given_up_ns=machine.clock.given_up,
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
        net_sent=sum(one.sent for one in cards),
        net_sent_bytes=sum(one.sent_bytes for one in cards),
        net_received=sum(one.received for one in cards),
        net_received_bytes=sum(one.received_bytes for one in cards),
        net_lost=sum(one.lost for one in cards) + sum(card.backend.lost for card in machine.cards),
    )
