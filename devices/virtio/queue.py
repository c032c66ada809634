"""The split virtqueue, seen from the device (virtio 1.2 section 2.7).

The driver is assumed hostile: every index, address and length is read once, checked, and used from that copy. A device
sees none of this: it pops a chain, reads and writes two byte ranges, and pushes the chain back. How these ranges were
cut into descriptors, direct or indirect, is invisible (virtio 1.2 section 2.7.4.2).

A ring that makes no sense cannot be answered element by element. It *breaks* the queue: nothing is popped, pushed or
signalled from then on, and the transport is told once, so that it can ask the driver for a reset.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypedDict

from devices.contracts import GuestMemory, OutsideRamError
from devices.state import U16, U32, U64, check

__all__ = [
    "F_EVENT_IDX",
    "F_INDIRECT_DESC",
    "Buffer",
    "Chain",
    "ChainState",
    "Later",
    "Queue",
    "QueueLayout",
    "QueueState",
]

# Feature bits that change what the rings mean (virtio 1.2 section 6).
F_INDIRECT_DESC = 1 << 28
F_EVENT_IDX = 1 << 29

MAX_QUEUE_SIZE = 32768
# Linux uses more than the queue has (despite virtio 1.2 section 2.7.5.3.1), but never more than our largest queue: its
# longest period of sound takes 528 pages. Parsing that many takes half a millisecond; the 65536 that an index can
# address would take 0.4 s.
MAX_INDIRECT_ENTRIES = 1024
#: Pieces of memory in all chains in flight: far more than any driver uses, but no guest decides how much of the host's
#: memory they take.
MAX_SEGMENTS_IN_FLIGHT = 1 << 18
#: How much ``pop_all`` gives a device at once, in descriptors, so that it never delays the guest for long, and how many
#: descriptors a chain itself counts for (a control request of the sound device takes 20 us, a descriptor 0.6).
_AT_ONCE, _CHAIN = 512, 32
#: What so many indirect tables of at most so many bytes meant is remembered: a driver uses the same memory again soon.
_REMEMBERED, _SHORT_TABLE = 256, 128
MAX_CHAIN_BYTES = 0xFFFF_FFFF  # must fit in used.len

_DESCRIPTOR = struct.Struct("<QIHH")  # address, length, flags, next
_DESC_NEXT = 0x1
_DESC_WRITE = 0x2
_DESC_INDIRECT = 0x4

_U16 = struct.Struct("<H")
_USED_HEADER = struct.Struct("<HH")  # flags, idx
_USED_ELEMENT = struct.Struct("<II")  # head of the chain, bytes written
_AVAIL_NO_INTERRUPT = 0x1

# Both rings are flags and idx (2 bytes each), the elements, and one 2-byte event index.
_RING_HEADER = 4
_RING_OVERHEAD = 6


#: Address, length, flags, next.
_Descriptor = tuple[int, int, int, int]


class _CorruptError(Exception):
    """The driver's ring makes no sense; the message says why. Never leaves this module."""


class Later(Protocol):
    """Has a device notified of a queue again."""

    def __call__(self, delay_ns: int = 0) -> None:
        """Do so after the guest has had a turn, and so much of its time; only the earliest of several counts."""
        ...


class QueueLayout(NamedTuple):
    """What the driver configured: the number of entries and the addresses of the three parts of the queue."""

    size: int
    descriptors: int
    driver_area: int
    device_area: int

    def is_usable(self, memory: GuestMemory, max_size: int) -> bool:
        """Whether size and alignment are as virtio 1.2 section 2.7 requires, and all of the queue is in RAM."""
        size = self.size
        return (
            0 < size <= min(max_size, MAX_QUEUE_SIZE)
            and size & (size - 1) == 0
            and self.descriptors % 16 == self.driver_area % 2 == self.device_area % 4 == 0
            and memory.contains(self.descriptors, size * _DESCRIPTOR.size)
            and memory.contains(self.driver_area, size * _U16.size + _RING_OVERHEAD)
            and memory.contains(self.device_area, size * _USED_ELEMENT.size + _RING_OVERHEAD)
        )


