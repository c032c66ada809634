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
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from devices.audio import AudioBackend, PcmParams, Period
from devices.audio.base import Port
from devices.contracts import Clock, Event, Events
from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import wire
from devices.virtio.sound.pacing import Stopwatch
from devices.virtio.sound.steps import AT_ONCE, RETURN, Steps

__all__ = ["Message", "Prepared", "StreamParams", "StreamStats", "Surroundings", "complete"]

#: A message with a larger payload is refused: 0.6 s of the widest stream.
MAX_MESSAGE_BYTES = 16 << 20

PortT = TypeVar("PortT", bound=Port)


@dataclass(frozen=True, slots=True)
class StreamParams:
    """What SET_PARAMS has set; a buffer is whole periods, a period whole frames."""

    pcm: PcmParams
    buffer_bytes: int
    period_bytes: int


@dataclass(slots=True)
class StreamStats:
    """What has happened to a stream since power-on."""

    frames: int = 0  # played or recorded
    messages: int = 0
    underruns: int = 0  # gaps within a sound, because the driver was late
    silence_ns: int = 0  # their length
    overruns: int = 0  # times that frames were lost, because the driver was late
    lost_frames: int = 0
    repeats: int = 0  # periods with exactly the bytes played a buffer ago, other than silence
    lateness_max_ns: int = 0  # of any completion


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stream ``number`` of its direction works with, from one reset to the next."""

    number: int
    queue: Queue
    clock: Clock
    events: Events
    backend: AudioBackend
    stats: StreamStats


@dataclass(frozen=True, slots=True)
class Message:
    """An I/O message waiting its turn."""

    chain: Chain
    size: int  # bytes of frames that it holds, or takes
    frames: int


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
        self._port = port
        self._frame_size = params.pcm.frame_size
        self._piece_frames = max(AT_ONCE // self._frame_size, 1)
        self._stopwatch = Stopwatch(params.pcm.rate)
        self._running = False
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

    # Commands.

    def start(self) -> None:
        """START: the first sample, or the next one after STOP, is now."""
        self._port.start()
        self._running = True
        self._ready = self._clock.now()
        self._stopwatch.start(self._ready)
        self._schedule(self._ready)

    def stop(self) -> Steps[None]:
        """STOP: nothing is heard or recorded from now on, and only a message that is already over still completes."""
        self._running = False
        self._cancel()
        try:
            while self._moving and self._queue.running:
                self._advance(self._due(), self._clock.now())
                yield AT_ONCE
            self._queue.signal()
        finally:
            self._port.stop()
        now = self._clock.now()
        self._stopwatch.stop(now)
        self._stopped(now)

    def release(self) -> Steps[None]:
        """RELEASE: every message is returned and the driver told (5.14.6.6.5)."""
        try:
            while self._fifo:
                complete(self._queue, self._fifo.popleft().chain, wire.S_OK)
                yield RETURN
            self._queue.signal()
        finally:
            self._port.close()

    def close(self) -> None:
        """Stop and forget everything: the device is reset."""
        self._cancel()
        if self._running:
            self._port.stop()
        self._port.close()

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
        stats.lateness_max_ns = max(stats.lateness_max_ns, now - due)
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
