"""The split virtqueue: virtio 1.2 section 2.7, and what hostile drivers do with it."""

import struct
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import UsageError
from devices.virtio import queue as queue_module
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import MAX_INDIRECT_ENTRIES, Chain, ChainState, Queue, QueueLayout, QueueState
from emu.snapshot.plain import decode, encode
from tests.devices.virtio.fake_driver import (
    EVENT_IDX,
    INDIRECT,
    INDIRECT_DESC,
    NEEDS_RESET,
    NEXT,
    RAM_BASE,
    VERSION_1,
    WRITE,
    Driver,
    DriverQueue,
)

SIZE = 8
PLAIN = VERSION_1
INDIRECTLY = VERSION_1 | INDIRECT_DESC
EVENTFUL = VERSION_1 | EVENT_IDX
MMIO_ADDRESS = 0x1000_1000


class IdleDevice(VirtioDevice):
    """A device that does nothing, so that the test itself can pop and push."""

    device_id = 42
    queue_sizes = (SIZE, 1024)
    queues: Sequence[Queue] = ()

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self.queues = queues

    def notify(self, index: int) -> None:
        pass

    def reset(self) -> None:
        pass


class Rig:
    """Both sides of queue 0."""

    def __init__(self, features: int = PLAIN) -> None:
        self.device = IdleDevice()
        self.driver = Driver(self.device)
        self.driver.start(features)
        self.memory = self.driver.memory
        self.queue = self.device.queues[0]
        self.ring: DriverQueue = self.driver.queues[0]

    def pop(self) -> Chain:
        chain = self.queue.pop()
        assert chain is not None
        return chain

    def buffer(self, size: int = 16) -> int:
        return self.memory.allocate(size)

    def is_broken(self) -> bool:
        return bool(self.driver.read("Status") & NEEDS_RESET) and self.queue.pop() is None and not self.queue.running

    def assert_pop_breaks(self) -> None:
        """Check that the queue breaks: nothing is popped or written, and the driver is asked once for a reset."""
        assert self.queue.pop() is None
        assert self.is_broken()
        assert self.driver.ack() == 2
        assert self.queue.pop() is None
        assert self.driver.read("InterruptStatus") == 0
        assert self.memory.written == []


def content(chain: Chain) -> bytes:
    return chain.readable.read(0, len(chain.readable))


# Popping and pushing


def test_nothing_to_pop() -> None:
    rig = Rig()
    assert rig.queue.pop() is None
    assert not rig.is_broken()


@pytest.mark.parametrize("indirect", [False, True])
def test_chain_is_two_ranges_of_bytes_whatever_its_descriptors(indirect: bool) -> None:
    rig = Rig(INDIRECTLY)
    rig.driver.submit(0, [b"ab", b"c", b"defg"], [1, 3, 2], indirect=indirect)
    chain = rig.pop()
    assert len(chain.readable) == 7
    assert len(chain.writable) == 6
    assert content(chain) == b"abcdefg"
    assert chain.readable.read(1, 4) == b"bcde"
    chain.writable.write(0, b"123456")
    rig.queue.push(chain, 6)
    [done] = rig.driver.completed(0)
    assert (done.used_len, done.data) == (6, b"123456")


def test_every_range_of_a_scattered_buffer() -> None:
    rig = Rig()
    data = bytes(range(10))
    token = rig.driver.submit(0, [data[:3], data[3:4], data[4:]], [2, 5, 3])
    chain = rig.pop()
    for start in range(11):
        for end in range(start, 11):
            assert chain.readable.read(start, end - start) == data[start:end]
            chain.writable.write(0, bytes(10))
            chain.writable.write(start, data[start:end])
            written = b"".join(rig.memory.load(address, length) for address, length in token.writable)
            assert written == bytes(start) + data[start:end] + bytes(10 - end)
    rig.driver.check_writes()


def test_partial_write_leaves_the_rest_alone() -> None:
    rig = Rig()
    rig.driver.submit(0, [], [2, 4, 2])
    chain = rig.pop()
    chain.writable.write(1, memoryview(b"xyz"))
    rig.queue.push(chain, 0)
    assert rig.driver.completed(0)[0].data == b"\xaaxyz\xaa\xaa\xaa\xaa"


