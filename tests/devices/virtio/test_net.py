"""The virtio network card: virtio 1.2 section 5.1."""

import struct
from random import Random
from typing import Self

import pytest

from devices.errors import UsageError
from devices.net import Wire
from devices.net.base import MOST_FRAME, NetBackend, Plug
from devices.virtio.net import NetDevice
from tests.devices.virtio.fake_driver import (
    CONFIG_CHANGE,
    INDIRECT,
    NEEDS_RESET,
    NEXT,
    RAM_BASE,
    USED_BUFFER,
    VERSION_1,
    WRITE,
    Driver,
)  # fmt: skip
from tests.devices.virtio.life import VirtioLife
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

RECEIVE, TRANSMIT = 0, 1
GUEST_CSUM, MTU, MAC, STATUS = 1 << 1, 1 << 3, 1 << 5, 1 << 16
NEEDS_CSUM, DATA_VALID = 1, 2
MAC_ADDRESS = bytes.fromhex("525400707900")


def frame(size: int = 60, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


def header(flags: int = 0, gso: int = 0, start: int = 0, offset: int = 0, buffers: int = 0) -> bytes:
    return struct.pack("<BBHHHHH", flags, gso, 0, 0, start, offset, buffers)


class Bench:
    """A card, a wire to it, and a driver that has started."""

    def __init__(self, backend: NetBackend | None = None, features: int | None = None) -> None:
        self.events = FakeEvents(FakeClock())
        self.wire = Wire() if backend is None else backend
        self.card = NetDevice(self.wire, MAC_ADDRESS)
        self.driver = Driver(self.card, events=self.events)
        self.plug_in()
        self.driver.start(features)

    def plug_in(self) -> None:
        self.wire.plug(Plug(self.card, lambda message: message(), self.events.clock.now))

    def make_room(self, *sizes: int) -> None:
        for size in sizes:
            self.driver.submit(RECEIVE, [], [size])
        self.driver.kick(RECEIVE)

    def send_in(self, *frames: bytes) -> None:
        assert isinstance(self.wire, Wire)
        for one in frames:
            self.wire.send(one)
        self.driver.run_deferred()

    def received(self) -> list[bytes]:
        return [done.data[: done.used_len] for done in self.driver.completed(RECEIVE)]

    def sent(self) -> list[bytes]:
        assert isinstance(self.wire, Wire)
        return self.wire.received()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_identity(bench: Bench) -> None:
    assert bench.driver.read("DeviceID") == 1
    assert bench.driver.offered_features() & 0xFF_FFFF == GUEST_CSUM | MTU | MAC | STATUS
    assert bench.driver.config(0, 12) == MAC_ADDRESS + struct.pack("<HHH", 1, 1, 1500)


def test_the_mtu_is_what_the_backend_takes() -> None:
    assert Bench(Wire(mtu=9000)).driver.config(10, 2) == struct.pack("<H", 9000)


# ---------------------------------------------------------------- sending


@pytest.mark.parametrize("cut", [[12], [60, 12], [5, 10], [1, 2, 3, 4, 5]])
@pytest.mark.parametrize("indirect", [False, True])
def test_a_frame_is_sent_however_it_is_cut(bench: Bench, cut: list[int], indirect: bool) -> None:
    whole, pieces = header() + frame(), []
    for size in cut:
        pieces.append(whole[:size])
        whole = whole[size:]
    assert bench.driver.request(TRANSMIT, [*pieces, whole], indirect=indirect).used_len == 0
    assert bench.sent() == [frame()]


def test_frames_are_sent_in_order_with_one_interrupt(bench: Bench) -> None:
    for seed in range(5):
        bench.driver.submit(TRANSMIT, [header() + frame(seed=seed)])
    bench.driver.kick(TRANSMIT)
    assert bench.sent() == [frame(seed=seed) for seed in range(5)]
    assert len(bench.driver.completed(TRANSMIT)) == 5
    assert bench.driver.irq.edges == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header(),
        header()[:7],
        header() + frame(13),
        header() + frame(MOST_FRAME + 1),
        header(NEEDS_CSUM, start=34, offset=6) + frame(),
        header(NEEDS_CSUM, start=0xFFFF, offset=0xFFFF) + frame(),
        header(gso=1) + frame(),
        header(gso=0x81) + frame(),
    ],
)
def test_what_is_no_frame_is_dropped_and_comes_back(bench: Bench, data: bytes) -> None:
    assert bench.driver.request(TRANSMIT, [data]).used_len == 0
    assert bench.sent() == []
    assert bench.card.stats.lost == 1
    bench.driver.request(TRANSMIT, [header() + frame()])
    assert bench.sent() == [frame()]


