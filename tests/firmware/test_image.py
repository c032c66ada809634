import bz2
import gzip
import lzma
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.errors import UsageError
from emu.guest import cpio
from firmware import files
from firmware.image import fw_dynamic_info, load_bios, load_initrd, load_kernel
from firmware.program import Program
from tests.firmware.test_elf import code, elf

IMAGE_SIZE = 0x9000
BASE = 0x8000_0000
RAM = range(BASE, BASE + (64 << 20))
CPIO = b"070701" + b"0" * 88 + b"0000000B" + b"0" * 8 + b"TRAILER!!!\0\0\0\0"

#: With a program that unpacks archives itself.
BUSYBOX = cpio.pack([cpio.file("bin/busybox", b"\x7fELF" + CPIO, 0o755)])


A3, A4 = 13, 14


def initrd(path: Path, *, for_linux: bool) -> bytes:
    """Return what is loaded."""
    places = []

    def room(size: int) -> memoryview:
        places.append(memoryview(bytearray(size)))
        return places[-1]

    load_initrd(path, room, for_linux=for_linux)
    return bytes(places[-1])


def _jal(distance: int) -> bytes:
    """``j .+distance`` (RISC-V unprivileged specification, J-type)."""
    immediate = (distance >> 1 & 0x3FF) << 21 | (distance >> 11 & 1) << 20 | distance & 0xF_F000
    return struct.pack("<I", immediate | 0x6F)


def _la(register: int, distance: int) -> bytes:
    """``auipc`` and ``addi``: load an address relative to the pc."""
    high, low = distance + 0x800 & 0xFFFF_F000, distance & 0xFFF
    return struct.pack("<II", high | register << 7 | 0x17, low << 20 | register << 15 | register << 7 | 0x13)


def riscv_image(
    length: int = 0x8000,
    text_offset: int = 0x20_0000,
    flags: int = 0,
    *,
    mz: bool = False,
    image_size: int = IMAGE_SIZE,
) -> bytes:
    """A kernel, as far as a loader sees: a jump to 0x1000, where it clears a bss that begins at 0x8000."""
    entry, bss = 0x1000, 0x8000
    jump = b"MZ" + _jal(entry - 2) if mz else _jal(entry)
    header = jump.ljust(8, b"\0") + struct.pack("<QQQQQ", text_offset, image_size, flags, 2, 0)
    header += b"RISCV\0\0\0" + b"RSC\x05" + bytes(4)
    csrw = 0x10401073
    la_bss_start = _la(A3, bss - entry - 4)
    la_bss_stop = _la(A4, bss - entry - 12 + 0x800)
    image = header.ljust(entry, b"\0") + struct.pack("<I", csrw) + la_bss_start + la_bss_stop
    return image.ljust(bss, b"\x13")[:length]


@pytest.fixture
def user_file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write


UserFile = Callable[[bytes], Path]


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, lzma.compress, bz2.compress, lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)],
    ids=["plain", "gzip", "xz", "bzip2", "lzma"],
)
@pytest.mark.parametrize("mz", [False, True], ids=["", "efi stub"])
def test_kernel_is_unpacked(user_file: UserFile, pack: Callable[[bytes], bytes], mz: bool) -> None:
    image = riscv_image(mz=mz)
    kernel = load_kernel(user_file(pack(image)), RAM)
    assert kernel == Program(BASE + 0x20_0000, image, IMAGE_SIZE, BASE + 0x20_0000, is_linux=True)


UBOOT = b"\x2a\x84\xae\x84" + bytes(4000)  # mv s0,a0; mv s1,a1


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_raw_binary_goes_behind_the_firmware(user_file: UserFile, pack: Callable[[bytes], bytes]) -> None:
    program = load_kernel(user_file(pack(UBOOT)), RAM)
    assert program == Program(BASE + 0x20_0000, UBOOT, len(UBOOT), BASE + 0x20_0000)


@pytest.mark.parametrize("load", [load_kernel, load_bios])
def test_an_elf_file_goes_where_it_wants(user_file: UserFile, load: Callable[[Path, range], Program]) -> None:
    at, nops = BASE + 0x40_0000, b"\x13\0\0\0" * 16
    program = load(user_file(elf(code(at, nops, 0x1000), entry=at + 16)), RAM)
    assert program == Program(at, nops, 0x1000, at + 16)


def patched(data: bytes, offset: int, patch: bytes) -> bytes:
    return data[:offset] + patch + data[offset + len(patch) :]


NOTHING = bytes(4096)

