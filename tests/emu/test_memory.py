import pytest

from devices.contracts import OutsideRamError
from devices.errors import UsageError
from emu.memory import Ram

BASE, SIZE = 0x8000_0000, 16 << 20
OUTSIDE = [(BASE - 1, 1), (BASE - 1, 2), (BASE + SIZE, 1), (BASE + SIZE - 1, 2), (0, 8), (1 << 64, 1), (BASE, SIZE + 1)]


@pytest.fixture
def ram() -> Ram:
    return Ram(BASE, SIZE)


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
    for write in (ram.write, ram.load):
        with pytest.raises(OutsideRamError):
            write(address, bytes(size))
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
    ram.load(BASE, b"abcd")
    ram.write(BASE, b"")
    assert changes == [(BASE + 8, 3)]


@pytest.mark.parametrize("size", [-1, 0, 4096, (16 << 20) - 1, (64 << 30) + 1, 1 << 70])
def test_absurd_sizes(size: int) -> None:
    with pytest.raises(UsageError, match="between 16M and 64G"):
        Ram(BASE, size)
