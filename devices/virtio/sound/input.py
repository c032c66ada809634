"""An input stream: what is recorded, and what becomes of it while the driver has no message queued.

A message is recorded when its last frame is: its bytes come from the backend then. Frame 0 is the first frame of the
source, at START. Recording advances with the machine's clock, message or not, and pauses only from STOP to START.

While no message is queued, the device keeps what is recorded, up to the buffer size given by SET_PARAMS, as
5.14.6.6.3.1 requires. A message that finds recorded frames takes the oldest, and completes as soon as it has all its
frames. A driver with one message in flight (Haiku) therefore gets every frame, and so does Linux unless its application
is so late that ALSA itself stops the stream. Frames beyond the buffer are lost, oldest first ("overrun"), and counted.

The latency a message completes with is what the device still holds: the bytes recorded but not yet returned.

A message of a size other than a period takes as many whole frames as fit; its status is in the last 8 bytes whatever
was recorded, and the length used is that of the frames and the status. A message returned by RELEASE has recorded
nothing: its length is 8, and whatever was recorded for it is lost.

Playback has a guard against stale periods (turn.py); capture can have none. A message does not reveal whether the
program has read a period by the time the driver offers its memory again: only the guest knows what it missed.
"""

from devices.audio import Capture
from devices.virtio.queue import Chain
from devices.virtio.sound import wire
from devices.virtio.sound.prepared import Message, PlayedState, Prepared, StreamParams, Surroundings, complete

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
        if not self._fifo:  # settle what has been lost by now
            self._arrived(now)

    def _resume(self, played: PlayedState | None, now: int) -> None:  # noqa: ARG002 - nothing was played
        taken = self._stopwatch.frames + self._begun  # whether recorded or lost
        if taken:
            self._port.skip(taken * self._frame_size)

    def _move(self, message: Message, frames: int) -> None:
        size = self._frame_size
        message.chain.writable.write(self._begun * size, self._port.read(frames * size))

    def _give_back(self, message: Message, now: int) -> bool:
        held = min(self._stopwatch.behind(now), self._most_held) * self._frame_size
        complete(self._queue, message.chain, wire.S_OK, held + self._port.latency_bytes, recorded=message.size)
        return False
