"""Requests to a share."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.virtio.device import VirtioDevice
from emu.trace.files import watch_share
from emu.trace.record import Record
from tests.devices.virtio.fake_driver import Driver
from tests.devices.virtio.fs import guest as fuse
from tests.devices.virtio.fs.guest import REQUESTS, ROOT, FsGuest


class WatchedShare(FsGuest):
    """A share, and the records of what it is asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, start=False)
        self.records: list[Record] = []
        self.driver = Driver(self.watched())
        self.driver.start()
        self.init()

    def watched(self) -> VirtioDevice:
        def emit(category, track, name, detail, **_when):
            self.records.append(Record(0, category, track, name, detail))

        return watch_share(self.device, emit)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[WatchedShare]:
    guest = WatchedShare(tmp_path)
    yield guest
    guest.close()


def test_requests_by_name_with_what_they_are_about_and_the_answer(guest: WatchedShare) -> None:
    _, file = guest.create("new")
    guest.write(file, 7, b"data")
    guest.read(file, 0, 100)
    guest.error(fuse.LOOKUP, ROOT, b"nothing\0")
    guest.rename("new", "newer")
    guest.error(999, 5)
    guest.forget(2)
    guest.driver.request(REQUESTS, [b"?"])
    assert {(record.category, record.track) for record in guest.records} == {("virtio", "share requests")}
    assert [(record.name, *record.detail.values()) for record in guest.records] == [
        ("INIT", 0, "OK"),
        ("CREATE", ROOT, "new", "OK"),
        ("WRITE", ROOT, 7, 4, "OK"),
        ("READ", ROOT, 0, 100, "OK"),
        ("LOOKUP", ROOT, "nothing", "ENOENT"),
        ("RENAME", ROOT, "new", "OK"),
        ("#999", 5, "ENOSYS"),
        ("FORGET", 2, "none"),
        ("malformed", "none"),
    ]


def test_a_request_that_is_cut_short(guest: WatchedShare) -> None:
    guest.error(fuse.READ, ROOT, struct.pack("<Q", 1))
    assert guest.records[-1].detail == {"node": ROOT, "status": "EINVAL"}
