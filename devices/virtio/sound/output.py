"""An output stream: what is played, and what is heard when there is nothing to play.

A message's bytes are read when it completes, and go to the backend once. Earlier they may be stale: Linux 6.1 queues
each period again before the application has filled it. The latency it completes with is the backend's: bytes that
were handed over and are not heard yet.

When the last message is played and no other is there, the stream plays silence. The next message begins when it
arrives; what was missed is not caught up with, as there is nothing that it could be caught up by.

If STOP cuts a message short and RELEASE follows, it returns unplayed, and the backend never gets its beginning. For a
device cannot tell the beginning of a new period from that of a stale one, which Linux 6.1 always has in the queue when
it drains: the last period completes, a worker wakes up and stops the stream, and the instants between belong to a
sound played before. So what a backend gets are whole messages, those that the driver was told are played, and no
others.
"""

from devices.audio import PcmParams, Playback
from devices.virtio.queue import Chain
from devices.virtio.sound import wire
from devices.virtio.sound.stream import Message, Stream, complete

__all__ = ["OutputStream"]


class OutputStream(Stream[Playback]):
    """A stream that plays."""

    direction = wire.D_OUTPUT
    direction_name = "playback"

    _dry_since: int | None = None  # running, and nothing to play any more

    def _open(self, params: PcmParams) -> Playback:
        return self._backend.open_playback(self.number, params)

    def _payload(self, chain: Chain) -> int | None:
        assert self.params is not None
        size = len(chain.readable) - wire.PCM_XFER.size
        return None if size % self.params.pcm.frame_size else size

    def _arrived(self, now: int) -> None:
        if self._dry_since is not None:
            self.stats.underruns += 1
            self.stats.silence_ns += now - self._dry_since
            self._dry_since = None
        self._stopwatch.restart(now)

    def _ran_dry(self, end: int) -> None:
        self._dry_since = end

    def _stopped(self, now: int) -> None:  # noqa: ARG002 - silence has no place to keep
        if not self._fifo:  # in silence, which need not be gone on with
            self._stopwatch.rewind()
        self._dry_since = None

    def _transfer(self, message: Message, now: int) -> None:  # noqa: ARG002 - what is late, is late
        assert self._port is not None
        if message.size:
            self._port.write(message.chain.readable.read(wire.PCM_XFER.size, message.size))
        complete(self._queue, message.chain, wire.S_OK, self._port.latency_bytes)
