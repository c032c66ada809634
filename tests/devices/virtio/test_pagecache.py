"""Reading without waiting for the host's disk."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.virtio.pagecache import read_ahead, read_cached

CONTENT = bytes(range(256)) * 16


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(CONTENT)
    descriptor = os.open(tmp_path / "file", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(("offset", "size"), [(0, 4096), (5, 100), (4000, 96), (4000, 97), (0, 1 << 20), (9999, 5)])
def test_both_read_up_to_the_end(descriptor: int, offset: int, size: int) -> None:
    assert read_cached(descriptor, offset, size) == CONTENT[offset : offset + size]
    assert read_ahead(descriptor, offset, size) == CONTENT[offset : offset + size]


@pytest.mark.parametrize("answer", [BlockingIOError(), 0, 100])
def test_what_is_not_all_there(descriptor: int, monkeypatch: pytest.MonkeyPatch, answer: OSError | int) -> None:
    def preadv(asked: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        assert (asked, len(buffers[0]), offset, flags) == (descriptor, 1024, 512, os.RWF_NOWAIT)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "preadv", preadv)
    assert read_cached(descriptor, 512, 1024) is None


def test_a_file_system_that_does_not_tell(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, size, __: advised.append((offset, size)))
    assert read_cached(descriptor, 512, 1024) == CONTENT[512:1536]
    assert advised == [(1536, 16 << 10)]
    assert read_cached(descriptor, 4000, 1024) == CONTENT[4000:]
    assert len(advised) == 1  # there is no more


def test_what_cannot_be_read(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for read in (read_cached, read_ahead):
        with pytest.raises(IsADirectoryError):
            read(descriptor, 0, 10)
    os.close(descriptor)
