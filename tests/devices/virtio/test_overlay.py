"""Snapshots of disks: their changes, which vanish, unless they are saved."""

import errno
import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import UsageError
from devices.virtio.disk import Disk, DiskState, FileDisk, open_disk, reopen_disk
from devices.virtio.image import CHUNK
from devices.virtio.overlay import SnapshotDisk
from emu.snapshot.plain import decode, encode

BLOCK = SnapshotDisk.BLOCK
SIZE = 3 * BLOCK + 512
PATTERN = bytes(range(251)) * (SIZE // 251 + 1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(PATTERN[:SIZE])
    return path


def test_snapshot_leaves_the_image_alone(image: Path) -> None:
    before = image.stat()
    disk = open_disk(image, snapshot=True)
    assert not disk.read_only
    disk.write(0, b"new" + bytes(509))
    disk.write_zeroes(1024, 512, may_unmap=True)
    disk.discard(2048, 512)
    disk.flush()
    assert disk.read(0, 3) == b"new"
    assert disk.read(1024, 512) == bytes(512)
    assert disk.read(512, 512) == PATTERN[512:1024]
    disk.close()
    assert image.read_bytes() == PATTERN[:SIZE]
    assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert image.stat().st_blocks == before.st_blocks


def test_snapshot_is_gone_when_closed(image: Path) -> None:
    disk = open_disk(image, snapshot=True)
    disk.write(0, bytes(512))
    disk.close()
    disk = open_disk(image, snapshot=True)
    assert disk.read(0, 512) == PATTERN[:512]
    disk.close()


def test_what_is_in_the_hosts_cache(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range is, if all of its parts are, whichever file they are in."""
    disk = open_disk(image, snapshot=True)
    disk.write(BLOCK, b"new" + bytes(BLOCK - 3))
    around = (BLOCK - 3, BLOCK + 6)
    assert (
        disk.read_cached(*around)
        == disk.read(*around)
        == PATTERN[BLOCK - 3 : BLOCK] + b"new" + bytes(BLOCK - 3) + PATTERN[2 * BLOCK : 2 * BLOCK + 3]
    )
    asked = []
    monkeypatch.setattr(FileDisk, "read_cached", lambda self, offset, size: asked.append((offset, size)))
    assert disk.read_cached(*around) is None
    assert asked == [(BLOCK - 3, 3)]
    disk.close()


def test_snapshot_of_a_read_only_disk_is_read_only(image: Path) -> None:
    disk = open_disk(image, read_only=True, snapshot=True)
    assert disk.read_only
    disk.close()


@settings(max_examples=50, deadline=None)
@given(
    writes=st.lists(
        st.tuples(st.integers(0, SIZE // 512), st.integers(0, 2 * BLOCK // 512), st.integers(1, 255)), max_size=8
    )
)
def test_snapshot_reads_what_was_written_last(writes: list[tuple[int, int, int]], tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("snapshot") / "disk.img"
    path.write_bytes(PATTERN[:SIZE])
    disk = open_disk(path, snapshot=True)
    expected = bytearray(PATTERN[:SIZE])
    for sector, count, value in writes:
        offset, length = sector * 512, min(count * 512, SIZE - sector * 512)
        disk.write(offset, bytes([value]) * length)
        expected[offset : offset + length] = bytes([value]) * length
        assert disk.read(offset, length) == bytes([value]) * length
    assert disk.read(0, SIZE) == expected
    disk.close()


def test_no_room_for_a_snapshot(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ftruncate(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", ftruncate)
    with pytest.raises(UsageError, match="No space left"):
        open_disk(image, snapshot=True)
    open_disk(image).close()


# Saved and restored


class Saved:
    """A saved disk: its state, and a sparse file with its changes."""

    def __init__(self, disk: Disk) -> None:
        state = disk.state()
        state["image"]["sha256"] = disk.digest()
        self.state: DiskState = decode(encode(state), DiskState)
        self.changes: dict[int, bytes] = {}
        disk.copy_changes(self._write)

    def _write(self, offset: int, data: bytes) -> None:
        assert len(data) <= CHUNK
        assert all(offset > before for before in self.changes)
        self.changes[offset] = bytes(data)

    def read(self, offset: int, size: int) -> bytes:
        start = offset - offset % BLOCK
        data = self.changes[start][offset - start :][:size]
        assert len(data) == size
        return data


@pytest.mark.parametrize("seed", range(5))
def test_as_if_it_had_never_been_saved(image: Path, seed: int) -> None:
    chance = Random(seed)
    straight, disk = open_disk(image, snapshot=True), open_disk(image, snapshot=True)
    older: list[tuple[Saved, bytes]] = []
    for _ in range(60):
        offset = 512 * chance.randrange(SIZE // 512)
        size = min(chance.choice([512, 4096, BLOCK, 2 * BLOCK]), SIZE - offset)
        data = bytes([chance.randrange(256)]) * size
        for one in (straight, disk):
            one.write(offset, data)
        saved = Saved(disk)
        older.append((saved, straight.read(0, SIZE)))
        if chance.random() < 0.5:
            disk.close()
            disk = reopen_disk(saved.state, saved.read)
        else:
            disk.write(0, b"lost" * 128)
            disk.restore(saved.state, saved.read)
        assert disk.read(0, SIZE) == straight.read(0, SIZE)
        assert disk.state()["changed"] == straight.state()["changed"]
    for saved, content in chance.sample(older, 10):  # and back to any of them
        disk.restore(saved.state, saved.read)
        assert disk.read(0, SIZE) == content
    straight.close()
    disk.close()
    assert image.read_bytes() == PATTERN[:SIZE]


def test_a_restored_snapshot_copies_nothing_and_keeps_nothing(image: Path) -> None:
    disk = open_disk(image, snapshot=True)
    before = Saved(disk)
    overlay = disk._overlay._descriptor
    for _ in range(3):
        disk.write(0, bytes(2 * BLOCK))
        assert os.fstat(overlay).st_blocks
        disk.restore(before.state, before.read)
        assert os.fstat(overlay).st_blocks == 0
        assert os.fstat(overlay).st_size == SIZE
        assert disk.read(0, SIZE) == PATTERN[:SIZE]
    disk.write(0, bytes(512))
    after = Saved(disk)
    disk.restore(after.state, after.read)
    assert os.fstat(overlay).st_blocks == 0
    assert sorted(after.changes) == [0]
    disk.close()


def test_changes_beyond_the_disk_are_refused(image: Path) -> None:
    disk = open_disk(image, snapshot=True)
    disk.write(0, b"x" * 512)
    saved = Saved(disk)
    for blocks in ([4], [0, (1 << 64) - 1]):
        with pytest.raises(UsageError, match="the changes of a disk"):
            disk.restore(saved.state | {"changed": blocks}, saved.read)
    assert disk.read(0, 1) == b"x"
    disk.close()


def test_changes_that_can_no_longer_be_read_are_an_io_error(image: Path) -> None:
    def gone(offset: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    disk = open_disk(image, snapshot=True)
    disk.write(0, b"x" * 512)
    disk.restore(Saved(disk).state, gone)
    with pytest.raises(OSError, match="Input/output"):
        disk.read(0, 512)
    with pytest.raises(OSError, match="Input/output"):
        disk.write(512, bytes(512))
    assert disk.read(BLOCK, 512) == PATTERN[BLOCK : BLOCK + 512]
    disk.close()
