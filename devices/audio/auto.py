"""Backend ``auto``: the host's default sound devices, or nowhere if there are none, and then a line says why.

To find out takes a third of a second, most of it for numpy. So a thread does that, when the guest has run for a second
or wants to play or to record, and nobody waits for it: until then nothing is heard, and silence is recorded. A guest
that makes no sound has nothing said of it.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from devices.audio.base import AudioBackend, Capture, Playback, Port
from devices.audio.latency import part_of
from devices.audio.null import NullSink
from devices.audio.pcm import PcmParams

__all__ = ["AutoAudio"]

logger = logging.getLogger(__name__)

#: When the host's devices are looked for at the latest (s): a guest that boots is not held up by it.
_SOON = 1.0
_LONGEST_END = 2.0

PortT = TypeVar("PortT", bound=Port)


class AutoAudio(AudioBackend):
    """What ``make`` makes, as soon as that is done; or, if it raises, nothing."""

    def __init__(
        self,
        make: Callable[[], AudioBackend],
        *,
        latency: float,
        streams: tuple[int, int] = (1, 1),
        soon: float = _SOON,
    ) -> None:
        self.streams = streams
        self.part_ns = round(part_of(latency) * 1e9)
        self._make = make
        self._soon = soon
        self._nothing = NullSink(streams=streams)
        #: What sound goes to now.
        self.backend: AudioBackend = self._nothing
        self._gains: tuple[Sequence[float], Sequence[float]] = ((1.0, 1.0), (1.0, 1.0))
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._find, name="pyemu-sound-find", daemon=True)
        self._thread.start()

    def _find(self) -> None:
        self._wanted.wait(self._soon)
        if self._closing:
            return
        try:
            backend = self._make()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the host's sound, the guest goes on
            self._wanted.wait()
            if not self._closing:
                logger.warning("the guest's sound is not heard: %s", error)
            return
        self.backend = backend
        backend.set_gains(*self._gains)
        if self._closing:
            backend.close()

    @property
    def played(self) -> int:
        """Frames played by the guest, heard or not."""
        return self._nothing.played + (self.backend.played if self.backend is not self._nothing else 0)

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Play to the host, as soon as that is found."""
        self._wanted.set()
        return _AutoPlayback(self, lambda backend: backend.open_playback(stream, params))

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Record from the host, as soon as that is found."""
        self._wanted.set()
        return _AutoCapture(self, lambda backend: backend.open_capture(stream, params))

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        """Hand the volume on."""
        self._gains = playback, capture
        self.backend.set_gains(playback, capture)

    def summary(self) -> list[str]:
        """Say what the backend says."""
        return self.backend.summary()

    def close(self) -> None:
        """Stop looking, and close what was found."""
        self._closing = True
        self._wanted.set()
        self._thread.join(_LONGEST_END)
        self.backend.close()


class _AutoPort(Generic[PortT]):
    """A port of what sound goes to now."""

    def __init__(self, auto: AutoAudio, open_: Callable[[AudioBackend], PortT]) -> None:
        self._auto = auto
        self._open = open_
        self._backend = auto.backend
        self._port = open_(self._backend)
        self._running = False

    @property
    def _now(self) -> PortT:
        if self._backend is not self._auto.backend:
            self._backend = self._auto.backend
            self._port = self._open(self._backend)
            if self._running:
                self._port.start()
        return self._port

    @property
    def latency_bytes(self) -> int:
        return self._now.latency_bytes

    def start(self) -> None:
        self._now.start()
        self._running = True

    def stop(self) -> None:
        self._now.stop()
        self._running = False

    def close(self) -> None:
        self._now.close()


class _AutoPlayback(_AutoPort[Playback], Playback):
    def __init__(self, auto: AutoAudio, open_: Callable[[AudioBackend], Playback]) -> None:
        super().__init__(auto, open_)
        self.part_ns = auto.part_ns

    def write(self, data: bytes) -> None:
        self._now.write(data)

    def write_part(self, data: bytes) -> None:
        self._now.write_part(data)


class _AutoCapture(_AutoPort[Capture]):
    def read(self, size: int) -> bytes:
        return self._now.read(size)

    def skip(self, size: int) -> None:
        self._now.skip(size)
