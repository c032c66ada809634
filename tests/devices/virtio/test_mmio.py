"""The virtio-mmio transport: virtio 1.2 section 4.2 and the device status of section 2.1."""

import logging
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import UsageError
from devices.virtio.device import VirtioDevice
from devices.virtio.mmio import EmptySlot
from devices.virtio.queue import Queue
from tests.devices.virtio.fake_driver import (
    ACKNOWLEDGE,
    CONFIG_CHANGE,
    DRIVER,
    DRIVER_OK,
    EVENT_IDX,
    FAILED,
    FEATURES_OK,
    INDIRECT_DESC,
    NEEDS_RESET,
    RAM_BASE,
    REGISTERS,
    USED_BUFFER,
    VERSION_1,
    Driver,
    FakeMemory,
)

SIZES = (8, 4, 16)
CONFIG = bytes(range(1, 11))
TAKEN = ACKNOWLEDGE | DRIVER
RUNNING = TAKEN | FEATURES_OK | DRIVER_OK
RING_RESET = 1 << 40


class EchoDevice(VirtioDevice):
    """Completes every chain as soon as it is notified, and records what it was told."""

    device_id = 42
    features = 1 << 3 | 1 << 50
    queue_sizes = SIZES

    def __init__(self) -> None:
        self.config_bytes = CONFIG
        self.queues: Sequence[Queue] = ()
        self.negotiated: list[int] = []
        self.notified: list[int] = []
        self.config_writes: list[tuple[int, bytes]] = []
        self.config_changed: Callable[[], None] = lambda: None
        self.resets = 0

    def config(self) -> bytes:
        return self.config_bytes

    def write_config(self, offset: int, data: bytes) -> None:
        self.config_writes.append((offset, data))

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self.queues = queues
        self.negotiated.append(features)
        self.config_changed = config_changed

    def notify(self, index: int) -> None:
        self.notified.append(index)
        queue = self.queues[index]
        while (chain := queue.pop()) is not None:
            queue.push(chain, 0)
        queue.signal()

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def device() -> EchoDevice:
    return EchoDevice()


@pytest.fixture
def driver(device: EchoDevice) -> Driver:
    return Driver(device)


@pytest.fixture
def running(driver: Driver, device: EchoDevice) -> Driver:
    driver.start()
    device.notified.clear()
    return driver


# Identity, registers, widths


def test_identity(driver: Driver) -> None:
    assert driver.read("MagicValue") == int.from_bytes(b"virt", "little")
    assert driver.read("Version") == 2
    assert driver.read("DeviceID") == 42
    assert driver.read("VendorID") == int.from_bytes(b"QEMU", "little"), "xv6 takes no other"


def test_board_description(driver: Driver) -> None:
    assert driver.transport.size == 0x1000
    assert driver.transport.node_name == "virtio_mmio"
    assert driver.transport.compatible == ("virtio,mmio",)
    assert driver.transport.properties == {}


def test_register_names_and_offsets_are_the_specification_s(driver: Driver) -> None:
    assert {register.name: register.offset for register in driver.transport.registers} == REGISTERS


def test_empty_slot() -> None:
    slot = EmptySlot()
    assert [slot.read(offset, 4) for offset in (0, 4, 8, 0x70, 0x100)] == [0x7472_6976, 2, 0, 0, 0]
    assert slot.read(0, 1) == 0
    slot.write(0x70, 4, 1)
    assert slot.read(0x70, 4) == 0
    assert slot.size == 0x1000


@pytest.mark.parametrize("name", ["MagicValue", "Version", "DeviceID", "DeviceFeatures", "Status", "SHMLenLow"])
@pytest.mark.parametrize("size", [1, 2])
def test_narrow_loads_of_control_registers_read_zero(running: Driver, name: str, size: int) -> None:
    assert running.read(name) != 0
    assert running.transport.read(REGISTERS[name], size) == 0


@pytest.mark.parametrize("size", [1, 2])
def test_narrow_stores_to_control_registers_are_ignored(running: Driver, device: EchoDevice, size: int) -> None:
    resets = device.resets
    running.transport.write(REGISTERS["Status"], size, 0)
    running.transport.write(REGISTERS["QueueNotify"], size, 0)
    assert running.read("Status") == RUNNING
    assert (device.resets, device.notified) == (resets, [])


