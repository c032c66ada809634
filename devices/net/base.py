"""The contract between a network card and a backend, which is what its cable leads to.

They hand each other whole Ethernet frames, without preamble and check sequence, on the machine's thread. A backend

- never makes the card wait: no call blocks on the host's network; what it cannot take now, it says it cannot
  (``ready``), and has the card look again later;
- never raises because of the host (a peer that vanishes, a network that is down): frames are lost then, as on any
  network, and are counted;
- holds a bounded number of frames in each direction, whatever the guest does, and whoever is at the other end.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = ["HEADER", "LEAST_MTU", "MOST_FRAME", "MOST_MTU", "Card", "NetBackend", "Plug"]

#: Destination, source and type. A tag of a virtual LAN adds four bytes.
HEADER, _TAG = 14, 4
#: The least that IPv4 needs (RFC 791), and the most that libslirp and Linux both take.
LEAST_MTU, MOST_MTU = 68, 65_520
#: No frame is longer, in either direction; a backend hands over none that is.
MOST_FRAME = HEADER + _TAG + MOST_MTU


class Card(Protocol):
    """A network card, as its backend sees it. Both are called on the machine's thread."""

    def look(self) -> None:
        """There are frames for the guest, or there is room for its own again."""
        ...

    def look_later(self) -> None:
        """The same once the guest has had a turn: for whoever is called by the card itself."""
        ...


class Plug(NamedTuple):
    """What a backend gets to know of the machine that it is plugged into."""

    card: Card
    #: Have a message called on the machine's thread, soon. For any thread; nothing happens if the machine is gone.
    post: Callable[[Callable[[], None]], None]
    #: Guest time in ns.
    now: Callable[[], int]


class NetBackend(Protocol):
    """What ``--net`` names."""

    #: The largest packet that it takes, without the Ethernet header.
    mtu: int = 1500
    #: Whether what it gives the guest comes from this process, so that nobody needs to verify a checksum.
    verified: bool = False
    #: Whether it is bound to the host's time, which does not jump as that of a machine with the warp clock does.
    real_time: bool = True
    #: The address that the card is to have; None: one of those that are usual here.
    hardware_address: bytes | None = None

    @property
    def lost(self) -> int:
        """Frames that it had no room for, or nobody to give them to."""
        return 0

    def plug(self, plug: Plug) -> None:
        """Belong to this machine from now on. What was on its way to another is lost."""
        ...

    def unplug(self) -> None:
        """Leave that machine alone from now on. Harmless when repeated."""
        ...

    def ready(self) -> bool:
        """Whether ``transmit`` has room; if not, the card is to look again when it has."""
        ...

    def transmit(self, frame: bytes) -> None:
        """Take a frame from the guest."""
        ...

    def fetch(self) -> bytes | None:
        """Return the next frame for the guest, None if there is none; the card is to look when there is one again."""
        ...

    def describe(self) -> str:
        """Say in a few words what it is."""
        ...

    def close(self) -> None:
        """Release what it has of the host. Harmless when repeated."""
        ...