def test_a_buffer_to_be_written_to_is_left_alone(bench: Bench) -> None:
    done = bench.driver.request(TRANSMIT, [header() + frame()], [8])
    assert (done.used_len, done.data) == (0, b"\xaa" * 8)
    assert bench.sent() == [frame()]


def test_a_driver_without_version_1_has_a_shorter_header() -> None:
    bench = Bench(features=MAC)
    bench.driver.request(TRANSMIT, [header()[:10] + frame()])
    assert bench.sent() == [frame()]
    bench.make_room(2000)
    bench.send_in(frame())
    assert bench.received() == [header()[:10] + frame()]


def test_a_chain_of_gigabytes_is_dropped_without_being_read(bench: Bench) -> None:
    ring = bench.driver.queues[TRANSMIT]
    table = bench.driver.memory.allocate(16 * 400)
    entry = [struct.pack("<QIHH", RAM_BASE + (4 << 20), 8 << 20, NEXT, i + 1) for i in range(399)]
    entry.append(struct.pack("<QIHH", RAM_BASE + (4 << 20), 1, 0, 0))
    bench.driver.memory.store(table, b"".join(entry))
    ring.put_descriptor(0, table, 16 * 400, INDIRECT)
    ring.make_available(0)
    bench.driver.kick(TRANSMIT)
    assert ring.used_element(0) == (0, 0)
    assert bench.sent() == []


# ---------------------------------------------------------------- back-pressure


class Narrow(NetBackend):
    """A backend with room for a few frames."""

    mtu = 65520

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.taken: list[bytes] = []
        self.waiting: list[bytes] = []

    def plug(self, plug: Plug) -> None:
        self.card = plug.card

    def ready(self) -> bool:
        return self.room > 0

    def transmit(self, frame: bytes) -> None:
        assert self.room
        self.room -= 1
        self.taken.append(frame)

    def fetch(self) -> bytes | None:
        return self.waiting.pop(0) if self.waiting else None


def test_frames_without_room_outside_wait_in_the_queue() -> None:
    narrow = Narrow(room=2)
    bench = Bench(narrow)
    for seed in range(5):
        bench.driver.submit(TRANSMIT, [header() + frame(seed=seed)])
    bench.driver.kick(TRANSMIT)
    assert len(narrow.taken) == len(bench.driver.completed(TRANSMIT)) == 2
    narrow.room = 2
    narrow.card.look()
    bench.driver.run_deferred()
    assert len(bench.driver.completed(TRANSMIT)) == 2
    bench.driver.kick(TRANSMIT)
    narrow.room = 2
    narrow.card.look()
    bench.driver.run_deferred()
    assert narrow.taken == [frame(seed=seed) for seed in range(5)]
    bench.driver.submit(TRANSMIT, [header() + frame()])
    assert bench.driver.wants_kick(TRANSMIT)


def test_the_guest_has_its_turn_between_many_frames() -> None:
    """A few at a time, in each direction, of which the rest is done after the guest's turn."""
    narrow = Narrow(room=1000)
    bench = Bench(narrow)
    for _ in range(40):
        bench.driver.submit(TRANSMIT, [header() + frame(16_000)])
    bench.driver.write("QueueNotify", TRANSMIT)
    assert len(narrow.taken) == 3
    assert bench.driver.deferred == 1
    bench.driver.run_deferred()
    assert len(narrow.taken) == 40
    bench.make_room(*[16_012] * 40)
    narrow.waiting = [frame(16_000)] * 40
    narrow.card.look()
    assert 40 - len(narrow.waiting) == 3
    bench.driver.run_deferred()
    assert len(bench.received()) == 40


def test_tiny_frames_count_too() -> None:
    narrow = Narrow(room=1000)
    bench = Bench(narrow)
    bench.make_room(*[100] * 100)
    narrow.waiting = [frame()] * 100
    narrow.card.look()
    assert 100 - len(narrow.waiting) == 4


