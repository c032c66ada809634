"""No sound but all of its timing: what the guest plays is counted and dropped, what it records is silence."""

from devices.audio.base import AudioBackend, Capture, Playback
from devices.audio.pcm import PcmParams

__all__ = ["NullSink", "SilentCapture"]


class NullSink(AudioBackend):
    """Backend ``null``. ``played`` is the number of frames the guest has played."""

    def __init__(self, *, streams: tuple[int, int] = (1, 1)) -> None:
        self.streams = streams
        self._played = 0

    @property
    def played(self) -> int:
        """Frames played by all streams."""
        return self._played

    def open_playback(self, stream: int, params: PcmParams) -> Playback:  # noqa: ARG002 - counts all streams alike
        """Count the frames of one more stream."""
        return _NullPlayback(self, params.frame_size)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:  # noqa: ARG002 - silence is silence
        """Record silence."""
        return SilentCapture(params)

    def count(self, frames: int) -> None:
        """Count frames as played."""
        self._played += frames

    def summary(self) -> list[str]:
        """Nothing: a user who asked for no sound need not be told."""
        return []

    def close(self) -> None:
        """Nothing to close."""


class _NullPlayback(Playback):
    def __init__(self, sink: NullSink, frame_size: int) -> None:
        self._sink = sink
        self._frame_size = frame_size

    def write(self, data: bytes) -> None:
        self._sink.count(len(data) // self._frame_size)


class SilentCapture(Capture):
    """A source of silence."""

    def __init__(self, params: PcmParams) -> None:
        self._params = params

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes of silence."""
        return self._params.silence(size)

    def skip(self, size: int) -> None:
        """All silence is alike."""