def test_unknown_offsets_read_zero_and_ignore_stores(running: Driver) -> None:
    for offset in set(range(0, 0x100, 4)) - set(REGISTERS.values()):
        running.transport.write(offset, 4, 0xFFFF_FFFF)
        assert running.transport.read(offset, 4) == 0
    assert running.read("Status") == RUNNING


def test_write_only_registers_read_zero(running: Driver) -> None:
    for name in ("DeviceFeaturesSel", "DriverFeatures", "QueueSel", "QueueNum", "QueueNotify", "QueueDescLow"):
        assert running.read(name) == 0


def test_no_shared_memory_regions(driver: Driver) -> None:
    driver.write("SHMSel", 0)
    assert [driver.read(f"SHM{what}") for what in ("LenLow", "LenHigh", "BaseLow", "BaseHigh")] == [0xFFFF_FFFF] * 4


def test_queue_reset_is_not_offered(running: Driver, device: EchoDevice) -> None:
    assert not running.offered_features() & RING_RESET
    running.write("QueueReset", 1)
    assert running.read("QueueReset") == 0
    assert running.read("QueueReady") == 1


# Features


def test_offered_features(driver: Driver, device: EchoDevice) -> None:
    assert driver.offered_features() == device.features | VERSION_1 | INDIRECT_DESC | EVENT_IDX


@pytest.mark.parametrize("select", [2, 3, 0xFFFF_FFFF])
def test_there_are_no_features_beyond_64(driver: Driver, select: int) -> None:
    driver.write("DeviceFeaturesSel", select)
    assert driver.read("DeviceFeatures") == 0


def test_device_gets_the_negotiated_features(driver: Driver, device: EchoDevice) -> None:
    driver.start(VERSION_1 | 1 << 3)
    assert device.negotiated == [VERSION_1 | 1 << 3]


@pytest.mark.parametrize("features", [0, 1 << 3, EVENT_IDX])
def test_a_driver_that_does_not_accept_version_1(driver: Driver, device: EchoDevice, features: int) -> None:
    """xv6 does not accept it, but otherwise follows version 1; the specification leaves the choice to the device."""
    driver.start(features)
    assert driver.read("Status") == RUNNING
    assert device.negotiated == [features]


@pytest.mark.parametrize("features", [1, VERSION_1 | 1, VERSION_1 | 1 << 34, VERSION_1 | 1 << 63])
def test_features_ok_is_refused(driver: Driver, device: EchoDevice, features: int) -> None:
    """With a feature that was not offered."""
    assert not driver.negotiate(features)
    driver.add_status(DRIVER_OK)
    assert driver.read("Status") == TAKEN
    assert device.negotiated == []


def test_refused_driver_may_try_again(driver: Driver) -> None:
    assert not driver.negotiate(VERSION_1 | 1)
    driver.write("DriverFeaturesSel", 0)
    driver.write("DriverFeatures", 0)
    driver.add_status(FEATURES_OK)
    assert driver.read("Status") == TAKEN | FEATURES_OK


def test_features_are_final_once_agreed_on(driver: Driver, device: EchoDevice) -> None:
    assert driver.negotiate(VERSION_1)
    driver.write("DriverFeaturesSel", 0)
    driver.write("DriverFeatures", EVENT_IDX)
    driver.add_status(DRIVER_OK)
    assert device.negotiated == [VERSION_1]


def test_features_beyond_64_are_ignored(driver: Driver, device: EchoDevice) -> None:
    driver.negotiate(VERSION_1 | 1)  # which is refused
    driver.write("DriverFeaturesSel", 2)
    driver.write("DriverFeatures", 0xFFFF_FFFF)
    driver.write("DriverFeaturesSel", 0)
    driver.write("DriverFeatures", 0)
    driver.add_status(FEATURES_OK)
    driver.add_status(DRIVER_OK)
    assert device.negotiated == [VERSION_1]


# Status


def test_status_at_power_on_is_zero(driver: Driver) -> None:
    assert driver.read("Status") == 0


