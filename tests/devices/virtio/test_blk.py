"""The virtio block device: virtio 1.2 section 5.2."""

import errno
import os
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import PyemuError, UsageError
from devices.virtio.aside import Aside, at_once
from devices.virtio.blk import AT_ONCE, LEAST, BlockDevice
from devices.virtio.device import VirtioDevice
from devices.virtio.disk import open_disk
from emu.trace.between import watch_device, watch_queue
from tests.devices.virtio.fake_driver import (
    EVENT_IDX,
    INDIRECT,
    NEEDS_RESET,
    NEXT,
    RAM_BASE,
    VERSION_1,
    WRITE,
    Completed,
    Driver,
)
from tests.devices.virtio.life import VirtioLife
from tests.fakes import Elsewhere
from tests.twins import live_through_snapshots, live_with_wrong_states

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
SIZE_MAX, SEG_MAX, RO, BLK_SIZE, F_FLUSH, F_DISCARD, F_WRITE_ZEROES = (1 << bit for bit in (1, 2, 5, 6, 9, 13, 14))

SECTORS = 64
CONTENT = b"".join(bytes([sector]) * 512 for sector in range(SECTORS))


class RecordingDisk:
    """A disk in memory that records the requests to it, in order, and can be made to fail."""

    warning = None

    def __init__(self, content: bytes = CONTENT, *, read_only: bool = False) -> None:
        self.content = bytearray(content)
        self.size = len(content)
        self.read_only = read_only
        self.log: list[tuple[str, int, int]] = []
        self.error: OSError | None = None
        self.cold = False  # nothing of it is in the host's cache

    def _record(self, what: str, offset: int = 0, size: int = 0) -> None:
        assert 0 <= offset <= offset + size <= self.size
        if self.error is not None:
            raise self.error
        self.log.append((what, offset, size))

    def read(self, offset: int, size: int) -> bytes:
        self._record("read", offset, size)
        return bytes(self.content[offset : offset + size])

    def read_cached(self, offset: int, size: int) -> bytes | None:
        return None if self.cold else self.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        assert not self.read_only
        self._record("write", offset, len(data))
        self.content[offset : offset + len(data)] = data

    def flush(self) -> None:
        self._record("flush")

    def discard(self, offset: int, size: int) -> None:
        self._record("discard", offset, size)

    def write_zeroes(self, offset: int, size: int, *, may_unmap: bool) -> None:
        self._record("unmap" if may_unmap else "zero", offset, size)
        self.content[offset : offset + size] = bytes(size)

    def close(self) -> None:
        self._record("close")


