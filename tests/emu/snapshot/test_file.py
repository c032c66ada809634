"""A snapshot's file: what was written is read, and anything else is one clear line."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.errors import UsageError
from emu.memory import PAGE, RamImage
from emu.snapshot.file import _HEAD, FORMAT, Region, read, write
from emu.snapshot.magic import MAGIC, is_snapshot

PLAIN = json.dumps({"version": "1", "states": {"uart": {"fifo": [1, 2, 3]}}}).encode()


def holding(data: bytes) -> tuple[int, Callable[[RamImage], None]]:
    def put(image: RamImage) -> None:
        os.pwrite(image.file.fileno(), data, image.offset)

    return len(data), put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ready.pyemu"
    write(path, PLAIN, {"ram": holding(b"R" * 3 * PAGE), "disk 0": holding(b"D" * 10)})
    return path


def test_what_was_written_is_read(path: Path) -> None:
    file, plain, regions = read(path)
    assert plain == json.loads(PLAIN)
    assert list(regions) == ["ram", "disk 0"]
    for name, (offset, size) in regions.items():
        assert offset % PAGE == 0
        assert os.pread(file.fileno(), size, offset) == name[0].upper().encode() * size
    assert is_snapshot(path)
    assert [one.name for one in path.parent.iterdir()] == ["ready.pyemu"]


def test_a_region_without_bytes_takes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "holes"
    write(path, PLAIN, {"ram": (1 << 30, lambda _image: None)})
    assert path.stat().st_blocks * 512 < 64 << 10
    assert read(path).regions["ram"] == Region(PAGE, 1 << 30)


def test_only_a_snapshot_is_replaced(path: Path) -> None:
    write(path, b"{}", {})
    assert read(path).plain == {}
    (other := path.with_name("Image")).write_bytes(b"a kernel")
    with pytest.raises(UsageError, match="not a snapshot; it is not replaced"):
        write(other, PLAIN, {})
    assert other.read_bytes() == b"a kernel"


def test_who_fails_leaves_the_old_one_and_nothing_else(path: Path) -> None:
    before = path.read_bytes()

    def fail(_image: RamImage) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match=r"ready\.pyemu cannot be saved: No space left on device"):
        write(path, PLAIN, {"ram": (PAGE, fail)})
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["ready.pyemu"]


def test_who_is_killed_leaves_the_old_one(path: Path) -> None:
    """At each write: the process ends itself in the middle of the n-th."""
    before = path.read_bytes()
    program = f"""
import os, signal
from pathlib import Path
from emu.snapshot import file
real, left = os.pwrite, [int(os.environ["WRITES"])]
def pwrite(descriptor, data, offset):
    left[0] -= 1
    if left[0] < 0:
        real(descriptor, bytes(data)[: len(data) // 2], offset)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(descriptor, data, offset)
os.pwrite = pwrite
def put(image):
    for n in range(5):
        os.pwrite(image.file.fileno(), b"new" * 100, image.offset + 4096 * n)
file.write(Path({str(path)!r}), b"{{}}", {{"ram": (5 * 4096, put)}})
"""
    for writes in range(6):
        done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"WRITES": str(writes)}, check=False)
        assert done.returncode == -signal.SIGKILL
        assert path.read_bytes() == before
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"WRITES": "6"}, check=True)
    assert read(path).plain == {}


def test_places_where_nothing_can_be_saved(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "x", tmp_path, Path("/proc/x")):
        with pytest.raises(UsageError, match=r"cannot be saved|not a snapshot"):
            write(path, PLAIN, {})


@pytest.mark.parametrize("data", [b"", b"MZ", MAGIC, MAGIC + bytes(15), b"x" * 5000])
def test_files_that_are_no_snapshots(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UsageError, match=r"is not a snapshot; make one with"):
        read(tmp_path / "file")
    for path in (tmp_path, tmp_path / "missing"):
        assert not is_snapshot(path)
        with pytest.raises(UsageError):
            read(path)


def test_another_format_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[16] += 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=f"has format {FORMAT + 1}, and this pyemu reads {FORMAT}; save it again"):
        read(path)


def test_each_truncation_and_each_flipped_bit_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    length = _HEAD.size + _HEAD.unpack_from(whole)[3]
    for end in (*range(0, length + 50, 7), len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UsageError):
            read(path)
    for bit in range(8 * length):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(UsageError):
            read(path)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"[",
        b"[]",
        b"[1,2]",
        b"[{},[]]",
        b'[{"ram":-1},{}]',
        b'[{"ram":1.5},{}]',
        b'[{"ram":9e99},{}]',
        b"[" * 9999,
    ],
)
def test_plain_data_that_are_none_though_their_checksum_is_right(path: Path, plain: bytes) -> None:
    import zlib  # noqa: PLC0415

    path.write_bytes(_HEAD.pack(MAGIC, FORMAT, zlib.crc32(plain), len(plain)) + plain + bytes(9999))
    with pytest.raises(UsageError, match="the snapshot is damaged"):
        read(path)


def test_a_claim_takes_no_memory(path: Path) -> None:
    path.write_bytes(_HEAD.pack(MAGIC, FORMAT, 0, 1 << 62))
    with pytest.raises(UsageError, match="damaged or truncated"):
        read(path)


def test_random_files(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(300):
        (tmp_path / "x").write_bytes(
            MAGIC + chance.choice([b"\1\0\0\0", b""]) + chance.randbytes(chance.randrange(200))
        )
        with pytest.raises(UsageError):
            read(tmp_path / "x")
