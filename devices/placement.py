"""Where a device sits on the board: the one list that the bus and the device tree are both built from."""

from dataclasses import dataclass

from devices.contracts import MmioDevice

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A device, the physical address of its first register, and its PLIC source if it interrupts."""

    device: MmioDevice
    base: int
    irq: int | None = None
