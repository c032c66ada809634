"""A guest's output stream on its way to the listener.

    machine's thread        feeder's thread                             PortAudio's thread
    write -> queue    ->    feed: convert, resample, volume -> ring ->  mix into the card's buffer

No thread waits for another, and each step is bounded. The time from ``write`` to the listener is the delay. It is
created by silence before the first frame, enough to keep the ring from running dry between two writes, and then
maintained by the resampler (drift.py). A ring that runs dry, or that holds far too much because the card stood still,
is a fault: the sound is faded, not cut, and the delay is created anew. A sound that begins or ends far from silence is
faded in or out.

When the guest stops in the middle of a message, the parts of it still in the ring stay there behind a gate (gate.py),
which the next write opens, so that the delay stays the same.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from devices.audio.base import Playback
from devices.audio.host.drift import Drift
from devices.audio.host.gain import Gain
from devices.audio.host.gate import FADE, GatedRing, fall, rise
from devices.audio.host.ring import Frames
from devices.audio.latency import far_too_long, part_of
from devices.audio.pcm import PcmParams
from devices.audio.resample import Resampler
from devices.audio.samples import decode, mix

__all__ = ["HostStats", "OutputVoice", "Tick"]

#: What the ring holds beyond the card's next buffer when a write arrives, so that a late thread is inaudible (s).
_LEEWAY = 0.015
#: Sound that may wait in the ring (s), and in the queue before a write.
_MOST = 2.0
_PIECE = 4096  # frames


@dataclass(slots=True)
class HostStats:
    """What happened between the machine and the host's sound devices."""

    played: int = 0  # frames by the guest, heard or not
    gaps: int = 0  # times a running sound was not there when the card wanted it
    late: int = 0  # times a callback was too late for its card
    skips: int = 0  # times too much sound was waiting, and some was skipped
    lost_frames: int = 0  # in all, including those played while there was no card
    corrections: float = 0.0  # frames added or removed by resampling, because the clocks drift
    drift_ppm: float = 0.0  # the card against the machine's clock, as far as it is known
    opened: int = 0  # devices
    vanished: int = 0  # devices: gone, or standing still
    wild: int = 0  # devices that took or gave frames far too fast
    errors: int = 0  # exceptions in callbacks: bugs


class Tick(NamedTuple):
    """A card's callback at ``called``: its first frame is heard or was recorded at ``when`` (monotonic seconds)."""

    called: float
    when: float
    frames: int


