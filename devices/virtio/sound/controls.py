"""Control elements (virtio 1.3, 5.14.6.10): volume and mute, for playback and for capture.

A control changes when the driver writes it or the host sets it. Either way the driver is notified, even of its own
writes: Linux tells its applications of a change only when the device reports one (its put callback never says that a
value changed). Writing the current value is no change.

The driver is notified only of controls whose value it has read or written. A driver that has done neither cannot hold
an old value, and may not be ready: Linux has no elements to notify until all of them are set up.

Values survive a reset of the device, as on a sound card: Linux does not restore them when it wakes up from sleep, and a
new driver must not lift a mute that the host has set.

The device changes no sample. An audible backend applies ``gains``; what is recorded, looped back or counted is what the
guest plays, bit for bit, at every setting.
"""

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import TypedDict

from devices.errors import UsageError
from devices.state import U8, check
from devices.virtio.sound import wire
from devices.virtio.sound.chmaps import sides
from devices.virtio.sound.requests import BAD_MSG, NOT_SUPP, OK, Handler, query

__all__ = ["VOLUME_MAX", "Control", "Controls", "ControlsState"]

#: Full volume, 0 dB; each step down is half a dB, and 0 is silence.
VOLUME_MAX = 100
_STEP_MILLIBEL = 50

# The same as ALSA's metadata: SNDRV_CTL_TLVT_DB_SCALE, its length, dB at 0, the step, and a flag that 0 is silence.
_DB_SCALE = 1
_DB_MUTE_AT_MINIMUM = 1 << 16
_VOLUME_TLV = Struct("<IIiI").pack(_DB_SCALE, 8, -VOLUME_MAX * _STEP_MILLIBEL, _STEP_MILLIBEL | _DB_MUTE_AT_MINIMUM)

# Any value is accepted, as most of Linux's sound cards report: its mixer-test (6.12) miscalculates with another step.
_STEP = 0

_LEFT_AND_RIGHT = 2
_VALUES = Struct(f"<{_LEFT_AND_RIGHT}i")


class Control:
    """One control: a value from 0 to ``maximum`` each for left and right, initially the maximum."""

    def __init__(self, name: str, role: int, kind: int, maximum: int, tlv: bytes = b"") -> None:
        self.name = name
        self.maximum = maximum
        self.values = (maximum, maximum)
        #: What ALSA calls TLV; empty if there is none.
        self.tlv = tlv
        self._role = role
        self._kind = kind

    def accepts(self, values: Sequence[int]) -> bool:
        """Whether these can be the values."""
        return len(values) == _LEFT_AND_RIGHT and all(0 <= value <= self.maximum for value in values)

    def info(self, layout: Struct) -> bytes:
        """Describe the control to the driver, in one of the two layouts there are."""
        access = wire.CTL_ACCESS_READ | wire.CTL_ACCESS_WRITE | (wire.CTL_ACCESS_TLV_READ if self.tlv else 0)
        name = self.name.encode("ascii")
        return layout.pack(0, self._role, self._kind, access, _LEFT_AND_RIGHT, 0, name, 0, self.maximum, _STEP)


def _volume(name: str, direction: int) -> Control:
    return Control(name, wire.CTL_ROLE_VOLUME << 1 | direction, wire.CTL_TYPE_INTEGER, VOLUME_MAX, _VOLUME_TLV)


def _switch(name: str, direction: int) -> Control:
    return Control(name, wire.CTL_ROLE_MUTE << 1 | direction, wire.CTL_TYPE_BOOLEAN, 1)


class ControlsState(TypedDict):
    """The values of all controls, and the numbers of those that the driver knows, or is to hear of."""

    values: list[tuple[U8, U8]]
    known: list[U8]
    news: list[U8]


