"""The guest records what it plays, a fixed number of frames later, bit for bit.

Playback stream N returns in capture stream N if both have the same parameters; otherwise, and when nothing is played,
the guest records silence. A sound's first frame comes back ``frames`` frames of the recording after it was played.

The device hands frames over when a period has been played, and takes them when a period has been recorded. The delay
is therefore at least one period of each together, even where ``frames`` is less. After silence interrupts a sound, or
STOP the recording, the next frames played come back after the same delay again; what was in flight when the recording
stopped is lost.
"""

from devices.audio.base import AudioBackend, AudioState, Capture, LineState, Playback
from devices.audio.pcm import PcmParams
from devices.state import check

__all__ = ["Loopback"]

#: A tenth of a second at 48 kHz.
_FRAMES = 4800
#: Bytes that may be in flight while the guest plays without recording: a device's largest buffer.
_MOST = 64 << 20


class Loopback(AudioBackend):
    """Backend ``loopback[:FRAMES]``."""

    def __init__(self, frames: int = _FRAMES, *, streams: tuple[int, int] = (1, 1)) -> None:
        self.frames = frames
        self.streams = streams
        self._played = 0
        self._lines: dict[int, _Line] = {}

    @property
    def played(self) -> int:
        """Frames played by all streams."""
        return self._played

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Play into capture stream ``stream``."""
        return _LoopbackPlayback(self, self._line(stream), params)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Record from playback stream ``stream``."""
        return _LoopbackCapture(self._line(stream), params)

    def _line(self, stream: int) -> "_Line":
        return self._lines.setdefault(stream, _Line(self.frames))

    def count(self, frames: int) -> None:
        """Count frames as played."""
        self._played += frames

    def state(self) -> AudioState:
        """Return what is in flight."""
        lines = [line.state(stream) for stream, line in sorted(self._lines.items()) if line.is_heard]
        return {**super().state(), "lines": lines}

    def restore(self, state: AudioState) -> None:
        """Have that in flight again, to recordings that have been started."""
        for line in state["lines"]:
            if self._line(line["stream"]).is_heard:
                self._line(line["stream"]).restore(line)

    def summary(self) -> list[str]:
        """Nothing to report."""
        return []

    def close(self) -> None:
        """Nothing to close."""


class _Line:
    """A delay line: frames on their way from a playback to a capture."""

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._params: PcmParams | None = None  # of the recording, while it runs
        self._data = bytearray()
        self._dry = True  # nothing is in flight: the next frames begin a sound
        self._first: int | None = None  # bytes of the first message of a sound, until some of it is taken
        self._goes_on = False  # that message comes in parts, and the last has not come yet

    def listen(self, params: PcmParams | None) -> None:
        """Keep what is played from now on with these ``params``; None for nothing."""
        self._params = params
        self._data.clear()
        self._dry = True
        self._first = None

    def put(self, params: PcmParams, data: bytes, *, goes_on: bool = False) -> None:
        """Send frames that have just been played, of a message that may have more of them."""
        if params != self._params:
            return
        if self._dry:
            self._dry = False
            self._first, self._goes_on = 0, True
        if self._goes_on:
            self._goes_on = goes_on
            if self._first is not None:
                self._first += len(data)
        self._data += data
        if len(self._data) > _MOST:
            del self._data[: len(self._data) - _MOST]

    def take(self, size: int) -> bytes:
        """Receive ``size`` bytes, padded with silence."""
        assert self._params is not None
        self._begin(size)
        data = bytes(self._data[:size])
        del self._data[:size]
        if len(data) == size:
            return data
        self._dry = True
        return data + self._params.silence(size - len(data))

    def skip(self, size: int) -> None:
        """Receive and drop ``size`` bytes."""
        self._begin(0)
        if size > len(self._data):
            self._dry = True
        del self._data[:size]

    @property
    def is_heard(self) -> bool:
        """Whether a recording runs; nothing is in flight otherwise."""
        return self._params is not None

    def state(self, stream: int) -> LineState:
        """Return what is in flight, and how far a sound has got."""
        return {
            "stream": stream,
            "data": bytes(self._data),
            "dry": self._dry,
            "first": self._first,
            "goes_on": self._goes_on,
        }

    def restore(self, state: LineState) -> None:
        """Have that in flight again."""
        assert self._params is not None
        check(not len(state["data"]) % self._params.frame_size, "the sound in a loopback")
        self._data[:] = state["data"]
        self._dry, self._first, self._goes_on = state["dry"], state["first"], state["goes_on"]

    def _begin(self, size: int) -> None:
        """Put the delay before a new sound, whose first ``size`` bytes are being taken."""
        if self._first is not None and self._params is not None:
            # The first frame was played self._first bytes before it got here; and no later read may run short.
            silence = max(self._delay * self._params.frame_size - self._first, size)
            self._data[:0] = self._params.silence(silence)
            self._first = None


class _LoopbackPlayback(Playback):
    def __init__(self, loopback: Loopback, line: _Line, params: PcmParams) -> None:
        self._loopback = loopback
        self._line = line
        self._params = params

    def write(self, data: bytes) -> None:
        self._loopback.count(len(data) // self._params.frame_size)
        self._line.put(self._params, data)

    def write_part(self, data: bytes) -> None:
        self._loopback.count(len(data) // self._params.frame_size)
        self._line.put(self._params, data, goes_on=True)


class _LoopbackCapture(Capture):
    def __init__(self, line: _Line, params: PcmParams) -> None:
        self._line = line
        self._params = params

    def start(self) -> None:
        self._line.listen(self._params)

    def read(self, size: int) -> bytes:
        return self._line.take(size)

    def skip(self, size: int) -> None:
        self._line.skip(size)

    def stop(self) -> None:
        self._line.listen(None)