def test_pieces_of_buffers_count_too() -> None:
    """A hostile driver's have a thousand each, which take half a millisecond to look at."""
    narrow = Narrow()
    bench = Bench(narrow)
    table = bench.driver.memory.allocate(16 * 1024)
    piece = [struct.pack("<QIHH", RAM_BASE + (4 << 20) + 4 * i, 2, WRITE | NEXT, i + 1) for i in range(1023)]
    bench.driver.memory.store(table, b"".join(piece) + struct.pack("<QIHH", RAM_BASE, 2, WRITE, 0))
    ring = bench.driver.queues[RECEIVE]
    for _ in range(8):
        ring.put_descriptor(0, table, 16 * 1024, INDIRECT)
        ring.make_available(0)
    narrow.waiting = [frame()] * 8
    narrow.card.look()
    assert len(narrow.waiting) == 7


# ---------------------------------------------------------------- receiving


def test_a_frame_goes_into_the_next_buffer(bench: Bench) -> None:
    bench.make_room(2000, 2000)
    bench.send_in(frame())
    assert bench.received() == [header(buffers=1) + frame()]
    assert bench.driver.ack() == USED_BUFFER
    bench.send_in(frame(1514))
    assert bench.received() == [header(buffers=1) + frame(1514)]
    assert bench.card.stats.received == 2
    assert bench.card.stats.received_bytes == 60 + 1514


def test_frames_without_a_buffer_wait_for_one(bench: Bench) -> None:
    bench.send_in(*(frame(seed=seed) for seed in range(3)))
    for seed in range(3):
        bench.driver.submit(RECEIVE, [], [100])
        assert bench.driver.wants_kick(RECEIVE)
        bench.driver.kick(RECEIVE)
        assert bench.received() == [header(buffers=1) + frame(seed=seed)]
    assert bench.card.stats.lost == 0


def test_a_frame_may_be_scattered(bench: Bench) -> None:
    bench.driver.submit(RECEIVE, [], [1, 20, 3, 0, 100])
    bench.send_in(frame())
    assert bench.received() == [header(buffers=1) + frame()]


@pytest.mark.parametrize("sizes", [[0], [1], [11], [71], [12, 59]])
def test_a_buffer_that_is_too_small_comes_back_empty_and_the_frame_is_lost(bench: Bench, sizes: list[int]) -> None:
    bench.driver.submit(RECEIVE, [], sizes)
    bench.driver.submit(RECEIVE, [], [72])
    bench.driver.kick(RECEIVE)
    bench.send_in(frame(seed=1), frame(seed=2))
    assert bench.received() == [b"", header(buffers=1) + frame(seed=2)]
    assert bench.card.stats.lost == 1


@pytest.mark.parametrize("size", [0, 1, 13, MOST_FRAME + 1, 1 << 20])
def test_what_is_no_frame_is_not_delivered(size: int) -> None:
    narrow = Narrow()
    bench = Bench(narrow)
    bench.make_room(100_000)
    narrow.waiting = [frame(size), frame()]
    narrow.card.look()
    bench.driver.run_deferred()
    assert bench.received() == [header(buffers=1) + frame()]


def test_checksums_of_this_process_need_no_verifying() -> None:
    class Own(Wire):
        verified = True

    bench = Bench(Own())
    bench.make_room(100)
    bench.send_in(frame())
    assert bench.received() == [header(DATA_VALID, buffers=1) + frame()]
    bench = Bench(Own(), features=VERSION_1)
    bench.make_room(100)
    bench.send_in(frame())
    assert bench.received() == [header(buffers=1) + frame()]


def test_what_comes_before_the_driver_starts_waits(bench: Bench) -> None:
    bench.driver.reset()
    bench.send_in(frame())
    bench.driver.start()
    bench.make_room(100)
    assert bench.received() == [header(buffers=1) + frame()]


def test_a_driver_without_a_receive_queue_loses_all(bench: Bench) -> None:
    bench.driver.start(sizes=[0, 16])
    bench.send_in(frame())
    bench.card.look()
    assert bench.card.stats.lost == 1
    bench.driver.request(TRANSMIT, [header() + frame()])
    assert bench.sent() == [frame()]


