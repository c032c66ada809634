import ctypes
import os
import random
import re
from pathlib import Path

import pytest

from devices.contracts import OutsideRamError
from devices.errors import UsageError
from emu.memory import PAGE, Ram, RamImage, SharedFile

BASE, SIZE = 0x8000_0000, 16 << 20
OUTSIDE = [(BASE - 1, 1), (BASE - 1, 2), (BASE + SIZE, 1), (BASE + SIZE - 1, 2), (0, 8), (1 << 64, 1), (BASE, SIZE + 1)]


@pytest.fixture
def ram() -> Ram:
    return Ram(BASE, SIZE)


def load(ram: Ram, address: int, data: bytes) -> None:
    ram.room(address, len(data))[:] = data


def test_huge_pages_are_where_guests_boot_and_nowhere_else() -> None:
    """A disk that read into the middle of RAM held the guest up for 20 ms, until the host had cleared 2 MiB."""
    size, found, place = 64 << 20, [], range(0)
    ram = Ram(BASE, size)
    start = ctypes.addressof(ctypes.c_char.from_buffer(ram.buffer))
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if mapping := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            place = range(int(mapping[1], 16), int(mapping[2], 16))
        ours = range(max(place.start, start), min(place.stop, start + size))  # neighbours may be in the same line
        if line.startswith("VmFlags:") and "hg" in line.split() and ours:
            found.append((ours.start - start, ours.stop - start))
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this host has no huge pages")
    assert found == [(0, 16 << 20), (48 << 20, size)]


def test_what_is_written_is_read(ram: Ram) -> None:
    ram.write(BASE + SIZE - 4, b"last")
    ram.write(BASE, memoryview(b"first"))
    assert ram.read(BASE + SIZE - 4, 4) == b"last"
    assert ram.read(BASE, 6) == b"first\0"
    assert ram.buffer[:5] == b"first"


@pytest.mark.parametrize(("address", "size"), OUTSIDE)
def test_outside(ram: Ram, address: int, size: int) -> None:
    assert not ram.contains(address, size)
    with pytest.raises(OutsideRamError):
        ram.read(address, size)
    changes: list[object] = []
    ram.changed = lambda *change: changes.append(change)
    with pytest.raises(OutsideRamError):
        ram.write(address, bytes(size))
    with pytest.raises(OutsideRamError):
        ram.room(address, size)
    with pytest.raises(OutsideRamError):
        ram.view(address, size)
    assert not changes
    assert ram.buffer.find(b"\1") == -1


def test_a_negative_size(ram: Ram) -> None:
    with pytest.raises(OutsideRamError):
        ram.read(BASE + 8, -4)


def test_nothing_at_an_edge(ram: Ram) -> None:
    assert ram.contains(BASE + SIZE, 0)
    assert ram.read(BASE + SIZE, 0) == b""
    ram.write(BASE + SIZE, b"")


def test_each_write_is_reported_but_not_the_loaders(ram: Ram) -> None:
    changes: list[tuple[int, int]] = []
    ram.changed = lambda address, size: changes.append((address, size))
    ram.write(BASE + 8, b"abc")
    load(ram, BASE, b"abcd")
    ram.write(BASE, b"")
    assert changes == [(BASE + 8, 3)]


@pytest.mark.parametrize("size", [-1, 0, 4096, (16 << 20) - 1, (64 << 30) + 1, 1 << 70])
def test_absurd_sizes(size: int) -> None:
    with pytest.raises(UsageError, match="between 16M and 64G"):
        Ram(BASE, size)


def sparse(path: Path, size: int) -> SharedFile:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.ftruncate(descriptor, size)
    return SharedFile(descriptor)


@pytest.fixture
def image(tmp_path: Path) -> RamImage:
    """A file with room for RAM after its first two pages."""
    return RamImage(sparse(tmp_path / "image", 2 * PAGE + SIZE), 2 * PAGE)


def scribble(ram: Ram, chance: random.Random) -> None:
    for _ in range(50):
        load(ram, BASE + chance.randrange(SIZE - 9000), chance.randbytes(chance.randrange(9000)))


def test_an_image_is_what_was_there(ram: Ram, image: RamImage) -> None:
    scribble(ram, random.Random(1))
    ram.save(image)
    assert Ram(BASE, SIZE, image).buffer[:] == ram.buffer[:]


def test_the_image_of_a_copy_holds_what_it_never_touched(ram: Ram, image: RamImage, tmp_path: Path) -> None:
    chance = random.Random(2)
    scribble(ram, chance)
    ram.save(image)
    copy = Ram(BASE, SIZE, image)
    scribble(copy, chance)
    load(copy, BASE + PAGE, bytes(40 * PAGE))
    second = RamImage(sparse(tmp_path / "second", SIZE), 0)
    copy.save(second)
    assert Ram(BASE, SIZE, second).buffer[:] == copy.buffer[:]


def test_an_image_takes_no_more_room_than_what_was_touched(ram: Ram, image: RamImage) -> None:
    for page in range(0, 1000, 10):
        load(ram, BASE + page * PAGE, b"touched")
    assert ram.buffer[100 * PAGE : 900 * PAGE]  # to read is not to touch
    ram.save(image)
    assert os.fstat(image.file.fileno()).st_blocks * 512 <= 100 * PAGE + (64 << 10)


def test_copies_are_private(ram: Ram, image: RamImage) -> None:
    load(ram, BASE, b"same")
    ram.save(image)
    one, other = Ram(BASE, SIZE, image), Ram(BASE, SIZE, image)
    load(one, BASE, b"mine")
    assert (one.read(BASE, 4), other.read(BASE, 4)) == (b"mine", b"same")
    assert os.pread(image.file.fileno(), 4, image.offset) == b"same"


def test_going_back_tells_what_has_changed(ram: Ram, image: RamImage) -> None:
    scribble(ram, random.Random(3))
    ram.save(image)
    before = ram.buffer[:]
    assert ram.go_back(image) is None, "where it comes from another place, nobody knows"
    for _ in range(3):
        assert ram.read(BASE + 8 * PAGE, 8) is not None
        load(ram, BASE + 3 * PAGE - 1, b"two pages")
        load(ram, BASE + SIZE - 1, b"x")
        assert ram.go_back(image) == [(2 * PAGE, 4 * PAGE), (SIZE - PAGE, SIZE)]
        assert ram.buffer[:] == before


def test_after_resting_on_an_image_it_goes_back_there(ram: Ram, image: RamImage) -> None:
    scribble(ram, random.Random(4))
    ram.save(image)
    ram.rest_on(image)
    before = ram.buffer[:]
    load(ram, BASE + PAGE, b"changed")
    assert ram.go_back(image) == [(PAGE, 2 * PAGE)]
    assert ram.buffer[:] == before


def test_without_pagemap_everything_is_saved_and_may_have_changed(
    ram: Ram, image: RamImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    scribble(ram, random.Random(5))
    monkeypatch.setattr(Ram, "_pages", lambda *_: None)
    ram.save(image)
    assert Ram(BASE, SIZE, image).buffer[:] == ram.buffer[:]
    ram.rest_on(image)
    assert ram.go_back(image) is None


def test_an_image_that_has_become_shorter(ram: Ram, image: RamImage) -> None:
    ram.save(image)
    os.ftruncate(image.file.fileno(), SIZE)
    with pytest.raises(UsageError):
        Ram(BASE, SIZE, image)
