"""The virtio console: virtio 1.3 section 5.3."""

import struct
from random import Random
from typing import Self

import pytest

from devices.virtio.console import ConsoleDevice
from tests.devices.virtio.fake_driver import CONFIG_CHANGE, INDIRECT, NEEDS_RESET, NEXT, RAM_BASE, USED_BUFFER, Driver
from tests.devices.virtio.life import VirtioLife
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

RECEIVE, TRANSMIT = 0, 1
F_SIZE = 1
VERSION_1 = 1 << 32
SECOND = 10**9


class Terminal:
    """The other end: what was printed, and what has yet to be typed."""

    def __init__(self) -> None:
        self.shown = bytearray()
        self.prints = 0
        self.unread = b""
        self.events = FakeEvents(FakeClock())
        self.device = ConsoleDevice(self._show, self.events.clock, self.events)
        self.device.ready = self.feed

    def _show(self, data: bytes) -> None:
        self.prints += 1
        self.shown += data

    def type(self, data: bytes) -> None:
        self.unread += data
        self.feed()

    def feed(self) -> None:
        self.unread = self.unread[self.device.receive(self.unread) :]


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def driver(terminal: Terminal) -> Driver:
    """A driver that has read the window's size."""
    driver = Driver(terminal.device)
    driver.start()
    driver.config(0, 4)
    driver.ack()
    driver.irq.edges = 0
    return driver


def received(driver: Driver) -> list[bytes]:
    return [done.data[: done.used_len] for done in driver.completed(RECEIVE)]


def test_identity(driver: Driver) -> None:
    assert driver.read("DeviceID") == 3
    assert driver.offered_features() & 0xFF == F_SIZE


# ---------------------------------------------------------------- output


@pytest.mark.parametrize("readable", [[b"hello"], [b"he", b"l", b"lo"], [b"", b"hello"]])
def test_output_is_shown(driver: Driver, terminal: Terminal, readable: list[bytes]) -> None:
    assert driver.request(TRANSMIT, readable).used_len == 0
    assert terminal.shown == b"hello"


def test_output_in_order_with_one_interrupt(driver: Driver, terminal: Terminal) -> None:
    for number in range(5):
        driver.submit(TRANSMIT, [b"%d" % number])
    driver.kick(TRANSMIT)
    assert len(driver.completed(TRANSMIT)) == 5
    assert terminal.shown == b"01234"
    assert driver.irq.edges == 1


@pytest.mark.parametrize("writable", [[], [8]])
def test_a_buffer_with_nothing_to_print_comes_back(driver: Driver, terminal: Terminal, writable: list[int]) -> None:
    assert driver.request(TRANSMIT, [b""], writable).used_len == 0
    assert terminal.prints == 0


def test_work_is_bounded_however_long_the_buffer_is(driver: Driver, terminal: Terminal) -> None:
    """Overlapping descriptors make a buffer of almost 4 GiB."""
    ring = driver.queues[TRANSMIT]
    table = driver.memory.allocate(16 * 400)
    entry = [struct.pack("<QIHH", RAM_BASE + (4 << 20), 8 << 20, NEXT, i + 1) for i in range(399)]
    entry.append(struct.pack("<QIHH", RAM_BASE + (4 << 20), 1, 0, 0))
    driver.memory.store(table, b"".join(entry))
    ring.put_descriptor(0, table, 16 * 400, INDIRECT)
    ring.make_available(0)
    driver.kick(TRANSMIT)
    assert ring.used_element(0) == (0, 0)
    assert len(terminal.shown) == 64 << 10


# ---------------------------------------------------------------- input


def test_input_goes_into_the_next_buffer(driver: Driver, terminal: Terminal) -> None:
    for _ in range(2):
        driver.submit(RECEIVE, [], [64])
    driver.kick(RECEIVE)
    terminal.type(b"ls\r")
    assert received(driver) == [b"ls\r"]
    assert driver.ack() == USED_BUFFER
    terminal.type(b"x")
    assert received(driver) == [b"x"]


def test_input_without_room_waits_for_it(driver: Driver, terminal: Terminal) -> None:
    terminal.type(b"abcdefgh")
    assert terminal.unread == b"abcdefgh"
    for size in (3, 0, 4):
        driver.submit(RECEIVE, [], [size])
    assert driver.wants_kick(RECEIVE, 3)
    driver.kick(RECEIVE)
    assert received(driver) == [b"abc", b"", b"defg"]
    driver.submit(RECEIVE, [], [2, 2])
    assert driver.wants_kick(RECEIVE)
    driver.kick(RECEIVE)
    assert received(driver) == [b"h"]
    assert terminal.unread == b""


def test_early_input_waits_until_the_driver_looks_at_the_size(terminal: Terminal) -> None:
    """Linux discards input that arrives before it has finished starting; then it reads the size."""
    terminal.type(b"early")
    driver = Driver(terminal.device)
    driver.start()
    assert driver.ack() == CONFIG_CHANGE
    driver.submit(RECEIVE, [], [64])
    driver.kick(RECEIVE)
    assert received(driver) == []
    driver.config(0, 4)
    assert received(driver) == [b"early"]


def test_a_driver_that_never_looks_at_the_size_gets_input_in_the_end(terminal: Terminal) -> None:
    terminal.type(b"early")
    driver = Driver(terminal.device)
    driver.start()
    driver.submit(RECEIVE, [], [64])
    driver.kick(RECEIVE)
    terminal.events.advance(2 * SECOND)
    assert received(driver) == [b"early"]