@pytest.mark.parametrize(("offset", "size"), [(0, 5), (4, 1), (5, 0), (-1, 1), (0, -1), (1 << 64, 1)])
def test_access_beyond_a_buffer_is_a_bug_of_the_device(offset: int, size: int) -> None:
    rig = Rig()
    rig.driver.submit(0, [b"abcd"], [4])
    chain = rig.pop()
    with pytest.raises(ValueError, match="buffer of 4"):
        chain.readable.read(offset, size)
    with pytest.raises(ValueError, match="buffer of 4"):
        chain.writable.write(offset if size >= 0 else -1, bytes(max(size, 0)))
    assert rig.memory.written == []


def test_guest_data_is_read_late() -> None:
    rig = Rig()
    token = rig.driver.submit(0, [b"old"])
    chain = rig.pop()
    rig.memory.store(token.readable[0][0], b"new")
    assert content(chain) == b"new"


def test_chains_come_in_order_and_go_in_any() -> None:
    rig = Rig()
    tokens = [rig.driver.submit(0, [bytes([i])]) for i in range(3)]
    chains = [rig.pop() for _ in tokens]
    assert [content(chain) for chain in chains] == [b"\0", b"\1", b"\2"]
    assert rig.queue.pop() is None
    for i in (2, 0, 1):
        rig.queue.push(chains[i], 0)
    assert [done.token for done in rig.driver.completed(0)] == [tokens[2], tokens[0], tokens[1]]


def test_push_writes_the_element_before_the_index() -> None:
    rig = Rig()
    rig.driver.submit(0, [], [4])
    rig.queue.push(rig.pop(), 4)
    element, index = rig.memory.written
    assert element == (rig.ring.used + 4, 8)
    assert index == (rig.ring.used, 4)
    assert rig.ring.used_flags == 0
    assert rig.ring.used_idx == 1


def test_push_of_more_than_there_was_room_for_is_a_bug_of_the_device() -> None:
    rig = Rig()
    rig.driver.submit(0, [], [4])
    chain = rig.pop()
    with pytest.raises(ValueError, match="5 bytes"):
        rig.queue.push(chain, 5)


def test_indices_wrap_at_16_bits() -> None:
    rig = Rig(EVENTFUL)
    for i in range(0x10000 + SIZE + 1):
        rig.ring.tokens.clear()
        rig.ring.put_descriptor(3, RAM_BASE, 1, WRITE)
        rig.ring.make_available(3)
        rig.queue.push(rig.pop(), i & 1)
        rig.memory.written.clear()
    assert rig.ring.used_idx == SIZE + 1
    assert rig.ring.used_element(0x10000 + SIZE) == (3, 0)
    assert not rig.is_broken()


def test_a_full_queue_can_be_in_flight() -> None:
    rig = Rig()
    for _ in range(SIZE):
        rig.driver.submit(0, [b"x"])
    chains = [rig.pop() for _ in range(SIZE)]
    assert rig.queue.pop() is None
    for chain in chains:
        rig.queue.push(chain, 0)
    assert len(rig.driver.completed(0)) == SIZE
    assert not rig.is_broken()


def test_zero_length_descriptors_are_skipped_wherever_they_point() -> None:
    """CVE-2016-6490, CVE-2014-9718: a lack of progress must not become an endless loop."""
    rig = Rig()
    data, room = rig.buffer(), rig.buffer()
    rig.memory.store(data, b"data")
    rig.ring.put_descriptor(0, 0xFFFF_FFFF_FFFF_FFFF, 0, NEXT, 1)
    rig.ring.put_descriptor(1, data, 4, NEXT, 2)
    rig.ring.put_descriptor(2, 0, 0, NEXT, 3)
    rig.ring.put_descriptor(3, room, 2, NEXT | WRITE, 4)
    rig.ring.put_descriptor(4, MMIO_ADDRESS, 0, WRITE)
    rig.ring.make_available(0)
    chain = rig.pop()
    assert content(chain) == b"data"
    assert len(chain.writable) == 2


