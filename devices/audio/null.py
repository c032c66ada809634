"""No sound, but all of its timing: what the guest plays is counted and forgotten."""

from devices.audio.base import Playback
from devices.audio.pcm import PcmParams

__all__ = ["NullSink"]


class NullSink:
    """Backend ``null``. ``played`` is the number of frames that the guest has played."""

    def __init__(self) -> None:
        self.played = 0

    def open_playback(self, stream: int, params: PcmParams) -> Playback:  # noqa: ARG002 - counts all streams alike
        """Count the frames of one more stream."""
        return _NullPlayback(self, params.frame_size)

    def summary(self) -> list[str]:
        """Nothing: who asked for no sound need not be told of it."""
        return []

    def close(self) -> None:
        """Nothing to let go of."""


class _NullPlayback:
    latency_bytes = 0

    def __init__(self, sink: NullSink, frame_size: int) -> None:
        self._sink = sink
        self._frame_size = frame_size

    def start(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self._sink.played += len(data) // self._frame_size

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass
