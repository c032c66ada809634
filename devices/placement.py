"""Where a device sits on the board: both the bus and the device tree are built from one list of these."""

from dataclasses import dataclass

from devices.contracts import MmioDevice

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A device, the physical address of its first register, and its PLIC source if it has one."""

    device: MmioDevice
    base: int
    irq: int | None = None
