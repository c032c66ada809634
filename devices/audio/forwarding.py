"""The base of backends that stand in front of another and pass on whatever they do not handle themselves."""

from collections.abc import Sequence

from devices.audio.base import AudioBackend, AudioState, Capture, Period, Playback
from devices.audio.pcm import PcmParams

__all__ = ["ForwardingBackend"]


class ForwardingBackend(AudioBackend):
    """Passes everything on to ``backend``."""

    def __init__(self, backend: AudioBackend) -> None:
        self.backend = backend
        self.streams = backend.streams

    @property
    def played(self) -> int:
        """Frames played since power-on."""
        return self.backend.played

    @property
    def lost(self) -> int:
        """Frames that the backend could not keep."""
        return self.backend.lost

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Play to the backend."""
        return self.backend.open_playback(stream, params)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Record from the backend."""
        return self.backend.open_capture(stream, params)

    def observe(self, period: Period) -> None:
        """Pass a completed period on."""
        self.backend.observe(period)

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        """Pass the volume on."""
        self.backend.set_gains(playback, capture)

    def state(self) -> AudioState:
        """Return what the backend holds."""
        return self.backend.state()

    def restore(self, state: AudioState) -> None:
        """Have the backend hold that again."""
        self.backend.restore(state)

    def summary(self) -> list[str]:
        """Return the backend's summary."""
        return self.backend.summary()

    def close(self) -> None:
        """Close the backend."""
        self.backend.close()
