"""What the host's microphone hears, on its way to a guest's input stream.

    PortAudio's thread           feeder's thread                            machine's thread
    record -> raw ring    ->     feed: volume, resample, encode -> ring ->  read

The delay from a sound to its ``read`` is created by silence before the first frame and maintained by the resampler, as
in play.py. A read that finds too little gets silence, and the delay is created anew.
"""

import time
from collections.abc import Callable

import numpy as np

from devices.audio.host.drift import Drift
from devices.audio.host.gain import Gain
from devices.audio.host.play import HostStats, Tick
from devices.audio.host.ring import Frames, Ring
from devices.audio.latency import far_too_long
from devices.audio.pcm import PcmParams
from devices.audio.resample import Planes, Resampler
from devices.audio.samples import encode, mix

__all__ = ["InputVoice"]

#: What is ready beyond what is read and the device's last buffer, so that a late thread does no harm (s).
_LEEWAY = 0.010
_MOST = 2.0
#: A device whose last frame is this old (s) is standing still.
_STALE = 0.5


class InputVoice:
    """One input stream's ``Capture``. ``latency`` is the target delay, from a frame's time to its reading (s)."""

    def __init__(
        self,
        params: PcmParams,
        rate: int,
        channels: int,
        *,
        latency: float,
        stats: HostStats,
        learned: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.params = params
        self.rate = rate
        self.channels = channels
        self.drift = Drift(learned)
        self.closed = False
        self._latency = latency
        self._far_too_long = far_too_long(latency)
        self._stats = stats
        self._monotonic = monotonic
        self._resampler = Resampler(rate, params.rate, channels)
        self._raw = Ring(int(_MOST * rate), channels)
        self._ready = Ring(int(_MOST * params.rate), params.frame_size, np.uint8)
        self._running = False
        self._flowing = False  # the delay has been created
        # When the frame after the raw ring's last one was recorded, and its number; the same for the ready ring.
        self._tick: tuple[float, int] | None = None
        self._ready_tick: tuple[float, int] | None = None
        self._block = 0
        self._made = 0.0  # the delay that was created (s)
        self._silence = 0  # frames of it still to be read
        self._gain = Gain(channels)
        self._observed: tuple[float, float] | None = None

    # The machine's thread.

    @property
    def latency_bytes(self) -> int:
        """Bytes recorded and not yet read."""
        if not self._flowing:
            return 0
        return round(max(self._age(self._monotonic()), 0.0) * self.params.rate) * self.params.frame_size

    def start(self) -> None:
        """Record from now on."""
        self._ready.skip(self._ready.fill)
        self._ready_tick = None  # from before
        self._flowing = False
        self._running = True

    def read(self, size: int) -> bytes:
        """Return what is due, with silence for what is missing."""
        count = size // self.params.frame_size
        before = self._make_delay(count)
        frames = self._ready.take(count - before)
        data = self.params.silence(before * self.params.frame_size) + frames.tobytes()
        self._check(count - before - len(frames))
        return data + self.params.silence(size - len(data))

    def skip(self, size: int) -> None:
        """Skip what is due."""
        count = size // self.params.frame_size
        before = self._make_delay(count)
        self._check(count - before - self._ready.skip(count - before))

    def stop(self) -> None:
        """Record no more."""
        self._running = False

    def close(self) -> None:
        """The stream is over."""
        self._running = False
        self.closed = True

    def _make_delay(self, count: int) -> int:
        """How many of ``count`` frames must be silence, first, for sound to be as late as it should be."""
        tick = self._ready_tick
        if not self._flowing and tick is not None:
            late = self._monotonic() - tick[0]
            if late > _STALE:
                return count
            self._made = max(self._latency, late + 2 * self._block / self.rate + _LEEWAY)
            # How many frames should be left after this read.
            missing = count + round((self._made - late) * self.params.rate) - self._ready.fill
            self._ready.skip(-missing)
            self._silence = max(missing, 0)
            self._flowing = True
        if not self._flowing:
            return count
        silence = min(self._silence, count)
        self._silence -= silence
        return silence

    def _age(self, now: float) -> float:
        """How old the next frame to read is."""
        tick = self._ready_tick
        if tick is None:  # the card has just gone
            return self._made
        when, written = tick
        return now - when + (written - self._ready.read + self._silence) / self.params.rate

    def _check(self, missing: int) -> None:
        if missing > 0:
            if self._flowing:
                self._stats.gaps += 1
            self._stats.lost_frames += missing
            self._flowing = False
        elif self._flowing:
            now = self._monotonic()
            age = self._age(now)
            if age > self._made + self._far_too_long:
                self._stats.skips += 1
                self._flowing = False
            else:
                self._observed = (now, age)

    # The feeder's thread.

    @property
    def is_over(self) -> bool:
        """Whether nobody reads it any longer."""
        return self.closed

    def feed(self, gain: Frames) -> None:
        """Make what was recorded ready for reading; ``gain`` is a factor for each channel, (channel, 1)."""
        tick = self._tick
        frames = self._raw.take(self._raw.fill)
        if not self._running or tick is None or not len(frames):
            return
        observed, self._observed = self._observed, None
        if observed is not None:
            # The later the machine reads, the older a frame is; a card that runs fast makes them older still.
            self._resampler.correction = 2.0 - self.drift.observe(observed[0], -observed[1])
            self._stats.drift_ppm = self.drift.offset * 1e6
        self._hand_over(self._gain.apply(np.ascontiguousarray(frames.T), gain))
        when, written = tick
        self._ready_tick = (when + (self._raw.read - written) / self.rate, self._ready.written)

    def _hand_over(self, planes: Planes) -> None:
        out = mix(self._resampler.process(planes), self.params.channels)
        self._ready.write(encode(out, self.params))
        self._stats.corrections += planes.shape[1] * abs(self._resampler.correction - 1.0)

    def detach(self) -> None:
        """The card is gone."""
        self._tick = self._ready_tick = None
        self._flowing = False

    # PortAudio's thread.

    def record(self, data: Frames, tick: Tick) -> None:
        """Take the card's buffer (frame, channel)."""
        if self._running:
            self._raw.write(data)
            self._block = tick.frames
            self._tick = (tick.when + tick.frames / self.rate, self._raw.written)