def test_status_goes_step_by_step(driver: Driver, device: EchoDevice) -> None:
    driver.negotiate()
    assert driver.read("Status") == TAKEN | FEATURES_OK
    assert device.negotiated == []
    driver.add_status(DRIVER_OK)
    assert driver.read("Status") == RUNNING
    assert len(device.negotiated) == 1


def test_driver_ok_needs_features_ok(driver: Driver, device: EchoDevice) -> None:
    driver.write("Status", TAKEN | DRIVER_OK)
    assert driver.read("Status") == TAKEN
    assert device.negotiated == []


def test_device_is_activated_once(running: Driver, device: EchoDevice) -> None:
    running.write("Status", RUNNING)
    running.write("Status", RUNNING)
    assert len(device.negotiated) == 1


def test_only_a_reset_clears_status_bits(running: Driver) -> None:
    running.write("Status", ACKNOWLEDGE)
    assert running.read("Status") == RUNNING


def test_failed_can_be_set_at_any_time(driver: Driver, device: EchoDevice) -> None:
    driver.negotiate()
    driver.add_status(FAILED)
    driver.add_status(DRIVER_OK)
    assert driver.read("Status") == TAKEN | FEATURES_OK | FAILED
    assert device.negotiated == []


def test_driver_cannot_set_needs_reset_or_unknown_bits(running: Driver) -> None:
    running.write("Status", 0xFFFF_FFFF & ~FAILED)
    assert running.read("Status") == RUNNING


# Queue configuration


def test_queue_sizes(driver: Driver) -> None:
    sizes = []
    for index in range(5):
        driver.write("QueueSel", index)
        sizes.append(driver.read("QueueNumMax"))
    assert sizes == [8, 4, 16, 0, 0]


@pytest.mark.parametrize("index", [3, 1000, 0xFFFF_FFFF])
def test_queue_that_does_not_exist(driver: Driver, device: EchoDevice, index: int) -> None:
    driver.negotiate()
    driver.configure_queue(index, 8, RAM_BASE, RAM_BASE + 4096, RAM_BASE + 8192)
    assert driver.read("QueueReady") == 0
    driver.add_status(DRIVER_OK)
    assert [queue.running for queue in device.queues] == [False, False, False]


def test_queue_ready_reads_back_for_the_selected_queue(driver: Driver) -> None:
    driver.negotiate()
    driver.set_up_queue(1, 4)
    assert driver.read("QueueReady") == 1
    driver.write("QueueSel", 0)
    assert driver.read("QueueReady") == 0


def test_queue_can_be_configured_anew_before_driver_ok(driver: Driver, device: EchoDevice) -> None:
    driver.negotiate()
    driver.configure_queue(0, 3, 1, 1, 1)
    driver.write("QueueReady", 0)
    assert driver.read("QueueReady") == 0
    driver.set_up_queue(0, 8)
    driver.add_status(DRIVER_OK)
    assert device.queues[0].running


@pytest.mark.parametrize("status", [0, ACKNOWLEDGE, TAKEN, TAKEN | FEATURES_OK | FAILED])
def test_queues_can_be_configured_only_between_features_ok_and_driver_ok(driver: Driver, status: int) -> None:
    if status & FEATURES_OK:
        driver.negotiate()
    driver.write("Status", status)
    driver.configure_queue(0, 8, RAM_BASE, RAM_BASE + 4096, RAM_BASE + 8192)
    assert driver.read("QueueReady") == 0


def test_queue_config_immutable_after_activation(running: Driver, device: EchoDevice) -> None:
    """CVE-2026-5747: the rings must not move under a running device."""
    running.configure_queue(0, 0x8000, 0, 0, 0)
    running.submit(0, [b"x"])
    running.kick(0)
    assert len(running.completed(0)) == 1
    assert running.read("Status") == RUNNING


def test_ready_queue_is_frozen(driver: Driver, device: EchoDevice) -> None:
    driver.negotiate()
    driver.set_up_queue(0, 8)
    driver.write("QueueNum", 7)
    driver.write("QueueDescLow", 1)
    driver.add_status(DRIVER_OK)
    assert driver.read("Status") == RUNNING
    assert device.queues[0].running


RING = RAM_BASE + 0x1000
END = RAM_BASE + (16 << 20)