WRONG_KERNELS = {
    "vmlinux": (
        elf(code(0xFFFF_FFFF_8000_0000)),
        r"64-bit ELF file for RISC-V .*boot/Image",
    ),
    "ELF for M mode": (
        elf(code()),
        "linked to 0x80000000, where M-mode software is; .*--bios, else link it to 0x80200000",
    ),
    "vmlinux of a PC": (elf(machine=62), "ELF file for x86-64"),
    "vmlinux, 32 bits": (elf(bits=1), "32-bit ELF file for RISC-V"),
    "bzImage": (patched(patched(NOTHING, 0x1FE, b"\x55\xaa"), 0x202, b"HdrS"), "x86 bzImage; .*ARCH=riscv"),
    "bzImage with EFI stub": (
        patched(patched(patched(NOTHING, 0, b"MZ"), 0x1FE, b"\x55\xaa"), 0x202, b"HdrS"),
        "x86 bzImage",
    ),
    "arm64": (patched(patched(NOTHING, 0, b"MZ"), 0x38, b"ARMd"), "arm64 Image"),
    "arm64, packed": (gzip.compress(patched(NOTHING, 0x38, b"ARMd")), "arm64 Image"),
    "EFI": (patched(NOTHING, 0, b"MZ"), "an EFI program"),
    "zboot": (patched(NOTHING, 0, b"MZ\0\0zimg"), "zboot"),
    "uImage": (patched(NOTHING, 0, b"\x27\x05\x19\x56"), "uImage"),
    "FIT": (patched(NOTHING, 0, b"\xd0\x0d\xfe\xed"), "FIT"),
    "riscv32": (riscv_image(text_offset=0x40_0000), "32-bit RISC-V kernel"),
    "no MMU": (riscv_image(text_offset=0), "CONFIG_MMU"),
    "big-endian": (riscv_image(flags=1), "big-endian"),
    "absurd offset": (riscv_image(text_offset=1 << 63), "no sense"),
    "absurd size": (riscv_image(image_size=1 << 63), "no sense"),
    "header only": (riscv_image(length=64), "truncated"),
    "less than a header": (riscv_image(length=62), "truncated"),
    "half": (riscv_image(length=0x4000), "truncated"),
    "half, with EFI stub": (riscv_image(length=0x4000, mz=True), "truncated"),
    "two pages short": (riscv_image(length=0x6000), "truncated"),
    "truncated gzip": (gzip.compress(os.urandom(5000))[:2000], "truncated gzip"),
    "truncated xz": (lzma.compress(os.urandom(5000))[:2000], "truncated xz"),
    "damaged gzip": (patched(gzip.compress(riscv_image()), 10, b"\xff" * 8), "damaged gzip"),
    "damaged xz": (patched(lzma.compress(riscv_image()), 20, b"\xff" * 8), "damaged xz"),
    "zstd": (patched(NOTHING, 0, b"\x28\xb5\x2f\xfd"), "compressed with zstd; unpack it first"),
    "cpio": (CPIO, "cpio archive; the kernel comes first"),
    "packed cpio": (gzip.compress(CPIO), "cpio archive; the kernel comes first"),
    "ext4": (patched(NOTHING, 0x438, b"\x53\xef"), "ext2/3/4 file system; .*--disk"),
    "empty": (b"", "empty"),
    "a byte": (b"\x13", "something unknown"),
    "text": (b"#!/bin/sh\nexit 0\n", "a text file; give the kernel's arch/riscv/boot/Image"),
    "web page": ("<!DOCTYPE html><p>Où?".encode() * 1000, "a text"),
    "zeros": (NOTHING, "something unknown that does not begin with an instruction"),
    "erased": (b"\xff" * 4096, "something unknown that does not begin with an instruction"),
}


