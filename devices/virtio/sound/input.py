"""An input stream: what is recorded, and what becomes of it while the driver has no message for it.

A message is recorded when its last frame is: its bytes come from the backend then. Frame 0 is the source's first one,
at START. It goes on with the machine's clock, message or not, and stands still from STOP to START only.

While no message is there, the device keeps what is recorded: as much as SET_PARAMS called the buffer, as 5.14.6.6.3.1
wants it. A message that finds recorded frames takes the oldest of them, and completes as soon as it has its frames. So
a driver that has one message in flight (Haiku) gets every frame, and so does Linux while its application is not so
late that ALSA stops the stream itself. Frames beyond that are lost, the oldest first ("overrun"), and counted.

The latency that a message completes with is what the device holds after it: the bytes that are recorded and not
returned yet.

A message of another size than a period takes the whole frames that fit; its status is in the last 8 bytes whatever was
recorded, and the length used is that of the frames and the status. One that RELEASE returns has recorded nothing: its
length is 8, and what was recorded of it is lost.
"""

from devices.audio import Capture, PcmParams
from devices.virtio.queue import Chain
from devices.virtio.sound import wire
from devices.virtio.sound.stream import Message, Stream, complete

__all__ = ["InputStream"]


class InputStream(Stream[Capture]):
    """A stream that records."""

    direction = wire.D_INPUT
    direction_name = "capture"

    def _open(self, params: PcmParams) -> Capture:
        return self._backend.open_capture(self.number, params)

    def _payload(self, chain: Chain) -> int | None:
        assert self.params is not None
        room = len(chain.writable) - wire.PCM_STATUS.size
        return room - room % self.params.pcm.frame_size

    def _arrived(self, now: int) -> None:
        lost = self._stopwatch.behind(now) - self._most_held()
        if lost > 0:
            assert self.params is not None
            assert self._port is not None
            self._port.skip(lost * self.params.pcm.frame_size)
            self._stopwatch.frames += lost
            self.stats.overruns += 1
            self.stats.lost_frames += lost

    def _stopped(self, now: int) -> None:
        if not self._fifo:  # what is lost, is lost by now
            self._arrived(now)

    def _most_held(self) -> int:
        assert self.params is not None
        return self.params.buffer_bytes // self.params.pcm.frame_size

    def _transfer(self, message: Message, now: int) -> None:
        assert self._port is not None
        assert self.params is not None
        if message.size:
            message.chain.writable.write(0, self._port.read(message.size))
        held = min(self._stopwatch.behind(now), self._most_held()) * self.params.pcm.frame_size
        complete(self._queue, message.chain, wire.S_OK, held + self._port.latency_bytes, recorded=message.size)
