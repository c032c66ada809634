"""A PCM stream from PREPARE to RELEASE (virtio 1.3, 5.14.6.6): its messages, and when each of them completes.

This module has what playing (output.py) and recording (input.py) have in common.

When a message completes
    A stream has a stopwatch of guest time, which runs while the stream does: START starts it, STOP stops it. A
    message is played, or recorded, when the stopwatch has reached the end of its last frame, counted from the first
    one and rounded up to the next ns. It completes then, in an event of its own: never earlier, and never within a
    notification, because Linux 6.1 queues the message again from the completion interrupt and would never return.

    What a stream has played thus depends on guest time alone. If an event comes late, its message is late, and those
    that are over by then follow, each in its own event; the next one is on time again.

    The frames of a large message are moved piece by piece, and the guest gets a turn between pieces.

    The latency that a message reports is measured when it completes: see output.py and input.py.

STOP and RELEASE
    A message that STOP cuts short stays where it is, and START continues with the very next sample. RELEASE returns all
    messages, with status OK and nothing played or recorded, before it is answered (5.14.6.6.5.1).

    Either command takes effect at once, and its rest is done in steps. How far that has got shows in the stream alone,
    so that the rest can be taken up by anyone, in a restored machine too.
"""

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, NamedTuple, TypedDict, TypeVar, cast

from devices.audio import AudioBackend, PcmParams, Period
from devices.audio.base import Port
from devices.audio.pcm import FORMATS
from devices.contracts import Clock, Event, Events
from devices.state import U8, U32, Moment, Ns, check, resume, saved
from devices.virtio.queue import Chain, ChainState, Queue
from devices.virtio.sound import wire
from devices.virtio.sound.pacing import Stopwatch, StopwatchState
from devices.virtio.sound.steps import AT_ONCE, RETURN, Steps
from devices.virtio.sound.turn import TurnState

__all__ = [
    "MAX_BUFFER_BYTES",
    "Message",
    "ParamsState",
    "PlayedState",
    "Prepared",
    "PreparedState",
    "StatsState",
    "StreamParams",
    "StreamStats",
    "Surroundings",
    "complete",
]

#: A buffer of more than 2.7 s of the widest stream is a mistake.
MAX_BUFFER_BYTES = 64 << 20

#: A message with a larger payload is refused: 0.6 s of the widest stream.
MAX_MESSAGE_BYTES = 16 << 20

PortT = TypeVar("PortT", bound=Port)


class ParamsState(TypedDict):
    """What SET_PARAMS has set."""

    format: str
    rate: U32
    channels: U8
    buffer_bytes: U32
    period_bytes: U32


