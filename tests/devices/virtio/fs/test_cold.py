"""The virtio-fs device: files that are not in the host's cache are read while the guest goes on."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.devices.virtio.fs import guest as fuse
from tests.devices.virtio.fs.guest import REQUESTS, ROOT, FsGuest
from tests.fakes import Elsewhere
from tests.left import descriptors


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def cold(folder: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> Iterator[FsGuest]:
    """A share of which nothing is in the host's cache."""
    monkeypatch.setattr(os, "preadv", Mock(side_effect=BlockingIOError))
    guest = FsGuest(folder, fetch=elsewhere)
    yield guest
    guest.close()


def reading(file: int, size: int) -> bytes:
    return fuse.request(fuse.READ, ROOT, struct.pack("<QQIIQII", file, 0, size, 0, 0, 0, 0))


def test_the_guest_goes_on_while_a_piece_is_fetched(cold: FsGuest, folder: Path, elsewhere: Elsewhere) -> None:
    data = bytes(range(256)) * 600
    (folder / "file").write_bytes(data)
    file = cold.open(cold.lookup("file").node)
    cold.driver.submit(REQUESTS, [reading(file, 1 << 20)], [16 + (1 << 20)])
    cold.driver.submit(REQUESTS, [fuse.request(fuse.RELEASE, ROOT, struct.pack("<QIIQ", file, 0, 0, 0))], [16])
    for _ in range(3):
        cold.driver.kick(REQUESTS)
        cold.driver.run_deferred()
        assert not cold.driver.completed(REQUESTS)
        assert len(elsewhere.given) == 1
        elsewhere.finish()
    cold.driver.run_deferred()
    read, released = cold.driver.completed(REQUESTS)
    assert cold.answered(read.data[: read.used_len]) == data
    assert cold.answered(released.data[: released.used_len]) == b""


def test_what_cannot_be_fetched(
    cold: FsGuest, folder: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_bytes(b"hello")
    file = cold.open(cold.lookup("file").node)
    cold.driver.submit(REQUESTS, [reading(file, 10)], [100])
    cold.driver.kick(REQUESTS)
    monkeypatch.setattr(os, "pread", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    elsewhere.finish()
    cold.driver.run_deferred()
    (done,) = cold.driver.completed(REQUESTS)
    with pytest.raises(fuse.FuseError, match="EIO"):
        cold.answered(done.data[: done.used_len])


def test_resets_pile_up_no_reads_and_close_what_is_read(cold: FsGuest, folder: Path, elsewhere: Elsewhere) -> None:
    def opened() -> int:
        return [of_what for _, of_what in descriptors()].count(str(folder / "file"))

    (folder / "file").write_bytes(b"hello")
    for _ in range(3):
        file = cold.open(cold.lookup("file").node)
        cold.driver.submit(REQUESTS, [reading(file, 10)], [100])
        cold.driver.kick(REQUESTS)
        assert len(elsewhere.given) == 1
        cold.driver.reset()
        cold.driver.start()
        cold.init()
    file = cold.open(cold.lookup("file").node)
    cold.driver.submit(REQUESTS, [reading(file, 10)], [100])
    cold.driver.kick(REQUESTS)
    assert opened() == 2, "one is being read"
    elsewhere.finish()
    assert opened() == 1
    cold.driver.run_deferred()
    assert not cold.driver.completed(REQUESTS)
    elsewhere.finish()
    cold.driver.run_deferred()
    (done,) = cold.driver.completed(REQUESTS)
    assert cold.answered(done.data[: done.used_len]) == b"hello"


def test_what_is_cached_is_read_at_once(folder: Path, elsewhere: Elsewhere) -> None:
    guest = FsGuest(folder, fetch=elsewhere)
    file = guest.open(guest.write_file("file", b"x" * 100_000).node)
    assert guest.read(file, 5, 1 << 20) == b"x" * 99_995
    assert not elsewhere.given
    guest.close()
