"""Where a device sits on the board: both the bus and the device tree are built from one list of these."""

from typing import NamedTuple

from devices.contracts import MmioDevice

__all__ = ["Placement"]


class Placement(NamedTuple):
    """A device, the physical address of its first register, and its PLIC source if it has one."""

    device: MmioDevice
    base: int
    irq: int | None = None