@pytest.mark.parametrize(
    ("size", "descriptors", "avail", "used"),
    [
        (0, RING, RING + 256, RING + 512),
        (3, RING, RING + 256, RING + 512),
        (16, RING, RING + 256, RING + 512),
        (0xFFFF, RING, RING + 256, RING + 512),
        (0x1_0000, RING, RING + 256, RING + 512),
        (0xFFFF_FFFF, RING, RING + 256, RING + 512),
        (8, RING + 8, RING + 256, RING + 512),
        (8, RING, RING + 257, RING + 512),
        (8, RING, RING + 256, RING + 514),
        (8, 0, RING + 256, RING + 512),
        (8, RING, 0x1000_1000, RING + 512),
        (8, RING, RING + 256, RAM_BASE - 4),
        (8, END - 112, RING + 256, RING + 512),
        (8, RING, END - 20, RING + 512),
        (8, RING, RING + 256, END - 68),
        (8, 0xFFFF_FFFF_FFFF_FFF0, RING + 256, RING + 512),
        (8, RING, 0xFFFF_FFFF_FFFF_FFFE, RING + 512),
        (8, RING, RING + 256, 0xFFFF_FFFF_FFFF_FFFC),
        (8, RING | 1 << 63, RING + 256, RING + 512),
    ],
)
def test_unusable_queue_asks_for_a_reset(
    driver: Driver, device: EchoDevice, size: int, descriptors: int, avail: int, used: int
) -> None:
    driver.negotiate()
    driver.configure_queue(0, size, descriptors, avail, used)
    driver.add_status(DRIVER_OK)
    assert driver.read("Status") == RUNNING | NEEDS_RESET
    assert driver.ack() == CONFIG_CHANGE
    assert device.negotiated == []
    driver.kick(0)
    assert device.notified == []
    driver.start()
    assert driver.read("Status") == RUNNING


