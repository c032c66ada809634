"""Sparse files: where there is data, and giving space back."""

import errno
import os
from pathlib import Path

import pytest

from devices.virtio.sparse import data_in, punch_hole

STEP = 64 << 10
SIZE = 10 * STEP + 100


@pytest.fixture
def descriptor(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A file with data in three pieces: at the start, in the middle, at the end."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, SIZE)
    for offset in (0, 5 * STEP + 8192, SIZE - 1):
        os.pwrite(descriptor, b"x", offset)
    yield descriptor
    os.close(descriptor)


def test_data_are_found(descriptor: int) -> None:
    assert list(data_in(descriptor, SIZE, STEP)) == [0, 5 * STEP, 10 * STEP]
    assert list(data_in(descriptor, 10 * STEP, STEP)) == [0, 5 * STEP]


def test_a_hole_to_the_end(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.ftruncate(descriptor, SIZE)
    assert list(data_in(descriptor, SIZE, STEP)) == []


def test_all_may_be_data_where_the_host_cannot_tell(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def lseek(descriptor: int, position: int, whence: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    assert list(data_in(descriptor, SIZE, STEP)) == list(range(0, SIZE, STEP))


def test_what_is_punched_is_a_hole(descriptor: int) -> None:
    assert punch_hole(descriptor, 5 * STEP, STEP)
    assert list(data_in(descriptor, SIZE, STEP)) == [0, 10 * STEP]
    assert os.fstat(descriptor).st_size == SIZE
    assert punch_hole(descriptor, 0, 0)
    assert os.pread(descriptor, 1, 0) == b"x"
