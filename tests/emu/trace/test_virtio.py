"""Virtio devices: registers and queues, with a real transport, device and driver."""

import pytest

from devices.placement import Placement
from devices.virtio.rng import EntropyDevice
from emu.trace import Trace
from tests.devices.virtio.fake_driver import REGISTERS, Driver
from tests.fakes import FakeClock


class WatchedDriver(Driver):
    """A driver on a watched transport, like the first one on the board."""

    def __init__(self) -> None:
        self.records = []
        joints = Trace(self.records.append, "virtio").joints(FakeClock())
        super().__init__(joints.virtio(0, EntropyDevice()))
        line = joints.irq(1, "virtio-rng", self.irq)
        self.transport = self.make_transport(line)
        _, self.store = joints.registers(Placement(self.transport, 0x1000_1000, 1))

    def write(self, register: str, value: int) -> None:
        self.store(REGISTERS[register], 4, value)

    def told(self) -> list[tuple]:
        told = [(record.name, *record.detail.values()) for record in self.records]
        self.records.clear()
        return told


@pytest.fixture
def driver() -> WatchedDriver:
    driver = WatchedDriver()
    driver.start()
    return driver


def test_a_driver_starts(driver):
    assert [record.track for record in driver.records] == ["virtio0 rng"] * len(driver.records)
    assert driver.told() == [
        ("reset", "0"),
        ("status", "ACKNOWLEDGE"),
        ("status", "ACKNOWLEDGE DRIVER"),
        ("status", "ACKNOWLEDGE DRIVER FEATURES_OK"),
        ("activated", "0x130000000", "INDIRECT_DESC EVENT_IDX VERSION_1"),
        ("status", "ACKNOWLEDGE DRIVER FEATURES_OK DRIVER_OK"),
    ]


def test_a_request_from_the_notification_to_the_acknowledgement(driver):
    driver.told()
    driver.submit(0, [], [8])
    driver.submit(0, [], [4])
    driver.kick(0)
    assert len(driver.completed(0)) == 2
    driver.ack()
    assert driver.told() == [
        ("notify", "requestq"),
        ("used", "requestq", 2, 12, "sent"),
        ("acknowledged", "USED_BUFFER"),
    ]


def test_a_device_that_is_restored_is_watched_and_has_not_been_activated(driver):
    driver.told()
    driver.transport.restore(driver.transport.state())
    assert driver.told() == []
    driver.request(0, [], [8])
    assert driver.told() == [("notify", "requestq"), ("used", "requestq", 1, 8, "sent")]


def test_an_interrupt_that_the_driver_does_not_want(driver):
    driver.told()
    driver.queues[0].set_used_event(100)
    driver.submit(0, [], [8])
    driver.kick(0)
    assert driver.told()[-1] == ("used", "requestq", 1, 8, "not wanted")
    assert not driver.irq.level


def test_what_is_refused_is_reported(driver):
    driver.negotiate(features=1 << 40)
    assert driver.told()[-1] == ("status", "ACKNOWLEDGE DRIVER", "FEATURES_OK")


def test_any_number_is_a_queue(driver):
    driver.told()
    driver.write("QueueNotify", 0xFFFF_FFFF)
    assert driver.told() == [("notify", "queue 4294967295")]


def test_what_the_device_does_when_the_driver_corrupts_its_ring_is_the_same(driver):
    driver.queues[0].set_avail_idx(5000)
    driver.kick(0)
    assert driver.read("Status") & 0x40
