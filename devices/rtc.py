"""Goldfish RTC: nanoseconds since the epoch and one alarm (QEMU, docs/GOLDFISH-VIRTUAL-HARDWARE.TXT).

It shows the calendar's time, which goes on while the guest's clock stands still because the process was stopped.
"""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, TypedDict

from devices.contracts import NEVER_NS, Clock, Event, Events, IrqLine, Property
from devices.registers import U32 as LOW_HALF
from devices.registers import with_half
from devices.state import U32, U64, Bit, Moment, resume, saved

__all__ = ["GoldfishRtc", "RtcState"]

TIME_LOW = 0x00
TIME_HIGH = 0x04
ALARM_LOW = 0x08
ALARM_HIGH = 0x0C
IRQ_ENABLED = 0x10
CLEAR_ALARM = 0x14
ALARM_STATUS = 0x18
CLEAR_INTERRUPT = 0x1C

BITS_64 = 0xFFFF_FFFF_FFFF_FFFF


class RtcState(TypedDict):
    """The registers, when the alarm is due, and the time shown minus that of the wall."""

    offset: Annotated[int, -65]
    latched_high: U32
    alarm_time: U64
    armed: bool
    alarm: Moment | None
    irq_enabled: Bit
    irq_pending: Bit


class GoldfishRtc:
    """A clock that shows ``wall()``, in ns since the epoch, until the guest sets it."""

    size = 0x1000
    node_name = "rtc"
    compatible: tuple[str, ...] = ("google,goldfish-rtc",)
    properties: ClassVar[Mapping[str, Property]] = {}

    def __init__(self, irq: IrqLine, clock: Clock, events: Events, wall: Callable[[], int] = time.time_ns) -> None:
        self._irq = irq
        self._clock = clock
        self._events = events
        self._wall = wall
        self._offset = 0  # the time shown minus that
        self._latched_high = 0
        self._alarm_time = 0
        self._armed = False
        self._alarm: Event | None = None  # none, too, if it is too far away
        self._irq_enabled = 0
        self._irq_pending = 0

    def read(self, offset: int, size: int) -> int:
        """Value of a guest load. Loading TIME_LOW latches TIME_HIGH, so that the two belong together."""
        if size != 4:
            return 0
        if offset == TIME_LOW:
            now = self._now()
            self._latched_high = now >> 32
            return now & LOW_HALF
        if offset == TIME_HIGH:
            return self._latched_high
        if offset == ALARM_LOW:
            return self._alarm_time & LOW_HALF
        if offset == ALARM_HIGH:
            return self._alarm_time >> 32
        return {IRQ_ENABLED: self._irq_enabled, ALARM_STATUS: int(self._armed)}.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """Effect of a guest store. A driver stores the high half first; the low half sets the alarm."""
        if size != 4:
            return
        if offset == TIME_HIGH:
            self._set_time(with_half(self._now(), high=True, half=value))
        elif offset == TIME_LOW:
            self._set_time(with_half(self._now(), high=False, half=value))
            if self._armed:
                self._set_alarm()
        elif offset == ALARM_HIGH:
            self._alarm_time = with_half(self._alarm_time, high=True, half=value)
        elif offset == ALARM_LOW:
            self._alarm_time = with_half(self._alarm_time, high=False, half=value)
            self._set_alarm()
        elif offset == CLEAR_ALARM:
            self._clear_alarm()
        elif offset == IRQ_ENABLED:
            self._irq_enabled = value & 1
            self._update_irq()
        elif offset == CLEAR_INTERRUPT:
            self._irq_pending = 0
            self._update_irq()

    def state(self) -> RtcState:
        """Return its state."""
        return {
            "offset": self._offset,
            "latched_high": self._latched_high,
            "alarm_time": self._alarm_time,
            "armed": self._armed,
            "alarm": saved(self._alarm),
            "irq_enabled": self._irq_enabled,
            "irq_pending": self._irq_pending,
        }

    def restore(self, state: RtcState) -> None:
        """Become what ``state`` says, by the wall's time of now."""
        self._offset = state["offset"]
        self._latched_high = state["latched_high"]
        self._alarm_time = state["alarm_time"]
        self._armed = state["armed"]
        self._alarm = resume(self._events, state["alarm"], self._ring)
        self._irq_enabled, self._irq_pending = state["irq_enabled"], state["irq_pending"]

    def _now(self) -> int:
        return (self._wall() + self._offset) & BITS_64

    def _set_time(self, value: int) -> None:
        self._offset = value - self._wall()

    def _set_alarm(self) -> None:
        self._clear_alarm()
        self._armed = True
        deadline = self._clock.now() + max(self._alarm_time - self._now(), 0)
        if deadline < NEVER_NS:
            self._alarm = self._events.at(deadline, self._ring)

    def _clear_alarm(self) -> None:
        self._armed = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._armed, self._alarm = False, None
        self._irq_pending = 1
        self._update_irq()

    def _update_irq(self) -> None:
        self._irq(bool(self._irq_pending & self._irq_enabled))