def test_descriptors_that_adjoin_are_one_piece_of_memory() -> None:
    rig = Rig()
    data = rig.buffer()
    rig.memory.store(data, b"abcdefgh")
    rig.ring.put_descriptor(0, data, 3, NEXT, 1)
    rig.ring.put_descriptor(1, data + 3, 2, NEXT, 2)
    rig.ring.put_descriptor(2, data + 6, 2, NEXT, 3)
    rig.ring.put_descriptor(3, data + 8, 4, NEXT | WRITE, 4)  # of another direction
    rig.ring.put_descriptor(4, data + 8, 4, WRITE)  # the same again
    rig.ring.make_available(0)
    chain = rig.pop()
    assert chain.readable.segments == [(data, 5), (data + 6, 2)]
    assert chain.writable.segments == [(data + 8, 4), (data + 8, 4)]
    assert content(chain) == b"abcdegh"


def test_chain_of_nothing() -> None:
    rig = Rig()
    rig.ring.put_descriptor(0, 0, 0)
    rig.ring.make_available(0)
    chain = rig.pop()
    assert len(chain.readable) == len(chain.writable) == 0
    assert content(chain) == b""
    chain.writable.write(0, b"")
    rig.queue.push(chain, 0)
    assert rig.ring.used_idx == 1


def test_chain_as_long_as_the_queue() -> None:
    rig = Rig()
    rig.driver.submit(0, [bytes([i]) for i in range(SIZE)])
    assert content(rig.pop()) == bytes(range(SIZE))


# Indirect descriptors


def test_write_flag_of_the_referring_descriptor_is_ignored() -> None:
    rig = Rig(INDIRECTLY)
    token = rig.driver.submit(0, [b"in"], [3], indirect=True)
    assert token.table is not None
    rig.ring.put_descriptor(token.descriptors[0], *token.table, INDIRECT | WRITE)
    chain = rig.pop()
    assert content(chain) == b"in"
    assert len(chain.writable) == 3


def test_direct_descriptors_may_end_in_an_indirect_one() -> None:
    rig = Rig(INDIRECTLY)
    data, table = rig.buffer(), rig.buffer(32)
    rig.memory.store(data, b"0123456789")
    rig.memory.store(table, descriptor(data + 3, 2, NEXT, 1) + descriptor(data, 1, WRITE))
    rig.ring.put_descriptor(5, data, 3, NEXT, 2)
    rig.ring.put_descriptor(2, table, 32, INDIRECT)
    rig.ring.make_available(5)
    chain = rig.pop()
    assert content(chain) == b"01234"
    assert len(chain.writable) == 1


def test_what_a_table_means_is_read_each_time_though_it_is_remembered() -> None:
    rig = Rig(INDIRECTLY)
    table, data = rig.buffer(), rig.buffer()
    rig.ring.put_descriptor(0, table, 16, INDIRECT)
    for offset, flags in ((0, 0), (0, 0), (4, 0), (0, WRITE), (0, 0)):
        rig.memory.store(table, descriptor(data + offset, 8, flags))
        rig.memory.store(data, b"%016d" % rig.ring.avail_idx)
        rig.ring.make_available(0)
        chain = rig.pop()
        assert content(chain) == (b"" if flags else rig.memory.load(data + offset, 8))
        assert len(chain.writable) == (8 if flags else 0)
        rig.queue.push(chain, 0)


def test_few_tables_are_remembered_and_no_long_ones() -> None:
    rig = Rig(INDIRECTLY)
    table = rig.buffer(16 * 64)
    for entries in (1, 8, 64):
        rig.ring.put_descriptor(0, table, 16 * entries, INDIRECT)
        for number in range(1000):
            rest = b"".join(descriptor(table, 1, NEXT, one + 2) for one in range(entries - 2))
            last = descriptor(table, 1)
            rig.memory.store(table, descriptor(table, number, NEXT, 1) + rest + last if entries > 1 else last)
            rig.ring.make_available(0)
            rig.queue.push(rig.pop(), 0)
    assert len(rig.queue._remembered) == 256, "they are forgotten one at a time"
    assert max(map(len, rig.queue._remembered)) <= 128
    rig.driver.reset()
    assert not rig.queue._remembered, "they refer to the queue"


def test_a_queue_that_is_nowhere_is_stopped() -> None:
    for layout in (QueueLayout(SIZE, 0, 0, 0), QueueLayout(SIZE, RAM_BASE, RAM_BASE + 128, RAM_BASE + 1)):
        memory = Rig().memory
        queue = Queue(memory, layout, PLAIN, interrupt=pytest.fail, broken=pytest.fail, later=pytest.fail)
        assert not queue.running
        assert queue.pop() is None
        queue.signal()