@pytest.mark.parametrize(("data", "message"), WRONG_KERNELS.values(), ids=WRONG_KERNELS)
def test_wrong_kernel_gets_one_line(user_file: UserFile, data: bytes, message: str) -> None:
    path = user_file(data)
    with pytest.raises(UsageError, match=message) as error:
        load_kernel(path, RAM)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "load",
    [
        lambda path: load_kernel(path, RAM),
        lambda path: initrd(path, for_linux=True),
        lambda path: initrd(path, for_linux=False),
        lambda path: load_bios(path, RAM),
    ],
)
def test_what_is_not_a_file(tmp_path: Path, load: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        load(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "missing")
    with pytest.raises(UsageError, match="device"):
        load(Path("/dev/zero"))
    with pytest.raises(UsageError, match="null byte"):
        load(tmp_path / "nul\0")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_kernel(user_file: UserFile) -> None:
    path = user_file(riscv_image())
    path.chmod(0)
    with pytest.raises(UsageError, match="Permission denied"):
        load_kernel(path, RAM)


def test_bomb_is_bounded(user_file: UserFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SIZE", files.MIB)
    with pytest.raises(UsageError, match="larger than 1 MiB when unpacked"):
        load_kernel(user_file(gzip.compress(bytes(64 * files.MIB))), RAM)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load_kernel(user_file(bytes(files.MIB + 1)), RAM)


@pytest.mark.parametrize("data", [BUSYBOX, CPIO + bytes(1 << 20), CPIO + BUSYBOX, CPIO + gzip.compress(CPIO, mtime=0)])
def test_whole_archives(user_file: UserFile, data: bytes) -> None:
    assert initrd(user_file(data), for_linux=True) == data


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_initramfs_is_left_as_it_is(user_file: UserFile, pack: Callable[[bytes], bytes]) -> None:
    data = pack(CPIO)
    assert initrd(user_file(data), for_linux=True) == data


def test_initramfs_in_a_compression_of_the_kernels_is_left_to_it(user_file: UserFile) -> None:
    data = b"\x28\xb5\x2f\xfd" + bytes(100)
    assert initrd(user_file(data), for_linux=True) == data


def test_an_initramfs_may_come_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(CPIO,))
    writer.start()
    assert initrd(pipe, for_linux=True) == CPIO
    writer.join()


def test_an_initramfs_that_grows_while_it_is_read(user_file: UserFile) -> None:
    path, places = user_file(CPIO), []

    def room(size: int) -> memoryview:
        if not places:
            path.write_bytes(CPIO + CPIO)
        places.append(memoryview(bytearray(size)))
        return places[-1]

    load_initrd(path, room, for_linux=True)
    assert places[-1] == CPIO + CPIO


WRONG_INITRDS = {
    "kernel": (riscv_image(), "not an initramfs but a kernel; the kernel comes first"),
    "packed kernel": (gzip.compress(riscv_image()), "not an initramfs but a kernel"),
    "vmlinux": (elf(), "not an initramfs but a kernel"),
    "truncated": (CPIO[:100], "truncated or damaged cpio"),
    "truncated in a program with the mark in it": (BUSYBOX[: -len(CPIO)], "truncated or damaged cpio"),
    "the second of two": (CPIO + bytes(400) + BUSYBOX[:-100], "truncated or damaged cpio"),
    "negative sizes": (CPIO[:54] + b"-0000100" + CPIO[62:], "truncated or damaged cpio"),
    "old cpio": (b"070707" + NOTHING, "old format; .*-H newc"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize(("data", "message"), WRONG_INITRDS.values(), ids=WRONG_INITRDS)
def test_wrong_initramfs_gets_one_line(user_file: UserFile, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        initrd(user_file(data), for_linux=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (
            patched(NOTHING, 0x438, b"\x53\xef"),
            "but an ext2/3/4 file system; give it with --disk and root=/dev/vda, or",
        ),
        (b"hsqs" + NOTHING, "but a squashfs file system"),
        (b"hello", "but something unknown; make it with: find"),
        (gzip.compress(b"hello", mtime=0), "but something unknown"),
    ],
)
def test_linux_may_have_another_use_for_what_is_no_archive(
    user_file: UserFile, caplog: pytest.LogCaptureFixture, data: bytes, warning: str
) -> None:
    """Linux takes a file system as a RAM disk if it was built that way, which pyemu cannot know."""
    path = user_file(data)
    assert initrd(path, for_linux=True) == data
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{path}: not a cpio archive (newc) {warning}")


@pytest.mark.parametrize("data", [b"hello", riscv_image(), CPIO[:100], gzip.compress(b"x", mtime=0), NOTHING])
def test_another_kernel_gets_any_file(user_file: UserFile, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    assert initrd(user_file(data), for_linux=False) == data
    assert caplog.records == []


def test_firmware_is_taken_raw(user_file: UserFile) -> None:
    data = b"\x13\x04\x05\x00" * 100
    assert load_bios(user_file(data), RAM) == Program(BASE, data, len(data), BASE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (elf(), "nothing to load"),
        (elf(machine=62), "ELF file for x86-64; build it for RISC-V"),
        (riscv_image(), "give it as the IMAGE"),
        (gzip.compress(b"x", mtime=0), "raw"),
        (CPIO, "raw"),
        (b"hello", "not M-mode software"),
        (NOTHING, "not M-mode software"),
    ],
)
def test_wrong_firmware_gets_one_line(user_file: UserFile, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_bios(user_file(data), RAM)


def test_fw_dynamic_info() -> None:
    magic, version, next_address, next_mode, options, boot_hart = struct.unpack("<6Q", fw_dynamic_info(0x8020_0000))
    assert magic.to_bytes(4, "little") == b"OSBI"
    assert (version, next_address, next_mode, options, boot_hart) == (2, 0x8020_0000, 1, 0, 0)