class Controls:
    """The controls, by number for the driver and by name for the host.

    ``changed`` is called when a control's value changes, whoever set it; ``news`` when there is news for the driver.
    """

    def __init__(self, changed: Callable[[], None], news: Callable[[], None]) -> None:
        self._changed = changed
        self._tell = news
        self._controls = (
            _volume("Master Playback Volume", wire.D_OUTPUT),
            _switch("Master Playback Switch", wire.D_OUTPUT),
            _volume("Capture Volume", wire.D_INPUT),
            _switch("Capture Switch", wire.D_INPUT),
        )
        self._negotiated = False
        self._known: set[int] = set()  # numbers of the controls whose value the driver knows
        self._news: set[int] = set()  # numbers of those that have changed since
        self._requests: dict[int, Handler] = {
            wire.R_CTL_INFO: self._info,
            wire.R_CTL_ENUM_ITEMS: self._on_control(self._no_metadata),
            wire.R_CTL_READ: self._on_control(self._read),
            wire.R_CTL_WRITE: self._on_control(self._write),
            wire.R_CTL_TLV_READ: self._on_control(self._tlv_read),
            wire.R_CTL_TLV_WRITE: self._on_control(self._no_metadata),
            wire.R_CTL_TLV_COMMAND: self._on_control(self._no_metadata),
        }

    def __len__(self) -> int:
        return len(self._controls)

    def __iter__(self) -> Iterator[Control]:
        return iter(self._controls)

    def __getitem__(self, name: str) -> Control:
        """Find a control; raises UsageError if none has that name."""
        return self._controls[self._number_of(name)]

    def set(self, name: str, values: int | Sequence[int]) -> None:
        """Set a control from the host: left and right, or one value for both; raises UsageError if it cannot be."""
        number = self._number_of(name)
        control = self._controls[number]
        wanted = (values,) * _LEFT_AND_RIGHT if isinstance(values, int) else values
        if not control.accepts(wanted):
            raise UsageError(f"{name} takes values from 0 to {control.maximum}, one or {_LEFT_AND_RIGHT} of them")
        left, right = wanted
        self._set(number, (left, right))

    def gains(self, direction: int, channels: int) -> list[float]:
        """Return the factor for each channel of one direction's streams: 0 is silence, 1 leaves samples as they are."""
        volume, switch = (self._controls[2 * direction + i].values for i in range(2))
        left, right = (_gain(level) if on else 0.0 for level, on in zip(volume, switch, strict=True))
        return [left * of_left + right * of_right for of_left, of_right in sides(channels)]

    def negotiate(self, features: int) -> dict[int, Handler]:
        """Start afresh with a driver; return the handlers of its requests by code, none unless it accepted F_CTLS."""
        self._negotiated = bool(features & wire.F_CTLS)
        return self._requests if self._negotiated else {}

    # Events.

    @property
    def has_news(self) -> bool:
        """Whether the driver has an outdated value."""
        return self._negotiated and bool(self._news)

    def next_event(self) -> bytes:
        """Notify the driver of the first control whose value it has outdated."""
        number = min(self._news)
        self._news.remove(number)
        return wire.CTL_EVENT.pack(wire.EVT_CTL_NOTIFY, number, wire.CTL_EVT_MASK_VALUE)

    def forget(self) -> None:
        """Prepare for a new driver, which knows no values."""
        self._known.clear()
        self._news.clear()

    def state(self) -> ControlsState:
        """Return the values, and what the driver knows of them; what it accepted is the transport's state."""
        values = [control.values for control in self._controls]
        return {"values": values, "known": sorted(self._known), "news": sorted(self._news)}

    def restore(self, state: ControlsState) -> None:
        """Set all that to what it was; nobody hears of that."""
        values, known, news = state["values"], state["known"], state["news"]
        check(
            len(values) == len(self._controls)
            and all(control.accepts(pair) for control, pair in zip(self._controls, values, strict=True))
            and all(number < len(values) for number in (*known, *news)),
            "a control",
        )
        for control, pair in zip(self._controls, values, strict=True):
            control.values = pair
        self._known, self._news = set(known), set(news)

    # Requests.

    def _info(self, request: bytes, room: int) -> bytes:
        # The size tells the driver's layout: that of the specification's text, or that of 64-bit compilers.
        _, _, _, size = wire.QUERY_INFO.unpack_from(request.ljust(wire.QUERY_INFO.size, b"\0"))
        layout = wire.CTL_INFO if size < wire.CTL_INFO_ALIGNED.size else wire.CTL_INFO_ALIGNED
        return query(request, room, [control.info(layout) for control in self._controls])

    def _on_control(self, answer: Callable[[int, bytes, int], bytes]) -> Handler:
        """Handle requests about one control: ``answer`` gets its number, what follows the header, and the room."""

        def handler(request: bytes, room: int) -> bytes:
            if len(request) < wire.CTL_HDR.size:
                return BAD_MSG
            _, number = wire.CTL_HDR.unpack_from(request)
            return answer(number, request[wire.CTL_HDR.size :], room) if number < len(self._controls) else BAD_MSG

        return handler

    def _read(self, number: int, _: bytes, room: int) -> bytes:
        if room < len(OK) + _VALUES.size:
            return BAD_MSG
        self._known.add(number)
        # The structure has room for 128 values; a driver that knows how many there are may omit the rest.
        size = min(room, len(OK) + wire.CTL_VALUE_SIZE)
        return (OK + _VALUES.pack(*self._controls[number].values)).ljust(size, b"\0")

    def _write(self, number: int, payload: bytes, _: int) -> bytes:
        if len(payload) < _VALUES.size:
            return BAD_MSG
        values = _VALUES.unpack_from(payload)
        if not self._controls[number].accepts(values):
            return BAD_MSG
        self._known.add(number)
        self._set(number, values)
        return OK

    def _tlv_read(self, number: int, _: bytes, room: int) -> bytes:
        tlv = self._controls[number].tlv
        return (OK + tlv)[:room] if tlv else NOT_SUPP

    def _no_metadata(self, number: int, payload: bytes, room: int) -> bytes:  # noqa: ARG002
        """Refuse: no control is enumerated, and none has metadata that can be written or commanded."""
        return NOT_SUPP

    # State.

    def _number_of(self, name: str) -> int:
        for number, control in enumerate(self._controls):
            if control.name == name:
                return number
        raise UsageError(f"there is no control {name!r}: {', '.join(control.name for control in self._controls)}")

    def _set(self, number: int, values: tuple[int, int]) -> None:
        control = self._controls[number]
        if values == control.values:
            return
        control.values = values
        self._changed()
        if number in self._known:
            self._news.add(number)
            self._tell()


def _gain(level: int) -> float:
    return float(10 ** ((level - VOLUME_MAX) * _STEP_MILLIBEL / 2000)) if level else 0.0