def test_the_log_says_what_is_unusable(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    driver.negotiate()
    driver.configure_queue(0, 3, RING, RING + 256, RING + 512)
    driver.add_status(DRIVER_OK)
    assert f"queue 0 is not usable: QueueLayout(size=3, descriptors={RING}," in caplog.text


def test_smallest_and_largest_queue(driver: Driver) -> None:
    driver.start(sizes=(8, 1, 16))
    for _ in range(3):
        driver.request(1, [b"x"])
    assert driver.read("Status") == RUNNING


def test_queue_at_the_very_end_of_ram(driver: Driver, device: EchoDevice) -> None:
    driver.negotiate()
    driver.configure_queue(0, 8, RING, RING + 256, END - 72)
    driver.add_status(DRIVER_OK)
    assert device.queues[0].running


def test_queue_that_is_not_ready_is_silent(driver: Driver, device: EchoDevice) -> None:
    driver.start(sizes=(8, 0, 16))
    device.notified.clear()
    driver.kick(1)
    assert device.notified == []
    assert device.queues[1].pop() is None
    device.queues[1].signal()
    assert not driver.irq.level
    assert driver.memory.written == []


def test_queue_made_unready_while_running_is_left_alone(running: Driver, device: EchoDevice) -> None:
    running.submit(0, [], [8])
    chain = device.queues[0].pop()
    assert chain is not None
    running.submit(0, [b"more"])
    running.write("QueueSel", 0)
    running.write("QueueReady", 0)
    assert running.read("QueueReady") == 0
    running.memory.written.clear()
    running.kick(0)
    chain.writable.write(0, b"too late")
    device.queues[0].push(chain, 8)
    device.queues[0].signal()
    assert running.memory.written == []
    assert (running.irq.level, device.notified) == (False, [])
    running.write("QueueReady", 1)
    assert running.read("QueueReady") == 0
    assert running.request(1, [b"the others go on"]).used_len == 0


# Notifications


def test_kick_notifies_the_device(running: Driver, device: EchoDevice) -> None:
    running.kick(2)
    running.kick(0)
    assert device.notified == [2, 0]


def test_spurious_kick_is_harmless(running: Driver) -> None:
    running.kick(0)
    assert not running.irq.level
    assert running.read("Status") == RUNNING


@pytest.mark.parametrize("index", [3, 4, 0xFFFF, 0x0001_0000, 0xFFFF_FFFF])
def test_kick_of_any_other_number_is_ignored(running: Driver, device: EchoDevice, index: int) -> None:
    """CVE-2011-2512."""
    running.write("QueueNotify", index)
    assert device.notified == []
    assert running.read("Status") == RUNNING


def test_nothing_is_consumed_before_driver_ok(driver: Driver, device: EchoDevice) -> None:
    driver.negotiate()
    driver.set_up_queue(0, 8)
    driver.submit(0, [b"x"])
    driver.kick(0)
    assert (device.notified, driver.memory.written, driver.irq.level) == ([], [], False)


def test_what_was_available_before_driver_ok_is_noticed(driver: Driver) -> None:
    driver.negotiate()
    driver.set_up_queue(0, 8)
    token = driver.submit(0, [b"x"])
    driver.add_status(DRIVER_OK)
    assert [done.token for done in driver.completed(0)] == [token]
    assert driver.irq.level


# Interrupts


def test_used_buffer_interrupt_stays_until_acknowledged(running: Driver) -> None:
    running.request(0, [b"x"])
    assert running.irq.level
    assert running.read("InterruptStatus") == USED_BUFFER
    running.write("InterruptACK", USED_BUFFER)
    assert not running.irq.level
    assert running.read("InterruptStatus") == 0


def test_acknowledgement_clears_only_the_written_bits(running: Driver, device: EchoDevice) -> None:
    running.request(0, [b"x"])
    device.config_changed()
    assert running.read("InterruptStatus") == USED_BUFFER | CONFIG_CHANGE
    running.write("InterruptACK", USED_BUFFER)
    assert running.read("InterruptStatus") == CONFIG_CHANGE
    assert running.irq.level
    running.write("InterruptACK", 0xFFFF_FFFC)
    assert running.irq.level
    running.write("InterruptACK", 0xFFFF_FFFF)
    assert not running.irq.level


def test_interrupt_status_cannot_be_stored_to(running: Driver) -> None:
    running.write("InterruptStatus", 3)
    assert running.read("InterruptStatus") == 0


# Configuration space


def test_config_reads_at_every_width(driver: Driver) -> None:
    """Even before FEATURES_OK; beyond its end there are zeros."""
    padded = CONFIG + bytes(8)
    for size in (1, 2, 4):
        for offset in range(0, 16, size):
            expected = int.from_bytes(padded[offset : offset + size], "little")
            assert driver.transport.read(0x100 + offset, size) == expected
    assert driver.transport.read(0xFFC, 4) == 0


def test_config_writes_go_to_the_device_alone(running: Driver, device: EchoDevice) -> None:
    running.transport.write(0x102, 2, 0xBEEF)
    running.transport.write(0xFFC, 4, 1)
    assert device.config_writes == [(2, b"\xef\xbe"), (0xEFC, b"\1\0\0\0")]


def test_config_is_read_only_by_default(driver: Driver) -> None:
    """QEMU issue 2296: a driver must not rewrite what the device says about itself."""
    VirtioDevice.write_config(driver.device, 0, b"\xff")
    assert driver.config(0, len(CONFIG)) == CONFIG


def test_config_change_is_a_new_generation_and_an_interrupt(running: Driver, device: EchoDevice) -> None:
    generation = running.read("ConfigGeneration")
    assert running.read("ConfigGeneration") == generation
    device.config_bytes = b"\xff" * 10
    device.config_changed()
    assert running.read("ConfigGeneration") != generation
    assert running.ack() == CONFIG_CHANGE
    assert running.config(0, 2) == b"\xff\xff"


def test_config_change_after_a_reset_is_silent(running: Driver, device: EchoDevice) -> None:
    running.reset()
    device.config_changed()
    assert not running.irq.level


# Reset, and what needs one


def test_reset_stops_everything(running: Driver, device: EchoDevice) -> None:
    running.request(1, [b"x"])
    device.config_changed()
    running.submit(0, [], [4])
    queue = device.queues[0]
    chain = queue.pop()
    assert chain is not None
    resets = device.resets
    running.memory.written.clear()
    running.write("Status", 0)

    assert device.resets == resets + 1
    assert not running.irq.level
    assert [running.read(name) for name in ("Status", "InterruptStatus")] == [0, 0]
    for index in range(3):
        running.write("QueueSel", index)
        assert running.read("QueueReady") == 0
    chain.writable.write(0, b"late")
    queue.push(chain, 4)
    queue.signal()
    assert queue.pop() is None
    running.kick(0)
    assert (running.memory.written, running.irq.level, device.notified) == ([], False, [1])


def test_reset_forgets_selections_and_features(running: Driver, device: EchoDevice) -> None:
    running.write("DeviceFeaturesSel", 1)
    running.write("QueueSel", 2)
    running.reset()
    assert running.read("DeviceFeatures") == (device.features | INDIRECT_DESC | EVENT_IDX) & 0xFFFF_FFFF
    assert running.read("QueueNumMax") == SIZES[0]
    running.write("Status", TAKEN | FEATURES_OK)
    running.write("Status", RUNNING)
    assert device.negotiated[-1] == 0


def test_device_works_after_a_reset(running: Driver) -> None:
    for _ in range(3):
        running.start()
        assert running.request(0, [b"x"], [1], indirect=True).used_len == 0
        assert running.ack() == USED_BUFFER


def test_a_device_is_notified_again_at_the_earliest_time_that_it_asked_for(running: Driver, device: EchoDevice) -> None:
    device.notified.clear()
    later, events = device.queues[1].later, running.events
    later(1000)
    later(2000)
    later(500)
    events.advance(499)
    assert device.notified == []
    events.advance(1)
    assert device.notified == [1]
    later(100)
    later()
    events.run_due()
    events.advance(5000)
    assert device.notified == [1, 1], "and once only"


def test_reset_at_any_time_is_harmless(driver: Driver) -> None:
    driver.reset()
    driver.reset()
    driver.transport.reset()
    assert driver.read("Status") == 0


def test_corrupt_ring_asks_for_a_reset(running: Driver, device: EchoDevice) -> None:
    running.queues[0].set_avail_idx(100)
    running.kick(0)
    assert running.read("Status") == RUNNING | NEEDS_RESET
    assert running.ack() == CONFIG_CHANGE
    device.notified.clear()
    running.submit(1, [b"x"])
    running.kick(1)
    running.kick(0)
    assert device.notified == [], "the whole device waits for the reset"
    running.write("Status", RUNNING)
    assert running.read("Status") == RUNNING | NEEDS_RESET
    running.start()
    assert running.request(0, [b"x"]).used_len == 0


# Saved and restored


def resumed(driver: Driver) -> Driver:
    """Another device, whose driver goes on where this one is."""
    new = Driver(EchoDevice(), driver.memory, driver.events)
    driver.events.follow(driver.events)
    new.transport.restore(driver.transport.state())
    new.queues, new.features = driver.queues, driver.features
    return new


def test_restored_in_the_middle_of_the_negotiation(driver: Driver) -> None:
    driver.write("Status", TAKEN)
    driver.write("DriverFeaturesSel", 1)
    driver = resumed(driver)
    driver.write("DriverFeatures", VERSION_1 >> 32)
    driver.write("QueueSel", 1)
    driver = resumed(driver)
    driver.write("Status", TAKEN | FEATURES_OK)
    queue = driver.set_up_queue(1, SIZES[1])
    driver = resumed(driver)
    assert driver.read("QueueReady") == 1
    driver.write("Status", RUNNING)
    assert driver.device.negotiated == [VERSION_1]
    assert queue.used_idx == 0
    driver = resumed(driver)
    assert driver.request(1, [b"x"]).used_len == 0


def test_a_restored_device_gets_its_queues_and_nothing_else(running: Driver) -> None:
    running.submit(0, [b"x"])
    new = resumed(running)
    assert (len(new.device.queues), new.device.negotiated) == (len(SIZES), [running.features])
    assert new.device.notified == []
    assert not new.irq.level
    new.device.config_changed()
    assert new.ack() == CONFIG_CHANGE


def test_what_was_restored_lets_go_of_what_it_had(running: Driver) -> None:
    [queue, *_] = running.device.queues
    running.submit(0, [b"x"])
    running.transport.restore(running.transport.state())
    assert queue.pop() is None
    running.kick(0)
    assert len(running.completed(0)) == 1


@pytest.mark.parametrize("wrong", [{"status": TAKEN | FEATURES_OK}, {"queue_registers": []}, {"again": []}])
def test_a_state_that_cannot_be_is_refused(running: Driver, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="of a virtio device cannot be so"):
        running.transport.restore(running.transport.state() | wrong)


def test_some_of_the_queues_are_not_enough(running: Driver) -> None:
    state = running.transport.state()
    del state["queues"][0]
    with pytest.raises(UsageError, match="the number of queues of a virtio device"):
        running.transport.restore(state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 3},
        {"size": 16},
        {"ready": False},
        {"descriptors": 0},
        {"driver_area": 1},
        {"device_area": RAM_BASE - 4},
    ],
)
def test_a_queue_in_a_place_that_cannot_be_is_refused(running: Driver, wrong: dict[str, object]) -> None:
    state = running.transport.state()
    state["queue_registers"][0].update(wrong)
    with pytest.raises(UsageError, match="the place of a queue"):
        running.transport.restore(state)


