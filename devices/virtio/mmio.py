"""The virtio-mmio transport, version 2 (virtio 1.2 section 4.2): registers, negotiation, status, interrupts.

It owns everything between the bus and the device's behaviour: what the driver may write when, what a queue is made
of, when the device runs. Registers are 32 bits wide and take only accesses of that width; the configuration space
takes any. Any other load reads as zero, and any other store is ignored and logged at debug level.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypedDict

from devices import state as bits
from devices.contracts import Clock, Event, Events, GuestMemory, IrqLine, Moment, Property
from devices.registers import U32, with_half
from devices.state import check, resume, saved
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import F_EVENT_IDX, F_INDIRECT_DESC, Queue, QueueLayout, QueueState

__all__ = ["F_VERSION_1", "EmptySlot", "MmioTransport", "Register", "TransportState"]

F_VERSION_1 = 1 << 32
TRANSPORT_FEATURES = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX

MAGIC = 0x7472_6976  # "virt"
VERSION = 2
VENDOR_ID = 0x554D_4551  # "QEMU": the specification allows any value, but xv6 accepts no other
WINDOW_SIZE = 0x1000
CONFIG_SPACE = 0x100

# Device status (virtio 1.2 section 2.1).
ACKNOWLEDGE = 0x01  # the guest has noticed the device
DRIVER = 0x02  # the guest knows how to drive it
DRIVER_OK = 0x04  # the driver is ready: the device runs
FEATURES_OK = 0x08  # both agree on the features
DEVICE_NEEDS_RESET = 0x40  # set by the device: the driver has gone wrong beyond repair
FAILED = 0x80  # the driver has given up

# InterruptStatus.
USED_BUFFER = 0x1
CONFIG_CHANGE = 0x2

_ABSENT = 0xFFFF_FFFF  # both halves of the length and of the base of a shared memory region that does not exist

_log = logging.getLogger(__name__)


class Register(NamedTuple):
    """One 32-bit control register; without a reader it reads as zero, without a writer it ignores stores."""

    offset: int
    name: str
    read: Callable[[], int] | None = None
    write: Callable[[int], None] | None = None


class QueueRegistersState(TypedDict):
    """What the driver has configured for one queue; see _QueueRegisters."""

    size: bits.U32
    ready: bool
    descriptors: bits.U64
    driver_area: bits.U64
    device_area: bits.U64


class TransportState(TypedDict):
    """The registers, and the queues if the device is activated.

    ``again`` is when the device is to be notified of each queue again. The device itself is a part of its own.
    """

    status: bits.U8
    interrupts: bits.U8
    generation: bits.U32
    driver_features: bits.U64
    device_features_sel: bits.U32
    driver_features_sel: bits.U32
    queue_sel: bits.U32
    queue_registers: list[QueueRegistersState]
    queues: list[QueueState]
    again: list[Moment | None]


class _QueueRegisters:
    """What the driver has configured for one queue, checked only when it sets DRIVER_OK."""

    def __init__(
        self, size: int, ready: bool = False, descriptors: int = 0, driver_area: int = 0, device_area: int = 0
    ) -> None:
        self.size, self.ready = size, ready
        self.descriptors, self.driver_area, self.device_area = descriptors, driver_area, device_area

    def layout(self) -> QueueLayout:
        return QueueLayout(self.size, self.descriptors, self.driver_area, self.device_area)

    def state(self) -> QueueRegistersState:
        return {
            "size": self.size,
            "ready": self.ready,
            "descriptors": self.descriptors,
            "driver_area": self.driver_area,
            "device_area": self.device_area,
        }


class _Slot:
    """What the board needs to know about a virtio-mmio slot, whatever is in it."""

    size = WINDOW_SIZE
    node_name = "virtio_mmio"
    compatible: tuple[str, ...] = ("virtio,mmio",)

    @property
    def properties(self) -> Mapping[str, Property]:
        """Further device-tree properties: none."""
        return {}


class EmptySlot(_Slot):
    """A slot without a device: device ID 0, which a driver silently ignores (virtio 1.2 section 4.2.3.1)."""

    def read(self, offset: int, size: int) -> int:
        """Value of a guest load."""
        return {0x000: MAGIC, 0x004: VERSION}.get(offset, 0) if size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Ignore a guest store."""


