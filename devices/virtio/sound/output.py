"""An output stream: what is played, and what is heard when there is nothing to play.

A message's bytes are read when it completes, and go to the backend once. Earlier they may be stale: Linux 6.1 queues
each period again before the application has filled it. A backend that plays live gets them in parts, each when its last
frame is played, which is when a card would have read it. The latency a message completes with is the backend's: bytes
handed over but not yet heard.

When the last message has been played and no other is queued, the stream plays silence. The next message begins when it
arrives; the gap is not made up for, since there is nothing to make it up with.

If STOP cuts a message short and RELEASE follows, the message is returned unplayed, and the backend never gets its
beginning, or never lets it be heard. A device cannot tell the beginning of a new period from that of a stale one, and
Linux 6.1 always has a stale one queued when it drains: the last period completes, a worker wakes up and stops the
stream, and the moments in between belong to a sound already played. Only whole messages are therefore kept, those the
driver was told are played; the same holds for what is heard, if the worker acts within the backend's latency.
"""

from devices.audio import Playback
from devices.state import check
from devices.virtio.queue import Chain
from devices.virtio.sound import wire
from devices.virtio.sound.prepared import Message, PlayedState, Prepared, StreamParams, Surroundings, complete
from devices.virtio.sound.turn import Turn

__all__ = ["PreparedOutput"]


class PreparedOutput(Prepared[Playback]):
    """A stream that plays."""

    direction = "playback"

    def __init__(self, around: Surroundings, params: StreamParams) -> None:
        pcm = params.pcm
        super().__init__(around, params, around.backend.open_playback(around.number, pcm))
        self._part_frames: int | None = None  # size of the parts in which the port wants a message
        if self._port.part_ns is not None:
            wanted = pcm.rate * self._port.part_ns // 1_000_000_000
            self._part_frames = max(min(wanted, self._piece_frames), 1)
        self._turn = Turn(params.buffer_bytes // params.period_bytes, pcm)
        self._dry_since: int | None = None  # guest time since when the stream runs with nothing to play

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

    def _stopped(self, now: int) -> None:  # noqa: ARG002 - silence has no position to keep
        if not self._fifo:  # silence need not be resumed
            self._stopwatch.rewind()
        self._dry_since = None

    def _played_state(self) -> PlayedState | None:
        return {"turn": self._turn.state(), "dry_since": self._dry_since}

    def _resume(self, played: PlayedState | None, now: int) -> None:
        check(played is not None, "an output stream")
        assert played is not None
        self._turn.restore(played["turn"])
        self._dry_since = played["dry_since"]
        check(self._dry_since is None or self._dry_since <= now, "an output stream")

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

    def _give_back(self, message: Message, now: int) -> bool:  # noqa: ARG002 - lateness changes nothing here
        complete(self._queue, message.chain, wire.S_OK, self._port.latency_bytes)
        return self._turn.end_period()

    def _read(self, message: Message, frames: int) -> bytes:
        """Read the frames that follow those that the port already has."""
        size = self._frame_size
        data = message.chain.readable.read(wire.PCM_XFER.size + self._begun * size, frames * size)
        self._turn.play(data)
        return data
