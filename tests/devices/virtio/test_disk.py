"""Disk images: what is read and written, locked, kept, and refused."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import PyemuError, UsageError
from devices.virtio import image as image_module
from devices.virtio import sparse
from devices.virtio.disk import Disk, DiskState, FileDisk, SnapshotDisk, open_disk, reopen_disk
from emu.snapshot.plain import decode, encode
from tests.left import leaves_nothing

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
    with leaves_nothing():
        yield


# Opening and locking


def test_size_and_access(image: Path) -> None:
    disk = open_disk(image)
    assert (disk.size, disk.read_only, disk.warning) == (SIZE, False, None)
    disk.close()


@pytest.mark.parametrize(
    ("answer", "cached"),
    [
        (None, True),
        (BlockingIOError(), False),
        (OSError(errno.EOPNOTSUPP, "the file system does not tell"), True),
        (100, False),
    ],
)
def test_what_is_in_the_hosts_cache(
    image: Path, monkeypatch: pytest.MonkeyPatch, answer: OSError | int | None, cached: bool
) -> None:
    real = os.preadv

    def preadv(descriptor: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if isinstance(answer, OSError):
            raise answer
        return real(descriptor, buffers, offset) if answer is None else answer

    disk = open_disk(image)
    monkeypatch.setattr(os, "preadv", preadv)
    assert disk.read_cached(512, 1024) == (image.read_bytes()[512:1536] if cached else None)
    disk.close()


def test_what_has_been_cut_off_is_not_in_the_hosts_cache(image: Path) -> None:
    disk = open_disk(image)
    os.truncate(image, 1024)
    assert disk.read_cached(512, 1024) is None
    with pytest.raises(OSError, match="ends at 1024"):
        disk.read(512, 1024)
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
    monkeypatch.setattr(image_module, "CHUNK", 1000)
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


# Saved and restored


def nothing(offset: int, size: int) -> bytes:
    raise AssertionError("an image has no changes of its own")


def saved(disk: Disk) -> DiskState:
    """The state of a disk, as it is in a file."""
    state = disk.state()
    state["image"]["sha256"] = disk.digest()
    return decode(encode(state), DiskState)


def age(path: Path) -> None:
    """Make a file look as if nobody had written to it for long."""
    os.utime(path, ns=(10**18, 10**18))


@pytest.mark.usefixtures("open_descriptors")
@pytest.mark.parametrize("options", [READ_WRITE, READ_ONLY, SNAPSHOT])
@pytest.mark.parametrize("aged", [True, False])
def test_a_disk_is_reopened_as_it_was_opened(image: Path, options: dict[str, bool], aged: bool) -> None:
    if aged:
        age(image)
    disk = open_disk(image, **options)
    state = saved(disk)
    disk.close()
    again = reopen_disk(state, nothing)
    assert (type(again), again.size, again.read_only) == (type(disk), SIZE, disk.read_only)
    assert again.read(512, 1024) == PATTERN[512:1536]
    with pytest.raises(UsageError, match="in use"):
        open_disk(image)
    again.close()


def test_a_foreign_image_that_was_used_as_a_raw_disk_is_reopened(image: Path) -> None:
    image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1016))
    disk = open_disk(image, raw=True)
    state = saved(disk)
    disk.close()
    reopen_disk(state, nothing).close()


def test_an_image_may_move_and_be_copied(image: Path, tmp_path: Path) -> None:
    disk = open_disk(image)
    state = saved(disk)
    disk.close()
    copy = tmp_path / "copy.img"
    copy.write_bytes(image.read_bytes())
    disk = open_disk(copy)
    disk.restore(state, nothing)
    disk.close()


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(SIZE - 1)
        file.write(b"\xff")


CHANGES = [flip, lambda path: os.truncate(path, SIZE - 512), lambda path: os.truncate(path, SIZE + 512)]


@pytest.mark.usefixtures("open_descriptors")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [READ_WRITE, READ_ONLY, SNAPSHOT])
def test_an_image_that_has_changed_is_refused(image: Path, change, options: dict[str, bool]) -> None:  # type: ignore[no-untyped-def]
    age(image)
    disk = open_disk(image, **options)
    state = saved(disk)
    disk.close()
    change(image)
    with pytest.raises(UsageError, match="is not as it was when the machine was saved; bring it back, or") as caught:
        reopen_disk(state, nothing)
    assert str(image) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_changed_just_after_it_was_saved_is_refused(image: Path) -> None:
    """File systems tell times only to some ms: its time may still be the same."""
    disk = open_disk(image)
    state = saved(disk)
    disk.close()
    flip(image)
    os.utime(image, ns=(state["image"]["modified"], state["image"]["modified"]))
    with pytest.raises(UsageError, match="is not as it was"):
        reopen_disk(state, nothing)


def test_an_untouched_image_is_not_read_again(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(image)
    disk = open_disk(image)
    state = saved(disk)
    disk.close()
    monkeypatch.setattr(FileDisk, "digest", lambda _self: pytest.fail("it was read"))
    reopen_disk(state, nothing).close()


def test_an_image_that_does_not_exist(image: Path) -> None:
    disk = open_disk(image)
    state = saved(disk)
    disk.close()
    image.unlink()
    with pytest.raises(UsageError, match=r"disk '.*disk.img', which the saved machine uses, does not exist"):
        reopen_disk(state, nothing)


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "x" * 5000, "/dev/null/x"])
def test_a_name_that_cannot_be_is_refused(image: Path, path: str) -> None:
    disk = open_disk(image)
    state = saved(disk)
    disk.close()
    state["image"]["path"] = path
    with pytest.raises(UsageError, match="does not exist"):
        reopen_disk(state, nothing)


@pytest.mark.parametrize("options", [READ_WRITE, READ_ONLY, SNAPSHOT])
@pytest.mark.parametrize("others", [READ_WRITE, READ_ONLY, SNAPSHOT])
def test_another_kind_of_disk_is_refused(image: Path, options: dict[str, bool], others: dict[str, bool]) -> None:
    disk = open_disk(image, **options)
    state = saved(disk)
    disk.close()
    disk = open_disk(image, **others)
    if options == others:
        disk.restore(state, nothing)
    else:
        with pytest.raises(UsageError, match=rf"another kind of disk; use {image}(,readonly|,snapshot|)$"):
            disk.restore(state, nothing)
    disk.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda disk: disk.write(0, b"x" * 512),
        lambda disk: disk.write_zeroes(0, 512, may_unmap=True),
        lambda disk: disk.write_zeroes(0, 512, may_unmap=False),
        lambda disk: disk.discard(0, BLOCK),
    ],
)
@pytest.mark.parametrize("digest", [True, False])
def test_an_image_cannot_go_back(image: Path, change, digest: bool) -> None:  # type: ignore[no-untyped-def]
    disk = open_disk(image)
    state = saved(disk) if digest else disk.state()
    disk.restore(state, nothing)
    change(disk)
    os.utime(image, ns=(state["image"]["modified"], state["image"]["modified"]))
    with pytest.raises(UsageError, match="is not as it was"):
        disk.restore(state, nothing)
    disk.close()


def test_the_digest_is_that_of_the_contents(tmp_path: Path) -> None:
    """Whether zeros are written or a hole, and wherever the pieces begin that are not."""
    contents = [bytes(5 * BLOCK), b"x" + bytes(5 * BLOCK - 1), bytes(3 * BLOCK + 4096) + b"x" * (2 * BLOCK - 4096)]
    contents += [bytes(4 * BLOCK), b"x" * BLOCK + bytes(4 * BLOCK), bytes(BLOCK) + b"x" * BLOCK + bytes(3 * BLOCK)]
    digests = set()
    for number, content in enumerate(contents):
        full, sparse_ = tmp_path / f"full{number}", tmp_path / f"sparse{number}"
        full.write_bytes(content)
        sparse_.touch()
        os.truncate(sparse_, len(content))
        with sparse_.open("r+b") as file:
            for offset in range(0, len(content), 4096):
                if any(content[offset : offset + 4096]):
                    os.pwrite(file.fileno(), content[offset : offset + 4096], offset)
        disks = [open_disk(full), open_disk(sparse_)]
        [digest] = {disk.digest() for disk in disks}
        digests.add(digest)
        for disk in disks:
            disk.close()
    assert len(digests) == len(contents)


def test_the_digest_of_a_huge_hole_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, 5 << 40)
    disk = open_disk(path)
    disk.write(4 << 40, b"x" * 512)
    reads: list[int] = []
    read = disk.read
    disk.read = lambda offset, size: reads.append(offset) or read(offset, size)
    disk.digest()
    assert reads == [4 << 40]
    disk.close()