def test_a_driver_that_knows_no_size_gets_input_at_once(terminal: Terminal) -> None:
    driver = Driver(terminal.device)
    driver.start(features=VERSION_1)
    driver.submit(RECEIVE, [], [64])
    terminal.type(b"x")
    assert received(driver) == [b"x"]


def test_a_large_paste_loses_nothing(driver: Driver, terminal: Terminal) -> None:
    data = bytes(index * 7 & 0xFF for index in range(100_000))
    terminal.type(data)
    got = bytearray()
    while terminal.unread:
        driver.submit(RECEIVE, [], [100, 57])
        driver.submit(RECEIVE, [], [1000], indirect=True)
        driver.kick(RECEIVE)
        got += b"".join(received(driver))
    assert got == data


def test_a_driver_without_a_receive_queue_gets_no_input(terminal: Terminal) -> None:
    driver = Driver(terminal.device)
    driver.start(sizes=[0, 16])
    driver.config(0, 4)
    terminal.type(b"x")
    assert terminal.unread == b"x"
    driver.request(TRANSMIT, [b"y"])
    assert terminal.shown == b"y"


def test_a_corrupt_ring_asks_for_a_reset_and_takes_nothing(driver: Driver, terminal: Terminal) -> None:
    driver.queues[RECEIVE].set_avail_idx(1000)
    terminal.type(b"x")
    assert driver.read("Status") & NEEDS_RESET
    assert terminal.unread == b"x"


# ---------------------------------------------------------------- the size of the window


def size(driver: Driver) -> tuple[int, ...]:
    return struct.unpack("<HH", driver.config(0, 4))


def test_an_unknown_size_is_0(driver: Driver) -> None:
    assert driver.config(0, 16) == bytes(16)
    assert driver.irq.edges == 0


def test_a_new_size_is_a_configuration_change(driver: Driver, terminal: Terminal) -> None:
    generation = driver.read("ConfigGeneration")
    terminal.device.resize(132, 43)
    assert size(driver) == (132, 43)
    assert driver.ack() == CONFIG_CHANGE
    assert driver.read("ConfigGeneration") != generation
    terminal.device.resize(132, 43)
    assert driver.ack() == 0


def test_a_size_set_before_the_driver_starts_is_reported_when_it_does(terminal: Terminal) -> None:
    """Linux reads the size only when it has changed."""
    terminal.device.resize(80, 24)
    driver = Driver(terminal.device)
    driver.start()
    assert driver.ack() == CONFIG_CHANGE
    assert size(driver) == (80, 24)
    assert terminal.events.pending == []


def test_a_driver_that_did_not_ask_for_the_size_is_left_alone(terminal: Terminal) -> None:
    terminal.device.resize(80, 24)
    driver = Driver(terminal.device)
    driver.start(features=VERSION_1)
    terminal.device.resize(81, 24)
    assert driver.irq.edges == 0


def test_a_size_that_does_not_fit_is_the_largest_that_does(driver: Driver, terminal: Terminal) -> None:
    terminal.device.resize(100_000, 24)
    assert size(driver) == (0xFFFF, 24)


def test_the_size_is_the_terminals_not_the_drivers(driver: Driver, terminal: Terminal) -> None:
    terminal.device.resize(80, 24)
    driver.transport.write(0x100, 4, 0x0001_0001)
    driver.transport.write(0x108, 4, ord("!"))  # the emergency write register, which is not offered
    assert size(driver) == (80, 24)
    assert terminal.shown == b""


# ---------------------------------------------------------------- reset


def test_reset_stops_it(driver: Driver, terminal: Terminal) -> None:
    driver.submit(RECEIVE, [], [8])
    driver.submit(TRANSMIT, [b"x"])
    driver.write("Status", 0)
    for queue in (RECEIVE, TRANSMIT):
        driver.kick(queue)
        driver.device.notify(queue)
    terminal.type(b"y")
    terminal.device.resize(80, 24)
    assert driver.memory.written == []
    assert terminal.shown == b""
    assert terminal.unread == b"y"
    assert not driver.irq.level


def test_reset_while_the_driver_starts(terminal: Terminal) -> None:
    driver = Driver(terminal.device)
    driver.start()
    driver.reset()
    assert terminal.events.pending == []
    terminal.type(b"x")
    assert driver.config(0, 4) == bytes(4)
    assert terminal.unread == b"x"


# ---------------------------------------------------------------- saved and restored


class Life(VirtioLife):
    """See tests/twins.py."""

    def __init__(self) -> None:
        self.terminal = Terminal()
        super().__init__(self.terminal.device, self.terminal.events)

    def take_over(self, old: Self) -> None:
        super().take_over(old)
        self.terminal.shown[:] = old.terminal.shown
        self.terminal.unread = old.terminal.unread

    def request(self, chance: Random) -> tuple[int, list[bytes], list[int]]:
        size = chance.choice([0, 1, 20, 3000])
        pieces = chance.choice([1, 1, 2, 5])
        return (RECEIVE, [], [size] * pieces) if chance.random() < 0.5 else (TRANSMIT, [b"x" * size] * pieces, [])

    def happen(self, chance: Random) -> None:
        if chance.random() < 0.5:
            self.terminal.type(chance.randbytes(chance.choice([1, 10, 1000])))
        else:
            self.terminal.device.resize(chance.randrange(1 << 17), chance.randrange(3))

    def see(self) -> object:
        return bytes(self.terminal.shown), self.terminal.unread


@pytest.mark.parametrize("seed", range(3))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed, steps=250)


def test_wrong_states_are_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)
