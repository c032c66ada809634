"""What the device must reply to any control request, to the byte, and the events that follow from it."""

import struct
from collections import deque

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from tests.devices.virtio.fake_driver import Token
from tests.devices.virtio.sound.guest import (
    BAD_MSG,
    CHMAP_INFO,
    CTL_ENUM_ITEMS,
    CTL_INFO,
    CTL_NOTIFY,
    CTL_READ,
    CTL_TLV_COMMAND,
    CTL_TLV_READ,
    CTL_WRITE,
    FORMAT_CODES,
    JACK_CONNECTED,
    JACK_DISCONNECTED,
    JACK_INFO,
    JACK_REMAP,
    NOT_SUPP,
    OK,
    PCM_INFO,
    PREPARE,
    RATES,
    RELEASE,
    SET_PARAMS,
    START,
    STOP,
)
from tests.devices.virtio.sound.storm.streams import StreamModel

__all__ = ["QUERIES", "ReplyModel"]

#: Queries, and the size of the items they ask for.
QUERIES = {JACK_INFO: 24, PCM_INFO: 32, CHMAP_INFO: 24, CTL_INFO: 96}
MAXIMA = (100, 1, 100, 1)
DECIBELS = struct.pack("<IIiI", 1, 8, -5000, 50 | 0x10000)
FORMAT_OF = {code: FORMATS[name] for name, code in FORMAT_CODES.items()}


def status(code: int) -> bytes:
    return struct.pack("<I", code)


