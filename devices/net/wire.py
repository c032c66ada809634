"""A cable whose other end is in Python: a test reads and writes frames on it."""

from collections import deque
from collections.abc import Callable

from devices.errors import UsageError
from devices.net.base import HEADER, LEAST_MTU, MOST_FRAME, MOST_MTU, NetBackend, Plug

__all__ = ["Wire"]

#: Frames that wait at one end at most; what comes then is lost, as on any network.
MOST_WAITING = 4096


class Wire(NetBackend):
    """A cable to a guest. All of it belongs to the thread that owns the machine.

        wire = Wire()
        with Machine(net=wire, clock="warp") as machine:
            wire.send(frame)  # to the guest, which gets it when it runs next
            machine.run_for(0.1)
            print(wire.received())  # what the guest has sent since

    ``answer(frame)``, if given, gets each frame as soon as the guest has sent it, and ``received`` none; it may
    ``send``. Frames come and go at guest times that the test chooses, so a run with the warp clock repeats itself.
    """

    real_time = False

    def __init__(
        self, answer: Callable[[bytes], None] | None = None, *, mtu: int = 1500, mac: bytes | None = None
    ) -> None:
        if not LEAST_MTU <= mtu <= MOST_MTU:
            raise UsageError(f"a wire's MTU is between {LEAST_MTU} and {MOST_MTU}, not {mtu}")
        self.mtu, self.hardware_address = mtu, mac
        self._lost = 0
        self._answer = answer
        self._sent: deque[bytes] = deque()
        self._received: deque[bytes] = deque()
        self._plug: Plug | None = None

    def send(self, frame: bytes) -> None:
        """Have the guest receive ``frame``: Ethernet's header and what it carries, without the check sequence."""
        if not HEADER <= len(frame) <= MOST_FRAME:
            raise UsageError(f"a frame has {HEADER} to {MOST_FRAME} bytes, not {len(frame)}")
        if len(self._sent) >= MOST_WAITING:
            self._lost += 1
            return
        self._sent.append(bytes(frame))
        if self._plug is not None:
            self._plug.card.look_later()

    def received(self) -> list[bytes]:
        """Take the frames that the guest has sent since the last time."""
        frames = list(self._received)
        self._received.clear()
        return frames

    # The card's end.

    @property
    def lost(self) -> int:
        """Frames that nobody has taken in time."""
        return self._lost

    def plug(self, plug: Plug) -> None:
        """Belong to this machine from now on; what was sent before its driver starts waits for that."""
        self._plug = plug

    def unplug(self) -> None:
        """Leave that machine alone from now on."""
        self._plug = None

    def ready(self) -> bool:
        """Whether there is room: always."""
        return True

    def transmit(self, frame: bytes) -> None:
        """Take a frame from the guest."""
        if self._answer is not None:
            self._answer(frame)
        elif len(self._received) < MOST_WAITING:
            self._received.append(frame)
        else:
            self._lost += 1

    def fetch(self) -> bytes | None:
        """Return the next frame for the guest."""
        return self._sent.popleft() if self._sent else None

    def describe(self) -> str:
        """Say what it is."""
        return "a wire to Python"

    def close(self) -> None:
        """Nothing of it is the host's."""
