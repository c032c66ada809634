"""A virtio device's life with a guest that does anything; see tests/twins.py."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import Self

from devices.state import Stateful
from devices.virtio.device import VirtioDevice
from tests.devices.virtio.fake_driver import NEXT, RAM_BASE, REGISTERS, VERSION_1, WRITE, Driver, FakeMemory
from tests.fakes import FakeClock, FakeEvents

__all__ = ["VirtioLife"]

RAM_SIZE = 512 << 10
#: The queues are in front of it, and what the driver puts into them behind it.
BUFFERS = 32 << 10


class VirtioLife(ABC):
    """``device`` on its transport, perhaps ``wrapped``, with a driver that never looks at what comes back."""

    def __init__(
        self,
        device: VirtioDevice,
        events: FakeEvents | None = None,
        wrapped: Callable[[VirtioDevice], VirtioDevice] = lambda device: device,
    ) -> None:
        self.events = events if events is not None else FakeEvents(FakeClock())
        self.device = device
        self.driver = Driver(wrapped(device), FakeMemory(RAM_SIZE), self.events)
        self._used = 0  # bytes of buffers

    @property
    def parts(self) -> Sequence[Stateful]:
        return [self.driver.transport, self.device]

    def take_over(self, old: Self) -> None:
        self.driver.take_over(old.driver)
        self._used = old._used

    @abstractmethod
    def request(self, chance: Random) -> tuple[int, Sequence[bytes], Sequence[int]]:
        """Return a queue, and what to submit there: bytes to be read, sizes to be written."""

    def happen(self, chance: Random) -> None:  # noqa: B027 - nothing, for most
        """Let something happen on the other side of the device."""

    def see(self) -> object:
        """Return what can be seen on the other side of the device."""
        return None

    def step(self, chance: Random) -> object:
        driver = self.driver
        match chance.randrange(20):
            case 0 | 1 | 2 | 3 | 4 | 5 if driver.queues:
                self._submit(*self.request(chance), at=chance.randrange(1000))
            case 6 | 7 | 8 | 9 if driver.queues:
                driver.write("QueueNotify", chance.choice(list(driver.queues)))
            case 10 | 11 | 12:
                self.events.run_turn()
            case 13:
                self.events.advance(chance.choice([0, 1000, 10**9]))
            case 14:
                driver.ack()
            case 15 | 16:
                self.happen(chance)
            case 17:
                driver.config(0, 8)
            case 18 if chance.random() < 0.5:  # anything, and that ends most drivers' lives
                driver.write(chance.choice(list(REGISTERS)), chance.choice([0, 1, 4, 15, chance.getrandbits(32)]))
            case _ if chance.random() < 0.2 or not driver.queues:
                driver.memory.free_all()
                driver.start(chance.choice([None, VERSION_1]))
        registers = [driver.read(name) for name in REGISTERS]
        seen = driver.irq.level, driver.irq.edges, self.events.pending, registers, zlib.crc32(driver.memory.ram)
        return *seen, self.see()

    def _submit(self, index: int, readable: Sequence[bytes], writable: Sequence[int], at: int) -> None:
        ring = self.driver.queues.get(index)
        if ring is None:
            return
        pieces = [(len(data), 0, data) for data in readable] + [(size, WRITE, b"") for size in writable]
        for place, (size, flags, data) in enumerate(pieces):
            address = RAM_BASE + BUFFERS + self._used % (RAM_SIZE // 2)
            self.driver.memory.store(address, data)
            self._used += size
            more = NEXT if place < len(pieces) - 1 else 0
            ring.put_descriptor((at + place) % ring.size, address, size, flags | more, (at + place + 1) % ring.size)
        ring.make_available(at % ring.size)