def test_indirect_table_may_be_longer_than_the_queue() -> None:
    """Linux builds such tables (virtio-snd with small periods)."""
    rig = Rig(INDIRECTLY)
    rig.driver.submit(0, [bytes([i & 0xFF]) for i in range(300)], indirect=True)
    assert content(rig.pop()) == bytes(i & 0xFF for i in range(300))


def test_longest_indirect_table() -> None:
    rig = Rig(INDIRECTLY)
    put_longest_table(rig, 0)
    assert len(rig.pop().readable) == MAX_INDIRECT_ENTRIES


def put_longest_table(rig: Rig, *heads: int) -> None:
    table = rig.buffer(MAX_INDIRECT_ENTRIES * 16)
    entries = [descriptor(RAM_BASE, 1, NEXT, i + 1) for i in range(MAX_INDIRECT_ENTRIES - 1)]
    rig.memory.store(table, b"".join(entries) + descriptor(RAM_BASE, 1, 0))
    for head in heads:
        rig.ring.put_descriptor(head, table, MAX_INDIRECT_ENTRIES * 16, INDIRECT)
        rig.ring.make_available(head)


def test_what_is_popped_at_once_is_bounded() -> None:
    """Forty such tables in one notification delayed the guest for seconds, and every signal and timeout, too."""
    rig = Rig(INDIRECTLY)
    put_longest_table(rig, *range(SIZE))
    taken = 0
    for turn in range(1, SIZE + 1):
        taken += len(list(rig.queue.pop_all()))
        assert taken == turn
        assert rig.driver.deferred == 1  # once, however often the device is notified meanwhile


def test_short_chains_are_popped_several_at_once() -> None:
    rig = Rig()
    for _ in range(SIZE):
        rig.driver.submit(0, [b"x"])
    assert len(list(rig.queue.pop_all())) == SIZE
    assert not rig.driver.deferred