class OutputVoice(Playback):
    """One output stream's ``Playback``, for a card of ``rate`` and ``channels``.

    ``latency`` is the target delay, including one part (s).
    """

    def __init__(
        self,
        params: PcmParams,
        rate: int,
        channels: int,
        *,
        latency: float,
        stats: HostStats,
        learned: float = 0.0,
        wake: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.params = params
        self._part = part_of(latency)
        self.part_ns = round(self._part * 1e9)
        self.drift = Drift(learned)
        self.rate = rate
        self.channels = channels
        self._latency = latency
        self._far_too_long = far_too_long(latency)
        self._stats = stats
        self._wake = wake
        self._monotonic = monotonic
        self._resampler = Resampler(params.rate, rate, channels)
        self._ring = GatedRing(int(_MOST * rate), channels)
        # Frames; or STOP, with the number of bytes before it that are parts of a message it cut short.
        self._queue: deque[tuple[float, bytes | int]] = deque()
        self._parts = 0  # bytes handed over of the message being played
        self._rest = b""  # of the write being fed
        self._handed = 0  # bytes, by the machine's thread
        self._fed = 0  # bytes, by the feeder's thread
        self._gain = Gain(channels)
        self._last: Frames = np.zeros((channels, 1), np.float32)  # frame written to the ring
        self._tick: tuple[Tick, int] | None = None  # the card's next callback, and the ring's next frame at that time
        self._made = 0.0  # the delay that was created (s); see _delay
        self._flowing = False  # the ring has sound, and should get more
        self._ended = False  # there will be no more for now
        self._excess = 0  # frames to be skipped
        self.closed = False

    # The machine's thread.

    @property
    def latency_bytes(self) -> int:
        """Bytes handed over and not yet heard, as far as the card reports."""
        tick = self._tick
        waiting = self._handed - self._fed
        if tick is not None and self._flowing:
            delay = self._heard_at(self._ring.written, tick) - self._monotonic()
            waiting += round(max(delay, 0.0) * self.params.rate) * self.params.frame_size
        return waiting

    def start(self) -> None:
        """Nothing to do: the first write creates the delay."""

    def write(self, data: bytes) -> None:
        """Hand over frames that complete a message."""
        self._stats.played += (self._parts + len(data)) // self.params.frame_size
        self._parts = 0
        self._hand_over(data)

    def write_part(self, data: bytes) -> None:
        """Hand over frames that do not."""
        self._parts += len(data)
        self._hand_over(data)

    def stop(self) -> None:
        """Play complete messages to their end, hold an unfinished one; the silence that follows is not a gap."""
        self._queue.append((self._monotonic(), self._parts))
        self._wake()

    def close(self) -> None:
        """Never start again; the voice is over once its last frame has been heard."""
        self.closed = True
        self._wake()

    def _hand_over(self, data: bytes) -> None:
        """Hand over frames; those that come far too fast (a warped clock) are dropped."""
        if self._handed - self._fed > _MOST * self.params.rate * self.params.frame_size:
            self._stats.lost_frames += len(data) // self.params.frame_size
            return
        self._handed += len(data)
        self._queue.append((self._monotonic(), data))
        self._wake()

    # The feeder's thread.

    def attach(self, tick: Tick) -> None:
        """Join a card that is already running."""
        self._tick = self._tick or (self._after(tick), self._ring.read)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will be heard any more."""
        return self.closed and not self._queue and not self._rest and (self._ring.is_over or self._tick is None)

    @property
    def backlog(self) -> bool:
        """Whether ``feed`` must be called again soon even if nothing was handed over."""
        return bool(self._rest)

    def feed(self, gain: Frames) -> None:
        """Move what was handed over into the ring; ``gain`` is a factor for each channel, (channel, 1)."""
        while self._pour(gain) and self._queue:
            when, data = self._queue.popleft()
            if isinstance(data, int):
                self._end(data // self.params.frame_size)
            else:
                self._begin(when, data)

    def detach(self) -> None:
        """The card is gone: what is in the ring will not be heard."""
        self._tick = None
        self._flowing = False
        self._lose_rest()

    def _lose_rest(self) -> None:
        self._lose(len(self._rest) // self.params.frame_size)

    def _lose(self, frames: int) -> None:
        size = frames * self.params.frame_size
        self._rest = self._rest[size:]
        self._fed += size
        self._stats.lost_frames += frames

    def _end(self, parts: int) -> None:
        if self._flowing and not self._ended and parts:
            self._ring.close_gate(max(round((parts - self._resampler.held) * self.rate / self.params.rate), 0))
            return
        if self._flowing and not self._ended:
            self._ring.write(self._resampler.process(self._last * fall().T).T)
            self._ring.write(self._resampler.flush().T)
        self._ended = True

    def _begin(self, when: float, data: bytes) -> None:
        self._rest = data
        tick = self._tick
        if tick is None:  # no card to play on
            self._lose_rest()
        elif not self._flowing or self._ended:
            self._make_delay(when, tick)
        elif self._ring.is_closed:
            self._remake_delay(when, tick)
        else:
            self._keep_delay(when, tick)

    def _pour(self, gain: Frames) -> bool:
        """Move the rest of a write into the ring, piece by piece; False if there is no room now."""
        size = _PIECE * self.params.frame_size
        while self._rest:
            if self._ring.room < _PIECE * self.rate / self.params.rate + FADE:
                return False
            data, self._rest = self._rest[:size], self._rest[size:]
            planes = self._gain.apply(mix(decode(data, self.params), self.channels), gain)
            self._ring.write(self._resampler.process(planes).T)
            self._last = planes[:, -1:]
            self._stats.corrections += planes.shape[1] * abs(self._resampler.correction - 1.0)
            self._fed += len(data)
        return True

    def _heard_at(self, position: int, tick: tuple[Tick, int]) -> float:
        """When the ring's frame ``position`` will be heard, if nothing goes wrong."""
        (_, when, _), read = tick
        return when + (position - read) / self.rate

    def _delay(self, when: float, tick: tuple[Tick, int]) -> float:
        """Time from ``when``, at which a write came and the frame after it is due, until that frame is heard."""
        return self._heard_at(self._ring.written, tick) + self._length() - when

    def _length(self) -> float:
        return len(self._rest) / self.params.frame_size / self.params.rate

    def _make_delay(self, when: float, tick: tuple[Tick, int]) -> None:
        """Put silence before the first frame of a sound, so that it is heard at the right time."""
        self._ring.clear_gate()
        self._resampler = Resampler(self.params.rate, self.rate, self.channels)
        self.drift.restart()
        self._resampler.correction = self.drift.correction
        called, heard, block = tick[0]
        # Enough for a callback just before the next write.
        ready = max(when, self._monotonic()) - when + heard - called + block / self.rate + _LEEWAY
        length = self._length()
        too_late = length - max(self._latency - ready, self._part)
        if too_late > self._far_too_long:  # the machine stood still; sound this late is dropped
            self._stats.skips += 1
            self._lose(round(too_late * self.params.rate))
            length = self._length()
        self._made = max(self._latency, ready + max(length, self._part))
        missing = round((self._made - self._delay(when, tick)) * self.rate)
        silence = np.zeros((self.channels, min(max(missing, FADE), self.rate)), np.float32)
        first = mix(decode(self._rest[: self.params.frame_size], self.params), self.channels) * self._gain.now
        silence[:, -FADE:] = first * rise().T
        self._ring.write(silence.T)
        self._ended = False
        self._flowing = True

    def _remake_delay(self, when: float, tick: tuple[Tick, int]) -> None:
        """Put silence where the sound was stopped, so that what waits there is as late as before."""
        missing = round((self._made - self._delay(when, tick)) * self.rate)
        self._ring.open_gate(min(missing, self.rate))
        self.drift.restart()

    def _keep_delay(self, when: float, tick: tuple[Tick, int]) -> None:
        delay = self._delay(when, tick)
        too_long = delay - self._made
        if too_long > self._far_too_long and self._excess == 0 and self._ring.fill > FADE:
            self._stats.skips += 1
            self._excess = round(too_long * self.rate)
            self.drift.restart()
        else:
            self._resampler.correction = self.drift.observe(when, delay)
            self._stats.drift_ppm = self.drift.offset * 1e6

    # PortAudio's thread.

    def mix(self, out: Frames, tick: Tick) -> None:
        """Add the next frames to the card's buffer (frame, channel)."""
        if self._tick is None:  # what waits is stale
            self._ring.forget()
        if self._excess:
            self._pass_over()
        frames, gated = self._ring.take_gated(len(out))
        self._tick = (self._after(tick), self._ring.place)
        if len(frames) < len(out) and self._flowing and not gated:
            self._flowing = False
            if not self._ended:
                self._stats.gaps += 1
                length = min(FADE, len(frames))
                frames[len(frames) - length :] *= np.linspace(1.0, 0.0, length, dtype=np.float32)[:, None]
        out[: len(frames)] += frames

    def _after(self, tick: Tick) -> Tick:
        block = tick.frames / self.rate
        return Tick(tick.called + block, tick.when + block, tick.frames)

    def _pass_over(self) -> None:
        """Skip frames: fade from what comes next to what follows them."""
        ring = self._ring
        count = max(min(self._excess, ring.fill - FADE), 0)
        ahead = ring.peek(FADE, ahead=count)
        if count and len(ahead) == FADE:
            ring.replace(count, ring.peek(FADE) * fall() + ahead * (1 - fall()))
            ring.skip(count)
            self._stats.lost_frames += count
        self._excess = 0
