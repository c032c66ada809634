"""Backend ``auto``: the host's default sound devices; without any, nothing is heard, and one line says why.

Finding out takes a third of a second, mostly for numpy. A thread does it, once the guest has run for a second or wants
to play or record, and it never delays the guest: until then nothing is heard, and silence is recorded. For a guest
that makes no sound, nothing is reported.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from devices.audio.base import AudioBackend, Capture, Playback, Port
from devices.audio.forwarding import ForwardingBackend
from devices.audio.latency import part_of
from devices.audio.null import NullSink
from devices.audio.pcm import PcmParams

__all__ = ["AutoAudio"]

logger = logging.getLogger(__name__)

#: How long (s) the search for the host's devices may wait: it should not slow a booting guest.
_SOON = 1.0
_LONGEST_END = 2.0

PortT = TypeVar("PortT", bound=Port)


class AutoAudio(ForwardingBackend):
    """The backend that ``make`` returns, as soon as it does; if it raises, none."""

    def __init__(
        self,
        make: Callable[[], AudioBackend],
        *,
        latency: float,
        streams: tuple[int, int] = (1, 1),
        soon: float = _SOON,
    ) -> None:
        self._nothing = NullSink(streams=streams)
        super().__init__(self._nothing)  # where sound goes now
        self.part_ns = round(part_of(latency) * 1e9)
        self._make = make
        self._soon = soon
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
        """Frames the guest has played, heard or not."""
        return self._nothing.played + (self.backend.played if self.backend is not self._nothing else 0)

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Play to the host as soon as it is found."""
        self._wanted.set()
        return _AutoPlayback(self, lambda backend: backend.open_playback(stream, params))

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Record from the host as soon as it is found."""
        self._wanted.set()
        return _AutoCapture(self, lambda backend: backend.open_capture(stream, params))

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        """Pass the volume on, also to what is found later."""
        self._gains = playback, capture
        super().set_gains(playback, capture)

    def close(self) -> None:
        """Stop looking, and close what was found."""
        self._closing = True
        self._wanted.set()
        self._thread.join(_LONGEST_END)
        super().close()


class _AutoPort(Generic[PortT]):
    """A port of whatever backend sound goes to now."""

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
