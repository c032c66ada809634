"""The jacks of a sound device (virtio 1.3, 5.14.6.4): a line output and a microphone.

The host plugs and unplugs them. The driver hears of it once it has asked about the jacks, and only of changes: whatever
was plugged in and pulled out again while it could not be told is no news.

REMAP is offered. It changes the association and the sequence in the pin's configuration default register and, as in
High Definition Audio, nothing else: the register tells software what belongs together, is kept on its behalf, and has
no effect on the hardware. It survives a reset.
"""

from collections.abc import Callable, Iterator
from typing import TypedDict

from devices.errors import UsageError
from devices.state import U32, check
from devices.virtio.sound import wire
from devices.virtio.sound.requests import BAD_MSG, OK, Handler, query

__all__ = ["Jack", "JackState", "Jacks"]

#: Function group of the streams that the jacks belong to: the first playback and capture streams (hda_fn_nid).
_NID = 0

# Configuration default (High Definition Audio 7.3.3.31): 31:30 connectivity (0 a jack), 29:24 location (1 rear, 2
# front), 23:20 device (0 line out, A microphone), 19:16 connector (1 3.5 mm), 15:12 colour (4 green, 9 pink), 11:8
# (bit 8 set if presence cannot be detected), 7:4 association, 3:0 sequence.
_LINE_OUT_REAR_GREEN = 0x0101_4010
_MIC_REAR_PINK = 0x01A1_9020
_ASSOCIATION_AND_SEQUENCE = 0xFF

# Pin capabilities (7.3.4.9).
_PRESENCE_DETECT = 1 << 2
_OUTPUT = 1 << 4
_INPUT = 1 << 5


class JackState(TypedDict):
    """A jack: see the attributes of Jack."""

    connected: bool
    defconf: U32
    told: bool | None


class Jack:
    """One jack; ``connected`` says whether something is plugged in, ``name`` is the host's name for it."""

    def __init__(self, name: str, defconf: int, caps: int) -> None:
        self.name = name
        self.connected = True
        #: Both are registers of High Definition Audio.
        self.defconf = defconf
        self.caps = caps
        #: What the driver takes ``connected`` to be; None if it has not asked.
        self.told: bool | None = None

    def info(self) -> bytes:
        """Describe the jack to the driver."""
        return wire.JACK_INFO.pack(_NID, 1 << wire.JACK_F_REMAP, self.defconf, self.caps, self.connected)


class Jacks:
    """The jacks, by number for the driver and by name for the host.

    ``changed`` is called when there is news for the driver.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._jacks = (
            Jack("line", _LINE_OUT_REAR_GREEN, _PRESENCE_DETECT | _OUTPUT),
            Jack("mic", _MIC_REAR_PINK, _PRESENCE_DETECT | _INPUT),
        )
        #: The handlers of the driver's requests, by code.
        self.requests: dict[int, Handler] = {wire.R_JACK_INFO: self._info, wire.R_JACK_REMAP: self._remap}

    def __len__(self) -> int:
        return len(self._jacks)

    def __iter__(self) -> Iterator[Jack]:
        return iter(self._jacks)

    def __getitem__(self, name: str) -> Jack:
        """Find a jack; raises UsageError if none has that name."""
        for jack in self._jacks:
            if jack.name == name:
                return jack
        raise UsageError(f"there is no jack {name!r}: {', '.join(jack.name for jack in self._jacks)}")

    def plug(self, name: str, *, connected: bool) -> None:
        """Plug something in or pull it out; raises UsageError if no jack has that name."""
        self[name].connected = connected
        self._changed()

    def state(self) -> list[JackState]:
        """Return the state of each jack."""
        return [{"connected": jack.connected, "defconf": jack.defconf, "told": jack.told} for jack in self._jacks]

    def restore(self, state: list[JackState]) -> None:
        """Make the jacks what they were; nobody hears of that."""
        check(len(state) == len(self._jacks), "the number of jacks")
        for jack, one in zip(self._jacks, state, strict=True):
            jack.connected, jack.defconf, jack.told = one["connected"], one["defconf"], one["told"]

    # Events.

    @property
    def has_news(self) -> bool:
        """Whether the driver is wrong about a jack."""
        return any(_is_news(jack) for jack in self._jacks)

    def next_event(self) -> bytes:
        """Report the first jack that the driver is wrong about."""
        number, jack = next((number, jack) for number, jack in enumerate(self._jacks) if _is_news(jack))
        jack.told = jack.connected
        return wire.EVENT.pack(wire.EVT_JACK_CONNECTED if jack.connected else wire.EVT_JACK_DISCONNECTED, number)

    def forget(self) -> None:
        """Prepare for a new driver, which knows no jacks."""
        for jack in self._jacks:
            jack.told = None

    # Requests.

    def _info(self, request: bytes, room: int) -> bytes:
        reply = query(request, room, [jack.info() for jack in self._jacks])
        if reply.startswith(OK):
            _, first, count, _ = wire.QUERY_INFO.unpack_from(request)
            for jack in self._jacks[first : first + count]:
                jack.told = jack.connected
        return reply

    def _remap(self, request: bytes, room: int) -> bytes:  # noqa: ARG002 - a status always fits
        if len(request) < wire.JACK_REMAP.size:
            return BAD_MSG
        _, number, association, sequence = wire.JACK_REMAP.unpack_from(request)
        # Both are four bits wide, and association 0 is reserved.
        if number >= len(self._jacks) or not 0 < association < 16 or sequence >= 16:
            return BAD_MSG
        jack = self._jacks[number]
        jack.defconf = jack.defconf & ~_ASSOCIATION_AND_SEQUENCE | association << 4 | sequence
        return OK


def _is_news(jack: Jack) -> bool:
    return jack.told is not None and jack.told is not jack.connected
