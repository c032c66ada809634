"""A guest driver for tests: it uses a virtio device as a kernel does, through registers and through rings in RAM.

    driver = Driver(device)
    driver.start()
    driver.submit(0, readable=[b"request"], writable=[4])
    driver.kick(0)
    [done] = driver.completed(0)

Offsets and layouts are repeated here from the specification, so that an error in the code under test cannot cancel
out. Every write by the device is checked against the buffers the driver gave it to write to.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from devices.contracts import IrqLine, OutsideRamError
from devices.virtio.device import VirtioDevice
from devices.virtio.mmio import MmioTransport
from tests.fakes import FakeClock, FakeEvents, FakeIrq

__all__ = ["RAM_BASE", "REGISTERS", "Completed", "Driver", "DriverQueue", "FakeMemory", "Token"]

RAM_BASE = 0x8000_0000
RAM_SIZE = 16 << 20

REGISTERS = {
    "MagicValue": 0x000,
    "Version": 0x004,
    "DeviceID": 0x008,
    "VendorID": 0x00C,
    "DeviceFeatures": 0x010,
    "DeviceFeaturesSel": 0x014,
    "DriverFeatures": 0x020,
    "DriverFeaturesSel": 0x024,
    "QueueSel": 0x030,
    "QueueNumMax": 0x034,
    "QueueNum": 0x038,
    "QueueReady": 0x044,
    "QueueNotify": 0x050,
    "InterruptStatus": 0x060,
    "InterruptACK": 0x064,
    "Status": 0x070,
    "QueueDescLow": 0x080,
    "QueueDescHigh": 0x084,
    "QueueDriverLow": 0x090,
    "QueueDriverHigh": 0x094,
    "QueueDeviceLow": 0x0A0,
    "QueueDeviceHigh": 0x0A4,
    "SHMSel": 0x0AC,
    "SHMLenLow": 0x0B0,
    "SHMLenHigh": 0x0B4,
    "SHMBaseLow": 0x0B8,
    "SHMBaseHigh": 0x0BC,
    "QueueReset": 0x0C0,
    "ConfigGeneration": 0x0FC,
}

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 0x40, 0x80
USED_BUFFER, CONFIG_CHANGE = 1, 2
VERSION_1, INDIRECT_DESC, EVENT_IDX = 1 << 32, 1 << 28, 1 << 29
NEXT, WRITE, INDIRECT = 1, 2, 4


class FakeMemory:
    """RAM at 0x8000_0000. ``read`` and ``write`` are the device's, ``load`` and ``store`` the guest's own."""

    def __init__(self, size: int = RAM_SIZE, base: int = RAM_BASE) -> None:
        self.base = base
        self.ram = bytearray(size)
        #: What the device has written since the list was last cleared, as (address, length).
        self.written: list[tuple[int, int]] = []
        self._top = base
        self._free: dict[int, list[int]] = {}

    def contains(self, address: int, size: int) -> bool:
        return self.base <= address and address + size <= self.base + len(self.ram)

    def read(self, address: int, size: int) -> bytes:
        if not self.contains(address, size):
            raise OutsideRamError(f"{size} bytes at {address:#x}")
        return self.load(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if not self.contains(address, len(data)):
            raise OutsideRamError(f"{len(data)} bytes at {address:#x}")
        self.written.append((address, len(data)))
        self.store(address, data)

    def view(self, address: int, size: int) -> memoryview:
        if not self.contains(address, size):
            raise OutsideRamError(f"{size} bytes at {address:#x}")
        return memoryview(self.ram)[address - self.base : address - self.base + size].toreadonly()

    def load(self, address: int, size: int) -> bytes:
        return bytes(self.ram[address - self.base : address - self.base + size])

    def store(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.ram[address - self.base : address - self.base + len(data)] = data

    def allocate(self, size: int) -> int:
        """Find ``size`` bytes, aligned to 16."""
        size = (size + 15) & ~15
        if self._free.get(size):
            return self._free[size].pop()
        address, self._top = self._top, self._top + size
        assert self._top <= self.base + len(self.ram), "the fake RAM is full"
        return address

    def free(self, address: int, size: int) -> None:
        self._free.setdefault((size + 15) & ~15, []).append(address)

    def take_over(self, old: "FakeMemory") -> None:
        """Be what ``old`` is, which is of no use from now on."""
        self.base, self.ram, self.written, self._top, self._free = old.base, old.ram, old.written, old._top, old._free

    def free_all(self) -> None:
        """Free everything."""
        self._top = self.base
        self._free.clear()


@dataclass(eq=False)
class Token:
    """One submitted request: where its buffers are, as (address, length), in order."""

    readable: list[tuple[int, int]]
    writable: list[tuple[int, int]]
    descriptors: list[int] = field(default_factory=list)
    table: tuple[int, int] | None = None


class Completed(NamedTuple):
    """One request that came back."""

    token: Token
    used_len: int
    data: bytes  # the whole writable area, whatever used_len says; bytes the device did not write are 0xAA


class DriverQueue:
    """The driver's side of one split virtqueue in guest memory."""

    def __init__(self, memory: FakeMemory, size: int) -> None:
        self.memory = memory
        self.size = size
        self.descriptors = memory.allocate(16 * size)
        self.avail = memory.allocate(6 + 2 * size)
        self.used = memory.allocate(6 + 8 * size)
        for address, length in (
            (self.descriptors, 16 * size),
            (self.avail, 6 + 2 * size),
            (self.used, 6 + 8 * size),
        ):
            memory.store(address, bytes(length))
        self.free = list(range(size - 1, -1, -1))
        self.tokens: dict[int, Token] = {}
        self.avail_idx = 0
        self.last_used = 0

    def put_descriptor(self, index: int, address: int, length: int, flags: int = 0, next_index: int = 0) -> None:
        """Write a descriptor as given, however wrong."""
        self.memory.store(self.descriptors + 16 * index, struct.pack("<QIHH", address, length, flags, next_index))

    def make_available(self, head: int) -> None:
        """Put ``head`` on the available ring, however wrong."""
        self.memory.store(self.avail + 4 + 2 * (self.avail_idx % self.size), struct.pack("<H", head))
        self.set_avail_idx(self.avail_idx + 1)

    def set_avail_idx(self, value: int) -> None:
        self.avail_idx = value & 0xFFFF
        self.memory.store(self.avail + 2, struct.pack("<H", self.avail_idx))

    def set_avail_flags(self, value: int) -> None:
        self.memory.store(self.avail, struct.pack("<H", value))

    def set_used_event(self, value: int) -> None:
        self.memory.store(self.avail + 4 + 2 * self.size, struct.pack("<H", value & 0xFFFF))

    @property
    def used_idx(self) -> int:
        return self._u16(self.used + 2)

    @property
    def used_flags(self) -> int:
        return self._u16(self.used)

    @property
    def avail_event(self) -> int:
        return self._u16(self.used + 4 + 8 * self.size)

    def used_element(self, position: int) -> tuple[int, int]:
        """Read (head, length) at ``position`` of the used ring."""
        address = self.used + 4 + 8 * (position % self.size)
        head, length = struct.unpack("<II", self.memory.load(address, 8))
        return head, length

    def _u16(self, address: int) -> int:
        return int.from_bytes(self.memory.load(address, 2), "little")


