"""One output stream: the state machine of virtio 1.3 section 5.14.6.6.1, and the pacing of its messages.

When a message completes
    A stream has a stopwatch of guest time, which runs while the stream does: START starts it, STOP stops it. A
    message is played when the stopwatch has reached the end of its last frame, counted from the first one and rounded
    up to the next ns. It completes then, in an event of its own: never earlier, and never within a notification,
    because Linux 6.1 queues the message again from the completion interrupt, and would never leave that.

    When the last message is played and no other is there, the stream plays silence. The next message begins when it
    arrives; what was missed is not caught up with, as there is nothing that it could be caught up by.

    A machine that was late completes what is due in one batch, with one interrupt, but never a whole buffer: a driver
    that sees a full turn of its buffer sees no progress at all. When the machine was later than that, the time is
    given up ("stall"): the next message begins now, because a burst would only play what the guest had no time to fill.

What is played
    A message's bytes are read when it completes, and go to the backend once. Earlier they may be stale: Linux 6.1
    queues each period again before the application has filled it.

    A message that STOP cuts short stays where it is, and START goes on with the very next sample. If RELEASE follows
    instead, it returns unplayed, and the backend never gets its beginning. For a device cannot tell the beginning of
    a new period from that of a stale one, which Linux 6.1 always has in the queue when it drains: the last period
    completes, a worker wakes up and stops the stream, and the instants between belong to a sound played before.
    So what a backend gets are whole messages, those that the driver was told are played, and no others.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from devices.audio import AudioBackend, PcmParams, Playback
from devices.contracts import Clock, Event, Events
from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import wire

__all__ = ["OutputStream", "State", "StreamParams", "StreamStats", "complete"]

#: Payload of a message beyond which it is refused: 0.6 s of the fattest stream. What is copied at once is bounded.
MAX_MESSAGE_BYTES = 16 << 20

_NS = 1_000_000_000


class State(Enum):
    """How far the driver has got with a stream: the last command that it accepted."""

    NEW = "new"
    SET = "parameters set"
    PREPARED = "prepared"
    RUNNING = "running"
    STOPPED = "stopped"
    RELEASED = "released"


# Which command is legal when, and where it leads. RELEASE of a stream that holds nothing is not in the specification,
# but Linux does it when it opens a stream whose last use failed; it is done, and changes nothing.
_TRANSITIONS = {
    (State.NEW, wire.R_PCM_SET_PARAMS): State.SET,
    (State.NEW, wire.R_PCM_RELEASE): State.NEW,
    (State.SET, wire.R_PCM_SET_PARAMS): State.SET,
    (State.SET, wire.R_PCM_PREPARE): State.PREPARED,
    (State.SET, wire.R_PCM_RELEASE): State.SET,
    (State.PREPARED, wire.R_PCM_SET_PARAMS): State.SET,
    (State.PREPARED, wire.R_PCM_PREPARE): State.PREPARED,
    (State.PREPARED, wire.R_PCM_START): State.RUNNING,
    (State.PREPARED, wire.R_PCM_RELEASE): State.RELEASED,
    (State.RUNNING, wire.R_PCM_STOP): State.STOPPED,
    (State.STOPPED, wire.R_PCM_START): State.RUNNING,
    (State.STOPPED, wire.R_PCM_RELEASE): State.RELEASED,
    (State.RELEASED, wire.R_PCM_SET_PARAMS): State.SET,
    (State.RELEASED, wire.R_PCM_PREPARE): State.PREPARED,
    (State.RELEASED, wire.R_PCM_RELEASE): State.RELEASED,
}


@dataclass(frozen=True, slots=True)
class StreamParams:
    """What SET_PARAMS has set; the period divides the buffer, frames the period."""

    pcm: PcmParams
    buffer_bytes: int
    period_bytes: int


@dataclass(slots=True)
class StreamStats:
    """What has happened to a stream since the machine was switched on."""

    frames: int = 0  # played
    messages: int = 0
    underruns: int = 0  # gaps within a sound, because the driver was late
    silence_ns: int = 0  # their length
    stalls: int = 0  # times that the machine was later than can be caught up with
    lateness_max_ns: int = 0  # of a completion


@dataclass(frozen=True, slots=True)
class _Message:
    chain: Chain
    size: int  # of the payload, in bytes
    frames: int


def complete(queue: Queue, chain: Chain, status: int, latency_bytes: int = 0) -> None:
    """Give an I/O message back with a status, if it has room for one: the last bytes that the device may write."""
    room = len(chain.writable)
    if room < wire.PCM_STATUS.size:
        queue.push(chain, 0)
        return
    chain.writable.write(room - wire.PCM_STATUS.size, wire.PCM_STATUS.pack(status, latency_bytes))
    queue.push(chain, wire.PCM_STATUS.size)


class OutputStream:
    """Stream number ``number`` of a device, from one reset to the next, with its messages on ``queue``.

    The commands return the status to reply with; one that is illegal now (S_BAD_MSG) changes nothing.
    """

    direction = wire.D_OUTPUT

    def __init__(
        self, number: int, queue: Queue, *, clock: Clock, events: Events, backend: AudioBackend, stats: StreamStats
    ) -> None:
        self.number = number
        self.state = State.NEW
        self.stats = stats
        self._queue = queue
        self._clock = clock
        self._events = events
        self._backend = backend
        self._params: StreamParams | None = None  # from the first SET_PARAMS on
        self._playback: Playback | None = None  # from PREPARE to RELEASE
        self._fifo: deque[_Message] = deque()
        self._event: Event | None = None  # the end of the first message, while the stopwatch runs
        # The stopwatch: its zero in guest time while it runs, its value while it does not, and the frames before the
        # first message. It counts from the last time that the stream began after silence, so that numbers stay small.
        self._zero = 0
        self._elapsed = 0
        self._frames = 0
        self._dry_since: int | None = None  # running, and nothing to play any more

    # Commands.

    def set_params(self, params: StreamParams) -> int:
        """SET_PARAMS: what is queued for other parameters is returned."""
        if not self._enter(wire.R_PCM_SET_PARAMS):
            return wire.S_BAD_MSG
        self._return_all()
        self._params = params
        return wire.S_OK

    def prepare(self) -> int:
        """PREPARE: messages may be queued from now on, and wait."""
        if not self._enter(wire.R_PCM_PREPARE):
            return wire.S_BAD_MSG
        if self._playback is None:
            assert self._params is not None
            self._playback = self._backend.open_playback(self.number, self._params.pcm)
        return wire.S_OK

    def start(self) -> int:
        """START: the first sample, or the next one after STOP, is heard now."""
        if not self._enter(wire.R_PCM_START):
            return wire.S_BAD_MSG
        assert self._playback is not None
        self._playback.start()
        self._zero = self._clock.now() - self._elapsed
        self._schedule()
        return wire.S_OK

    def stop(self) -> int:
        """STOP: nothing is heard from now on, and no message completes."""
        if not self._enter(wire.R_PCM_STOP):
            return wire.S_BAD_MSG
        assert self._playback is not None
        self._playback.stop()
        self._cancel()
        if self._fifo:
            self._elapsed = self._clock.now() - self._zero
        else:  # in silence, which need not be gone on with
            self._elapsed = self._frames = 0
        self._dry_since = None
        return wire.S_OK

    def release(self) -> int:
        """RELEASE: every message is returned, and the driver told, before the command is (5.14.6.6.5)."""
        if not self._enter(wire.R_PCM_RELEASE):
            return wire.S_BAD_MSG
        self._return_all()
        return wire.S_OK

    def close(self) -> None:
        """Stop, and forget all: the device is reset."""
        self._cancel()
        self._fifo.clear()
        if self._playback is not None:
            if self.state is State.RUNNING:
                self._playback.stop()
            self._playback.close()
            self._playback = None

    def _enter(self, command: int) -> bool:
        state = _TRANSITIONS.get((self.state, command))
        if state is None:
            return False
        self.state = state
        return True

    def _return_all(self) -> None:
        for message in self._fifo:
            complete(self._queue, message.chain, wire.S_OK)
        self._fifo.clear()
        self._queue.signal()
        self._elapsed = self._frames = 0
        if self._playback is not None:
            self._playback.close()
            self._playback = None

    # Messages.

    def submit(self, chain: Chain) -> bool:
        """Queue a message that has a header and room for a status; False if it cannot be played."""
        if self._playback is None:  # not between PREPARE and RELEASE
            return False
        assert self._params is not None
        size = len(chain.readable) - wire.PCM_XFER.size
        frames, rest = divmod(size, self._params.pcm.frame_size)
        if rest or size > MAX_MESSAGE_BYTES:
            return False
        self._fifo.append(_Message(chain, size, frames))
        if self.state is State.RUNNING and len(self._fifo) == 1:
            self._begin_after_silence()
        return True

    def _begin_after_silence(self) -> None:
        now = self._clock.now()
        if self._dry_since is not None:
            self.stats.underruns += 1
            self.stats.silence_ns += now - self._dry_since
            self._dry_since = None
        self._zero = now
        self._frames = 0
        self._schedule()

    def _end_of(self, message: _Message) -> int:
        """Guest time at which the first message in the queue is played."""
        assert self._params is not None
        return self._zero - (self._frames + message.frames) * _NS // -self._params.pcm.rate  # rounded up

    def _schedule(self) -> None:
        if self._fifo:
            self._event = self._events.at(self._end_of(self._fifo[0]), self._complete_due)

    def _cancel(self) -> None:
        if self._event is not None:
            self._event.cancel()
            self._event = None

    def _complete_due(self) -> None:
        self._event = None
        if not self._queue.running:
            return  # the driver has broken or stopped it: there are no bytes to play until the next reset
        assert self._params is not None
        now = self._clock.now()
        for _ in range(max(1, self._params.buffer_bytes // self._params.period_bytes - 1)):
            end = self._end_of(self._fifo[0])
            if end > now:
                break
            self.stats.lateness_max_ns = max(self.stats.lateness_max_ns, now - end)
            self._play(self._fifo.popleft())
            if not self._fifo:
                self._dry_since = end
                break
        if self._fifo and self._end_of(self._fifo[0]) <= now:
            self.stats.stalls += 1
            self._zero, self._frames = now, 0
        self._queue.signal()
        self._schedule()

    def _play(self, message: _Message) -> None:
        assert self._playback is not None
        if message.size:
            self._playback.write(message.chain.readable.read(wire.PCM_XFER.size, message.size))
        complete(self._queue, message.chain, wire.S_OK, self._playback.latency_bytes)
        self._frames += message.frames
        self.stats.frames += message.frames
        self.stats.messages += 1
