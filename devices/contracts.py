"""What a device is given and what it offers: all that devices and the machine share.

A device gets its collaborators through its constructor: guest memory, an interrupt line, a clock, the deadline heap,
a backend. It knows offsets, not addresses, and no other device, thread or machine. All of its code runs on the one
thread that owns the machine, so it needs no locks.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "NEVER_NS",
    "Clock",
    "Event",
    "Events",
    "GuestMemory",
    "HasCompanions",
    "IrqLine",
    "MmioDevice",
    "Moment",
    "OutsideRamError",
    "Property",
    "Ref",
    "cpu_intc",
]

#: An interrupt line: call it with the level. Repeating a level is harmless and cheap.
IrqLine = Callable[[bool], None]


class Ref(NamedTuple):
    """In a property's cells: the phandle of the node with this label.

    A device's label is its ``node_name`` (if several share it, the first one's), a hart's is that of ``cpu_intc``.
    """

    label: str


def cpu_intc(hart: int) -> Ref:
    """Refer to the interrupt inputs of a hart; the next cell is the number of the input, as in ``mcause``."""
    return Ref(f"cpu{hart}-intc")


#: The value of a device-tree property: None for a flag, one cell, cells, one string, strings.
Property = None | int | tuple[int | Ref, ...] | str | tuple[str, ...]


class OutsideRamError(Exception):
    """The guest named memory that is not RAM. A device reports this to its driver; it never leaves the device."""


class GuestMemory(Protocol):
    """The guest's RAM by physical address, as a bus master sees it."""

    def read(self, address: int, size: int) -> bytes:
        """Copy ``size`` bytes out; raises OutsideRamError unless all of them are RAM."""
        ...

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` in, dropping code translated from there.

        Raises OutsideRamError, writing nothing, unless all of it goes to RAM.
        """
        ...

    def view(self, address: int, size: int) -> memoryview:
        """Return ``size`` bytes as they are whenever they are looked at, for reading only; raises OutsideRamError."""
        ...

    def contains(self, address: int, size: int) -> bool:
        """Whether ``[address, address + size)`` is all RAM."""
        ...


class Clock(Protocol):
    """Guest time."""

    def now(self) -> int:
        """Nanoseconds of guest time since power-on; never goes backwards."""
        ...


#: When an event happens: its deadline (ns of guest time), and its place among those with the same one.
Moment = tuple[Annotated[int, 63], Annotated[int, 63]]


#: Guest time, ns, that no machine reaches (146 years): who asks for no event then or later keeps time within 63 bits.
NEVER_NS = 1 << 62


class Event(Protocol):
    """Something scheduled; see Events."""

    @property
    def moment(self) -> Moment:
        """When it happens, or has happened."""
        ...

    def cancel(self) -> None:
        """Keep it from happening. Harmless if it already has."""
        ...


class Events(Protocol):
    """The deadline heap: the only way for a device to act without a register access."""

    def at(self, deadline: int, action: Callable[[], None]) -> Event:
        """Run ``action`` once, on the machine's thread, when guest time (ns) has reached ``deadline``, never earlier.

        Actions run in order of their deadlines; those with equal deadlines in the order they were requested.
        """
        ...

    def resume(self, moment: Moment, action: Callable[[], None]) -> Event:
        """Ask for an event of a saved machine: ``action`` keeps its place among all others."""
        ...


class MmioDevice(Protocol):
    """A device on the bus.

    ``read`` and ``write`` get naturally aligned accesses of 1, 2 or 4 bytes (the bus splits 8) that lie inside
    ``size``; whatever else the guest does (any order, width or value), they must not raise.
    """

    #: Bytes of address space.
    size: int
    #: Device-tree node name without the unit address; compatible strings, most specific first. Only the board knows
    #: ``reg`` and ``interrupts``.
    node_name: str
    compatible: tuple[str, ...]

    @property
    def properties(self) -> Mapping[str, Property]:
        """Further device-tree properties, beside ``reg`` and ``interrupts``."""
        ...

    def read(self, offset: int, size: int) -> int:
        """Value of a guest load."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Effect of a guest store."""
        ...


@runtime_checkable
class HasCompanions(Protocol):
    """A device that further nodes at the root of the device tree describe, by node name (``poweroff``)."""

    @property
    def companions(self) -> Mapping[str, Mapping[str, Property]]:
        """Those nodes with all their properties."""
        ...
