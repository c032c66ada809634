"""What a stream has to do, written a second time, independently of stream.py and prepared.py.

Which command is legal when, which message comes back when, and what it holds. It is told what happens, in the order in
which it happens, and raises AssertionError when the device does anything else.
"""

from collections import deque
from dataclasses import dataclass, field

from devices.audio import PcmParams
from devices.virtio.sound.prepared import StreamStats
from tests.devices.virtio.fake_driver import Completed, Token
from tests.devices.virtio.sound.guest import (
    BAD_MSG,
    IO_ERR,
    OK,
    PREPARE,
    RELEASE,
    SECOND,
    SET_PARAMS,
    START,
    STOP,
    source,
)
from tests.devices.virtio.sound.test_stream import NEXT

__all__ = ["Message", "StreamModel", "check_refused"]

UNTOUCHED = b"\xaa"  # what the driver fills its buffers with


@dataclass(eq=False)
class Message:
    """An I/O message that the device has been notified of."""

    token: Token
    payload: bytes  # of an output's
    size: int  # bytes of whole frames
    frames: int


@dataclass
class StreamModel:
    """One stream, from one reset to the next."""

    plays: bool
    stats: StreamStats
    state: str = "new"
    pcm: PcmParams | None = None
    buffer: int = 0  # bytes
    queued: deque[Message] = field(default_factory=deque)
    #: Messages that a command has just returned, unplayed.
    returned: dict[Token, Message] = field(default_factory=dict)
    #: What has been played but not compared yet.
    played: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._known_lost = self.stats.lost_frames
        self._prepare()

    def _prepare(self) -> None:
        self._ran = 0  # ns of running until ...
        self._since: int | None = None  # ... it was started last
        self._origin = 0  # running time at which frame 0 began
        self._frames = 0  # over since
        self._position = 0  # in the source, frames
        self._ready = 0
        self._idle_until = 0  # the machine has done nothing before

    @property
    def takes_messages(self) -> bool:
        """Whether messages can be queued."""
        return self.state in {"prepared", "running", "stopped"}

    def _running_time(self, now: int) -> int:
        return self._ran + (now - self._since if self._since is not None else 0)

    def _behind(self, now: int) -> int:
        return (self._running_time(now) - self._origin) * self._rate // SECOND - self._frames

    @property
    def _rate(self) -> int:
        assert self.pcm is not None
        return self.pcm.rate

    def due(self) -> int | None:
        """Guest time at which the next message comes back, if nothing else happens."""
        if self._since is None or not self.queued:
            return None
        end = -(-(self._frames + self.queued[0].frames) * SECOND // self._rate)
        return max(self._since + self._origin + end - self._ran, self._ready)

    # What the driver does.

    def command(self, code: int, now: int, pcm: PcmParams | None = None, buffer: int = 0) -> int:
        """Carry out a well-formed command; return the status to expect."""
        state = NEXT[self.state].get(code)
        if state is None:
            return BAD_MSG
        before, self.state = self.state, state
        if code == SET_PARAMS:
            self._return_all()
            self.pcm, self.buffer = pcm, buffer
        elif code == PREPARE and before != "prepared":
            self._prepare()
        elif code == START:
            self._since = self._ready = now
        elif code == STOP:
            self._ran, self._since = self._running_time(now), None
            if not self.queued:
                self._lose(now) if not self.plays else self._restart(now)
        elif code == RELEASE:
            self._return_all()
        return OK

    def _return_all(self) -> None:
        self.returned.update((message.token, message) for message in self.queued)
        self.queued.clear()

    def accepts(self, readable: int, writable: int) -> bool:
        """Whether a message of this many bytes is valid, including header and status."""
        if not self.takes_messages or writable < 8:
            return False
        assert self.pcm is not None
        size = readable - 4 if self.plays else writable - 8
        return size <= 16 << 20 and not (self.plays and size % self.pcm.frame_size)

    def submit(self, token: Token, payload: bytes, writable: int, now: int) -> None:
        """Queue a valid message."""
        assert self.pcm is not None
        frames = (len(payload) if self.plays else writable - 8) // self.pcm.frame_size
        if self.state == "running" and not self.queued:
            self._ready = now
            self._restart(now) if self.plays else self._lose(now)
        self.queued.append(Message(token, payload, frames * self.pcm.frame_size, frames))

    def _restart(self, now: int) -> None:
        """Continue after silence: the next frame begins now."""
        self._origin, self._frames = self._running_time(now), 0

    def _lose(self, now: int) -> None:
        """Drop what exceeds a buffer, for a driver that had no message."""
        assert self.pcm is not None
        most = max(0, self._behind(now) - self.buffer // self.pcm.frame_size)
        lost, self._known_lost = self.stats.lost_frames - self._known_lost, self.stats.lost_frames
        assert lost == most
        self._frames += lost
        self._position += lost

    def wait(self, now: int) -> None:
        """Note that the machine has done nothing until now, and is late with what was due."""
        self._idle_until = now

    def settle(self, now: int) -> None:
        """Check that all that is due has been done."""
        due = self.due()
        assert due is None or due > now, f"a message is overdue: {due} {now} {self}"

    # What the device does.

    def check(self, done: Completed, now: int) -> None:
        """Check a message that has come back."""
        message = self.returned.pop(done.token, None)
        if message is not None:
            assert done.used_len == 8
            self._check_writable(done, 0, 0)
            return
        message = self.queued[0]
        due = self.due()
        assert due is not None, "it does not run"
        assert message.token is done.token, "out of order"
        assert now >= due, "early"
        assert now == max(due, self._idle_until), "late"
        self.queued.popleft()
        self._frames += message.frames
        if self.plays:
            self.played += message.payload
            assert done.used_len == 8
            self._check_writable(done, 0, 0)
        else:
            assert done.used_len == 8 + message.size
            self._check_recorded(done, message, now)

    def _check_recorded(self, done: Completed, message: Message, now: int) -> None:
        assert self.pcm is not None
        begin = self._position * self.pcm.frame_size
        assert done.data[: message.size] == source(begin, message.size)
        self._position += message.frames
        held = min(
            max(self._behind(now) * self.pcm.frame_size, 0), self.buffer // self.pcm.frame_size * self.pcm.frame_size
        )
        self._check_writable(done, message.size, held)

    def _check_writable(self, done: Completed, used: int, latency: int) -> None:
        room = len(done.data)
        assert done.data[room - 8 :] == OK.to_bytes(4, "little") + latency.to_bytes(4, "little")
        assert done.data[used : room - 8] == UNTOUCHED * (room - 8 - used)


def check_refused(done: Completed) -> None:
    """Check an invalid message: an error if there is room for a status, else nothing."""
    room = len(done.data)
    if room < 8:
        assert (done.used_len, done.data) == (0, UNTOUCHED * room)
        return
    assert done.used_len == 8
    assert done.data == UNTOUCHED * (room - 8) + IO_ERR.to_bytes(4, "little") + bytes(4)
