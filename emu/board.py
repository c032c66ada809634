"""The board: which devices it has, and where. The addresses are those of QEMU's ``virt``.

0x0010_0000  test device: power off, reset
0x0010_1000  real-time clock, interrupt 11
0x0200_0000  CLINT
0x0C00_0000  PLIC, contexts M and S
0x1000_0000  UART, interrupt 10
0x1000_1000  virtio-mmio slots, 0x1000 apart: 0 to 7, and more where there are more devices; interrupts 1 to 9, then 12
             and so on; disks come first, because xv6 looks at slot 0
0x8000_0000  RAM
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from devices.clint import Clint, HartLines
from devices.contracts import Clock, Events, GuestMemory, IrqLine, MmioDevice
from devices.errors import UsageError
from devices.placement import Placement
from devices.plic import Plic
from devices.power import PowerSwitch
from devices.rtc import GoldfishRtc
from devices.syscon import TestDevice
from devices.uart import Uart16550
from devices.virtio.device import DEVICE_NAMES, VirtioDevice
from devices.virtio.mmio import EmptySlot, MmioTransport

__all__ = ["RAM_BASE", "Board", "Lines", "build_board", "virtio_irq"]

TEST_BASE = 0x0010_0000
RTC_BASE, RTC_IRQ = 0x0010_1000, 11
CLINT_BASE = 0x0200_0000
PLIC_BASE, PLIC_SOURCES = 0x0C00_0000, 31
UART_BASE, UART_IRQ = 0x1000_0000, 10
VIRTIO_BASE, VIRTIO_STRIDE, VIRTIO_SLOTS, MOST_VIRTIO_SLOTS, VIRTIO_FIRST_IRQ = 0x1000_1000, 0x1000, 8, 16, 1
RAM_BASE = 0x8000_0000


class Lines(NamedTuple):
    """The interrupt inputs of the hart: MSIP, MTIP, MEIP and SEIP of its ``mip``."""

    machine_software: IrqLine
    machine_timer: IrqLine
    machine_external: IrqLine
    supervisor_external: IrqLine


class Board(NamedTuple):
    """The devices in their places, which is all that the bus and the device tree are made from, and two of them."""

    placements: tuple[Placement, ...]
    uart: Uart16550
    plic: Plic


def virtio_irq(slot: int) -> int:
    """Return the interrupt of a virtio slot: in order, but for those of the UART and the real-time clock."""
    source = VIRTIO_FIRST_IRQ + slot
    return source if source < UART_IRQ else source + 2


def build_board(
    *,
    lines: Lines,
    clock: Clock,
    events: Events,
    memory: GuestMemory,
    power: PowerSwitch,
    virtio: Sequence[VirtioDevice],
    print_: Callable[[bytes], None],
    watch: Callable[[int, str, IrqLine], IrqLine] = lambda _source, _name, line: line,
    wall: Callable[[], int] = time.time_ns,
) -> Board:
    """Make the devices; those of ``virtio`` fill the slots in order. Raises UsageError if there are too many.

    ``watch(source, name, line)`` may wrap a device's line. ``wall()`` is the calendar time (ns).
    """
    if len(virtio) > MOST_VIRTIO_SLOTS:
        raise UsageError(f"there is room for {MOST_VIRTIO_SLOTS} virtio devices, not {len(virtio)}; "
                         "use fewer --disk, --share, --net")  # fmt: skip
    plic = Plic(PLIC_SOURCES, [lines.machine_external, lines.supervisor_external])

    def irq(source: int, name: str) -> IrqLine:
        return watch(source, name, plic.line(source))

    uart = Uart16550(irq(UART_IRQ, "serial"), clock, events, print_)

    slots = []
    for slot in range(max(VIRTIO_SLOTS, len(virtio))):
        source = virtio_irq(slot)
        if slot < len(virtio):
            device = virtio[slot]
            name = f"virtio-{DEVICE_NAMES.get(device.device_id, device.device_id)}"
            transport: MmioDevice = MmioTransport(device, memory, irq(source, name), clock, events)
        else:
            transport = EmptySlot()
        slots.append(Placement(transport, VIRTIO_BASE + slot * VIRTIO_STRIDE, source))
    placements = (
        Placement(TestDevice(power), TEST_BASE),
        Placement(GoldfishRtc(irq(RTC_IRQ, "rtc"), clock, events, wall), RTC_BASE, RTC_IRQ),
        Placement(Clint(clock, events, [HartLines(lines.machine_software, lines.machine_timer)]), CLINT_BASE),
        Placement(plic, PLIC_BASE),
        Placement(uart, UART_BASE, UART_IRQ),
        *slots,
    )
    return Board(placements, uart, plic)