# Refusals are logged

REFUSED = [
    ("Status", 1, 0, "Status: 1 bytes cannot be written there"),
    ("MagicValue", 4, 7, "MagicValue: 4 bytes cannot be written there"),
    ("DriverFeatures", 4, 1, "DriverFeatures: the features have been agreed on"),
    ("QueueNum", 4, 4, "QueueNum: queue 2 cannot be configured now"),
    ("QueueDescLow", 4, 0, "the address of descriptors: queue 2 cannot be configured now"),
    ("QueueReady", 4, 1, "QueueReady: queue 2 cannot be configured now"),
    ("QueueNotify", 4, 3, "QueueNotify: no such queue is running"),
]


@pytest.mark.parametrize(("register", "size", "value", "why"), REFUSED)
def test_a_store_that_is_ignored_is_logged(
    running: Driver, caplog: pytest.LogCaptureFixture, register: str, size: int, value: int, why: str
) -> None:
    with caplog.at_level(logging.DEBUG, "devices.virtio.mmio"):
        running.transport.write(REGISTERS[register], size, value)
    assert [record.getMessage() for record in caplog.records] == [f"virtio device 42 ignores {value:#x} for {why}"]


def test_a_status_that_is_refused_is_logged(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "devices.virtio.mmio"):
        driver.negotiate(VERSION_1 | 1)
        driver.add_status(DRIVER_OK)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "features 0x1 were not offered",
        "FEATURES_OK is not set, or FAILED is",
    ]


