"""Disk images: what is read and written, locked, kept, and refused."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import PyemuError, UsageError
from devices.virtio import disk as disk_module
from devices.virtio import sparse
from devices.virtio.disk import SnapshotDisk, open_disk

BLOCK = SnapshotDisk.BLOCK
SIZE = 3 * BLOCK + 512
PATTERN = bytes(range(251)) * (SIZE // 251 + 1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(PATTERN[:SIZE])
    return path


@pytest.fixture
def open_descriptors() -> Iterator[None]:
    """Fails a test that leaves a file open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Opening and locking


def test_size_and_access(image: Path) -> None:
    disk = open_disk(image)
    assert (disk.size, disk.read_only, disk.warning) == (SIZE, False, None)
    disk.close()


@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"snapshot": True}])
def test_incomplete_sector_is_not_offered(image: Path, options: dict[str, bool]) -> None:
    image.write_bytes(bytes(1024 + 100))
    disk = open_disk(image, **options)
    assert disk.size == 1024
    assert disk.warning is not None
    assert "last 100 bytes" in disk.warning
    assert "\n" not in disk.warning
    disk.close()


@pytest.mark.usefixtures("open_descriptors")
@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"snapshot": True}])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.touch(), "empty, or smaller"),
        (lambda path: path.write_bytes(bytes(511)), "empty, or smaller"),
        (os.mkfifo, "neither a file nor a block device"),
        (lambda path: path.symlink_to("/dev/null"), "neither a file nor a block device"),
        (lambda path: path.symlink_to(path), "[Ss]ymbolic links"),
    ],
)
def test_what_cannot_be_a_disk(tmp_path: Path, make, message: str, options: dict[str, bool]) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "disk"
    make(path)
    with pytest.raises(UsageError, match=message) as caught:
        open_disk(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_no_permission(image: Path) -> None:
    image.chmod(0o444)
    with pytest.raises(UsageError, match="Permission denied; it can be used as a read-only disk or a snapshot"):
        open_disk(image)
    open_disk(image, snapshot=True).close()
    image.chmod(0)
    with pytest.raises(UsageError, match=r"Permission denied$"):
        open_disk(image)


READ_WRITE: dict[str, bool] = {}
READ_ONLY = {"read_only": True}
SNAPSHOT = {"snapshot": True}


@pytest.mark.parametrize(
    ("first", "second"),
    [(READ_WRITE, READ_WRITE), (READ_WRITE, READ_ONLY), (READ_ONLY, READ_WRITE), (SNAPSHOT, READ_WRITE)],
)
def test_image_in_use_is_refused(image: Path, first: dict[str, bool], second: dict[str, bool]) -> None:
    disk = open_disk(image, **first)
    with pytest.raises(UsageError, match="in use"):
        open_disk(image, **second)
    disk.close()
    open_disk(image, **second).close()


def test_readers_share_an_image(image: Path) -> None:
    disks = [open_disk(image, **options) for options in (READ_ONLY, SNAPSHOT, READ_ONLY, SNAPSHOT)]
    for disk in disks:
        disk.close()


@pytest.mark.usefixtures("open_descriptors")
@pytest.mark.parametrize("options", [READ_WRITE, READ_ONLY, SNAPSHOT])
def test_close_can_be_repeated(image: Path, options: dict[str, bool]) -> None:
    disk = open_disk(image, **options)
    disk.close()
    disk.close()


# The file itself


def test_read_and_write(image: Path) -> None:
    disk = open_disk(image)
    assert disk.read(512, 1024) == PATTERN[512:1536]
    disk.write(1024, b"x" * 512)
    disk.flush()
    assert disk.read(512, 1024) == PATTERN[512:1024] + b"x" * 512
    assert image.read_bytes() == PATTERN[:1024] + b"x" * 512 + PATTERN[1536:SIZE]
    disk.close()


def test_short_transfers_go_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 100), offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:100], offset))
    disk = open_disk(image)
    disk.write(0, PATTERN[1000:1512])
    assert disk.read(0, 512) == PATTERN[1000:1512]
    disk.close()


def test_file_that_became_shorter_is_an_io_error(image: Path) -> None:
    disk = open_disk(image)
    os.truncate(image, 700)
    assert disk.read(0, 512) == PATTERN[:512]
    with pytest.raises(OSError, match="ends at 700"):
        disk.read(512, 512)
    disk.close()


def test_write_to_a_read_only_disk_fails(image: Path) -> None:
    disk = open_disk(image, read_only=True)
    assert disk.read_only
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.write(0, bytes(512))
    disk.flush()
    disk.close()


def test_failed_flush_fails_for_ever(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports lost data once; the next fdatasync succeeds, but the data is still lost."""
    outcomes = iter([OSError(errno.EIO, "Input/output error"), None, None])

    def fdatasync(descriptor: int) -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    disk = open_disk(image)
    for _ in range(3):
        with pytest.raises(OSError, match=r"Input/output error|earlier flush failed"):
            disk.flush()
    with pytest.raises(PyemuError, match="not everything could be written"):
        disk.close()
    open_disk(image, read_only=True).close()


def test_close_flushes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    open_disk(image).close()
    assert len(synced) == 1
    open_disk(image, read_only=True).close()
    open_disk(image, snapshot=True).close()
    assert len(synced) == 1


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_discard_frees_space_and_keeps_the_size(image: Path) -> None:
    disk = open_disk(image)
    disk.flush()
    before = allocated(image)
    disk.discard(0, BLOCK)
    disk.flush()
    assert allocated(image) == before - BLOCK
    assert image.stat().st_size == SIZE
    assert disk.read(BLOCK, 512) == PATTERN[BLOCK : BLOCK + 512]
    disk.discard(0, 0)
    disk.close()


@pytest.mark.parametrize("can_punch", [True, False])
@pytest.mark.parametrize("may_unmap", [True, False])
def test_write_zeroes(image: Path, can_punch: bool, may_unmap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_punch:
        monkeypatch.setattr(sparse, "_fallocate", None)
    disk = open_disk(image)
    disk.flush()
    before = allocated(image)
    disk.write_zeroes(4096, 2 * BLOCK, may_unmap=may_unmap)
    disk.flush()
    assert image.read_bytes() == PATTERN[:4096] + bytes(2 * BLOCK) + PATTERN[4096 + 2 * BLOCK : SIZE]
    assert (allocated(image) < before) == (can_punch and may_unmap)
    disk.discard(0, 512)
    disk.close()


def test_write_zeroes_of_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "CHUNK", 1000)
    path = tmp_path / "disk.img"
    path.write_bytes(b"\xff" * 8192)
    disk = open_disk(path)
    disk.write_zeroes(512, 7168, may_unmap=False)
    disk.close()
    assert path.read_bytes() == b"\xff" * 512 + bytes(7168) + b"\xff" * 512


def test_disk_larger_than_32_bits(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, 5 << 40)
    disk = open_disk(path)
    disk.write((4 << 40) + 512, b"far" + bytes(509))
    assert disk.read((4 << 40) + 512, 3) == b"far"
    disk.discard(4 << 40, 8192)
    assert disk.read((4 << 40) + 512, 3) == bytes(3)
    disk.close()


# Snapshots


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