def test_descriptors_in_flight_are_bounded_and_counted_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a guest makes the host keep a thousand pieces for each entry of a queue."""
    monkeypatch.setattr(queue_module, "MAX_SEGMENTS_IN_FLIGHT", 4 * MAX_INDIRECT_ENTRIES)
    rig = Rig(INDIRECTLY)
    put_longest_table(rig, *range(6))
    chains = [rig.pop() for _ in range(4)]
    rig.queue.push(chains[0], 0)
    rig.pop()
    assert rig.queue.pop() is None
    assert rig.is_broken()


def descriptor(address: int, length: int, flags: int = 0, next_index: int = 0) -> bytes:
    return struct.pack("<QIHH", address, length, flags, next_index)


GOOD = descriptor(RAM_BASE, 4)


@pytest.mark.parametrize(
    ("table", "length"),
    [
        (GOOD, 0),
        (GOOD, 15),
        (GOOD, 17),
        (GOOD, 0xFFFF_FFFF),
        (GOOD, 0xFFFF_FFF0),
        (GOOD, (MAX_INDIRECT_ENTRIES + 1) * 16),
        (descriptor(RAM_BASE, 16, INDIRECT), 16),
        (descriptor(RAM_BASE, 4, NEXT, 0), 16),
        (descriptor(RAM_BASE, 4, NEXT, 1) + descriptor(RAM_BASE, 4, NEXT, 0), 32),
        (descriptor(RAM_BASE, 4, NEXT, 1), 16),
        (descriptor(RAM_BASE, 4, NEXT, 2) + GOOD, 32),
        (descriptor(RAM_BASE, 4, NEXT, 0xFFFF) + GOOD, 32),
        (descriptor(RAM_BASE, 4, NEXT, 1) + descriptor(MMIO_ADDRESS, 4), 32),
        (descriptor(RAM_BASE, 4, NEXT | WRITE, 1) + GOOD, 32),
    ],
    ids=[
        "empty",
        "not a multiple of 16, below",
        "not a multiple of 16, above",
        "4 GiB - 1",
        "4 GiB - 16",
        "more entries than an index can name",
        "nested (infinite recursion)",
        "entry is its own next",
        "two entries in a loop",
        "next is outside a table of one",
        "next is just outside",
        "next is far outside",
        "second entry in MMIO",
        "readable after writable",
    ],
)
def test_bad_indirect_table_breaks_the_queue(table: bytes, length: int) -> None:
    rig = Rig(INDIRECTLY)
    address = rig.buffer(65537 * 16)
    rig.memory.store(address, table)
    rig.ring.put_descriptor(0, address, length, INDIRECT)
    rig.ring.make_available(0)
    rig.assert_pop_breaks()


@pytest.mark.parametrize("address", [MMIO_ADDRESS, RAM_BASE - 16, RAM_BASE + (16 << 20) - 16, 0xFFFF_FFFF_FFFF_FFF0])
def test_indirect_table_outside_ram_breaks_the_queue(address: int) -> None:
    rig = Rig(INDIRECTLY)
    rig.ring.put_descriptor(0, address, 32, INDIRECT)
    rig.ring.make_available(0)
    rig.assert_pop_breaks()


def test_indirect_descriptor_with_a_next_one_breaks_the_queue() -> None:
    rig = Rig(INDIRECTLY)
    table = rig.buffer()
    rig.memory.store(table, GOOD)
    rig.ring.put_descriptor(0, table, 16, INDIRECT | NEXT, 1)
    rig.ring.put_descriptor(1, table, 16)
    rig.ring.make_available(0)
    rig.assert_pop_breaks()


def test_indirect_descriptor_without_the_feature_breaks_the_queue() -> None:
    rig = Rig(PLAIN)
    table = rig.buffer()
    rig.memory.store(table, GOOD)
    rig.ring.put_descriptor(0, table, 16, INDIRECT)
    rig.ring.make_available(0)
    rig.assert_pop_breaks()


# Direct chains and rings that make no sense


@pytest.mark.parametrize(
    "chain",
    [
        [descriptor(RAM_BASE, 4, NEXT, 0)],
        [descriptor(RAM_BASE, 4, NEXT, 1), descriptor(RAM_BASE, 4, NEXT, 0)],
        [descriptor(RAM_BASE, 0, NEXT, 1), descriptor(RAM_BASE, 0, NEXT, 0)],
        [descriptor(RAM_BASE, 4, NEXT, SIZE)],
        [descriptor(RAM_BASE, 4, NEXT, 0xFFFF)],
        [descriptor(RAM_BASE, 4, NEXT | WRITE, 1), descriptor(RAM_BASE, 4)],
        [descriptor(MMIO_ADDRESS, 4)],
        [descriptor(MMIO_ADDRESS, 4, WRITE)],
        [descriptor(RAM_BASE - 1, 1)],
        [descriptor(RAM_BASE - 2, 4)],
        [descriptor(RAM_BASE + (16 << 20), 1)],
        [descriptor(RAM_BASE + (16 << 20) - 3, 4, WRITE)],
        [descriptor(0xFFFF_FFFF_FFFF_FFFF, 1)],
        [descriptor(0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF)],
        [descriptor(RAM_BASE, 0xFFFF_FFFF, WRITE)],
        [descriptor(0, 4)],
    ],
)
def test_bad_chain_breaks_the_queue(chain: Sequence[bytes]) -> None:
    rig = Rig()
    rig.memory.store(rig.ring.descriptors, b"".join(chain))
    rig.ring.make_available(0)
    rig.assert_pop_breaks()


def test_chain_of_more_than_4_gib_breaks_the_queue() -> None:
    """Overlapping descriptors add up to more than the RAM there is; their length would not fit in used.len."""
    rig = Rig(INDIRECTLY)
    table = rig.buffer(512 * 16)
    entries = [descriptor(RAM_BASE, 8 << 20, NEXT | WRITE, i + 1) for i in range(511)]
    for last, breaks in (((8 << 20) - 1, False), (8 << 20, True)):
        rig.memory.store(table, b"".join(entries) + descriptor(RAM_BASE, last, WRITE))
        rig.ring.put_descriptor(0, table, 512 * 16, INDIRECT)
        rig.ring.make_available(0)
        assert (rig.queue.pop() is None) is breaks
    assert rig.is_broken()


@pytest.mark.parametrize("head", [SIZE, 0x7FFF, 0xFFFF])
def test_head_outside_the_table_breaks_the_queue(head: int) -> None:
    rig = Rig()
    rig.ring.make_available(head)
    rig.assert_pop_breaks()


@pytest.mark.parametrize("index", [SIZE + 1, 0x8000, 0xFFFF])
def test_jump_of_the_available_index_breaks_the_queue(index: int) -> None:
    rig = Rig()
    rig.ring.set_avail_idx(index)
    rig.assert_pop_breaks()


def test_available_index_going_back_breaks_the_queue() -> None:
    rig = Rig()
    rig.driver.submit(0, [b"x"])
    rig.driver.submit(0, [b"x"])
    chains = [rig.pop(), rig.pop()]
    rig.ring.set_avail_idx(1)
    rig.assert_pop_breaks()
    assert len(chains) == 2


def test_more_chains_than_entries_break_the_queue() -> None:
    """CVE-2016-5403: what is in flight is bounded, however often a head is made available."""
    rig = Rig()
    rig.ring.put_descriptor(0, RAM_BASE, 4)
    for _ in range(SIZE):
        rig.ring.make_available(0)
        rig.pop()
    rig.ring.make_available(0)
    rig.assert_pop_breaks()


def test_broken_queue_takes_nothing_back_and_leads_nowhere() -> None:
    rig = Rig()
    rig.driver.submit(0, [b"data"], [4])
    chain = rig.pop()
    rig.ring.make_available(SIZE)
    rig.assert_pop_breaks()
    chain.writable.write(0, b"gone")
    rig.queue.push(chain, 4)
    rig.queue.signal()
    assert chain.readable.read(0, 4) == bytes(4)
    assert rig.memory.written == []
    assert rig.driver.read("InterruptStatus") == 0


# Notifications


def pushed(rig: Rig, count: int = 1) -> None:
    """Pass ``count`` chains through the queue, without a signal."""
    for _ in range(count):
        rig.driver.submit(0, [b"x"])
        rig.queue.push(rig.pop(), 0)


def test_one_interrupt_for_all_pushes() -> None:
    rig = Rig()
    pushed(rig, 3)
    assert not rig.driver.irq.level
    rig.queue.signal()
    rig.queue.signal()
    assert rig.driver.irq.edges == 1
    assert rig.driver.ack() == 1
    rig.queue.signal()
    assert not rig.driver.irq.level


def test_no_interrupt_without_used_buffers() -> None:
    """Linux counts those, and eventually gives up on the line."""
    rig = Rig()
    rig.driver.submit(0, [b"x"])
    rig.pop()
    rig.queue.signal()
    assert rig.driver.irq.edges == 0


def test_no_interrupt_flag() -> None:
    rig = Rig()
    rig.ring.set_avail_flags(1)
    pushed(rig)
    rig.queue.signal()
    assert not rig.driver.irq.level
    rig.ring.set_avail_flags(0)
    rig.queue.signal()
    assert not rig.driver.irq.level, "that push was already passed over"
    pushed(rig)
    rig.queue.signal()
    assert rig.driver.irq.level


def test_event_index_overrides_the_flag() -> None:
    rig = Rig(EVENTFUL)
    rig.ring.set_avail_flags(1)
    pushed(rig)
    rig.queue.signal()
    assert rig.driver.irq.level


@pytest.mark.parametrize(
    ("used_event", "pushes", "interrupts"),
    [(0, 1, True), (0, 3, True), (2, 2, False), (2, 3, True), (2, 4, True), (0xFFFF, 4, False)],
)
def test_used_event(used_event: int, pushes: int, interrupts: bool) -> None:
    rig = Rig(EVENTFUL)
    rig.ring.set_used_event(used_event)
    pushed(rig, pushes)
    rig.queue.signal()
    assert rig.driver.irq.level is interrupts


def test_used_event_across_the_wrap() -> None:
    rig = Rig(EVENTFUL)
    rig.ring.set_used_event(0x8000)
    for _ in range(0xFFFE):
        rig.ring.put_descriptor(0, RAM_BASE, 1)
        rig.ring.make_available(0)
        rig.queue.push(rig.pop(), 0)
    rig.queue.signal()
    rig.driver.ack()
    rig.ring.set_used_event(0)
    for expected in (False, False, True, False):
        rig.ring.make_available(0)
        rig.queue.push(rig.pop(), 0)
        rig.queue.signal()
        assert bool(rig.driver.ack()) is expected


def test_every_kick_is_wanted_without_event_index() -> None:
    rig = Rig(PLAIN)
    pushed(rig)
    assert rig.queue.pop() is None
    assert rig.driver.wants_kick(0)
    assert rig.ring.avail_event == 0


def test_kick_is_wanted_once_the_queue_was_empty() -> None:
    rig = Rig(EVENTFUL)
    rig.driver.submit(0, [b"first"])
    assert rig.driver.wants_kick(0)
    rig.driver.submit(0, [b"second"])
    assert not rig.driver.wants_kick(0), "one kick is on its way"
    rig.pop()
    rig.pop()
    assert rig.queue.pop() is None
    assert rig.ring.avail_event == 2
    rig.driver.submit(0, [b"third"])
    assert rig.driver.wants_kick(0)
    rig.driver.check_writes()


def test_kick_is_wanted_after_several() -> None:
    rig = Rig(EVENTFUL)
    assert rig.queue.pop() is None
    rig.queue.kick_after(3)
    for expected in (False, False, True, False):
        rig.driver.submit(0, [b"x"])
        assert rig.driver.wants_kick(0) is expected
    rig.driver.check_writes()


@pytest.mark.parametrize("features", [PLAIN, EVENTFUL])
def test_kick_is_wanted_at_the_latest_when_the_queue_is_full(features: int) -> None:
    rig = Rig(features)
    rig.queue.kick_after(1000)
    for _ in range(SIZE):
        rig.driver.submit(0, [b"x"])
    assert rig.driver.wants_kick(0)
    rig.queue.stop()
    rig.queue.kick_after(1)
    rig.driver.check_writes()


# Saved and restored


def restored(rig: Rig, features: int = PLAIN) -> Queue:
    """A new queue that goes on where the rig's is."""
    layout = QueueLayout(SIZE, rig.ring.descriptors, rig.ring.avail, rig.ring.used)
    queue = Queue(rig.memory, layout, features, interrupt=lambda: None, broken=pytest.fail, later=lambda: None)
    queue.restore(decode(encode(rig.queue.state()), QueueState))
    return queue


def resumed(queue: Queue, chain: Chain) -> Chain:
    return queue.resume_chain(decode(encode(chain.state()), ChainState))


def test_a_restored_queue_goes_on_where_it_was() -> None:
    rig = Rig(EVENTFUL)
    tokens = [rig.driver.submit(0, [b"ab", b"c"], [2, 1]) for _ in range(2)]
    chain = rig.pop()
    queue = restored(rig, EVENTFUL)
    held, new = resumed(queue, chain), queue.pop()
    assert new is not None
    assert content(held) == b"abc"
    held.writable.write(0, b"xyz")
    queue.push(new, 0)
    queue.push(held, 3)
    assert [(done.token, done.used_len) for done in rig.driver.completed(0)] == [(tokens[1], 0), (tokens[0], 3)]
    assert queue.pop() is None
    assert rig.ring.avail_event == 2


def test_a_restored_queue_has_asked_for_a_kick_already() -> None:
    rig = Rig(EVENTFUL)
    rig.driver.submit(0, [b"x"])
    rig.pop()
    assert rig.queue.pop() is None
    queue = restored(rig, EVENTFUL)
    rig.memory.written.clear()
    assert queue.pop() is None
    assert rig.memory.written == []


def test_a_resumed_chain_is_in_flight() -> None:
    rig = Rig()
    rig.ring.put_descriptor(0, RAM_BASE, 4)
    chains = []
    for _ in range(SIZE):
        rig.ring.make_available(0)
        chains.append(rig.pop())
    queue = restored(rig)
    for chain in chains:
        resumed(queue, chain)
    with pytest.raises(UsageError, match="a chain of a queue"):
        resumed(queue, chains[0])


def test_the_chains_of_a_stopped_queue_lead_nowhere() -> None:
    rig = Rig()
    rig.driver.submit(0, [b"data"], [4])
    chain = rig.pop()
    rig.queue.stop()
    queue = restored(rig)
    assert not queue.running
    held = resumed(queue, chain)
    assert content(held) == bytes(4)
    queue.push(held, 4)
    assert rig.memory.written == []


@pytest.mark.parametrize(
    "segments",
    [
        [(MMIO_ADDRESS, 4)],
        [(RAM_BASE - 1, 4)],
        [(RAM_BASE + (16 << 20) - 3, 4)],
        [(0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF)],
        [(RAM_BASE, 4), (RAM_BASE, 0)],
        [(RAM_BASE, 16 << 20)] * 256,
        [(RAM_BASE, 1)] * (queue_module.MAX_SEGMENTS_IN_FLIGHT + 1),
    ],
)
@pytest.mark.parametrize("direction", ["readable", "writable"])
def test_a_chain_that_cannot_be_is_refused(direction: str, segments: list[tuple[int, int]]) -> None:
    state: ChainState = {"head": 0, "readable": [], "writable": []}
    state[direction] = segments
    with pytest.raises(UsageError, match="a chain of a queue"):
        restored(Rig()).resume_chain(state)