def test_a_correct_driver_is_not_in_the_log(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "devices.virtio.mmio"):
        driver.start()
        driver.request(0, [b"x"])
        driver.ack()
    assert caplog.records == []


# Anything at all

accesses = st.tuples(
    st.one_of(st.sampled_from(sorted(REGISTERS.values())), st.integers(0, 0xFFF)),
    st.sampled_from([1, 2, 4]),
    st.one_of(
        st.none(),
        st.integers(0, 20),
        st.sampled_from([RUNNING, TAKEN, TAKEN | FEATURES_OK, RAM_BASE, RAM_BASE + 0x4000, 0xFFFF_FFFF]),
    ),
)


@settings(max_examples=200, deadline=None)
@given(stream=st.lists(accesses, max_size=60), started=st.booleans())
def test_random_accesses_are_harmless(stream: list[tuple[int, int, int | None]], started: bool) -> None:
    """Registers in any order, at any width, with any value: nothing raises, and a reset makes it like new."""
    driver = Driver(EchoDevice(), FakeMemory(1 << 20))
    transport, irq = driver.transport, driver.irq
    if started:
        driver.start()
        driver.submit(0, [b"in flight"])
    for offset, size, value in stream:
        aligned = offset & ~(size - 1)
        if value is None:
            assert 0 <= transport.read(aligned, size) < 1 << 8 * size
        else:
            transport.write(aligned, size, value & ((1 << 8 * size) - 1))
        assert irq.level is bool(transport.read(REGISTERS["InterruptStatus"], 4))
    transport.write(REGISTERS["Status"], 4, 0)
    fresh = Driver(EchoDevice(), FakeMemory(1 << 12)).transport
    for offset in set(REGISTERS.values()) - {REGISTERS["ConfigGeneration"]}:
        assert transport.read(offset, 4) == fresh.read(offset, 4)
    assert not irq.level