class Driver:
    """A driver bound to ``device``, which it puts on its own transport, with memory and an interrupt line."""

    def __init__(
        self, device: VirtioDevice, memory: FakeMemory | None = None, events: FakeEvents | None = None
    ) -> None:
        self.device = device
        self.memory = memory if memory is not None else FakeMemory()
        self.irq = FakeIrq()
        #: The transport's, unless the test has others for the whole machine.
        self.events = events if events is not None else FakeEvents(FakeClock())
        self.transport = self.make_transport()
        self.queues: dict[int, DriverQueue] = {}
        self.features = 0

    def make_transport(self, irq: IrqLine | None = None) -> MmioTransport:
        """Put the device on a transport, with this line to the interrupt controller, or the driver's own."""
        return MmioTransport(self.device, self.memory, irq or self.irq, self.events.clock, self.events)

    def take_over(self, old: "Driver") -> None:
        """Be the driver that ``old`` is, in its RAM, of a device and a transport that are restored next."""
        self.memory.take_over(old.memory)
        self.irq.level, self.irq.edges = old.irq.level, old.irq.edges
        self.queues, self.features = old.queues, old.features
        for queue in self.queues.values():
            queue.memory = self.memory

    # Registers and negotiation.

    def read(self, register: str) -> int:
        return self.transport.read(REGISTERS[register], 4)

    def write(self, register: str, value: int) -> None:
        self.transport.write(REGISTERS[register], 4, value)

    def config(self, offset: int, size: int) -> bytes:
        """Read the configuration space, byte by byte."""
        return bytes(self.transport.read(0x100 + offset + i, 1) for i in range(size))

    def start(self, features: int | None = None, sizes: Sequence[int] | None = None) -> None:
        """Negotiate up to DRIVER_OK, by default with every offered feature and every queue at its maximum.

        ``sizes`` are the queues' sizes; a queue of size 0 is not set up.
        """
        assert self.negotiate(features), "FEATURES_OK was refused"
        for index, size in enumerate(sizes if sizes is not None else self.device.queue_sizes):
            if size:
                self.set_up_queue(index, size)
        self.add_status(DRIVER_OK)

    def reset(self) -> None:
        self.write("Status", 0)
        self.queues = {}

    def add_status(self, bits: int) -> None:
        self.write("Status", self.read("Status") | bits)

    def offered_features(self) -> int:
        features = 0
        for half in (0, 1):
            self.write("DeviceFeaturesSel", half)
            features |= self.read("DeviceFeatures") << 32 * half
        return features

    def negotiate(self, features: int | None = None) -> bool:
        """Reset, and choose ``features`` (None: all that are offered); False if the device refuses."""
        self.reset()
        self.add_status(ACKNOWLEDGE)
        self.add_status(DRIVER)
        self.features = self.offered_features() if features is None else features
        for half in (0, 1):
            self.write("DriverFeaturesSel", half)
            self.write("DriverFeatures", self.features >> 32 * half & 0xFFFF_FFFF)
        self.add_status(FEATURES_OK)
        return bool(self.read("Status") & FEATURES_OK)

    def set_up_queue(self, index: int, size: int) -> DriverQueue:
        queue = self.queues[index] = DriverQueue(self.memory, size)
        self.configure_queue(index, size, queue.descriptors, queue.avail, queue.used)
        return queue

    def configure_queue(self, index: int, size: int, descriptors: int, avail: int, used: int) -> None:
        """Write the registers of a queue, however wrong, and make it ready."""
        self.write("QueueSel", index)
        self.write("QueueNum", size)
        for name, address in (("Desc", descriptors), ("Driver", avail), ("Device", used)):
            self.write(f"Queue{name}Low", address & 0xFFFF_FFFF)
            self.write(f"Queue{name}High", address >> 32)
        self.write("QueueReady", 1)

    # Requests.

    def submit(
        self,
        queue: int,
        readable: Iterable[bytes] = (),
        writable: Iterable[int] = (),
        *,
        indirect: bool = False,
        direct: int = 0,
    ) -> Token:
        """Make a chain available, one descriptor for each of ``readable`` (contents) and ``writable`` (sizes).

        With ``indirect``, all but the first ``direct`` of them go into a table. This does not kick. To change contents
        later, memory.store() to ``token.readable``.
        """
        ring = self.queues[queue]
        token = Token([self._place(data) for data in readable], [self._place(b"\xaa" * size) for size in writable])
        chain = [(address, length, 0) for address, length in token.readable]
        chain += [(address, length, WRITE) for address, length in token.writable]
        if indirect:
            inside = chain[direct:]
            table = b"".join(
                struct.pack("<QIHH", address, length, flags | (NEXT if i + 1 < len(inside) else 0), i + 1)
                for i, (address, length, flags) in enumerate(inside)
            )
            token.table = self._place(table)
            chain = [*chain[:direct], (*token.table, INDIRECT)]
        token.descriptors = [ring.free.pop() for _ in chain]
        following = [*token.descriptors[1:], None]
        for index, (address, length, flags), successor in zip(token.descriptors, chain, following, strict=True):
            more = NEXT if successor is not None else 0
            ring.put_descriptor(index, address, length, flags | more, successor or 0)
        ring.tokens[token.descriptors[0]] = token
        ring.make_available(token.descriptors[0])
        return token

    def kick(self, queue: int) -> None:
        """Notify the device of the queue, and let it do everything it defers."""
        self.write("QueueNotify", queue)
        self.run_deferred()

    def run_deferred(self, limit: int = 10_000) -> None:
        """Do what was deferred; more than ``limit`` times is a livelock."""
        self.events.run_due(limit)

    @property
    def deferred(self) -> int:
        """How much is to be done after the guest has had a turn."""
        return len(self.events.pending)

    def wants_kick(self, queue: int, added: int = 1) -> bool:
        """Whether the device asked to be notified of the ``added`` chains made available last."""
        ring = self.queues[queue]
        if not self.features & EVENT_IDX:
            return not ring.used_flags & 1
        return (ring.avail_idx - ring.avail_event - 1) & 0xFFFF < added

    def completed(self, queue: int) -> list[Completed]:
        """Take what has come back, in order, and request an interrupt for the next one.

        Fails if the device wrote anywhere except to used rings and writable buffers in flight.
        """
        self.check_writes()
        ring = self.queues[queue]
        done = []
        while ring.last_used != ring.used_idx:
            head, used_len = ring.used_element(ring.last_used)
            ring.last_used = (ring.last_used + 1) & 0xFFFF
            token = ring.tokens.pop(head)
            data = b"".join(self.memory.load(address, length) for address, length in token.writable)
            assert used_len <= len(data)
            done.append(Completed(token, used_len, data))
            self._release(ring, token)
        ring.set_used_event(ring.last_used)
        return done

    def request(
        self, queue: int, readable: Iterable[bytes] = (), writable: Iterable[int] = (), *, indirect: bool = False
    ) -> Completed:
        """Submit, kick, and take the answer, which must be there at once."""
        token = self.submit(queue, readable, writable, indirect=indirect)
        self.kick(queue)
        [done] = self.completed(queue)
        assert done.token is token
        return done

    def ack(self) -> int:
        """Read and acknowledge the interrupt status, as the interrupt handler does."""
        status = self.read("InterruptStatus")
        self.write("InterruptACK", status)
        return status

    def check_writes(self) -> None:
        """Fail if, since the last check, the device wrote anything it should not have."""
        allowed = [(queue.used, 6 + 8 * queue.size) for queue in self.queues.values()]
        allowed += [
            span
            for queue in self.queues.values()
            for token in queue.tokens.values()
            for span in _adjoined(token.writable)
        ]
        for address, length in self.memory.written:
            assert any(start <= address and address + length <= start + size for start, size in allowed), (
                f"the device wrote {length} bytes at {address:#x}"
            )
        self.memory.written.clear()

    def _place(self, data: bytes) -> tuple[int, int]:
        address = self.memory.allocate(len(data))
        self.memory.store(address, data)
        return address, len(data)

    def _release(self, ring: DriverQueue, token: Token) -> None:
        ring.free.extend(token.descriptors)
        for address, length in (*token.readable, *token.writable, *([token.table] if token.table else [])):
            self.memory.free(address, length)


def _adjoined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ``spans``, of which those that adjoin each other are one: a device may write to them at once."""
    joined: list[tuple[int, int]] = []
    for address, length in spans:
        if joined and sum(joined[-1]) == address:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((address, length))
    return joined