class Rig:
    """A block device with a driver, negotiated."""

    def __init__(
        self,
        disk: RecordingDisk | None = None,
        features: int | None = None,
        aside: Aside = at_once,
        fetch: Aside | None = None,
    ) -> None:
        self.disk = disk if disk is not None else RecordingDisk()
        self.driver = Driver(BlockDevice(self.disk, serial="a-serial", aside=aside, fetch=fetch))
        self.driver.start(features)

    def request(self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> tuple[int, bytes, int]:
        """Carry out one request in the usual layout; returns status, data and used length."""
        done = self.driver.request(0, [header(kind, sector), data], [room, 1])
        return done.data[-1], done.data[:-1], done.used_len

    def read(self, sector: int, sectors: int) -> bytes:
        status, data, used_len = self.request(IN, sector, room=512 * sectors)
        assert (status, used_len) == (OK, len(data) + 1)
        return data

    def assert_untouched(self) -> None:
        assert self.disk.log == []
        assert self.disk.content == CONTENT


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


def segments(*entries: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<QII", *entry) for entry in entries)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def read_only() -> Rig:
    return Rig(RecordingDisk(read_only=True))


# Features and configuration


def test_features(rig: Rig, read_only: Rig) -> None:
    assert rig.driver.read("DeviceID") == 2
    assert rig.driver.device.features == SIZE_MAX | SEG_MAX | BLK_SIZE | F_FLUSH | F_DISCARD | F_WRITE_ZEROES
    assert read_only.driver.device.features == SIZE_MAX | SEG_MAX | RO | BLK_SIZE | F_FLUSH


def test_config_layout(rig: Rig) -> None:
    config = rig.driver.config(0, 60)

    def u32(offset: int) -> int:
        return int.from_bytes(config[offset : offset + 4], "little")

    assert int.from_bytes(config[:8], "little") == SECTORS
    assert u32(8) == 256 << 10  # size_max
    assert u32(12) == 254  # seg_max: the queue except header and status
    assert config[16:20] == bytes(4)  # geometry
    assert u32(20) == 512  # blk_size
    assert config[24:36] == bytes(12)  # topology, writeback, num_queues
    assert u32(36) == 1 << 21  # max_discard_sectors
    assert u32(40) == 32  # max_discard_seg
    assert u32(44) == 8  # discard_sector_alignment
    assert u32(48) == 1 << 15  # max_write_zeroes_sectors
    assert u32(52) == 1  # max_write_zeroes_seg
    assert config[56:60] == b"\1\0\0\0"  # write_zeroes_may_unmap


def test_config_is_read_only(rig: Rig) -> None:
    before = rig.driver.config(0, 60)
    for offset in range(0, 60, 4):
        rig.driver.transport.write(0x100 + offset, 4, 0xFFFF_FFFF)
    assert rig.driver.config(0, 60) == before


# Reading and writing


def test_read(rig: Rig) -> None:
    assert rig.read(0, 1) == CONTENT[:512]
    assert rig.read(5, 3) == CONTENT[5 * 512 : 8 * 512]
    assert rig.read(0, SECTORS) == CONTENT
    assert rig.read(SECTORS - 1, 1) == CONTENT[-512:]


def test_write(rig: Rig) -> None:
    assert rig.request(OUT, 3, b"\xee" * 1024) == (OK, b"", 1)
    assert rig.disk.content == CONTENT[: 3 * 512] + b"\xee" * 1024 + CONTENT[5 * 512 :]
    assert rig.read(3, 2) == b"\xee" * 1024


@pytest.mark.parametrize("kind", [IN, OUT])
def test_transfer_of_nothing(rig: Rig, kind: int) -> None:
    assert rig.request(kind, 0) == (OK, b"", 1)


@pytest.mark.parametrize(
    ("sector", "size"),
    [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (0, 512 * SECTORS + 512),
        (1, 512 * SECTORS),
        (1 << 55, 512),
        ((1 << 64) - 1, 512),
        ((1 << 64) - 1, 1024),
        (1 << 63, 512),
        (SECTORS + 1, 0),
        (0, 1),
        (0, 511),
        (0, 513),
    ],
)
@pytest.mark.parametrize("kind", [IN, OUT])
def test_range_is_checked_at_both_ends(rig: Rig, kind: int, sector: int, size: int) -> None:
    data, room = (b"", size) if kind == IN else (bytes(size), 0)
    status, answer, used_len = rig.request(kind, sector, data, room)
    assert status == IOERR
    assert answer == b"\xaa" * room, "nothing but the status is written"
    assert used_len == (0 if room else 1)
    rig.assert_untouched()


@pytest.mark.parametrize("cut", range(17))
@pytest.mark.parametrize("indirect", [False, True])
def test_header_split_at_any_byte(rig: Rig, cut: int, indirect: bool) -> None:
    readable = header(OUT, 7) + b"\x77" * 512
    done = rig.driver.request(0, [readable[:cut], readable[cut:]], [1], indirect=indirect)
    assert (done.data, done.used_len) == (b"\0", 1)
    assert rig.disk.content[7 * 512 : 8 * 512] == b"\x77" * 512


def test_every_byte_in_its_own_descriptor(rig: Rig) -> None:
    readable = [bytes([byte]) for byte in header(IN, 9)]
    done = rig.driver.request(0, readable, [1] * 513, indirect=True)
    assert done.data == b"\x09" * 512 + b"\0"


@pytest.mark.parametrize("writable", [[513], [512, 1], [1, 512], [100, 412, 1], [511, 2], [0, 513, 0]])
def test_status_is_the_last_writable_byte_wherever_it_is(rig: Rig, writable: list[int]) -> None:
    done = rig.driver.request(0, [header(IN, 1)], writable)
    assert done.data == b"\x01" * 512 + b"\0"
    assert done.used_len == 513


def test_big_transfers_go_in_bounded_chunks() -> None:
    size = (2 << 20) + 512
    rig = Rig(RecordingDisk(bytes(size)))
    payload = bytes(range(256)) * (size // 256)
    assert rig.request(OUT, 0, payload)[0] == OK
    assert rig.request(IN, 0, room=size)[1] == payload
    sizes = [chunk for what, _, chunk in rig.disk.log if what != "flush"]
    assert sizes == [*([64 << 10] * 32), 512] * 2


def test_the_guest_has_its_turn_between_the_pieces_of_a_big_transfer() -> None:
    rig = Rig(RecordingDisk(bytes(1 << 20)))
    rig.driver.submit(0, [header(IN)], [1 << 20, 1])
    rig.driver.submit(0, [header(FLUSH)], [1])
    rig.driver.write("QueueNotify", 0)
    for turn in range(1, 17):
        assert rig.disk.log[-1][2] <= AT_ONCE
        assert len(rig.disk.log) == turn
        assert rig.driver.completed(0) == []
        rig.driver.events.run_one()
    rig.driver.run_deferred()
    assert [done.data[-1] for done in rig.driver.completed(0)] == [OK, OK]
    assert rig.disk.log[-1][0] == "flush"


def test_a_reset_ends_the_request_under_way() -> None:
    rig = Rig(RecordingDisk(bytes(1 << 20)))
    rig.driver.submit(0, [header(IN)], [1 << 20, 1])
    rig.driver.write("QueueNotify", 0)
    done = len(rig.disk.log)
    rig.driver.reset()
    rig.driver.run_deferred()
    assert len(rig.disk.log) == done < 16
    rig.driver.memory.written.clear()
    rig.driver.start()
    assert rig.request(IN, 0, room=512)[0] == OK


def test_request_beyond_the_limits_is_refused() -> None:
    """Overlapping descriptors ask for 4 GiB at once; the disk has them, but reading them would take for ever."""
    disk = RecordingDisk()
    disk.size = 1 << 40
    rig = Rig(disk)
    memory, ring = rig.driver.memory, rig.driver.queues[0]
    readable, table = memory.allocate(16), memory.allocate(16 * 513)
    memory.store(readable, header(IN))
    chain = [struct.pack("<QIHH", readable, 16, NEXT, 1)]
    chain += [struct.pack("<QIHH", RAM_BASE + (4 << 20), 8 << 20, WRITE | NEXT, i + 1) for i in range(1, 512)]
    chain += [struct.pack("<QIHH", RAM_BASE + (4 << 20), 1, WRITE, 0)]
    memory.store(table, b"".join(chain))
    ring.put_descriptor(0, table, 16 * 513, INDIRECT)
    ring.make_available(0)
    rig.driver.kick(0)
    assert memory.load(RAM_BASE + (4 << 20), 1) == bytes([IOERR])
    assert ring.used_element(0) == (0, 0)
    assert disk.log == []


# Requests that make no sense


@pytest.mark.parametrize("size", [0, 1, 15])
def test_short_header(rig: Rig, size: int) -> None:
    done = rig.driver.request(0, [header(OUT)[:size]], [1])
    assert done.data == bytes([IOERR])
    rig.assert_untouched()


@pytest.mark.parametrize("kind", [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 99])
def test_no_room_for_a_status(rig: Rig, kind: int) -> None:
    done = rig.driver.request(0, [header(kind), bytes(512)])
    assert done.used_len == 0
    rig.assert_untouched()
    assert rig.read(0, 1) == CONTENT[:512]


def test_chain_of_nothing(rig: Rig) -> None:
    assert rig.driver.request(0, [b""], [0]).used_len == 0


@pytest.mark.parametrize("kind", [2, 3, 5, 7, 10, 14, 0x8000_0000, 0xFFFF_FFFF])
def test_unknown_type(rig: Rig, kind: int) -> None:
    """SCSI pass-through (2) among them (CVE-2026-48914)."""
    assert rig.request(kind, 0, bytes(512))[0] == UNSUPP
    assert rig.request(kind, 0, room=512)[:2] == (UNSUPP, b"\xaa" * 512)
    rig.assert_untouched()


def test_error_does_not_stop_the_requests_behind_it(rig: Rig) -> None:
    rig.driver.submit(0, [header(IN, SECTORS)], [512, 1])
    rig.driver.submit(0, [header(IN, 2)], [512, 1])
    rig.driver.kick(0)
    first, second = rig.driver.completed(0)
    assert first.data[-1] == IOERR
    assert second.data == b"\x02" * 512 + b"\0"
    assert rig.driver.irq.edges == 1


def test_corrupt_ring_asks_for_a_reset(rig: Rig) -> None:
    rig.driver.queues[0].make_available(0xFFFF)
    rig.driver.kick(0)
    assert rig.driver.read("Status") & NEEDS_RESET
    rig.driver.start()
    assert rig.read(0, 1) == CONTENT[:512]


# Errors of the host


@pytest.mark.parametrize(("kind", "data", "room"), [(IN, b"", 512), (OUT, bytes(512), 0), (FLUSH, b"", 0)])
def test_host_error_is_answered(rig: Rig, kind: int, data: bytes, room: int) -> None:
    rig.disk.error = OSError(errno.EIO, "Input/output error")
    status, answer, used_len = rig.request(kind, 0, data, room)
    assert (status, answer) == (IOERR, b"\xaa" * room)
    assert used_len == (0 if room else 1)
    rig.disk.error = None
    assert rig.read(0, 1) == CONTENT[:512]


def test_image_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    disk = open_disk(path)
    driver = Driver(BlockDevice(disk))
    driver.start()
    os.truncate(path, 512)
    statuses = [driver.request(0, [header(IN, sector)], [512, 1]).data[-1] for sector in (0, 1)]
    assert statuses == [OK, IOERR]
    disk.close()


def test_any_size_of_image_up_to_the_last_whole_sector(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT[: 5 * 512 + 17])
    disk = open_disk(path)
    driver = Driver(BlockDevice(disk))
    driver.start()
    assert driver.config(0, 8) == (5).to_bytes(8, "little")
    assert driver.request(0, [header(IN, 4)], [512, 1]).data == b"\x04" * 512 + b"\0"
    assert driver.request(0, [header(IN, 5)], [512, 1]).data[-1] == IOERR
    assert driver.request(0, [header(OUT, 5), bytes(512)], [1]).data[-1] == IOERR
    disk.close()
    assert path.stat().st_size == 5 * 512 + 17


# Flush


def test_flush_comes_after_the_writes_before_it(rig: Rig) -> None:
    rig.driver.submit(0, [header(OUT, 0), bytes(512)], [1])
    rig.driver.submit(0, [header(FLUSH)], [1])
    rig.driver.submit(0, [header(OUT, 1), bytes(512)], [1])
    rig.driver.kick(0)
    assert [done.data for done in rig.driver.completed(0)] == [b"\0"] * 3
    assert [entry[0] for entry in rig.disk.log] == ["write", "flush", "write"]


def test_write_through_unless_flush_was_negotiated() -> None:
    rig = Rig(features=VERSION_1 | EVENT_IDX | F_WRITE_ZEROES)
    assert rig.request(OUT, 0, bytes(512))[0] == OK
    assert rig.request(WRITE_ZEROES, 0, segments((1, 1, 0)))[0] == OK
    assert [entry[0] for entry in rig.disk.log] == ["write", "flush", "zero", "flush"]


def test_failed_write_through_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    disk = open_disk(path, read_only=False)
    driver = Driver(BlockDevice(disk))
    driver.start(VERSION_1)

    def fdatasync(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fdatasync)
        assert driver.request(0, [header(OUT), bytes(512)], [1]).data[-1] == IOERR
    assert driver.request(0, [header(OUT), bytes(512)], [1]).data[-1] == IOERR
    with pytest.raises(PyemuError):
        disk.close()


# Flushing on another thread


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def slow(elsewhere: Elsewhere) -> Rig:
    """A device whose disk is slow to flush."""
    return Rig(aside=elsewhere)


def statuses(rig: Rig) -> list[int]:
    return [done.data[-1] for done in rig.driver.completed(0)]


def test_the_disk_goes_on_while_it_is_flushed(slow: Rig, elsewhere: Elsewhere) -> None:
    slow.driver.submit(0, [header(FLUSH)], [1])
    slow.driver.kick(0)
    assert slow.request(OUT, 0, b"x" * 512)[0] == OK
    assert slow.read(0, 1) == b"x" * 512
    slow.driver.ack()
    elsewhere.finish()
    assert statuses(slow) == [OK]
    assert slow.driver.ack()
    assert [entry[0] for entry in slow.disk.log] == ["write", "read", "flush"]


def test_flushes_wait_for_the_one_under_way_and_share_the_next(slow: Rig, elsewhere: Elsewhere) -> None:
    for sector in range(4):
        slow.driver.submit(0, [header(OUT, sector), bytes(512)], [1])
        slow.driver.submit(0, [header(FLUSH)], [1])
    slow.driver.kick(0)
    assert statuses(slow) == [OK] * 4
    assert len(elsewhere.given) == 1
    elsewhere.finish()
    assert statuses(slow) == [OK]
    assert len(elsewhere.given) == 1
    elsewhere.finish()
    assert statuses(slow) == [OK] * 3
    assert not elsewhere.given


def test_a_flush_that_fails_fails_for_all_that_share_it(slow: Rig, elsewhere: Elsewhere) -> None:
    for _ in range(3):
        slow.driver.submit(0, [header(FLUSH)], [1])
    slow.driver.kick(0)
    elsewhere.finish()
    slow.disk.error = OSError(errno.EIO, "Input/output error")
    elsewhere.finish()
    assert statuses(slow) == [OK, IOERR, IOERR]


def test_written_through_means_flushed(elsewhere: Elsewhere) -> None:
    slow = Rig(features=VERSION_1 | EVENT_IDX | F_WRITE_ZEROES, aside=elsewhere)
    slow.driver.submit(0, [header(OUT), bytes(512)], [1])
    slow.driver.submit(0, [header(WRITE_ZEROES), segments((1, 1, 0))], [1])
    slow.driver.kick(0)
    assert statuses(slow) == []
    elsewhere.finish()
    assert statuses(slow) == [OK]
    elsewhere.finish()
    assert statuses(slow) == [OK]


def test_a_reset_forgets_who_waits_for_a_flush(slow: Rig, elsewhere: Elsewhere) -> None:
    for _ in range(2):
        slow.driver.submit(0, [header(FLUSH)], [1])
    slow.driver.kick(0)
    slow.driver.reset()
    slow.driver.memory.written.clear()
    elsewhere.finish()
    assert not elsewhere.given
    assert not slow.driver.memory.written


def test_resets_pile_up_no_flushes(slow: Rig, elsewhere: Elsewhere) -> None:
    for _ in range(3):
        slow.driver.submit(0, [header(FLUSH)], [1])
        slow.driver.kick(0)
        slow.driver.reset()
        slow.driver.memory.written.clear()
        slow.driver.start()
    slow.driver.submit(0, [header(FLUSH)], [1])
    slow.driver.kick(0)
    assert len(elsewhere.given) == 1
    elsewhere.finish()
    assert statuses(slow) == []
    elsewhere.finish()
    assert statuses(slow) == [OK]


# Reading on another thread what is not in the host's cache


@pytest.fixture
def cold(elsewhere: Elsewhere) -> Rig:
    """A device whose disk has to be asked for everything."""
    rig = Rig(RecordingDisk(CONTENT * 8), fetch=elsewhere)
    rig.disk.cold = True
    return rig


def test_the_guest_goes_on_while_a_piece_is_fetched(cold: Rig, elsewhere: Elsewhere) -> None:
    size = 2 * AT_ONCE + 512
    cold.driver.submit(0, [header(IN, 1)], [size, 1])
    cold.driver.submit(0, [header(OUT, 0), b"x" * 512], [1])
    for _ in range(3):
        cold.driver.kick(0)
        cold.driver.run_deferred()
        assert statuses(cold) == []
        assert len(elsewhere.given) == 1
        elsewhere.finish()
    cold.driver.run_deferred()
    first, second = cold.driver.completed(0)
    assert first.data == (CONTENT * 8)[512 : 512 + size] + bytes((OK,))
    assert second.data == bytes((OK,))
    assert [what for what, _, _ in cold.disk.log] == ["read", "read", "read", "write"]


def test_what_is_cached_is_read_at_once(cold: Rig, elsewhere: Elsewhere) -> None:
    cold.disk.cold = False
    assert cold.read(3, 2) == CONTENT[3 * 512 : 5 * 512]
    assert not elsewhere.given


def test_a_cache_that_cannot_be_read(cold: Rig, elsewhere: Elsewhere) -> None:
    cold.disk.cold, cold.disk.error = False, OSError(errno.EIO, "Input/output error")
    assert cold.request(IN, 3, room=512)[0] == IOERR
    assert not elsewhere.given


def test_a_piece_that_cannot_be_fetched(cold: Rig, elsewhere: Elsewhere) -> None:
    cold.driver.submit(0, [header(IN)], [2 * AT_ONCE, 1])
    cold.driver.kick(0)
    cold.disk.error = OSError(errno.EIO, "Input/output error")
    elsewhere.finish()
    cold.driver.run_deferred()
    assert statuses(cold) == [IOERR]
    assert not elsewhere.given


def test_resets_pile_up_no_reads(cold: Rig, elsewhere: Elsewhere) -> None:
    for sector in range(3):
        cold.driver.reset()
        cold.driver.memory.written.clear()
        cold.driver.start()
        cold.driver.submit(0, [header(IN, sector)], [512, 1])
        cold.driver.kick(0)
        assert len(elsewhere.given) == 1
    elsewhere.finish()
    cold.driver.run_deferred()
    assert statuses(cold) == []
    elsewhere.finish()
    cold.driver.run_deferred()
    (done,) = cold.driver.completed(0)
    assert done.data == CONTENT[1024:1536] + bytes((OK,))


def test_a_reset_forgets_what_is_fetched(cold: Rig, elsewhere: Elsewhere) -> None:
    cold.driver.submit(0, [header(IN)], [512, 1])
    cold.driver.kick(0)
    cold.driver.reset()
    cold.driver.memory.written.clear()
    elsewhere.finish()
    cold.driver.run_deferred()
    assert not cold.driver.memory.written


@pytest.mark.parametrize("there", [False, True])
def test_what_is_being_fetched_when_it_is_saved(cold: Rig, elsewhere: Elsewhere, there: bool) -> None:
    """The restored device asks again; where there is nobody to ask, it reads."""
    cold.driver.submit(0, [header(IN, 5)], [512, 1])
    cold.driver.kick(0)
    new = resumed(cold, at_once, elsewhere if there else None)
    elsewhere.given.clear()
    new.driver.run_deferred()
    if there:
        elsewhere.finish()
        new.driver.run_deferred()
    (done,) = new.driver.completed(0)
    assert done.data == CONTENT[5 * 512 : 6 * 512] + bytes((OK,))


# Identity


@pytest.mark.parametrize("room", [0, 5, 20, 40])
def test_get_id(rig: Rig, room: int) -> None:
    status, data, used_len = rig.request(GET_ID, room=room)
    assert status == OK
    assert data == (b"a-serial" + bytes(12))[:room] + b"\xaa" * (room - 20)
    assert used_len == (20 if room == 40 else room + 1)


def test_long_serial_is_cut() -> None:
    driver = Driver(BlockDevice(RecordingDisk(), serial="é" + "x" * 30))
    driver.start()
    assert driver.request(0, [header(GET_ID)], [20, 1]).data == b"?" + b"x" * 19 + b"\0"


# Discard and write-zeroes


def test_discard(rig: Rig) -> None:
    assert rig.request(DISCARD, 0, segments((8, 8, 0), (32, 1, 0))) == (OK, b"", 1)
    assert rig.disk.log == [("discard", 4096, 4096), ("discard", 16384, 512)]


@pytest.mark.parametrize(("flags", "call"), [(0, "zero"), (1, "unmap")])
def test_write_zeroes(rig: Rig, flags: int, call: str) -> None:
    assert rig.request(WRITE_ZEROES, 0, segments((2, 3, flags))) == (OK, b"", 1)
    assert rig.disk.log == [(call, 1024, 1536)]
    assert rig.read(1, 5) == CONTENT[512:1024] + bytes(1536) + CONTENT[5 * 512 : 6 * 512]


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (DISCARD, b"", IOERR),
        (DISCARD, bytes(15), IOERR),
        (DISCARD, bytes(17), IOERR),
        (DISCARD, segments((0, 1, 1)), UNSUPP),
        (DISCARD, segments((0, 1, 0x8000_0000)), UNSUPP),
        (DISCARD, segments((SECTORS, 1, 0)), IOERR),
        (DISCARD, segments((0, SECTORS + 1, 0)), IOERR),
        (DISCARD, segments(((1 << 64) - 1, 0xFFFF_FFFF, 0)), IOERR),
        (DISCARD, segments((0, 1, 0), (0, 1, 0), (SECTORS - 1, 2, 0)), IOERR),
        (DISCARD, segments(*[(0, 1, 0)] * 33), IOERR),
        (WRITE_ZEROES, b"", IOERR),
        (WRITE_ZEROES, segments((0, 1, 2)), UNSUPP),
        (WRITE_ZEROES, segments((0, 0xFFFF_FFFF, 0)), IOERR),
        (WRITE_ZEROES, segments((1 << 63, 1, 0)), IOERR),
        (WRITE_ZEROES, segments((0, 1, 0), (1, 1, 0)), IOERR),
    ],
)
def test_bad_segments_change_nothing(rig: Rig, kind: int, data: bytes, status: int) -> None:
    assert rig.request(kind, 0, data)[0] == status
    rig.assert_untouched()


@pytest.mark.parametrize("kind", [DISCARD, WRITE_ZEROES])
def test_segments_beyond_the_advertised_limit(kind: int) -> None:
    disk = RecordingDisk()
    disk.size = 1 << 50
    rig = Rig(disk)
    assert rig.request(kind, 0, segments((0, (1 << 21) + 1, 0)))[0] == IOERR
    assert disk.log == []


@pytest.mark.parametrize("kind", [DISCARD, WRITE_ZEROES])
def test_unsupported_unless_negotiated(kind: int) -> None:
    rig = Rig(features=VERSION_1 | F_FLUSH)
    assert rig.request(kind, 0, segments((0, 1, 0)))[0] == UNSUPP
    rig.assert_untouched()


# Read-only


@pytest.mark.parametrize(
    ("kind", "data"), [(OUT, bytes(512)), (DISCARD, segments((0, 1, 0))), (WRITE_ZEROES, segments((0, 1, 0)))]
)
def test_read_only_disk_is_not_written_to(read_only: Rig, kind: int, data: bytes) -> None:
    assert read_only.request(kind, 0, data) == (IOERR, b"", 1)
    read_only.assert_untouched()
    assert read_only.read(2, 1) == b"\x02" * 512
    assert read_only.request(FLUSH)[0] == OK


# Reset


def test_reset_stops_it(rig: Rig) -> None:
    rig.driver.submit(0, [header(OUT), bytes(512)], [1])
    rig.driver.write("Status", 0)
    rig.driver.kick(0)
    rig.driver.device.notify(0)
    rig.assert_untouched()
    assert rig.driver.memory.written == []


# Saved and restored


class Life(VirtioLife):
    """See tests/twins.py."""

    def __init__(self, wrapped: Callable[[VirtioDevice], VirtioDevice] = lambda device: device) -> None:
        self.disk = RecordingDisk(bytes(4 * AT_ONCE))
        super().__init__(BlockDevice(self.disk), wrapped=wrapped)

    def take_over(self, old: Self) -> None:
        super().take_over(old)
        self.disk.content[:] = old.disk.content
        self.disk.log[:] = old.disk.log
        self.disk.error = old.disk.error

    def request(self, chance: Random) -> tuple[int, list[bytes], list[int]]:
        kind = chance.choice([IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 99])
        size = chance.choice([0, 512, 4096, AT_ONCE, 3 * AT_ONCE])
        payload, room = [], []
        if kind in (DISCARD, WRITE_ZEROES):
            entries = [(chance.randrange(256), size // 512, 0) for _ in range(chance.choice([1, 1, 5]))]
            payload = [segments(*entries)]
        elif kind == OUT:
            payload = [chance.randbytes(size // 2), chance.randbytes(size // 2)]
        else:
            room = [size]
        return 0, [header(kind, chance.randrange(256)), *payload], [*room, 1]

    def happen(self, chance: Random) -> None:
        self.disk.error = OSError(errno.EIO, "Input/output error") if chance.random() < 0.3 else None

    def see(self) -> object:
        return self.disk.log[:], bytes(self.disk.content)


def watched() -> Life:
    return Life(lambda device: watch_device(device, lambda _index, queue: watch_queue(queue, lambda *_: None)))


@pytest.mark.parametrize("make", [Life, watched])
@pytest.mark.parametrize("seed", range(3))
def test_as_if_it_had_never_been_saved(make: Callable[[], Life], seed: int) -> None:
    live_through_snapshots(make, seed, steps=250)


def test_wrong_states_are_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1, states=200)


def resumed(rig: Rig, elsewhere: Aside, fetch: Aside | None = None) -> Rig:
    """Another device, on the same disk, that goes on where the rig's is."""
    new = Rig(rig.disk, aside=elsewhere, fetch=fetch)
    new.driver.memory.ram[:] = rig.driver.memory.ram
    new.driver.queues = rig.driver.queues
    new.driver.queues[0].memory = new.driver.memory
    new.driver.events.follow(rig.driver.events)
    new.driver.transport.restore(rig.driver.transport.state())
    new.driver.device.restore(rig.driver.device.state())
    return new


def test_a_request_that_failed_fails_when_it_is_restored() -> None:
    """The last of a turn's requests is answered in the next one."""
    rig = Rig(RecordingDisk(bytes(AT_ONCE)))
    rig.disk.error = OSError(errno.EIO, "Input/output error")
    count = AT_ONCE // LEAST
    for sector in range(count):
        rig.driver.submit(0, [header(IN, sector)], [512, 1])
    rig.driver.write("QueueNotify", 0)
    assert len(statuses(rig)) == count - 1
    rig.disk.error = None
    new = resumed(rig, at_once)
    new.driver.run_deferred()
    assert statuses(new) == [IOERR]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ranges": [(4 * AT_ONCE - 511, 512, 0)]},
        {"ranges": [((1 << 64) - 1, 512, 0)]},
        {"ranges": [(0, 512, 0), (0, 0, 0)]},
        {"ranges": [(0, 2 * AT_ONCE, 0), (0, 1, 0)]},
        {"position": AT_ONCE + 1},
        {"position": 2 * AT_ONCE + 1, "ranges": []},
        {"kind": FLUSH},
        {"kind": OUT},
        {"kind": GET_ID, "position": AT_ONCE + 1},
        {"kind": GET_ID, "position": 2 * AT_ONCE + 1, "ranges": []},
        {"kind": DISCARD, "ranges": [(0, 512, 0)] * 33},
    ],
)
def test_a_request_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    rig = Rig(RecordingDisk(bytes(4 * AT_ONCE)))
    rig.driver.submit(0, [header(IN)], [2 * AT_ONCE, 1])
    rig.driver.write("QueueNotify", 0)
    state = rig.driver.device.state()
    assert (state["request"]["position"], state["request"]["ranges"]) == (AT_ONCE, [(AT_ONCE, AT_ONCE, 0)])
    rig.driver.transport.restore(rig.driver.transport.state())
    with pytest.raises(UsageError, match="of a disk cannot be so"):
        rig.driver.device.restore({"request": state["request"] | wrong, "unflushed": []})


def test_a_state_stays_when_the_device_goes_on() -> None:
    rig = Rig(RecordingDisk(bytes(4 * AT_ONCE)))
    rig.driver.submit(0, [header(WRITE_ZEROES), segments((0, 4 * AT_ONCE // 512, 0))], [1])
    rig.driver.write("QueueNotify", 0)
    state = rig.driver.device.state()
    assert state["request"]["ranges"] == [(AT_ONCE, 3 * AT_ONCE, 0)]
    rig.driver.run_deferred()
    assert state["request"]["ranges"] == [(AT_ONCE, 3 * AT_ONCE, 0)]


def test_a_request_without_a_driver_is_refused() -> None:
    rig = Rig(RecordingDisk(bytes(4 * AT_ONCE)))
    rig.driver.submit(0, [header(IN)], [2 * AT_ONCE, 1])
    rig.driver.write("QueueNotify", 0)
    state = rig.driver.device.state()
    rig.driver.reset()
    with pytest.raises(UsageError, match="that nobody uses"):
        rig.driver.device.restore(state)


@pytest.mark.parametrize("aside", [None, at_once])
def test_what_is_being_flushed_when_it_is_saved_is_flushed_when_it_is_restored(
    slow: Rig, elsewhere: Elsewhere, aside: Aside | None
) -> None:
    for _ in range(3):
        slow.driver.submit(0, [header(FLUSH)], [1])
    slow.driver.kick(0)
    new = resumed(slow, aside or elsewhere)
    elsewhere.given.clear()
    assert not new.driver.memory.written
    assert slow.disk.log == []
    new.driver.run_deferred()
    if aside is None:
        elsewhere.finish()
        assert not elsewhere.given
    assert statuses(new) == [OK] * 3
    assert slow.disk.log == [("flush", 0, 0)]


def test_a_device_that_was_flushing_is_restored(slow: Rig, elsewhere: Elsewhere) -> None:
    """Whether its last flush is ever reported or not."""
    state = slow.driver.transport.state(), slow.driver.device.state()
    slow.driver.submit(0, [header(FLUSH)], [1])
    slow.driver.kick(0)
    slow.driver.transport.restore(state[0])
    slow.driver.device.restore(state[1])
    slow.driver.kick(0)
    _, new = elsewhere.given
    elsewhere.given.remove(new)
    elsewhere.finish()
    assert statuses(slow) == []
    elsewhere.given.append(new)
    elsewhere.finish()
    assert statuses(slow) == [OK]


# Anything at all


@settings(max_examples=300, deadline=None)
@given(
    kind=st.one_of(st.sampled_from([IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES]), st.integers(0, 0xFFFF_FFFF)),
    sector=st.one_of(st.integers(0, SECTORS + 1), st.integers(0, (1 << 64) - 1)),
    payload=st.one_of(st.binary(max_size=64), st.integers(0, 4).map(lambda sectors: bytes(512 * sectors))),
    cuts=st.lists(st.integers(0, 80), max_size=4),
    writable=st.lists(st.sampled_from([0, 1, 19, 20, 511, 512, 513, 1024]), max_size=4),
    indirect=st.booleans(),
)
def test_random_requests_are_answered(
    kind: int, sector: int, payload: bytes, cuts: list[int], writable: list[int], indirect: bool
) -> None:
    """Every request comes back, with a status if there is room for one, and nothing outside the disk is touched."""
    rig = Rig()
    request = header(kind, sector) + payload
    edges = [0, *sorted(min(cut, len(request)) for cut in cuts), len(request)]
    readable = [request[start:end] for start, end in pairwise(edges)]
    done: Completed = rig.driver.request(0, readable, writable, indirect=indirect)
    if done.data:
        assert done.data[-1] in (OK, IOERR, UNSUPP)
        assert len(rig.disk.content) == len(CONTENT)
    else:
        rig.assert_untouched()
