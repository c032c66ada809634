"""What the loader leaves in RAM, and where the hart begins."""

import struct
from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.placement import Placement
from devices.power import PowerRequest
from devices.syscon import TestDevice
from emu.memory import Ram
from firmware.boot import Boot, load
from tests.emu.asm import j
from tests.emu.tiny import write_image
from tests.firmware.test_elf import code, elf

BASE, SIZE = 0x8000_0000, 64 << 20
CPIO = b"070701" + b"0" * 88 + b"0000000B" + b"0" * 8 + b"TRAILER!!!\0\0\0\0"


class Loader:
    """Files in a directory, and RAM to load them into."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel: Path | None = write_image(directory / "Image", j(0))
        self.ram = Ram(BASE, SIZE)

    def file(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path

    def load(self, initrd: Path | None = None, bios: Path | None = None, bootargs: str = "") -> tuple[Boot, bytes]:
        power: list[PowerRequest] = []
        return load(
            self.ram.room,
            range(BASE, BASE + SIZE),
            [Placement(TestDevice(power.append), 0x10_0000)],
            kernel=self.kernel,
            initrd=initrd,
            bios=bios,
            bootargs=bootargs,
            rng_seed=bytes(32),
        )


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def test_a_kernel_begins_in_s_mode_with_its_device_tree(loader: Loader) -> None:
    start, dtb = loader.load(bootargs="console=ttyS0 quiet")
    assert loader.kernel is not None
    image = loader.kernel.read_bytes()
    assert (start.machine_mode, start.pc, start.dynamic_info) == (False, BASE + (2 << 20), 0)
    assert loader.ram.read(start.pc, len(image)) == image
    assert loader.ram.read(start.dtb, len(dtb)) == dtb
    assert dtb[:4] == b"\xd0\x0d\xfe\xed"
    assert b"console=ttyS0 quiet\0" in dtb


def test_the_initramfs_is_where_the_device_tree_says(loader: Loader) -> None:
    start, dtb = loader.load(initrd=loader.file("rootfs.cpio", CPIO))
    assert b"linux,initrd-start\0" in dtb
    at = loader.ram.buffer.find(CPIO)
    assert at > 0
    assert struct.pack(">Q", BASE + at) in dtb or struct.pack(">I", BASE + at) in dtb
    assert BASE + at + len(CPIO) <= start.dtb


def test_the_device_tree_is_the_same_for_the_same_seed(loader: Loader) -> None:
    assert loader.load()[1] == loader.load()[1]


def test_firmware_begins_in_m_mode_at_the_start_of_ram(loader: Loader) -> None:
    bios = loader.file("fw.bin", b"\x13\0\0\0" * 64)
    start, dtb = loader.load(bios=bios)
    assert (start.machine_mode, start.pc) == (True, BASE)
    assert loader.ram.read(BASE, 256) == bios.read_bytes()
    info = struct.unpack("<6Q", loader.ram.read(start.dynamic_info, 48))
    assert info == (0x4942534F, 2, BASE + (2 << 20), 1, 0, 0)
    assert loader.ram.read(start.dtb, len(dtb)) == dtb


def test_firmware_that_reaches_into_the_kernel(loader: Loader) -> None:
    with pytest.raises(UsageError, match="firmware"):
        loader.load(bios=loader.file("fw.bin", b"\x13\0\0\0" * (1 << 20)))


def test_firmware_alone_is_a_machine(loader: Loader) -> None:
    bios = loader.file("fw.bin", b"\x13\0\0\0" * (1 << 20))  # larger than a kernel's firmware may be
    loader.kernel = None
    start, dtb = loader.load(bios=bios, initrd=loader.file("any", b"hello"))
    assert (start.machine_mode, start.pc) == (True, BASE)
    assert loader.ram.read(start.dtb, len(dtb)) == dtb
    assert loader.ram.buffer.find(b"hello") > 4 << 20
    assert struct.unpack("<6Q", loader.ram.read(start.dynamic_info, 48))[2] == BASE + (2 << 20)


def test_firmware_begins_where_its_elf_file_says(loader: Loader) -> None:
    loader.kernel = None
    start, _ = loader.load(bios=loader.file("fw.elf", elf(code(BASE + 0x1000, b"code"), entry=BASE + 0x1002)))
    assert (start.machine_mode, start.pc) == (True, BASE + 0x1002)
    assert loader.ram.read(BASE + 0x1000, 4) == b"code"


def test_another_kernel_than_linux(loader: Loader) -> None:
    at = BASE + (3 << 20)
    loader.kernel = loader.file("kernel.elf", elf(code(at, b"code"), entry=at + 2))
    start, _ = loader.load(initrd=loader.file("any", b"hello"))
    assert (start.machine_mode, start.pc) == (False, at + 2)
    assert loader.ram.read(at, 4) == b"code"
    start, _ = loader.load(bios=loader.file("fw.bin", b"\x13\0\0\0" * 64))
    assert struct.unpack("<6Q", loader.ram.read(start.dynamic_info, 48))[2] == at + 2


def test_a_missing_file(loader: Loader) -> None:
    with pytest.raises(UsageError, match="No such file"):
        loader.load(initrd=loader.directory / "none")


def test_an_initramfs_that_does_not_fit(loader: Loader) -> None:
    big = loader.file("big.cpio", CPIO + bytes(SIZE))
    with pytest.raises(UsageError, match="use --memory"):
        loader.load(initrd=big)
