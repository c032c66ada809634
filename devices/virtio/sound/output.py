"""An output stream: what is played, and what is heard when there is nothing to play.

A message's bytes are read when it completes, and go to the backend once. Earlier they may be stale: Linux 6.1 queues
each period again before the application has filled it. A backend that plays live gets them in parts, each when its last
frame is played, which is when a card would have read it. The latency it completes with is the backend's: bytes that
were handed over and are not heard yet.

When the last message is played and no other is there, the stream plays silence. The next message begins when it
arrives; what was missed is not caught up with, as there is nothing that it could be caught up by.

If STOP cuts a message short and RELEASE follows, it returns unplayed, and the backend never gets its beginning, or does
not have it heard. For a device cannot tell the beginning of a new period from that of a stale one, which Linux 6.1
always has in the queue when it drains: the last period completes, a worker wakes up and stops the stream, and the
instants between belong to a sound played before. So what is kept are whole messages, those that the driver was told
are played, and no others; and what is heard as well, if the worker comes within the backend's latency.
"""

from devices.audio import Playback
from devices.virtio.queue import Chain
from devices.virtio.sound import wire
from devices.virtio.sound.prepared import Message, Prepared, StreamParams, Surroundings, complete
from devices.virtio.sound.turn import Turn

__all__ = ["PreparedOutput"]


class PreparedOutput(Prepared[Playback]):
    """A stream that plays."""

    direction = "playback"

    def __init__(self, around: Surroundings, params: StreamParams) -> None:
        pcm = params.pcm
        super().__init__(around, params, around.backend.open_playback(around.number, pcm))
        self._part_frames: int | None = None  # in which the port wants a message
        if self._port.part_ns is not None:
            wanted = pcm.rate * self._port.part_ns // 1_000_000_000
            self._part_frames = max(min(wanted, self._piece_frames), 1)
        self._turn = Turn(params.buffer_bytes // params.period_bytes, pcm)
        self._dry_since: int | None = None  # running, and nothing to play any more

    def _payload(self, chain: Chain) -> int | None:
        size = len(chain.readable) - wire.PCM_XFER.size
        return None if size % self._frame_size else size

    def _arrived(self, now: int) -> None:
        if self._dry_since is not None:
            self._stats.underruns += 1
            self._stats.silence_ns += now - self._dry_since
            self._dry_since = None
        self._stopwatch.restart(now)

    def _ran_dry(self, end: int) -> None:
        self._dry_since = end

    def _stopped(self, now: int) -> None:  # noqa: ARG002 - silence has no place to keep
        if not self._fifo:  # in silence, which need not be gone on with
            self._stopwatch.rewind()
        self._dry_since = None

    def _next(self) -> int:
        if self._part_frames is None or self._fifo[0].frames - self._begun <= self._part_frames:
            return self._due()
        return self._stopwatch.end_of(self._begun + self._part_frames)

    def _go_on(self, now: int) -> None:
        if self._part_frames is None:
            return
        frames = self._stopwatch.behind(now) - self._begun
        if frames >= self._part_frames:
            frames = min(frames, self._piece_frames)
            self._port.write_part(self._read(self._fifo[0], frames))
            self._begun += frames

    def _move(self, message: Message, frames: int) -> None:
        data = self._read(message, frames)
        if self._begun + frames < message.frames:
            self._port.write_part(data)
        else:
            self._port.write(data)

    def _give_back(self, message: Message, now: int) -> bool:  # noqa: ARG002 - what is late, is late
        complete(self._queue, message.chain, wire.S_OK, self._port.latency_bytes)
        return self._turn.end_period()

    def _read(self, message: Message, frames: int) -> bytes:
        """Read the frames that follow those that the port has got."""
        size = self._frame_size
        data = message.chain.readable.read(wire.PCM_XFER.size + self._begun * size, frames * size)
        self._turn.play(data)
        return data
