"""Virtio devices: what passes through the registers and queues of each slot."""

from collections.abc import Callable

from devices.contracts import IrqLine
from devices.virtio.device import DEVICE_NAMES, VirtioDevice
from devices.virtio.mmio import (
    ACKNOWLEDGE,
    CONFIG_CHANGE,
    DEVICE_NEEDS_RESET,
    DRIVER,
    DRIVER_OK,
    F_VERSION_1,
    FAILED,
    FEATURES_OK,
    USED_BUFFER,
    MmioTransport,
)
from devices.virtio.queue import F_EVENT_IDX, F_INDIRECT_DESC, Chain, Queue
from emu.joints import Read, Write
from emu.trace.between import watch_device, watch_queue
from emu.trace.record import Emit

__all__ = ["Slot"]

_STATUS = {
    ACKNOWLEDGE: "ACKNOWLEDGE", DRIVER: "DRIVER", FEATURES_OK: "FEATURES_OK", DRIVER_OK: "DRIVER_OK",
    DEVICE_NEEDS_RESET: "DEVICE_NEEDS_RESET", FAILED: "FAILED",
}  # fmt: skip
_CAUSES = {USED_BUFFER: "USED_BUFFER", CONFIG_CHANGE: "CONFIG_CHANGE"}
_FEATURES = {F_INDIRECT_DESC: "INDIRECT_DESC", F_EVENT_IDX: "EVENT_IDX", F_VERSION_1: "VERSION_1"}
_QUEUES = {
    "sound": ("controlq", "eventq", "txq", "rxq"),
    "blk": ("requestq",),
    "rng": ("requestq",),
    "fs": ("hiprio", "requestq"),
    "net": ("receiveq", "transmitq"),
}


class Slot:
    """One slot, with a device in it."""

    def __init__(self, number: int, device: VirtioDevice, emit: Emit) -> None:
        name = DEVICE_NAMES.get(device.device_id, str(device.device_id))
        self._track = f"virtio{number} {name}"
        self._queue_names = _QUEUES.get(name, ())
        self._emit_record = emit
        self._interrupts = 0
        self.device = watch_device(device, self._watch_queue, self._activated)

    def line(self, line: IrqLine) -> IrqLine:
        """Watch the interrupt line."""

        def set_level(level: bool) -> None:
            self._interrupts += level
            line(level)

        return set_level

    def registers(self, transport: MmioTransport) -> tuple[Read, Write]:
        """Watch what the driver writes to the registers that matter."""
        offsets = {register.name: register.offset for register in transport.registers}
        status = offsets["Status"]

        def write_status(value: int) -> None:
            before = transport.read(status, 4)
            transport.write(status, 4, value)
            after = transport.read(status, 4)
            if not value:
                self._emit("reset", before=_names(before, _STATUS))
            elif value & ~after:
                self._emit("status", now=_names(after, _STATUS), refused=_names(value & ~after, _STATUS))
            else:
                self._emit("status", now=_names(after, _STATUS))

        def write_notify(value: int) -> None:
            self._emit("notify", queue=self._queue_name(value))
            transport.write(offsets["QueueNotify"], 4, value)

        def write_acknowledge(value: int) -> None:
            self._emit("acknowledged", interrupt=_names(value, _CAUSES))
            transport.write(offsets["InterruptACK"], 4, value)

        writers = {
            offsets["Status"]: write_status,
            offsets["QueueNotify"]: write_notify,
            offsets["InterruptACK"]: write_acknowledge,
        }

        def write(offset: int, size: int, value: int) -> None:
            writer = writers.get(offset)
            if writer is None or size != 4:
                transport.write(offset, size, value)
            else:
                writer(value)

        return transport.read, write

    def _emit(self, name: str, **detail: str | int | float) -> None:
        self._emit_record("virtio", self._track, name, detail)

    def _activated(self, features: int) -> None:
        self._emit("activated", features=f"{features:#x}", including=_names(features & sum(_FEATURES), _FEATURES))

    def _queue_name(self, index: int) -> str:
        return self._queue_names[index] if index < len(self._queue_names) else f"queue {index}"

    def _watch_queue(self, index: int, queue: Queue) -> Queue:
        name = self._queue_name(index)
        chains = size = 0

        def pushed(_chain: Chain, written: int) -> None:
            nonlocal chains, size
            chains += 1
            size += written

        def signal(do: Callable[[], None]) -> None:
            nonlocal chains, size
            before = self._interrupts
            do()
            if chains:
                interrupt = "sent" if self._interrupts != before else "not wanted"
                self._emit("used", queue=name, chains=chains, bytes=size, interrupt=interrupt)
            chains = size = 0

        return watch_queue(queue, pushed, signal)


def _names(bits: int, table: dict[int, str]) -> str:
    """Spell out a register's bits; those without a name as a number."""
    names = [name for bit, name in table.items() if bits & bit]
    rest = bits & ~sum(table)
    return " ".join(names + [f"{rest:#x}"] * bool(rest)) or "0"