def test_an_available_ring_that_cannot_be_is_refused() -> None:
    rig = Rig()
    with pytest.raises(UsageError, match="the available ring of a queue"):
        rig.queue.restore(rig.queue.state() | {"avail_idx": SIZE + 1})


# Anything at all

descriptors = st.tuples(
    st.one_of(
        st.sampled_from([0, RAM_BASE - 1, RAM_BASE + (16 << 20) - 8, MMIO_ADDRESS, 0xFFFF_FFFF_FFFF_FFF8]),
        st.integers(0, 4095).map(lambda offset: RAM_BASE + (8 << 20) + offset),
        # In the indirect table that the test writes, so that tables lead to tables.
        st.integers(0, 15).map(lambda entry: RAM_BASE + (12 << 20) + 16 * entry),
    ),
    st.one_of(st.integers(0, 256), st.sampled_from([16, 32, 256, 0x10000, 0xFFFF_FFF0, 0xFFFF_FFFF])),
    st.integers(0, 7),
    st.one_of(st.integers(0, SIZE), st.integers(0, 0xFFFF)),
)


@settings(max_examples=300, deadline=None)
@given(
    table=st.lists(descriptors, min_size=SIZE, max_size=SIZE),
    indirect=st.lists(descriptors, max_size=16),
    heads=st.lists(st.one_of(st.integers(0, SIZE), st.integers(0, 0xFFFF)), min_size=SIZE, max_size=SIZE),
    avail_idx=st.one_of(st.integers(0, SIZE), st.integers(0, 0xFFFF)),
    used_event=st.integers(0, 0xFFFF),
    features=st.sampled_from([PLAIN, INDIRECTLY, EVENTFUL, INDIRECTLY | EVENT_IDX]),
)
def test_random_rings_are_harmless(
    table: list[tuple[int, int, int, int]],
    indirect: list[tuple[int, int, int, int]],
    heads: list[int],
    avail_idx: int,
    used_event: int,
    features: int,
) -> None:
    """Nothing raises, nothing runs for ever, and only writable descriptors and used rings are written."""
    rig = Rig(features)
    rig.memory.store(rig.ring.descriptors, b"".join(descriptor(*entry) for entry in table))
    rig.memory.store(RAM_BASE + (12 << 20), b"".join(descriptor(*entry) for entry in indirect))
    rig.memory.store(rig.ring.avail + 4, struct.pack(f"<{SIZE}H", *heads))
    rig.ring.set_used_event(used_event)
    rig.ring.set_avail_idx(avail_idx)

    popped = 0
    while (chain := rig.queue.pop()) is not None:
        popped += 1
        room = min(len(chain.writable), 1 << 20)
        content(chain)
        chain.writable.write(0, bytes(room))
        rig.queue.push(chain, room)
        rig.queue.signal()

    assert popped <= SIZE
    assert rig.queue.running or rig.driver.read("Status") & NEEDS_RESET
    writable = [(address, length) for address, length, flags, _ in (*table, *indirect) if flags & WRITE]
    writable.append((rig.ring.used, 6 + 8 * SIZE))
    for address, length in rig.memory.written:
        assert any(start <= address and address + length <= start + size for start, size in writable)