class ReplyModel:
    """A card from its first use on; ``items`` are those that well-formed queries return, by code."""

    def __init__(self, items: dict[int, list[bytes]]) -> None:
        self.items = items
        self.values = [(maximum, maximum) for maximum in MAXIMA]
        self.connected = [True, True]
        self.forget()
        self.told = list(self.connected)  # by those queries
        self.start([], has_controls=True)

    def start(self, streams: list[StreamModel], *, has_controls: bool) -> None:
        """Begin with a driver."""
        self.streams = streams
        self.has_controls = has_controls
        self.is_silent = True  # no request yet, and so no event
        #: Buffers for events, with their sizes; and the events under way.
        self.buffers: deque[tuple[Token, int]] = deque()
        self.events: dict[Token, bytes] = {}

    def forget(self) -> None:
        """Note that the driver is new, not one that has slept."""
        self.told: list[bool | None] = [None, None]
        self.known: set[int] = set()
        self.news: set[int] = set()

    # What the host does.

    def plug(self, jack: int, connected: bool) -> None:
        self.connected[jack] = connected
        item = bytearray(self.items[JACK_INFO][jack])
        item[16] = connected
        self.items[JACK_INFO][jack] = bytes(item)
        self.tell()

    def set(self, control: int, values: tuple[int, int]) -> None:
        if values != self.values[control]:
            self.values[control] = values
            if control in self.known:
                self.news.add(control)
                self.tell()

    # Events.

    def tell(self) -> None:
        """Put the news into the driver's buffers: jacks first; buffers that are too small come back."""
        while self.buffers and not self.is_silent and (event := self._news()) is not None:
            token, room = self.buffers.popleft()
            self.events[token] = event if room >= 8 else b""
            if room >= 8:
                self._know(event)

    def _news(self) -> bytes | None:
        for jack, connected in enumerate(self.connected):
            if self.told[jack] is (not connected):
                return struct.pack("<II", JACK_CONNECTED if connected else JACK_DISCONNECTED, jack)
        if self.has_controls and self.news:
            return struct.pack("<IHH", CTL_NOTIFY, min(self.news), 1)
        return None

    def _know(self, event: bytes) -> None:
        code, number = struct.unpack_from("<IH", event)
        if code == CTL_NOTIFY:
            self.news.remove(number)
        else:
            self.told[number] = self.connected[number]

    # Replies.

    def reply(self, request: bytes, room: int, now: int) -> bytes:
        """Return the reply and its length, and apply the request's effects."""
        if room < 4:
            return b""
        if len(request) < 4:
            return status(BAD_MSG)
        (code,) = struct.unpack_from("<I", request)
        if self.is_silent:
            self.is_silent = False
            if code in QUERIES:
                self.forget()
            self.tell()
        if code in QUERIES and (code != CTL_INFO or self.has_controls):
            return self._query(code, request, room)
        if code == JACK_REMAP:
            return self._remap(request)
        if SET_PARAMS <= code <= STOP:
            return status(self._command(code, request, now))
        if CTL_ENUM_ITEMS <= code <= CTL_TLV_COMMAND and self.has_controls:
            return self._control(code, request, room)
        return status(NOT_SUPP)

    def _query(self, code: int, request: bytes, room: int) -> bytes:
        if len(request) < 16:
            return status(BAD_MSG)
        first, count, size = struct.unpack_from("<III", request, 4)
        items = self.items[code]
        if first + count > len(items) or size < 4 or 4 + count * size > min(room, 65536):
            return status(BAD_MSG)
        asked = items[first : first + count]
        if code == CTL_INFO and size < 96:  # the other layout, without padding in the middle
            asked = [item[:68] + item[72:] for item in asked]
        if code == JACK_INFO:
            self.told[first : first + count] = self.connected[first : first + count]
        return status(OK) + b"".join(item[:size].ljust(size, b"\0") for item in asked)

    def _remap(self, request: bytes) -> bytes:
        if len(request) < 16:
            return status(BAD_MSG)
        jack, association, sequence = struct.unpack_from("<III", request, 4)
        if jack > 1 or not 1 <= association <= 15 or sequence > 15:
            return status(BAD_MSG)
        item = bytearray(self.items[JACK_INFO][jack])
        item[8] = association << 4 | sequence
        self.items[JACK_INFO][jack] = bytes(item)
        return status(OK)

    def _command(self, code: int, request: bytes, now: int) -> int:
        if len(request) < (24 if code == SET_PARAMS else 8):
            return BAD_MSG
        (number,) = struct.unpack_from("<I", request, 4)
        if number >= len(self.streams):
            return BAD_MSG
        stream = self.streams[number]
        if code != SET_PARAMS:
            assert code in {PREPARE, RELEASE, START, STOP}
            return stream.command(code, now)
        buffer, period, features, channels, fmt, rate, padding = struct.unpack_from("<IIIBBBB", request, 8)
        if features or padding or not channels or fmt > 24 or rate >= len(RATES):
            return BAD_MSG
        if fmt not in FORMAT_OF or channels > 8:
            return NOT_SUPP
        pcm = PcmParams(FORMAT_OF[fmt], RATES[rate], channels)
        if not period or not buffer or buffer % period or period % pcm.frame_size:
            return BAD_MSG
        return stream.command(code, now, pcm, buffer) if buffer <= 64 << 20 else NOT_SUPP

    def _control(self, code: int, request: bytes, room: int) -> bytes:
        if len(request) < 8:
            return status(BAD_MSG)
        (number,) = struct.unpack_from("<I", request, 4)
        if number >= len(MAXIMA):
            return status(BAD_MSG)
        if code == CTL_READ and room >= 12:
            self.known.add(number)
            return (status(OK) + struct.pack("<ii", *self.values[number])).ljust(min(room, 516), b"\0")
        if code == CTL_WRITE and len(request) >= 16:
            left, right = struct.unpack_from("<ii", request, 8)
            if 0 <= left <= MAXIMA[number] and 0 <= right <= MAXIMA[number]:
                self.known.add(number)
                self.set(number, (left, right))
                return status(OK)
        if code in {CTL_READ, CTL_WRITE}:
            return status(BAD_MSG)
        if code == CTL_TLV_READ and number % 2 == 0:
            return (status(OK) + DECIBELS)[:room]
        return status(NOT_SUPP)
