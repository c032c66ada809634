"""The contract between a sound device and what makes its sound heard, keeps it, or has sound for it to record.

The device alone says *when*: it paces every stream on the machine's one clock, and a backend follows. So a backend

- has no clock of its own, and never makes the device wait: no call blocks on the host's sound system;
- never raises because of the host (a full disk, a sound card that was unplugged): it reports that once, in a line,
  and carries on without; the guest notices nothing;
- is opened and closed with the machine, before and after any stream, so that what the user asked for is checked
  before the guest runs.

A backend that keeps sound gets a message's frames when all of it has been played, at once or, if they are many, in
parts. One that plays live would be a whole period late with that, so it asks for parts earlier: see
``Playback.part_ns``.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from devices.audio.pcm import PcmParams

__all__ = ["AudioBackend", "Capture", "Period", "Playback"]


class Port(Protocol):
    """One stream's end in a backend, from the driver's PREPARE to its RELEASE."""

    @property
    def latency_bytes(self) -> int:
        """How many of the bytes on this side of the device are still to be heard, or to be read: whole frames.

        0 for a backend that keeps sound, or has it ready.
        """
        return 0

    def start(self) -> None:
        """From now on the stream runs (again)."""
        return

    def stop(self) -> None:
        """From now on nothing is heard or recorded; ``start`` or ``close`` follows."""
        return

    def close(self) -> None:
        """No more of this stream."""
        return


class Playback(Port, Protocol):
    """What an output stream plays to. Calls come in the order of the guest's sound."""

    #: So often (ns) a port that plays live gets what has been played of a message that goes on; None: it waits.
    part_ns: int | None = None

    def write(self, data: bytes) -> None:
        """Take the frames that have just been played, a message or the rest of one: whole frames, never none."""
        ...

    def write_part(self, data: bytes) -> None:
        """Take frames that have just been played; those that follow them belong to the same message.

        If ``part_ns`` is None, the rest is sure to follow, but for a reset: all of the message has been played. If not,
        ``stop`` may come first. Parts that are not heard yet are not to be heard then, but after ``start``: ``close``
        drops them, for the driver is told that the message was not played.
        """
        self.write(data)


class Capture(Port, Protocol):
    """What an input stream records from: a source of frames that has no end."""

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes: whole frames, never none; silence where there is no sound."""
        ...

    def skip(self, size: int) -> None:
        """Pass the next ``size`` bytes over: the guest was too slow for them. Quick, however many they are."""
        ...


class Period(NamedTuple):
    """One I/O message that has completed; times are guest time in ns."""

    direction: str  # "playback" or "capture"
    stream: int  # among those of its direction
    due: int
    done: int
    size: int  # bytes of frames
    fill: int  # bytes that the driver has still queued
    again: bool = False  # its frames are those of a buffer ago, and not silence


class AudioBackend(Protocol):
    """What ``--audio`` names. Streams are numbered from 0 in each direction, as the guest's devices hw:0,N are."""

    #: How many streams the sound device is to have: for playing, for recording.
    streams: tuple[int, int] = (1, 1)

    @property
    def played(self) -> int:
        """Frames played since the machine was switched on."""
        ...

    @property
    def lost(self) -> int:
        """Frames of those that were to be kept, and could not be."""
        return 0

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Get ready to play frames of ``params`` for an output stream."""
        ...

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Get ready to record frames of ``params`` for an input stream."""
        ...

    def observe(self, period: Period) -> None:  # noqa: ARG002
        """Take note of a period that has completed."""
        return

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:  # noqa: ARG002
        """Use the guest's volume and mute, as factors for left and right; what is not heard, like a file, does not."""
        return

    def summary(self) -> list[str]:
        """Say what the user should know in the end (files written, nothing played), a line each."""
        ...

    def close(self) -> None:
        """Let go of files and host devices. Harmless when repeated, or while a stream is open."""
        ...
