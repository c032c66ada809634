"""The contract between a sound device and a backend, which plays its sound, keeps it, or supplies what it records.

The device alone says *when*: it paces every stream on the machine's one clock, and a backend follows. Therefore a
backend

- has no clock of its own, and never makes the device wait: no call blocks on the host's sound system;
- never raises because of the host (a full disk, an unplugged sound card): it reports that once, in one line, and
  carries on without; the guest notices nothing;
- is opened and closed with the machine, before and after any stream, so that what the user asked for is checked
  before the guest runs.

A backend that keeps sound gets a message's frames once all of it has been played, at once or, if there are many, in
parts. A backend that plays live would then be a whole period late, so it asks for parts earlier: see
``Playback.part_ns``.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypedDict

from devices.audio.pcm import PcmParams
from devices.state import U8, U32, Ns

__all__ = ["AudioBackend", "AudioState", "Capture", "FileState", "LineState", "Period", "Playback", "SamplesState"]


class Port(Protocol):
    """One stream's end in a backend, from the driver's PREPARE to its RELEASE."""

    @property
    def latency_bytes(self) -> int:
        """Bytes that the device has handed over but are not heard yet, or that wait to be read: whole frames.

        0 for a backend that keeps sound, or has it ready.
        """
        return 0

    def start(self) -> None:
        """The stream runs from now on (again)."""
        return

    def stop(self) -> None:
        """Nothing is heard or recorded from now on; ``start`` or ``close`` follows."""
        return

    def close(self) -> None:
        """The stream ends."""
        return


class Playback(Port, Protocol):
    """What an output stream plays to. Calls come in the order of the guest's sound."""

    #: How often (ns) a port that plays live gets what has been played of an unfinished message; None: only at its end.
    part_ns: int | None = None

    def write(self, data: bytes) -> None:
        """Take the frames just played, a message or the rest of one: whole frames, at least one."""
        ...

    def write_part(self, data: bytes) -> None:
        """Take frames just played; those that follow belong to the same message.

        If ``part_ns`` is None, all of the message has been played and, barring a reset, the rest is sure to follow.
        Otherwise ``stop`` may come first. Parts not heard by then must not be heard until ``start``; ``close`` drops
        them, because the driver is told that the message was not played.
        """
        self.write(data)


class Capture(Port, Protocol):
    """What an input stream records from: an endless source of frames."""

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes: whole frames, at least one; silence where there is no sound."""
        ...

    def skip(self, size: int) -> None:
        """Pass over the next ``size`` bytes: the guest was too slow for them. Quick, however many there are."""
        ...


class Period(NamedTuple):
    """One completed I/O message; times are guest time in ns."""

    direction: str  # "playback" or "capture"
    stream: int  # among those of its direction
    due: int
    done: int
    size: int  # bytes of frames
    fill: int  # bytes of frames still queued by the driver
    again: bool = False  # its frames repeat those of a buffer ago, and are not silence


class LineState(TypedDict):
    """What a stream has played, on its way to the recording of that number; see loopback.py."""

    stream: U8
    data: bytes
    dry: bool
    first: Ns | None
    goes_on: bool


class SamplesState(TypedDict):
    """Samples that wait to be recorded, little-endian; see microphone.py."""

    kind: str
    channels: U32
    data: bytes


class FileState(TypedDict):
    """How far a file had got that a stream's sound is kept in; its name is the user's affair. See wav.py."""

    stream: U8
    number: U32
    format: str
    rate: U32
    channels: U8
    frames: Ns


class AudioState(TypedDict):
    """What a backend holds of the guest's sound, and how much of it is in files; ``lost`` frames should be, too.

    What it has kept or played is not the machine's state: a backend goes on from there only if the user wants that.
    """

    lines: list[LineState]
    samples: list[SamplesState]
    files: list[FileState]
    lost: Ns


class AudioBackend(Protocol):
    """What ``--audio`` names. Streams are numbered from 0 in each direction, like the guest's devices hw:0,N."""

    #: How many streams the sound device has: for playing, for recording.
    streams: tuple[int, int] = (1, 1)

    @property
    def played(self) -> int:
        """Frames played since power-on. It is not restored with a machine, unless the backend's files are."""
        ...

    @property
    def lost(self) -> int:
        """Frames that should have been kept but could not be."""
        return 0

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Get ready to play frames of ``params`` for an output stream."""
        ...

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Get ready to record frames of ``params`` for an input stream."""
        ...

    def observe(self, period: Period) -> None:  # noqa: ARG002
        """Note a completed period."""
        return

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:  # noqa: ARG002
        """Use the guest's volume and mute, as factors for left and right; backends that are not heard ignore them."""
        return

    def state(self) -> AudioState:
        """Return what of the guest's sound is on its way here, and what is in files: nothing, by default."""
        return {"lines": [], "samples": [], "files": [], "lost": 0}

    def restore(self, state: AudioState) -> None:  # noqa: ARG002
        """Hold that again, when all streams have been opened anew; ignore what only other backends can have held.

        Raises UsageError where the user wants files to go on that cannot.
        """
        return

    def summary(self) -> list[str]:
        """Return what the user should know at the end (files written, nothing played), one line each."""
        ...

    def close(self) -> None:
        """Release files and host devices. Harmless when repeated, or while a stream is open."""
        ...