class MmioTransport(_Slot):
    """A virtio-mmio slot with ``device`` in it.

    ``memory`` is where the driver puts its queues, ``irq`` is high while InterruptStatus has a bit set.
    """

    def __init__(self, device: VirtioDevice, memory: GuestMemory, irq: IrqLine, clock: Clock, events: Events) -> None:
        self._device = device
        self._memory = memory
        self._irq = irq
        self._clock = clock
        self._events = events
        self._offered = device.features | TRANSPORT_FEATURES
        self._generation = 0
        self._power_on_state()
        #: All control registers, for dispatch, traces and documentation.
        self.registers = self._register_table()
        self._readers: list[Callable[[], int] | None] = [None] * (CONFIG_SPACE // 4)
        self._writers: list[Callable[[int], None] | None] = [None] * (CONFIG_SPACE // 4)
        for register in self.registers:
            self._readers[register.offset // 4] = register.read
            self._writers[register.offset // 4] = register.write

    def _power_on_state(self) -> None:
        self._status = 0
        self._interrupts = 0
        self._driver_features = 0
        self._device_features_sel = 0
        self._driver_features_sel = 0
        self._queue_sel = 0
        self._queue_registers = [_QueueRegisters(size) for size in self._device.queue_sizes]
        self._queues: list[Queue] = []  # empty unless the device is activated
        self._again: list[Event | None] = [None] * len(self._queue_registers)

    def _register_table(self) -> tuple[Register, ...]:
        return (
            Register(0x000, "MagicValue", read=lambda: MAGIC),
            Register(0x004, "Version", read=lambda: VERSION),
            Register(0x008, "DeviceID", read=lambda: self._device.device_id),
            Register(0x00C, "VendorID", read=lambda: VENDOR_ID),
            Register(0x010, "DeviceFeatures", read=self._read_device_features),
            Register(0x014, "DeviceFeaturesSel", write=self._write_device_features_sel),
            Register(0x020, "DriverFeatures", write=self._write_driver_features),
            Register(0x024, "DriverFeaturesSel", write=self._write_driver_features_sel),
            Register(0x030, "QueueSel", write=self._write_queue_sel),
            Register(0x034, "QueueNumMax", read=self._read_queue_num_max),
            Register(0x038, "QueueNum", write=self._write_queue_num),
            Register(0x044, "QueueReady", read=self._read_queue_ready, write=self._write_queue_ready),
            Register(0x050, "QueueNotify", write=self._write_queue_notify),
            Register(0x060, "InterruptStatus", read=lambda: self._interrupts),
            Register(0x064, "InterruptACK", write=self._write_interrupt_ack),
            Register(0x070, "Status", read=lambda: self._status, write=self._write_status),
            Register(0x080, "QueueDescLow", write=lambda value: self._set_address("descriptors", False, value)),
            Register(0x084, "QueueDescHigh", write=lambda value: self._set_address("descriptors", True, value)),
            Register(0x090, "QueueDriverLow", write=lambda value: self._set_address("driver_area", False, value)),
            Register(0x094, "QueueDriverHigh", write=lambda value: self._set_address("driver_area", True, value)),
            Register(0x0A0, "QueueDeviceLow", write=lambda value: self._set_address("device_area", False, value)),
            Register(0x0A4, "QueueDeviceHigh", write=lambda value: self._set_address("device_area", True, value)),
            Register(0x0AC, "SHMSel"),
            Register(0x0B0, "SHMLenLow", read=lambda: _ABSENT),
            Register(0x0B4, "SHMLenHigh", read=lambda: _ABSENT),
            Register(0x0B8, "SHMBaseLow", read=lambda: _ABSENT),
            Register(0x0BC, "SHMBaseHigh", read=lambda: _ABSENT),
            Register(0x0C0, "QueueReset"),  # VIRTIO_F_RING_RESET is not offered
            Register(0x0FC, "ConfigGeneration", read=lambda: self._generation),
        )

    def read(self, offset: int, size: int) -> int:
        """Value of a guest load; zero where there is no register."""
        if offset >= CONFIG_SPACE:
            start = offset - CONFIG_SPACE
            return int.from_bytes(self._device.config()[start : start + size], "little")
        reader = self._readers[offset >> 2]
        return reader() if reader is not None and size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Effect of a guest store; none where there is no register."""
        if offset >= CONFIG_SPACE:
            self._device.write_config(offset - CONFIG_SPACE, value.to_bytes(size, "little"))
            return
        writer = self._writers[offset >> 2]
        if writer is not None and size == 4:
            writer(value)
        else:
            name = next((one.name for one in self.registers if one.offset == offset), f"offset {offset:#x}")
            self._refuse(name, value, f"{size} bytes cannot be written there")

    def reset(self) -> None:
        """Return transport and device to their power-on state: the driver's reset, and the board's."""
        self._let_go()
        self._device.reset()
        self._power_on_state()
        self._irq(False)

    def state(self) -> TransportState:
        """Return the state, without the device's."""
        return {
            "status": self._status,
            "interrupts": self._interrupts,
            "generation": self._generation,
            "driver_features": self._driver_features,
            "device_features_sel": self._device_features_sel,
            "driver_features_sel": self._driver_features_sel,
            "queue_sel": self._queue_sel,
            "queue_registers": [registers.state() for registers in self._queue_registers],
            "queues": [queue.state() for queue in self._queues],
            "again": [saved(event) for event in self._again],
        }

    def restore(self, state: TransportState) -> None:
        """Become what ``state`` says, and give the device its queues; the device is to be restored next."""
        self._let_go()
        self._status = state["status"]
        self._interrupts = state["interrupts"]
        self._generation = state["generation"]
        self._driver_features = state["driver_features"]
        self._device_features_sel = state["device_features_sel"]
        self._driver_features_sel = state["driver_features_sel"]
        self._queue_sel = state["queue_sel"]
        sizes, queues, again = self._device.queue_sizes, state["queues"], state["again"]
        check(
            len(state["queue_registers"]) == len(again) == len(sizes) and len(queues) in {0, len(sizes)},
            "the number of queues of a virtio device",
        )
        running = bool(self._status & DRIVER_OK)
        check(running or (not queues and not any(again)), "the status of a virtio device")
        self._queue_registers = [_QueueRegisters(**registers) for registers in state["queue_registers"]]
        self._queues = [self._restored_queue(index, queue) for index, queue in enumerate(queues)]
        self._again = [
            resume(self._events, moment, partial(self._notify_again, index)) for index, moment in enumerate(again)
        ]
        if self._queues:
            self._device.attach(self._queues, self._driver_features, self._config_changed)
        else:
            self._device.reset()

    def _restored_queue(self, index: int, state: QueueState) -> Queue:
        registers = self._queue_registers[index]
        usable = registers.ready and registers.layout().is_usable(self._memory, self._device.queue_sizes[index])
        check(usable or not state["running"], "the place of a queue")
        queue = self._new_queue(index, registers)
        queue.restore(state)
        return queue

    def _let_go(self) -> None:
        """Stop the queues, and have nobody notified again."""
        for queue in self._queues:
            queue.stop()
        for event in self._again:
            if event is not None:
                event.cancel()

    # Features (virtio 1.2 section 2.2).

    def _read_device_features(self) -> int:
        return (self._offered >> 32 * self._device_features_sel) & U32 if self._device_features_sel < 2 else 0

    def _write_device_features_sel(self, value: int) -> None:
        self._device_features_sel = value

    def _write_driver_features(self, value: int) -> None:
        if self._driver_features_sel > 1:
            self._refuse("DriverFeatures", value, "there are no features beyond 64")
        elif self._status & FEATURES_OK:
            self._refuse("DriverFeatures", value, "the features have been agreed on")
        else:
            high = self._driver_features_sel == 1
            self._driver_features = with_half(self._driver_features, high=high, half=value)

    def _write_driver_features_sel(self, value: int) -> None:
        self._driver_features_sel = value

    # Queue configuration (virtio 1.2 section 4.2.3.2).

    def _write_queue_sel(self, value: int) -> None:
        self._queue_sel = value

    def _selected_queue(self) -> _QueueRegisters | None:
        return self._queue_registers[self._queue_sel] if self._queue_sel < len(self._queue_registers) else None

    def _configurable_queue(self) -> _QueueRegisters | None:
        """Return the selected queue while it may be configured: never under a running device."""
        phase = self._status & (FEATURES_OK | DRIVER_OK | FAILED)
        return self._selected_queue() if phase == FEATURES_OK else None

    def _unready_queue(self, register: str, value: int) -> _QueueRegisters | None:
        """Return the selected queue while its size and addresses may be changed; otherwise refuse the store."""
        queue = self._configurable_queue()
        if queue is None or queue.ready:
            self._refuse(register, value, f"queue {self._queue_sel} cannot be configured now")
            return None
        return queue

    def _read_queue_num_max(self) -> int:
        return self._device.queue_sizes[self._queue_sel] if self._queue_sel < len(self._device.queue_sizes) else 0

    def _write_queue_num(self, value: int) -> None:
        queue = self._unready_queue("QueueNum", value)
        if queue is not None:
            queue.size = value

    def _set_address(self, field: str, high: bool, value: int) -> None:
        queue = self._unready_queue(f"the address of {field}", value)
        if queue is not None:
            setattr(queue, field, with_half(getattr(queue, field), high=high, half=value))

    def _read_queue_ready(self) -> int:
        queue = self._selected_queue()
        return int(queue is not None and queue.ready)

    def _write_queue_ready(self, value: int) -> None:
        queue = self._configurable_queue()
        if queue is not None:
            queue.ready = bool(value & 1)
        elif value == 0:
            self._stop_selected_queue()
        else:
            self._refuse("QueueReady", value, f"queue {self._queue_sel} cannot be configured now")

    def _stop_selected_queue(self) -> None:
        """Stop, for good, a queue whose QueueReady has become 0 (section 4.2.2.2): only a reset revives it."""
        queue = self._selected_queue()
        if queue is not None and self._queues:
            queue.ready = False
            self._queues[self._queue_sel].stop()

    def _write_queue_notify(self, value: int) -> None:
        # Any number may come (CVE-2011-2512), and at any time.
        if value < len(self._queues) and self._queues[value].running:
            self._device.notify(value)
        else:
            self._refuse("QueueNotify", value, "no such queue is running")

    # Interrupts (virtio 1.2 section 4.2.2.1).

    def _interrupt(self, bit: int) -> None:
        self._interrupts |= bit
        self._irq(True)

    def _write_interrupt_ack(self, value: int) -> None:
        self._interrupts &= ~value
        self._irq(self._interrupts != 0)

    def _config_changed(self) -> None:
        self._generation = (self._generation + 1) & U32
        if self._status & DRIVER_OK:
            self._interrupt(CONFIG_CHANGE)

    # Status (virtio 1.2 sections 2.1 and 3.1).

    def _write_status(self, value: int) -> None:
        if value == 0:
            self.reset()
            return
        # A driver clears bits only by a reset, so only new ones count; DEVICE_NEEDS_RESET is not the driver's to set.
        added = value & ~self._status
        self._status |= added & (ACKNOWLEDGE | DRIVER | FAILED)
        if added & FEATURES_OK:
            # Without VERSION_1 a device may continue or not (section 6.2): xv6 never accepts it, but uses this layout.
            unknown = self._driver_features & ~self._offered
            if unknown:
                self._refuse("Status", value, f"features {unknown:#x} were not offered")
            else:
                self._status |= FEATURES_OK
        if added & DRIVER_OK:
            if self._status & (FEATURES_OK | FAILED) == FEATURES_OK:
                self._status |= DRIVER_OK
                self._activate()
            else:
                self._refuse("Status", value, "FEATURES_OK is not set, or FAILED is")

    def _refuse(self, register: str, value: int, why: str) -> None:
        """Log an ignored store, for the driver's author: nothing tells the driver itself."""
        _log.debug("virtio device %d ignores %#x for %s: %s", self._device.device_id, value, register, why)

    def _activate(self) -> None:
        """Start the device on the queues that the driver has configured."""
        configured = list(zip(self._queue_registers, self._device.queue_sizes, strict=True))
        for index, (registers, max_size) in enumerate(configured):
            if registers.ready and not registers.layout().is_usable(self._memory, max_size):
                self._needs_reset(f"queue {index} is not usable: {registers.layout()}")
                return
        self._queues = [self._new_queue(index, registers) for index, registers in enumerate(self._queue_registers)]
        self._device.activate(self._queues, self._driver_features, self._config_changed)
        for index, queue in enumerate(self._queues):
            # Buffers may have been made available before, and a kick with them is not required.
            if queue.running:
                self._device.notify(index)

    def _new_queue(self, index: int, registers: _QueueRegisters) -> Queue:
        queue = Queue(
            self._memory,
            registers.layout(),
            self._driver_features,
            interrupt=partial(self._interrupt, USED_BUFFER),
            broken=self._needs_reset,
            later=partial(self._ask_again, index),
        )
        if not registers.ready:
            queue.stop()
        return queue

    def _ask_again(self, index: int, delay_ns: int = 0) -> None:
        """Have the device notified of a queue again, after the guest has had a turn, and so much of its time."""
        deadline, event = self._clock.now() + delay_ns, self._again[index]
        if event is not None:
            if event.moment[0] <= deadline:  # however often the driver kicks meanwhile
                return
            event.cancel()
        self._again[index] = self._events.at(deadline, partial(self._notify_again, index))

    def _notify_again(self, index: int) -> None:
        self._again[index] = None
        if index < len(self._queues) and self._queues[index].running:
            self._device.notify(index)

    def _needs_reset(self, reason: str) -> None:
        """Ask the driver for a reset, and leave its memory alone until then (virtio 1.2 section 2.1.2)."""
        _log.info("virtio device %d needs a reset: %s", self._device.device_id, reason)
        for queue in self._queues:
            queue.stop()
        self._status |= DEVICE_NEEDS_RESET
        if self._status & DRIVER_OK:
            self._interrupt(CONFIG_CHANGE)
