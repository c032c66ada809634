"""One PCM stream: the state machine of virtio 1.3 section 5.14.6.6.1, and the pacing of its I/O messages.

What is the same for playing (output.py) and recording (input.py) is here.

When a message completes
    A stream has a stopwatch of guest time, which runs while the stream does: START starts it, STOP stops it. A
    message is played, or recorded, when the stopwatch has reached the end of its last frame, counted from the first
    one and rounded up to the next ns. It completes then, in an event of its own: never earlier, and never within a
    notification, because Linux 6.1 queues the message again from the completion interrupt, and would never leave that.

    A machine that was late catches up in small steps, each with one interrupt: a millisecond of sound or a single
    message, and always less than a buffer (a driver that sees a full turn of its buffer sees no progress at all).
    After a step that was late the guest has time to act, even if the next message is nearly due: ALSA takes a jump of
    two periods for lost interrupts, and a stream that it is about to stop should not play on. When the machine was
    late by more than a whole buffer, the time beyond that is given up ("stall"), and the sound goes on where it was.

    What a message that completed says of latency is measured then: see output.py and input.py.

STOP and RELEASE
    A message that STOP cuts short stays where it is, and START goes on with the very next sample. RELEASE returns all
    messages, with status OK and nothing played or recorded, before it is answered (5.14.6.6.5.1).
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from devices.audio import AudioBackend, PcmParams, Period
from devices.audio.base import Port
from devices.contracts import Clock, Event, Events
from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import wire
from devices.virtio.sound.pacing import Stopwatch

__all__ = ["Message", "State", "Stream", "StreamParams", "StreamStats", "complete"]

#: Payload of a message beyond which it is refused: 0.6 s of the fattest stream. What is copied at once is bounded.
MAX_MESSAGE_BYTES = 16 << 20

#: When late: how much sound completes in one step, and how long the guest has until the next, at most.
_STEP_NS = 1_000_000
_MAX_BREATH_NS = 8_000_000

PortT = TypeVar("PortT", bound=Port)


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

    @property
    def buffer_ns(self) -> int:
        """How long the buffer lasts."""
        return self.pcm.duration_ns(self.buffer_bytes // self.pcm.frame_size)

    @property
    def step_frames(self) -> int:
        """Most frames that complete at once, unless they are of a single message."""
        all_but_a_period = (self.buffer_bytes - self.period_bytes) or self.period_bytes // 2
        return min(all_but_a_period // self.pcm.frame_size, self.pcm.rate * _STEP_NS // 1_000_000_000)


@dataclass(slots=True)
class StreamStats:
    """What has happened to a stream since the machine was switched on."""

    frames: int = 0  # played or recorded
    messages: int = 0
    underruns: int = 0  # gaps within a sound, because the driver was late
    silence_ns: int = 0  # their length
    overruns: int = 0  # times that frames were lost, because the driver was late
    lost_frames: int = 0
    stalls: int = 0  # times that the stream was later than can be caught up with
    repeats: int = 0  # periods of the very bytes that were played a buffer ago, and not silence
    lateness_max_ns: int = 0  # of a completion


@dataclass(frozen=True, slots=True)
class Message:
    """An I/O message that waits for its turn."""

    chain: Chain
    size: int  # of the frames that it holds, or takes, in bytes
    frames: int


def complete(queue: Queue, chain: Chain, status: int, latency_bytes: int = 0, recorded: int = 0) -> None:
    """Give an I/O message back with a status, if it has room for one: the last bytes that the device may write."""
    room = len(chain.writable)
    if room < wire.PCM_STATUS.size:
        queue.push(chain, 0)
        return
    chain.writable.write(room - wire.PCM_STATUS.size, wire.PCM_STATUS.pack(status, latency_bytes))
    queue.push(chain, wire.PCM_STATUS.size + recorded)


class Stream(ABC, Generic[PortT]):
    """Stream number ``number`` of those in its direction, from one reset to the next, with its messages on ``queue``.

    The commands return the status to reply with; one that is illegal now (S_BAD_MSG) changes nothing.
    """

    direction: int
    #: As the log of periods has it.
    direction_name: str

    def __init__(
        self, number: int, queue: Queue, *, clock: Clock, events: Events, backend: AudioBackend, stats: StreamStats
    ) -> None:
        self.number = number
        self.state = State.NEW
        self.stats = stats
        self.params: StreamParams | None = None  # from the first SET_PARAMS on
        self._queue = queue
        self._clock = clock
        self._events = events
        self._backend = backend
        self._port: PortT | None = None  # from PREPARE to RELEASE
        self._fifo: deque[Message] = deque()  # empty but between PREPARE and RELEASE
        self._stopwatch = Stopwatch(1)
        self._event: Event | None = None  # something to do for the first message, while the stopwatch runs
        self._again = False  # the message that has completed is what was played a buffer ago
        self._ready = 0  # since when there has been a message in the running stream: none is due before

    # What a direction is.

    @abstractmethod
    def _open(self, params: PcmParams) -> PortT:
        """Have the backend make the stream's port."""

    @abstractmethod
    def _payload(self, chain: Chain) -> int | None:
        """How many bytes of frames a message holds or takes; None if it cannot be played or recorded."""

    @abstractmethod
    def _transfer(self, message: Message, now: int) -> None:
        """Play or record a message, whose time has come, and give it back."""

    @abstractmethod
    def _arrived(self, now: int) -> None:
        """Go on: the stream runs, and had no message until now."""

    def _next(self) -> int:
        """Guest time at which there is something to do for the first message: it is over, if nothing else."""
        return self._due()

    def _go_on(self, now: int) -> None:
        """Do what there is to do for the first message, which is not over."""

    def _ran_dry(self, end: int) -> None:
        """Take note that the last message is over, since ``end``, and no other is there."""

    def _stopped(self, now: int) -> None:
        """Take note of STOP."""

    # Commands.

    def set_params(self, params: StreamParams) -> int:
        """SET_PARAMS: what is queued for other parameters is returned."""
        if not self._enter(wire.R_PCM_SET_PARAMS):
            return wire.S_BAD_MSG
        self._return_all()
        self.params = params
        return wire.S_OK

    def prepare(self) -> int:
        """PREPARE: messages may be queued from now on, and wait."""
        if not self._enter(wire.R_PCM_PREPARE):
            return wire.S_BAD_MSG
        if self._port is None:
            assert self.params is not None
            self._stopwatch = Stopwatch(self.params.pcm.rate)
            self._port = self._open(self.params.pcm)
        return wire.S_OK

    def start(self) -> int:
        """START: the first sample, or the next one after STOP, is now."""
        if not self._enter(wire.R_PCM_START):
            return wire.S_BAD_MSG
        assert self._port is not None
        self._port.start()
        self._ready = self._clock.now()
        self._stopwatch.start(self._ready)
        self._schedule()
        return wire.S_OK

    def stop(self) -> int:
        """STOP: nothing is heard or recorded from now on, and no message completes."""
        if not self._enter(wire.R_PCM_STOP):
            return wire.S_BAD_MSG
        assert self._port is not None
        self._port.stop()
        self._cancel()
        now = self._clock.now()
        self._stopwatch.stop(now)
        self._stopped(now)
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
        if self._port is not None and self.state is State.RUNNING:
            self._port.stop()
        self._close_port()

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
        self._close_port()

    def _close_port(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    # Messages.

    def submit(self, chain: Chain) -> bool:
        """Queue a message that has a header and room for a status; False if it cannot be played or recorded."""
        if self._port is None:  # not between PREPARE and RELEASE
            return False
        assert self.params is not None
        size = self._payload(chain)
        if size is None or size > MAX_MESSAGE_BYTES:
            return False
        self._fifo.append(Message(chain, size, size // self.params.pcm.frame_size))
        if self.state is State.RUNNING and len(self._fifo) == 1:
            self._ready = self._clock.now()
            self._arrived(self._ready)
            self._schedule()
        return True

    def _due(self) -> int:
        """Guest time at which the first message in the queue is over."""
        return max(self._stopwatch.end_of(self._fifo[0].frames), self._ready)

    def _schedule(self, earliest: int = 0) -> None:
        if self._fifo:
            self._event = self._events.at(max(earliest, self._next()), self._complete_due)

    def _cancel(self) -> None:
        if self._event is not None:
            self._event.cancel()
            self._event = None

    def _complete_due(self) -> None:
        self._event = None
        if not self._queue.running:
            return  # the driver has broken or stopped it: there are no bytes to play until the next reset
        assert self.params is not None
        now = self._clock.now()
        stats = self.stats
        self._give_up_time(now)
        step = late = 0
        while self._fifo and (due := self._due()) <= now:
            message = self._fifo[0]
            if step and message.frames and step + message.frames > self.params.step_frames:
                break
            step += message.frames
            late = now - due
            stats.lateness_max_ns = max(stats.lateness_max_ns, late)
            self._fifo.popleft()
            self._stopwatch.frames += message.frames
            self._transfer(message, now)
            stats.frames += message.frames
            stats.messages += 1
            stats.repeats += self._again
            self._tell(message, due, now)
            if not self._fifo:
                self._ran_dry(due)
        self._queue.signal()
        if self._fifo and now < self._due():
            self._go_on(now)
        self._schedule(now + self._breath(late, step))

    def _breath(self, late: int, step: int) -> int:
        """How long the guest has after a step of so many frames, so that the stream does catch up.

        It has most of the step's duration, but half when so much of the buffer is gone that it may run dry.
        """
        assert self.params is not None
        duration = self.params.pcm.duration_ns(step)
        most = duration * 4 // 5 if late < self.params.buffer_ns // 4 else duration // 2
        return min(late, most, _MAX_BREATH_NS)

    def _give_up_time(self, now: int) -> None:
        """Move the stopwatch if the machine was later than it may catch up with."""
        assert self.params is not None
        excess = now - self._due() - self.params.buffer_ns
        if excess > 0:
            self.stats.stalls += 1
            self._stopwatch.skip(excess)

    def _tell(self, message: Message, due: int, now: int) -> None:
        fill = sum(waiting.size for waiting in self._fifo)
        self._backend.observe(Period(self.direction_name, self.number, due, now, message.size, fill, self._again))
