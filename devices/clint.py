"""SiFive CLINT: the timer ``mtime`` and, per hart, a timer comparator and a software interrupt.

Registers as in the SiFive FU540-C000 manual, chapter 9 (also the MSWI and MTIMER of the ACLINT specification):
``msip`` 0x0000, ``mtimecmp`` 0x4000, ``mtime`` 0xBFF8. All accesses are 4 bytes wide; the bus splits an 8-byte access
into the low half, then the high half.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, NamedTuple, TypedDict

from devices.contracts import NEVER_NS, Clock, Event, Events, IrqLine, Property, Ref, cpu_intc
from devices.registers import U32 as LOW_HALF
from devices.registers import with_half
from devices.state import U32, U64, Bit, Moment, check, resume, saved

__all__ = ["NS_PER_TICK", "TIMEBASE_HZ", "Clint", "ClintState", "HartLines", "ns_from_ticks", "ticks_from_ns"]

#: Frequency of ``mtime`` and of the ``time`` CSR, as given in the device tree.
TIMEBASE_HZ = 10_000_000
NS_PER_TICK = 1_000_000_000 // TIMEBASE_HZ

MSIP_BASE = 0x0000
MTIMECMP_BASE = 0x4000
MTIME_LOW = 0xBFF8
MTIME_HIGH = 0xBFFC

#: ``mcause`` of the two interrupts; the device tree numbers a hart's inputs the same way.
IRQ_M_SOFT = 3
IRQ_M_TIMER = 7

BITS_64 = 0xFFFF_FFFF_FFFF_FFFF
#: A comparator with this value is off: mtime takes 58,000 years to reach it.
NEVER = BITS_64


def ticks_from_ns(ns: int) -> int:
    """Number of whole timebase ticks in ``ns`` of guest time."""
    return ns // NS_PER_TICK


def ns_from_ticks(ticks: int) -> int:
    """Guest time, in ns, at which tick ``ticks`` begins: the earliest for which ``ticks_from_ns`` returns it."""
    return ticks * NS_PER_TICK


class HartLines(NamedTuple):
    """The two interrupt lines to a hart: MSIP and MTIP of its ``mip``."""

    software: IrqLine
    timer: IrqLine


class ClintState(TypedDict):
    """For each hart its registers and when its timer is due; mtime minus the ticks of the clock."""

    msip: list[Bit]
    mtimecmp: list[U64]
    expiry: list[Moment | None]
    offset: Annotated[int, -65]
    latched_high: U32 | None


class Clint:
    """The core-local interruptor of ``harts``, numbered from 0."""

    size = 0x1_0000
    node_name = "clint"
    compatible: tuple[str, ...] = ("sifive,clint0", "riscv,clint0")

    def __init__(self, clock: Clock, events: Events, harts: Sequence[HartLines]) -> None:
        self._clock = clock
        self._events = events
        self._harts = tuple(harts)
        self._msip = [0] * len(harts)
        self._mtimecmp = [NEVER] * len(harts)
        self._expiry: list[Event | None] = [None] * len(harts)
        self._offset = 0  # mtime minus the ticks of the clock
        self._latched_high: int | None = None

    @property
    def properties(self) -> Mapping[str, Property]:
        """The hart inputs that the lines go to."""
        cells: list[int | Ref] = []
        for hart in range(len(self._harts)):
            cells += [cpu_intc(hart), IRQ_M_SOFT, cpu_intc(hart), IRQ_M_TIMER]
        return {"interrupts-extended": tuple(cells)}

    @property
    def mtime(self) -> int:
        """The timer, in ticks of the timebase."""
        return (ticks_from_ns(self._clock.now()) + self._offset) & BITS_64

    def read(self, offset: int, size: int) -> int:
        """Value of a guest load."""
        if size != 4:
            return 0
        if offset == MTIME_LOW:
            mtime = self.mtime
            self._latched_high = mtime >> 32
            return mtime & LOW_HALF
        if offset == MTIME_HIGH:
            return self._read_mtime_high()
        if offset < MTIMECMP_BASE:
            hart = (offset - MSIP_BASE) >> 2
            return self._msip[hart] if hart < len(self._harts) else 0
        hart = (offset - MTIMECMP_BASE) >> 3
        if hart < len(self._harts):
            return self._mtimecmp[hart] >> 32 if offset & 4 else self._mtimecmp[hart] & LOW_HALF
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Effect of a guest store."""
        if size != 4:
            return
        if offset in (MTIME_LOW, MTIME_HIGH):
            self._write_mtime(with_half(self.mtime, high=offset == MTIME_HIGH, half=value))
        elif offset < MTIMECMP_BASE:
            hart = (offset - MSIP_BASE) >> 2
            if hart < len(self._harts):
                self._msip[hart] = value & 1
                self._harts[hart].software(bool(value & 1))
        else:
            hart = (offset - MTIMECMP_BASE) >> 3
            if hart < len(self._harts):
                self._mtimecmp[hart] = with_half(self._mtimecmp[hart], high=bool(offset & 4), half=value)
                self._compare(hart)

    def state(self) -> ClintState:
        """Return its state."""
        return {
            "msip": list(self._msip),
            "mtimecmp": list(self._mtimecmp),
            "expiry": [saved(event) for event in self._expiry],
            "offset": self._offset,
            "latched_high": self._latched_high,
        }

    def restore(self, state: ClintState) -> None:
        """Become what ``state`` says; raises UsageError unless it has as many harts."""
        harts = range(len(self._harts))
        check(all(len(state[each]) == len(harts) for each in ("msip", "mtimecmp", "expiry")), "the harts of the CLINT")
        self._msip, self._mtimecmp = list(state["msip"]), list(state["mtimecmp"])
        self._expiry = [resume(self._events, state["expiry"][hart], partial(self._expire, hart)) for hart in harts]
        self._offset, self._latched_high = state["offset"], state["latched_high"]

    def _read_mtime_high(self) -> int:
        """Return, once, the half that belongs to the low half just read; otherwise the current one.

        A 64-bit load is therefore never torn, and a driver that reads high, low, high sees a carry between the first
        two.
        """
        high, self._latched_high = self._latched_high, None
        return self.mtime >> 32 if high is None else high

    def _write_mtime(self, mtime: int) -> None:
        self._latched_high = None
        self._offset = mtime - ticks_from_ns(self._clock.now())
        for hart in range(len(self._harts)):
            self._compare(hart)

    def _compare(self, hart: int) -> None:
        """Set the timer line of ``hart`` after mtimecmp or mtime was written.

        The line falls at once but rises only by an event, that is, between two guest instructions: the first half of
        a 64-bit store to mtimecmp may yield a value that is already due, which the second half then corrects.
        """
        expiry = self._expiry[hart]
        if expiry is not None:
            expiry.cancel()
            self._expiry[hart] = None
        mtimecmp = self._mtimecmp[hart]
        if mtimecmp > self.mtime:
            self._harts[hart].timer(False)
        deadline = max(ns_from_ticks(mtimecmp - self._offset), self._clock.now())
        if mtimecmp != NEVER and deadline < NEVER_NS:
            self._expiry[hart] = self._events.at(deadline, partial(self._expire, hart))

    def _expire(self, hart: int) -> None:
        self._expiry[hart] = None
        self._harts[hart].timer(True)