class _NoMemory:
    """What a stopped queue sees of the guest, so that chains still held by a device can no longer touch it."""

    def read(self, address: int, size: int) -> bytes:  # noqa: ARG002 (the signature is GuestMemory's)
        return bytes(size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        pass

    def view(self, address: int, size: int) -> memoryview:  # noqa: ARG002
        return memoryview(b"")

    def contains(self, address: int, size: int) -> bool:  # noqa: ARG002
        return False


_NO_MEMORY = _NoMemory()


class Buffer:
    """One direction of a chain: a range of bytes, scattered over guest memory.

    All of it was RAM when the chain was popped, and RAM never moves. Guest data is read when ``read`` is called, so it
    is as recent as the device wants, and may differ between two reads: read once, use the copy.
    """

    __slots__ = ("_ends", "_queue", "_size", "segments")

    def __init__(self, queue: "Queue", segments: list[tuple[int, int]]) -> None:
        self._queue = queue
        #: The pieces that it is made of, (address, length), as large as possible; no length is zero.
        self.segments = segments
        self._ends: list[int] = []
        ends = self._ends
        end = 0
        for _, length in segments:
            end += length
            ends.append(end)
        self._size = end

    def __len__(self) -> int:
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """Copy ``size`` bytes out, from ``offset``; raises ValueError if there are not that many."""
        read, ends = self._queue.memory.read, self._ends
        if ends and 0 <= offset < offset + size <= ends[0]:  # in one piece, as most are
            return read(self.segments[0][0] + offset, size)
        spans = self.segments if not offset and size == self._size else self._spans(offset, size)
        return b"".join([read(*span) for span in spans])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` in, at ``offset``; raises ValueError, writing nothing, if it does not fit."""
        write, ends = self._queue.memory.write, self._ends
        size = len(data)
        if ends and 0 <= offset < offset + size <= ends[0]:
            write(self.segments[0][0] + offset, data)
            return
        view, position = memoryview(data), 0
        for address, length in self.segments if not offset and size == self._size else self._spans(offset, size):
            write(address, view[position : position + length])
            position += length

    def _spans(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Find the pieces of guest memory, (address, length), that make up ``[offset, offset + size)``."""
        end = offset + size
        if offset < 0 or size < 0 or end > self._size:
            raise ValueError(f"{size} bytes at {offset} are not in a buffer of {self._size}")
        spans: list[tuple[int, int]] = []
        ends, segments = self._ends, self.segments
        index = bisect_right(ends, offset) if offset else 0
        while offset < end:
            address, length = segments[index]
            until = ends[index]
            skipped = length - (until - offset)
            taken = (until if until < end else end) - offset
            spans.append((address + skipped, taken))
            offset += taken
            index += 1
        return spans


class ChainState(TypedDict):
    """A chain that a device holds: the segments of its two buffers, (address, length)."""

    head: U16
    readable: list[tuple[U64, U32]]
    writable: list[tuple[U64, U32]]


class Chain:
    """One element of a queue: what the driver has written for the device, and where the device may write."""

    __slots__ = ("head", "readable", "writable")

    def __init__(self, head: int, readable: Buffer, writable: Buffer) -> None:
        self.head = head
        self.readable = readable
        self.writable = writable

    def state(self) -> ChainState:
        """Return what ``Queue.resume_chain`` makes the same chain from."""
        return {
            "head": self.head,
            "readable": self.readable.segments.copy(),
            "writable": self.writable.segments.copy(),
        }


class QueueState(TypedDict):
    """How far driver and device have got with the rings, by the device's account.

    Chains in flight belong to the devices that hold them: they are counted as they are resumed.
    """

    running: bool
    avail_idx: U16
    next_avail: U16
    avail_event_idx: U16
    used_idx: U16
    signalled_idx: U16


class Queue:
    """One split virtqueue, from DRIVER_OK to the next reset.

    ``features`` are the negotiated ones; ``interrupt`` raises a used-buffer notification; ``broken`` is called at most
    once, with the reason, when the driver has corrupted the queue; ``later`` notifies the device of the queue again.
    With a layout that is not usable, it is stopped from the start.
    """

    def __init__(
        self,
        memory: GuestMemory,
        layout: QueueLayout,
        features: int,
        *,
        interrupt: Callable[[], None],
        broken: Callable[[str], None],
        later: Later,
    ) -> None:
        #: Notify the device of this queue again, after the guest has had a turn.
        self.later = later
        self._running = layout.is_usable(memory, MAX_QUEUE_SIZE)
        self.memory = memory if self._running else _NO_MEMORY
        self._size = layout.size
        self._descriptors = self.memory.view(layout.descriptors, _DESCRIPTOR.size * layout.size)
        self._avail = self.memory.view(layout.driver_area, _U16.size * layout.size + _RING_OVERHEAD)
        self._used_event = _RING_HEADER + _U16.size * layout.size  # in that
        self._used = layout.device_area
        self._avail_event = layout.device_area + _RING_HEADER + _USED_ELEMENT.size * layout.size
        self._event_idx = bool(features & F_EVENT_IDX)
        self._indirect = bool(features & F_INDIRECT_DESC)
        self._interrupt = interrupt
        self._broken = broken

        self._in_flight = 0  # chains
        self._segments = 0  # in those chains
        self._remembered: dict[bytes, tuple[Buffer, Buffer]] = {}  # by what is in their indirect table
        self._avail_idx = 0  # the driver's, as last read
        self._next_avail = 0  # the next entry to pop
        self._avail_event_idx = 0  # what the driver reads in avail_event
        self._used_idx = 0
        self._signalled_idx = 0  # _used_idx when signal() last looked

    @property
    def running(self) -> bool:
        """Whether the driver made the queue ready, and nothing has stopped or broken it since."""
        return self._running

    def stop(self) -> None:
        """Let go of the guest for good: the queue stays empty and silent, and its chains' buffers lead nowhere."""
        self._running = False
        self.memory = _NO_MEMORY
        self._remembered.clear()

    def state(self) -> QueueState:
        """Return what ``restore`` makes a new queue of the same layout go on from."""
        return {
            "running": self._running,
            "avail_idx": self._avail_idx,
            "next_avail": self._next_avail,
            "avail_event_idx": self._avail_event_idx,
            "used_idx": self._used_idx,
            "signalled_idx": self._signalled_idx,
        }

    def restore(self, state: QueueState) -> None:
        """Go on from ``state``, in a queue that is new; whoever holds chains resumes them next."""
        if not state["running"]:
            self.stop()
        self._avail_idx = state["avail_idx"]
        self._next_avail = state["next_avail"]
        self._avail_event_idx = state["avail_event_idx"]
        self._used_idx = state["used_idx"]
        self._signalled_idx = state["signalled_idx"]
        pending = (self._avail_idx - self._next_avail) & 0xFFFF
        check(not self._running or pending <= self._size, "the available ring of a queue")

    def resume_chain(self, state: ChainState) -> Chain:
        """Return a chain that a device held when it was saved, in flight as it was then.

        Raises UsageError if it cannot have come from this queue: it must be RAM, and within all limits.
        """
        segments = [*state["readable"], *state["writable"]]
        self._in_flight += 1
        self._segments += len(segments)
        check(
            self._in_flight <= self._size
            and self._segments <= MAX_SEGMENTS_IN_FLIGHT
            and sum(length for _, length in segments) <= MAX_CHAIN_BYTES
            and all(length for _, length in segments)
            # A stopped queue's chains lead nowhere.
            and not (self._running and not all(self.memory.contains(*segment) for segment in segments)),
            "a chain of a queue",
        )
        return Chain(state["head"], Buffer(self, state["readable"].copy()), Buffer(self, state["writable"].copy()))

    def pop(self) -> Chain | None:
        """Take the next chain that the driver made available; None if there is none, or the queue is broken.

        A driver need only kick when it adds to a queue that was found empty, so pop until None: see ``pop_all``.
        """
        if not self._running:
            return None
        try:
            head = self._take_head()
            return None if head is None else self._chain(head)
        except _CorruptError as error:
            self.stop()
            self._broken(str(error))
            return None

    def pop_all(self) -> Iterator[Chain]:
        """Take the chains that the driver made available, each after the previous one has been dealt with.

        After some of them the rest is left for ``later``: a full queue of the longest chains would delay the guest for
        seconds, and a hostile driver's may never end, since what a device writes can land on the ring and refill it.
        """
        left = _AT_ONCE
        while left > 0:
            chain = self.pop()
            if chain is None:
                return
            left -= _CHAIN + len(chain.readable.segments) + len(chain.writable.segments)
            yield chain
        self.later()

    def kick_after(self, count: int) -> None:
        """Have the driver kick only when it has made ``count`` more chains available, where it can be told so."""
        if self._running and self._event_idx:
            self._set_avail_event((self._next_avail + min(count, self._size) - 1) & 0xFFFF)

    def push(self, chain: Chain, written: int) -> None:
        """Return ``chain``, with the first ``written`` bytes of its writable part filled; does not interrupt."""
        if not 0 <= written <= len(chain.writable):
            raise ValueError(f"{written} bytes cannot have been written to a buffer of {len(chain.writable)}")
        memory = self.memory
        slot = self._used_idx & (self._size - 1)
        memory.write(self._used + _RING_HEADER + _USED_ELEMENT.size * slot, _USED_ELEMENT.pack(chain.head, written))
        self._used_idx = (self._used_idx + 1) & 0xFFFF
        self._in_flight -= 1
        self._segments -= len(chain.readable.segments) + len(chain.writable.segments)
        # The element must be in place before idx announces it. used.flags stay 0: every kick is welcome.
        memory.write(self._used, _USED_HEADER.pack(0, self._used_idx))

    def signal(self) -> None:
        """Interrupt the driver once for everything pushed since the last call, if it wants to know."""
        new, old = self._used_idx, self._signalled_idx
        if new == old or not self._running:
            return
        self._signalled_idx = new
        if self._event_idx:
            # Has idx just moved past used_event (virtio 1.2 section 2.7.10)?
            (event,) = _U16.unpack_from(self._avail, self._used_event)
            wanted = (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
        else:
            (flags,) = _U16.unpack_from(self._avail)
            wanted = not flags & _AVAIL_NO_INTERRUPT
        if wanted:
            self._interrupt()

    def _take_head(self) -> int | None:
        """Take the head index of the next available chain; None if there is none."""
        position = self._next_avail
        if position == self._avail_idx:
            (self._avail_idx,) = _U16.unpack_from(self._avail, 2)
            pending = (self._avail_idx - position) & 0xFFFF
            if pending > self._size:
                raise _CorruptError(f"avail.idx is {pending} ahead in a queue of {self._size}")
            if not pending:
                self._ask_for_kick()
                return None
        if self._in_flight == self._size:
            # More elements than descriptors means that some are used twice (CVE-2016-5403).
            raise _CorruptError("more chains in flight than the queue has entries")
        head: int
        (head,) = _U16.unpack_from(self._avail, _RING_HEADER + _U16.size * (position & (self._size - 1)))
        self._next_avail = (position + 1) & 0xFFFF
        self._in_flight += 1
        return head

    def _ask_for_kick(self) -> None:
        """Set avail_event so that the driver kicks for the next chain (virtio 1.2 section 2.7.7)."""
        if self._event_idx and self._avail_event_idx != self._next_avail:
            self._set_avail_event(self._next_avail)

    def _set_avail_event(self, index: int) -> None:
        self._avail_event_idx = index
        self.memory.write(self._avail_event, _U16.pack(index))

    def _chain(self, head: int) -> Chain:
        descriptors, table = self._descriptors_from(head)
        if descriptors:
            readable, writable = self._buffers(descriptors + _descriptors_in(table) if table else descriptors)
        else:
            readable, writable = self._remembered.get(table) or self._buffers_of(table)
        self._segments += len(readable.segments) + len(writable.segments)
        if self._segments > MAX_SEGMENTS_IN_FLIGHT:
            raise _CorruptError(f"more than {MAX_SEGMENTS_IN_FLIGHT} descriptors in flight")
        return Chain(head, readable, writable)

    def _buffers_of(self, table: bytes) -> tuple[Buffer, Buffer]:
        """Find what an indirect table means, and remember it."""
        buffers = self._buffers(_descriptors_in(table))
        if len(table) <= _SHORT_TABLE:
            if len(self._remembered) == _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]  # one at a time: to free all takes 0.5 ms
            self._remembered[table] = buffers
        return buffers

    def _buffers(self, descriptors: list[_Descriptor]) -> tuple[Buffer, Buffer]:
        """Find the pieces of memory that a device may read, and those that it may write."""
        readable: list[tuple[int, int]] = []
        writable: list[tuple[int, int]] = []
        contains = self.memory.contains
        total = 0
        for address, length, flags, _ in descriptors:
            if flags & _DESC_WRITE:
                segments = writable
            elif writable:
                raise _CorruptError("a readable descriptor follows a writable one")
            else:
                segments = readable
            if not length:
                continue  # pointless but harmless, wherever it points
            if not contains(address, length):
                raise _CorruptError(f"{length} bytes at {address:#x} are not RAM")
            total += length
            if total > MAX_CHAIN_BYTES:
                raise _CorruptError("a chain is longer than 4 GiB")
            if segments and segments[-1][0] + segments[-1][1] == address:  # as the pages of a file often are
                segments[-1] = (segments[-1][0], segments[-1][1] + length)
            else:
                segments.append((address, length))
        return Buffer(self, readable), Buffer(self, writable)

    def _descriptors_from(self, index: int) -> tuple[list[_Descriptor], bytes]:
        """Follow a chain of descriptors; return them, and the indirect table that it may end in."""
        table, unpack = self._descriptors, _DESCRIPTOR.unpack_from
        found: list[_Descriptor] = []
        for _ in range(self._size):  # a longer chain is a loop
            if index >= self._size:
                raise _CorruptError(f"there is no descriptor {index} in a table of {self._size}")
            descriptor: _Descriptor = unpack(table, _DESCRIPTOR.size * index)
            address, length, flags, index = descriptor
            if flags & _DESC_INDIRECT:
                if not self._indirect or flags & _DESC_NEXT:
                    raise _CorruptError("an indirect descriptor was not negotiated, or has a next one")
                return found, self._indirect_table(address, length)
            found.append(descriptor)
            if not flags & _DESC_NEXT:
                return found, b""
        raise _CorruptError("a descriptor chain is a loop")

    def _indirect_table(self, address: int, length: int) -> bytes:
        if length % _DESCRIPTOR.size or not 0 < length <= MAX_INDIRECT_ENTRIES * _DESCRIPTOR.size:
            raise _CorruptError(f"an indirect table has {length} bytes")
        try:
            return self.memory.read(address, length)
        except OutsideRamError:
            raise _CorruptError(f"an indirect table at {address:#x} is not RAM") from None


def _descriptors_in(indirect: bytes) -> list[_Descriptor]:
    """Follow the chain in an indirect table (virtio 1.2 section 2.7.5.3)."""
    table: list[_Descriptor] = list(_DESCRIPTOR.iter_unpack(indirect))
    found: list[_Descriptor] = []
    index = 0
    for _ in table:
        if index >= len(table):
            raise _CorruptError(f"there is no descriptor {index} in an indirect table of {len(table)}")
        descriptor = table[index]
        flags, index = descriptor[2], descriptor[3]
        if flags & _DESC_INDIRECT:
            raise _CorruptError("an indirect table has an indirect descriptor")
        found.append(descriptor)
        if not flags & _DESC_NEXT:
            return found
    raise _CorruptError("an indirect descriptor chain is a loop")
