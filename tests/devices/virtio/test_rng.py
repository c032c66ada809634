"""The virtio entropy device: virtio 1.2 section 5.4."""

import struct
from random import Random
from typing import Self

import pytest

from devices.virtio.rng import EntropyDevice
from tests.devices.virtio.fake_driver import INDIRECT, NEXT, RAM_BASE, WRITE, Driver
from tests.devices.virtio.life import VirtioLife
from tests.twins import live_through_snapshots, live_with_wrong_states


def counting(size: int) -> bytes:
    return bytes(i & 0xFF for i in range(size))


@pytest.fixture
def driver() -> Driver:
    driver = Driver(EntropyDevice(counting))
    driver.start()
    return driver


def test_identity(driver: Driver) -> None:
    assert driver.read("DeviceID") == 4
    assert driver.config(0, 4) == bytes(4)


@pytest.mark.parametrize("writable", [[64], [1], [3, 5, 1], [0, 7]])
def test_buffer_is_filled(driver: Driver, writable: list[int]) -> None:
    done = driver.request(0, [], writable)
    assert done.used_len == sum(writable)
    assert done.data == counting(sum(writable))


def test_one_interrupt_for_all_buffers(driver: Driver) -> None:
    for _ in range(5):
        driver.submit(0, [], [16])
    driver.kick(0)
    assert len(driver.completed(0)) == 5
    assert driver.irq.edges == 1


@pytest.mark.parametrize("readable", [[], [b"in"]])
def test_buffer_without_room_comes_back_empty(driver: Driver, readable: list[bytes]) -> None:
    assert driver.request(0, readable, [0]).used_len == 0


def test_work_is_bounded_however_long_the_buffer_is(driver: Driver) -> None:
    """Overlapping descriptors make a buffer of almost 4 GiB."""
    ring = driver.queues[0]
    table = driver.memory.allocate(16 * 400)
    entry = [struct.pack("<QIHH", RAM_BASE + (4 << 20), 8 << 20, WRITE | NEXT, i + 1) for i in range(399)]
    entry.append(struct.pack("<QIHH", RAM_BASE + (4 << 20), 1, WRITE, 0))
    driver.memory.store(table, b"".join(entry))
    ring.put_descriptor(0, table, 16 * 400, INDIRECT)
    ring.make_available(0)
    driver.kick(0)
    assert ring.used_element(0) == (0, 4 << 10)
    assert sum(length for _, length in driver.memory.written) <= (4 << 10) + 16


def test_real_entropy_by_default() -> None:
    driver = Driver(EntropyDevice())
    driver.start()
    first, second = (driver.request(0, [], [32]).data for _ in range(2))
    assert first != second


def test_reset_stops_it(driver: Driver) -> None:
    driver.submit(0, [], [8])
    driver.write("Status", 0)
    driver.kick(0)
    driver.device.notify(0)
    assert driver.memory.written == []


def test_a_ring_that_refills_itself_does_not_hold_the_machine_up() -> None:
    """Each buffer lies over the available ring's index: filling it makes one more buffer available."""
    filled: list[int] = []

    def one_more(_size: int) -> bytes:
        filled.append(len(filled))
        return struct.pack("<H", len(filled) + 1)

    driver = Driver(EntropyDevice(one_more))
    driver.start()
    ring = driver.queues[0]
    ring.put_descriptor(0, ring.avail + 2, 2, WRITE)
    ring.make_available(0)
    for turns in range(1, 5):
        driver.write("QueueNotify", 0)
        assert 0 < len(filled) < 32 * turns
        assert driver.deferred == 1  # to continue after the guest has had a turn


class Life(VirtioLife):
    """See tests/twins.py."""

    def __init__(self) -> None:
        super().__init__(EntropyDevice(self.draw))
        self.drawn = 0

    def draw(self, size: int) -> bytes:
        self.drawn += size
        return bytes([self.drawn & 0xFF]) * size

    def take_over(self, old: Self) -> None:
        super().take_over(old)
        self.drawn = old.drawn

    def request(self, chance: Random) -> tuple[int, list[bytes], list[int]]:
        return 0, [], [chance.choice([0, 1, 8, 300, 10_000]) for _ in range(chance.choice([1, 1, 2, 60]))]

    def see(self) -> int:
        return self.drawn


@pytest.mark.parametrize("seed", range(3))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed, steps=250)


def test_wrong_states_are_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)
