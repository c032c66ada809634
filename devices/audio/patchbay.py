"""Between the machine and its backend: where Python plays into the microphone, and copies of the sound are taken.

What the guest plays goes to the backend and to any ``taps``. What it records is what ``play`` was given and, once that
is over, the backend's sound. Without either, everything passes unchanged.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from devices.audio.base import AudioBackend, AudioState, Capture, Playback
from devices.audio.forwarding import ForwardingBackend
from devices.audio.pcm import PcmParams
from devices.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from devices.audio.microphone import Microphone

__all__ = ["Patchbay", "Tap"]


class Tap(Protocol):
    """Gets a copy of what is played; a WavSink is one."""

    def record(self, stream: int, params: PcmParams, data: bytes) -> None:
        """Take frames of ``params`` that a stream has played."""
        ...


class Patchbay(ForwardingBackend):
    """``backend``, as ``machine.audio`` presents it."""

    def __init__(self, backend: AudioBackend) -> None:
        super().__init__(backend)
        #: Get a copy of what is played.
        self.taps: list[Tap] = []
        self._microphone: Microphone | None = None
        self._gains: tuple[Sequence[float], Sequence[float]] = ((1.0, 1.0), (1.0, 1.0))

    @property
    def frames(self) -> "np.ndarray[Any, Any]":
        """What the first stream has played, as an array (frame, channel); UsageError unless the backend is a WavSink.

        That is its newest file: the sounds since the last change of format, rate or channels. See WavSink.
        """
        backend = self.backend
        while isinstance(backend, ForwardingBackend):
            backend = backend.backend
        from devices.audio.wav import WavSink  # noqa: PLC0415 - it would delay every start

        if not isinstance(backend, WavSink):
            raise UsageError('nothing keeps the frames played; give the machine audio=WavSink("out.wav")')
        return backend.frames

    def play(self, samples: "np.ndarray[Any, Any]") -> None:
        """Play ``samples`` into the microphone, for the guest to record on its first input stream.

        They wait until the guest records, behind any samples already waiting; if there are none, the first frame of
        the next recording is ``samples[0]``. An array (frame,) or (frame, channel) of uint8, int16, int32, or of
        float32 or float64 between -1 and 1; the rate is the recording's. Raises UsageError for other arrays.

            machine.audio.play(np.sin(np.arange(48000) * (2 * np.pi * 440 / 48000)))
            machine.console.run("arecord -D hw:0,0 -f S16_LE -r 48000 -d 1 /tmp/a440.wav")
        """
        self._use_microphone().play(samples)

    def _use_microphone(self) -> "Microphone":
        if self._microphone is None:
            from devices.audio.microphone import Microphone  # noqa: PLC0415 - not needed to boot

            self._microphone = Microphone()
        return self._microphone

    def switch(self, backend: AudioBackend) -> AudioBackend:
        """Use ``backend`` for sounds that begin from now on, and return the previous one, for the caller to close.

        Raises UsageError if it has a different number of streams: the guest has been told how many there are.
        """
        if backend.streams != self.streams:
            raise UsageError(f"the machine has {self.streams} streams to play and record, not {backend.streams}")
        backend.set_gains(*self._gains)
        before, self.backend = self.backend, backend
        return before

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Play to the backend and the taps."""
        return _PatchedPlayback(self, self.backend.open_playback(stream, params), stream, params)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Record from Python and the backend."""
        port = self.backend.open_capture(stream, params)
        return port if stream else _PatchedCapture(self, port, params)

    def say(self, params: PcmParams, count: int) -> bytes:
        """Return up to ``count`` frames of what was played into the microphone, taking them from there."""
        return b"" if self._microphone is None else self._microphone.read(params, count)

    def state(self) -> AudioState:
        """Return what waits to be recorded, and what the backend holds."""
        samples = [] if self._microphone is None else self._microphone.state()
        return {**super().state(), "samples": samples}

    def restore(self, state: AudioState) -> None:
        """Have that wait again, and nothing else."""
        super().restore(state)
        if state["samples"] or self._microphone is not None:
            self._use_microphone().restore(state["samples"])

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        """Pass the volume on, also to any backend switched to later."""
        self._gains = playback, capture
        super().set_gains(playback, capture)


class _PatchedPlayback:
    def __init__(self, patchbay: Patchbay, port: Playback, stream: int, params: PcmParams) -> None:
        self._patchbay = patchbay
        self._port = port
        self._stream = stream
        self._params = params
        self._parts: list[bytes] = []  # of a message that may be cut short: taps get whole messages only
        self.part_ns = port.part_ns
        self.start, self.stop, self.close = port.start, port.stop, port.close

    def __getattr__(self, name: str) -> Any:  # what some backends' ports offer beyond the contract
        return getattr(self._port, name)

    @property
    def latency_bytes(self) -> int:
        return self._port.latency_bytes

    def write(self, data: bytes) -> None:
        self._port.write(data)
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts.clear()
        if self._patchbay.taps:
            self._copy(data)

    def write_part(self, data: bytes) -> None:
        self._port.write_part(data)
        if self.part_ns is None:
            self._copy(data)
        else:
            self._parts.append(data)

    def _copy(self, data: bytes) -> None:
        for tap in self._patchbay.taps:
            tap.record(self._stream, self._params, data)


class _PatchedCapture:
    def __init__(self, patchbay: Patchbay, port: Capture, params: PcmParams) -> None:
        self._patchbay = patchbay
        self._port = port
        self._params = params
        self.start, self.stop, self.close = port.start, port.stop, port.close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    @property
    def latency_bytes(self) -> int:
        return self._port.latency_bytes

    def read(self, size: int) -> bytes:
        data = self._port.read(size)  # in any case, so that the backend keeps pace
        said = self._patchbay.say(self._params, size // self._params.frame_size)
        return said + data[len(said) :]

    def skip(self, size: int) -> None:
        self._port.skip(size)
        self._patchbay.say(self._params, size // self._params.frame_size)
