"""The contract between a sound device and what makes its sound heard, or keeps it.

The device alone says *when*: it paces every stream on the machine's one clock, and a backend follows. So a backend

- has no clock of its own, and never makes the device wait: no call blocks on the host's sound system;
- never raises because of the host (a full disk, a sound card that was unplugged): it reports that once, in a line,
  and carries on without; the guest notices nothing;
- is opened and closed with the machine, before and after any stream, so that what the user asked for is checked
  before the guest runs.

Capture will be a second method beside ``open_playback``. A backend that plays live will want the frames of a period
when it begins, not when it has ended: that is an attribute of Playback to come, which devices/virtio/sound/stream.py
has to honour in one place.
"""

from typing import Protocol

from devices.audio.pcm import PcmParams

__all__ = ["AudioBackend", "Playback"]


class Playback(Protocol):
    """One output stream, from the driver's PREPARE to its RELEASE. Calls come in the order of the guest's sound."""

    @property
    def latency_bytes(self) -> int:
        """How many of the bytes written are still to be heard: whole frames, 0 for a backend that only records."""
        ...

    def start(self) -> None:
        """From now on the stream plays (again)."""
        ...

    def write(self, data: bytes) -> None:
        """Take the frames that have just been played: whole frames, never none."""
        ...

    def stop(self) -> None:
        """From now on nothing is heard; ``start`` or ``close`` follows."""
        ...

    def close(self) -> None:
        """No more of this stream."""
        ...


class AudioBackend(Protocol):
    """What ``--audio`` names."""

    @property
    def played(self) -> int:
        """Frames played since the machine was switched on."""
        ...

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Get ready to play frames of ``params`` for the device's stream number ``stream``."""
        ...

    def summary(self) -> list[str]:
        """Say what the user should know in the end (files written, nothing played), a line each."""
        ...

    def close(self) -> None:
        """Let go of files and host devices. Harmless when repeated, or while a playback is open."""
        ...
