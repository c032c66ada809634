"""Frames on their way between the machine's thread and the thread of a network: a bounded queue in each direction.

Nobody waits here. Whoever finds no room, or no frame, says so, and is called when there is: the machine by a message,
the network's thread by a bell that it can poll.
"""

import ctypes
import os
from collections import deque

from devices.net.base import Plug

__all__ = ["Exchange", "FrameQueue"]

#: Bytes in a queue that is full: 4 of the largest frames, some hundreds of the usual ones.
LIMIT = 256 << 10
#: What a frame counts for beyond its bytes.
OVERHEAD = 256


#: Writes to an eventfd without letting go of the interpreter, which os.eventfd_write does: the network's thread would
#: take it, and the guest would wait for it, for some ms at times.
_ring = ctypes.PyDLL(None).eventfd_write
_ring.argtypes = ctypes.c_int, ctypes.c_uint64


class FrameQueue:
    """Frames from one thread to one other, first in, first out. Each side counts for itself, so neither needs a lock.

    It takes every frame: that there is no more than one too many is up to the sender, who looks at ``full``.
    """

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._put = self._got = 0

    @property
    def fill(self) -> int:
        """How many bytes wait, by OVERHEAD more for each frame."""
        return self._put - self._got

    @property
    def full(self) -> bool:
        """Whether the sender is to wait."""
        return self._put - self._got >= LIMIT

    def put(self, frame: bytes) -> None:
        """Add a frame. For the sender."""
        self._put += len(frame) + OVERHEAD
        self._frames.append(frame)

    def get(self) -> bytes | None:
        """Take the oldest frame, if there is one. For the receiver."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._got += len(frame) + OVERHEAD
        return frame


class Exchange:
    """Both directions, and who is to be called.

    ``transmit``, ``ready``, ``fetch``, ``plug`` and ``unplug`` are for the machine's thread and do what NetBackend
    says; the rest is for the network's. Each side first stores what it wants and then looks at the other's, so neither
    can miss it.
    """

    def __init__(self) -> None:
        self._outgoing, self._incoming = FrameQueue(), FrameQueue()
        self._plug: Plug | None = None
        self._asked: Plug | None = None  # which machine has been, to look
        self._no_room = False  # the machine's thread found none
        self._asleep = self._wants_room = False  # the network's thread
        #: Readable when the network's thread is to look.
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # The machine's thread.

    def plug(self, plug: Plug) -> None:
        """Start with a new machine."""
        self.unplug()
        while self._incoming.get() is not None:
            pass
        self._no_room = False
        self._plug = plug
        self.ring()

    def unplug(self) -> None:
        """Call no machine any more."""
        self._plug = None

    def ready(self) -> bool:
        """Whether there is room for a frame of the guest's."""
        if not self._outgoing.full:
            return True
        self._no_room = True
        return not self._outgoing.full

    def transmit(self, frame: bytes) -> None:
        """Take a frame of the guest's."""
        self._outgoing.put(frame)
        self.ring()

    def fetch(self) -> bytes | None:
        """Return a frame for the guest."""
        frame = self._incoming.get()
        if self._wants_room and not self._incoming.full:
            self._wants_room = False
            self.ring()
        return frame

    def ring(self) -> None:
        """Have the network's thread look. For any thread."""
        if self._asleep:
            self._asleep = False
            _ring(self.bell, 1)

    # The network's thread.

    @property
    def full(self) -> bool:
        """Whether the guest takes no more frames for now; the bell rings when it does."""
        return self._incoming.full

    @property
    def fill(self) -> int:
        """How many bytes wait for the guest."""
        return self._incoming.fill

    def take(self) -> bytes | None:
        """Take a frame of the guest's."""
        frame = self._outgoing.get()
        if self._no_room and self._outgoing.fill < LIMIT // 2:
            self._no_room = False
            self._call()
        return frame

    def give(self, frame: bytes) -> None:
        """Have a frame ready for the guest; ``flush`` tells it."""
        self._incoming.put(frame)

    def flush(self) -> None:
        """Have the machine look, if there is something to be seen."""
        if self._incoming.fill:
            self._call()

    def may_sleep(self, *, for_room: bool, for_frame: bool) -> bool:
        """Whether the bell will ring when there is what is waited for; if not, there is already."""
        self._wants_room = for_room
        self._asleep = True
        return not ((for_room and not self._incoming.full) or (for_frame and self._outgoing.fill))

    def awake(self) -> None:
        """The network's thread looks at everything again."""
        self._asleep = False
        try:
            os.eventfd_read(self.bell)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give the bell back; nobody uses it any more."""
        if self.bell >= 0:
            os.close(self.bell)
            self.bell = -1

    def _call(self) -> None:
        plug = self._plug
        if plug is not None and self._asked is not plug:
            self._asked = plug
            plug.post(lambda: self._look(plug))

    def _look(self, plug: Plug) -> None:
        if plug is self._plug:  # else the machine was switched off meanwhile
            self._asked = None
            plug.card.look()
