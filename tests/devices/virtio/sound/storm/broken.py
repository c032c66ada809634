"""Rings that make no sense, after which a device can only ask for a reset."""

import random
import struct

from tests.devices.virtio.fake_driver import INDIRECT, NEXT, RAM_BASE, RAM_SIZE, WRITE, DriverQueue

__all__ = ["break_ring"]

RAM = RAM_BASE + 64
TOP = 1 << 64


def break_ring(rng: random.Random, ring: DriverQueue) -> None:
    """Put something on ``ring``, which has at least two free descriptors."""
    kind = rng.randrange(10)
    if kind == 0:
        ring.make_available(rng.choice([ring.size, 0xFFFF]))
    elif kind == 1:
        ring.set_avail_idx(ring.avail_idx + ring.size + 1)
    else:
        _break_chain(rng, ring)


def _break_chain(rng: random.Random, ring: DriverQueue) -> None:
    one, two = ring.free[-1], ring.free[-2]
    table = ring.memory.allocate(64)
    # Descriptors: address, length, flags, next; and what is in the table, if they lead there.
    chains: list[tuple[list[tuple[int, int, int, int]], bytes]] = [
        ([(rng.choice([0, RAM_BASE - 1, RAM_BASE + RAM_SIZE - 3, TOP >> 1, TOP - 1]), 4, 0, 0)], b""),  # not RAM
        ([(RAM, rng.choice([0x7FFF_FFFF, 0xFFFF_FFFF]), rng.choice([0, WRITE]), 0)], b""),  # not all of it
        ([(RAM, 4, NEXT, rng.choice([ring.size, 0xFFFF]))], b""),  # continues outside
        ([(RAM, 4, NEXT, two), (RAM, 4, NEXT, one)], b""),  # a loop
        ([(RAM, 8, NEXT | WRITE, two), (RAM, 4, 0, 0)], b""),  # readable after writable
        ([(table, rng.choice([0, 8, 17, 1 << 21]), INDIRECT, 0)], b""),  # not the size of a table
        ([(rng.choice([0, TOP - 16]), 16, INDIRECT, 0)], b""),  # not RAM
        ([(table, 16, INDIRECT | NEXT, two)], b""),
        ([(table, 16, INDIRECT, 0)], struct.pack("<QIHH", table, 16, INDIRECT, 0)),
        ([(table, 16, INDIRECT, 0)], struct.pack("<QIHH", RAM, 4, NEXT, 1)),  # continues outside
        ([(table, 32, INDIRECT, 0)], struct.pack("<QIHH", RAM, 4, NEXT, 0) * 2),  # a loop
    ]
    descriptors, in_table = rng.choice(chains)
    ring.memory.store(table, in_table)
    for index, descriptor in zip((one, two), descriptors, strict=False):
        ring.put_descriptor(index, *descriptor)
    ring.make_available(one)