class StreamParams(NamedTuple):
    """What SET_PARAMS has set."""

    pcm: PcmParams
    buffer_bytes: int
    period_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether a buffer is whole periods, and a period whole frames."""
        buffer, period = self.buffer_bytes, self.period_bytes
        return period > 0 and buffer > 0 and not buffer % period and not period % self.pcm.frame_size

    def state(self) -> ParamsState:
        """Return what ``restored`` makes the same parameters from."""
        return {
            "format": self.pcm.format.name,
            "rate": self.pcm.rate,
            "channels": self.pcm.channels,
            "buffer_bytes": self.buffer_bytes,
            "period_bytes": self.period_bytes,
        }

    @classmethod
    def restored(cls, state: ParamsState) -> "StreamParams":
        """Return parameters that were saved; raises UsageError unless a driver can have set them."""
        name, rate, channels = state["format"], state["rate"], state["channels"]
        check(name in FORMATS and rate in wire.PCM_RATES and 0 < channels <= wire.CHANNELS_MAX, "a stream's format")
        params = cls(PcmParams(FORMATS[name], rate, channels), state["buffer_bytes"], state["period_bytes"])
        check(params.is_whole and params.buffer_bytes <= MAX_BUFFER_BYTES, "a stream's buffer")
        return params


class StatsState(TypedDict):
    """The attributes of StreamStats."""

    frames: Ns
    messages: Ns
    underruns: Ns
    silence_ns: Ns
    overruns: Ns
    lost_frames: Ns
    repeats: Ns
    stalls: Ns
    lateness_max_ns: Ns


class StreamStats:
    """What has happened to a stream since power-on."""

    def __init__(self) -> None:
        self.frames = 0  # played or recorded
        self.messages = 0
        self.underruns = 0  # gaps within a sound, because the driver was late
        self.silence_ns = 0  # their length
        self.overruns = 0  # times that frames were lost, because the driver was late
        self.lost_frames = 0
        self.repeats = 0  # periods with exactly the bytes played a buffer ago, other than silence
        self.stalls = 0  # messages that the machine completed later than a whole buffer lasts
        self.lateness_max_ns = 0  # of any completion

    def state(self) -> StatsState:
        """Return them all."""
        return cast("StatsState", vars(self).copy())

    def restore(self, state: StatsState) -> None:
        """Set them all."""
        vars(self).update(state)


class Surroundings(NamedTuple):
    """What stream ``number`` of its direction works with, from one reset to the next."""

    number: int
    queue: Queue
    clock: Clock
    events: Events
    backend: AudioBackend
    stats: StreamStats


class Message(NamedTuple):
    """An I/O message waiting its turn."""

    chain: Chain
    size: int  # bytes of frames that it holds, or takes
    frames: int


class PlayedState(TypedDict):
    """What an output stream knows beyond PreparedState."""

    turn: TurnState
    dry_since: Ns | None


class PreparedState(TypedDict):
    """A stream from PREPARE to RELEASE; see the attributes of Prepared."""

    params: ParamsState
    messages: list[ChainState]
    begun: U32
    moving: bool
    running: bool
    stopping: bool
    stopwatch: StopwatchState
    ready: Ns
    event: Moment | None
    played: PlayedState | None


def complete(queue: Queue, chain: Chain, status: int, latency_bytes: int = 0, recorded: int = 0) -> None:
    """Return an I/O message with a status, if it has room for one: in the last bytes that the device may write."""
    room = len(chain.writable)
    if room < wire.PCM_STATUS.size:
        queue.push(chain, 0)
        return
    chain.writable.write(room - wire.PCM_STATUS.size, wire.PCM_STATUS.pack(status, latency_bytes))
    queue.push(chain, wire.PCM_STATUS.size + recorded)


class Prepared(ABC, Generic[PortT]):
    """A stream from PREPARE to RELEASE, with its ``port`` in the backend. START and STOP alternate."""

    #: As named in the log of periods.
    direction: str

    def __init__(self, around: Surroundings, params: StreamParams, port: PortT) -> None:
        self._number = around.number
        self._queue = around.queue
        self._clock = around.clock
        self._events = around.events
        self._backend = around.backend
        self._stats = around.stats
        self._params = params
        self._port = port
        self._frame_size = params.pcm.frame_size
        self._piece_frames = max(AT_ONCE // self._frame_size, 1)
        self._buffer_ns = params.pcm.duration_ns(params.buffer_bytes // self._frame_size)
        self._stopwatch = Stopwatch(params.pcm.rate)
        self._running = False
        self._stopping = False  # STOP is not over yet: the stopwatch and the port still run
        self._fifo: deque[Message] = deque()
        self._fill = 0  # bytes in the fifo
        self._begun = 0  # frames of the first message already moved
        self._moving = False  # the first message is over, but not all of its frames have been moved
        self._event: Event | None = None  # what the first message needs next, while the stopwatch runs
        self._ready = 0  # since when the running stream has had a message: none is due earlier

    # What each direction defines.

    @abstractmethod
    def _payload(self, chain: Chain) -> int | None:
        """How many bytes of frames a message holds or takes; None if it cannot be played or recorded."""

    @abstractmethod
    def _move(self, message: Message, frames: int) -> None:
        """Play or record the next ``frames`` frames of a message that is over, after those already moved."""

    @abstractmethod
    def _give_back(self, message: Message, now: int) -> bool:
        """Return a message whose frames have all been moved; say whether it repeats the one of a buffer ago."""

    @abstractmethod
    def _arrived(self, now: int) -> None:
        """Continue: the stream runs, and had no message until now."""

    def _next(self) -> int:
        """Guest time at which the first message next needs something done: at the latest, when it is over."""
        return self._due()

    def _go_on(self, now: int) -> None:
        """Do what the first message needs while it is not over."""

    def _ran_dry(self, end: int) -> None:
        """Note that the last message has been over since ``end``, and that no other is queued."""

    def _stopped(self, now: int) -> None:
        """Note STOP."""

    def _played_state(self) -> PlayedState | None:
        """Return the state of an output stream's own attributes."""
        return None

    @abstractmethod
    def _resume(self, played: PlayedState | None, now: int) -> None:
        """Restore those attributes, and have the port, a new one, go on where the saved one was."""

    # Commands.

    def start(self) -> None:
        """START: the first sample, or the next one after STOP, is now."""
        self._port.start()
        self._running = True
        self._ready = self._clock.now()
        self._stopwatch.start(self._ready)
        self._schedule(self._ready)

    def stop(self) -> None:
        """STOP: nothing is heard or recorded from now on; ``finish_stop`` is to follow."""
        self._running = False
        self._stopping = True
        self._cancel()

    def finish_stop(self) -> Steps:
        """Complete a message that was already over at STOP, if there is one, and stop."""
        if not self._stopping:
            return
        while self._moving and self._queue.running:
            self._advance(self._due(), self._clock.now())
            yield AT_ONCE
        self._queue.signal()
        self._port.stop()
        now = self._clock.now()
        self._stopwatch.stop(now)
        self._stopped(now)
        self._stopping = False

    def release(self) -> None:
        """RELEASE: nothing more is played or recorded; ``finish_release`` is to follow."""
        self._begun, self._moving = 0, False

    def finish_release(self) -> Steps:
        """Return every message, and tell the driver (5.14.6.6.5)."""
        while self._fifo:
            complete(self._queue, self._fifo.popleft().chain, wire.S_OK)
            yield RETURN
        self._queue.signal()
        self._port.close()

    def close(self) -> None:
        """Stop and forget everything: the device is reset."""
        self._cancel()
        if self.is_active:
            self._port.stop()
        self._port.close()

    # State.

    @property
    def is_active(self) -> bool:
        """Whether the stream, or the rest of STOP, goes on."""
        return self._running or self._stopping

    @property
    def is_stopping(self) -> bool:
        """Whether the rest of STOP goes on."""
        return self._stopping

    def state(self) -> PreparedState:
        """Return what ``restore`` makes the same from, with another port."""
        return {
            "params": self._params.state(),
            "messages": [message.chain.state() for message in self._fifo],
            "begun": self._begun,
            "moving": self._moving,
            "running": self._running,
            "stopping": self._stopping,
            "stopwatch": self._stopwatch.state(),
            "ready": self._ready,
            "event": saved(self._event),
            "played": self._played_state(),
        }

    def restore(self, state: PreparedState) -> None:
        """Go on as another one of the same parameters; this one must be new."""
        now = self._clock.now()
        for chain in state["messages"]:
            message = self._queue.resume_chain(chain)
            header, room = len(message.readable), len(message.writable)
            check(
                header >= wire.PCM_XFER.size and room >= wire.PCM_STATUS.size and self.submit(message),
                "a message of a stream",
            )
        self._begun, self._moving, self._ready = state["begun"], state["moving"], state["ready"]
        self._stopwatch.restore(state["stopwatch"], now)
        check(
            self._ready <= now
            and self._begun <= (self._fifo[0].frames if self._fifo else 0)
            and (not self._moving or (bool(self._fifo) and self._due() <= now))
            and not (state["running"] and state["stopping"])
            and (state["event"] is None or (state["running"] and bool(self._fifo))),
            "a stream",
        )
        self._resume(state["played"], now)
        self._running, self._stopping = state["running"], state["stopping"]
        if self.is_active:
            self._port.start()
        self._event = resume(self._events, state["event"], self._complete_due)

    # Messages.

    def submit(self, chain: Chain) -> bool:
        """Queue a message that has a header and room for a status; False if it cannot be played or recorded."""
        size = self._payload(chain)
        if size is None or size > MAX_MESSAGE_BYTES:
            return False
        self._fifo.append(Message(chain, size, size // self._frame_size))
        self._fill += size
        if self._running and len(self._fifo) == 1:
            self._ready = self._clock.now()
            self._arrived(self._ready)
            self._schedule(self._ready)
        return True

    def _due(self) -> int:
        """Guest time at which the first message in the queue is over."""
        return max(self._stopwatch.end_of(self._fifo[0].frames), self._ready)

    def _schedule(self, now: int) -> None:
        if self._fifo:
            self._event = self._events.at(max(now, self._next()), self._complete_due)

    def _cancel(self) -> None:
        if self._event is not None:
            self._event.cancel()
            self._event = None

    def _complete_due(self) -> None:
        self._event = None
        if not self._queue.running:
            return  # the driver has broken or stopped the queue: there are no bytes to play until the next reset
        now, due = self._clock.now(), self._due()
        if now < due:
            self._go_on(now)
        else:
            self._advance(due, now)
            self._queue.signal()
        self._schedule(now)

    def _advance(self, due: int, now: int) -> None:
        """Move the next piece of the first message, which is over; the last piece completes it."""
        message = self._fifo[0]
        frames = min(message.frames - self._begun, self._piece_frames)
        if frames:
            self._move(message, frames)
            self._begun += frames
        self._moving = self._begun < message.frames
        if not self._moving:
            self._complete(message, due, now)

    def _complete(self, message: Message, due: int, now: int) -> None:
        stats = self._stats
        late = now - due
        stats.lateness_max_ns = max(stats.lateness_max_ns, late)
        stats.stalls += late > self._buffer_ns
        self._fifo.popleft()
        self._fill -= message.size
        self._begun = 0
        self._stopwatch.frames += message.frames
        again = self._give_back(message, now)
        stats.frames += message.frames
        stats.messages += 1
        stats.repeats += again
        self._backend.observe(Period(self.direction, self._number, due, now, message.size, self._fill, again))
        if not self._fifo:
            self._ran_dry(due)
