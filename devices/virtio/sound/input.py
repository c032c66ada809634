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

Playing has a guard against stale periods (turn.py), and recording can have none. Whether the program has read a period
when the driver offers its memory again is not to be seen in the message: only the guest knows what it missed.
"""

from devices.audio import Capture
from devices.virtio.queue import Chain
from devices.virtio.sound import wire
from devices.virtio.sound.prepared import Message, Prepared, StreamParams, Surroundings, complete

__all__ = ["PreparedInput"]


class PreparedInput(Prepared[Capture]):
    """A stream that records."""

    direction = "capture"

    def __init__(self, around: Surroundings, params: StreamParams) -> None:
        super().__init__(around, params, around.backend.open_capture(around.number, params.pcm))
        self._most_held = params.buffer_bytes // self._frame_size

    def _payload(self, chain: Chain) -> int | None:
        room = len(chain.writable) - wire.PCM_STATUS.size
        return room - room % self._frame_size

    def _arrived(self, now: int) -> None:
        lost = self._stopwatch.behind(now) - self._most_held
        if lost > 0:
            self._port.skip(lost * self._frame_size)
            self._stopwatch.frames += lost
            self._stats.overruns += 1
            self._stats.lost_frames += lost

    def _stopped(self, now: int) -> None:
        if not self._fifo:  # what is lost, is lost by now
            self._arrived(now)

    def _move(self, message: Message, frames: int) -> None:
        size = self._frame_size
        message.chain.writable.write(self._begun * size, self._port.read(frames * size))

    def _give_back(self, message: Message, now: int) -> bool:
        held = min(self._stopwatch.behind(now), self._most_held) * self._frame_size
        complete(self._queue, message.chain, wire.S_OK, held + self._port.latency_bytes, recorded=message.size)
        return False