def test_a_corrupt_ring_asks_for_a_reset(bench: Bench) -> None:
    bench.driver.queues[RECEIVE].set_avail_idx(1000)
    bench.send_in(frame(), frame())
    assert bench.driver.read("Status") & NEEDS_RESET


def test_a_reset_forgets_the_frame_that_waits(bench: Bench) -> None:
    bench.send_in(frame(seed=1))
    bench.card.look()
    bench.driver.start()
    bench.make_room(100)
    bench.send_in(frame(seed=2))
    assert bench.received() == [header(buffers=1) + frame(seed=2)]


# ---------------------------------------------------------------- the cable


def test_without_the_cable_nothing_passes(bench: Bench) -> None:
    bench.make_room(100)
    bench.card.link = False
    assert bench.driver.ack() == CONFIG_CHANGE
    assert bench.driver.config(6, 2) == bytes(2)
    bench.driver.request(TRANSMIT, [header() + frame()])
    bench.send_in(frame())
    assert (bench.sent(), bench.received()) == ([], [])
    assert bench.card.stats.lost == 2
    bench.card.link = True
    assert bench.driver.ack() & CONFIG_CHANGE
    assert bench.driver.config(6, 2) == b"\1\0"
    bench.send_in(frame())
    assert bench.received() == [header(buffers=1) + frame()]


def test_a_driver_that_knows_no_status_is_not_told() -> None:
    bench = Bench(features=VERSION_1)
    bench.card.link = False
    assert bench.driver.ack() == 0


def test_a_cable_that_is_where_it_was_is_no_news(bench: Bench) -> None:
    bench.card.link = True
    assert bench.driver.ack() == 0


def test_the_configuration_is_not_the_drivers(bench: Bench) -> None:
    bench.driver.transport.write(0x100, 4, 0xFFFF_FFFF)
    assert bench.driver.config(0, 6) == MAC_ADDRESS


# ---------------------------------------------------------------- saved and restored


class Life(VirtioLife):
    """See tests/twins.py."""

    def __init__(self) -> None:
        self.wire = Wire(mtu=9000)
        card = NetDevice(self.wire, MAC_ADDRESS)
        super().__init__(card)
        self.wire.plug(Plug(card, lambda message: message(), self.events.clock.now))

    def take_over(self, old: Self) -> None:
        super().take_over(old)
        self.wire._sent, self.wire._received = old.wire._sent, old.wire._received

    def request(self, chance: Random) -> tuple[int, list[bytes], list[int]]:
        if chance.random() < 0.5:
            return RECEIVE, [], [chance.choice([0, 12, 100, 2000])] * chance.choice([1, 1, 2, 5])
        flags = header(chance.choice([0, 0, 1, 255]), 0, chance.choice([0, 14, 90]), chance.choice([0, 2, 90]))
        return TRANSMIT, [flags[: chance.choice([3, 12, 12])], frame(chance.choice([0, 20, 3000]))], []

    def happen(self, chance: Random) -> None:
        device = self.device
        assert isinstance(device, NetDevice)
        if chance.random() < 0.8:
            self.wire.send(frame(chance.choice([14, 60, 1500, 5000]), chance.randrange(100)))
        else:
            device.link = chance.random() < 0.7

    def see(self) -> object:
        return list(self.wire._sent), list(self.wire._received)


@pytest.mark.parametrize("seed", range(3))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed, steps=250)


def test_wrong_states_are_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)


def test_after_a_restore_card_and_backend_look_for_each_other() -> None:
    """The backend of another machine does not know that the guest has waited for room, or for a frame."""
    narrow, room = Narrow(), Narrow(room=8)
    old = Bench(narrow)
    old.driver.submit(TRANSMIT, [header() + frame()])
    old.driver.kick(TRANSMIT)
    new = Bench(room)
    new.events.follow(old.events)
    new.driver.take_over(old.driver)
    new.driver.transport.restore(old.driver.transport.state())
    new.card.restore(old.card.state())
    new.driver.run_deferred()
    assert room.taken == [frame()]


def test_a_frame_with_a_driver_that_has_not_started_is_refused(bench: Bench) -> None:
    state = bench.card.state() | {"frame": frame()}
    bench.driver.reset()
    with pytest.raises(UsageError, match="the snapshot is damaged: a frame"):
        bench.card.restore(state)
