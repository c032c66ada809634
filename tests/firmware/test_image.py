import bz2
import gzip
import lzma
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.errors import UsageError
from emu.guest import cpio
from firmware import files
from firmware.image import fw_dynamic_info, load_bios, load_initrd, load_kernel

IMAGE_SIZE = 0x9000
CPIO = b"070701" + b"0" * 88 + b"0000000B" + b"0" * 8 + b"TRAILER!!!\0\0\0\0"

#: With a program that unpacks archives itself.
BUSYBOX = cpio.pack([cpio.file("bin/busybox", b"\x7fELF" + CPIO, 0o755)])


A3, A4 = 13, 14


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
    """A kernel as far as a loader looks at it: a jump to 0x1000, which clears a bss that begins at 0x8000."""
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
    kernel = load_kernel(user_file(pack(image)))
    assert kernel.data == image
    assert kernel.text_offset == 0x20_0000
    assert kernel.image_size == IMAGE_SIZE


def elf(machine: int, bits: int = 2) -> bytes:
    return (b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + struct.pack("<HH", 2, machine)).ljust(4096, b"\0")


def patched(data: bytes, offset: int, patch: bytes) -> bytes:
    return data[:offset] + patch + data[offset + len(patch) :]


NOTHING = bytes(4096)

WRONG_KERNELS = {
    "vmlinux": (elf(243), r"64-bit ELF file for RISC-V .*boot/Image"),
    "vmlinux of a PC": (elf(62), "ELF file for x86-64"),
    "vmlinux, 32 bits": (elf(243, bits=1), "32-bit ELF file for RISC-V"),
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
    "a byte": (b"x", "something unknown"),
    "text": (b"#!/bin/sh\nexit 0\n", "something unknown"),
    "noise": (bytes(range(256)) * 16, "something unknown"),
}


@pytest.mark.parametrize(("data", "message"), WRONG_KERNELS.values(), ids=WRONG_KERNELS)
def test_wrong_kernel_gets_one_line(user_file: UserFile, data: bytes, message: str) -> None:
    path = user_file(data)
    with pytest.raises(UsageError, match=message) as error:
        load_kernel(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [load_kernel, load_initrd, load_bios])
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
        load_kernel(path)


def test_bomb_is_bounded(user_file: UserFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SIZE", files.MIB)
    with pytest.raises(UsageError, match="larger than 1 MiB when unpacked"):
        load_kernel(user_file(gzip.compress(bytes(64 * files.MIB))))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load_kernel(user_file(bytes(files.MIB + 1)))


@pytest.mark.parametrize("data", [BUSYBOX, CPIO + bytes(1 << 20), CPIO + BUSYBOX, CPIO + gzip.compress(CPIO)])
def test_whole_archives(user_file: UserFile, data: bytes) -> None:
    assert load_initrd(user_file(data)) == data


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_initramfs_is_left_as_it_is(user_file: UserFile, pack: Callable[[bytes], bytes]) -> None:
    data = pack(CPIO)
    assert load_initrd(user_file(data)) == data


def test_initramfs_in_a_compression_of_the_kernels_is_left_to_it(user_file: UserFile) -> None:
    data = b"\x28\xb5\x2f\xfd" + bytes(100)
    assert load_initrd(user_file(data)) == data


WRONG_INITRDS = {
    "kernel": (riscv_image(), "not an initramfs but a kernel; the kernel comes first"),
    "packed kernel": (gzip.compress(riscv_image()), "not an initramfs but a kernel"),
    "vmlinux": (elf(243), "not an initramfs but a kernel"),
    "truncated": (CPIO[:100], "truncated or damaged cpio"),
    "truncated in a program with the mark in it": (BUSYBOX[: -len(CPIO)], "truncated or damaged cpio"),
    "the second of two": (CPIO + bytes(400) + BUSYBOX[:-100], "truncated or damaged cpio"),
    "negative sizes": (CPIO[:54] + b"-0000100" + CPIO[62:], "truncated or damaged cpio"),
    "ext4": (patched(NOTHING, 0x438, b"\x53\xef"), "ext2/3/4 file system; give it with --disk"),
    "old cpio": (b"070707" + NOTHING, "old format; .*-H newc"),
    "empty": (b"", "empty"),
    "text": (b"hello", "something unknown"),
    "packed text": (gzip.compress(b"hello"), "something unknown"),
}


@pytest.mark.parametrize(("data", "message"), WRONG_INITRDS.values(), ids=WRONG_INITRDS)
def test_wrong_initramfs_gets_one_line(user_file: UserFile, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_initrd(user_file(data))
    assert "\n" not in str(error.value)


def test_firmware_is_taken_raw(user_file: UserFile) -> None:
    assert load_bios(user_file(b"\x13\x04\x05\x00" * 100)) == b"\x13\x04\x05\x00" * 100


@pytest.mark.parametrize(
    ("data", "message"),
    [(elf(243), "give the .bin"), (riscv_image(), "give it as the IMAGE"), (gzip.compress(b"x"), "raw"), (CPIO, "raw")],
)
def test_wrong_firmware_gets_one_line(user_file: UserFile, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_bios(user_file(data))


def test_fw_dynamic_info() -> None:
    magic, version, next_address, next_mode, options, boot_hart = struct.unpack("<6Q", fw_dynamic_info(0x8020_0000))
    assert magic.to_bytes(4, "little") == b"OSBI"
    assert (version, next_address, next_mode, options, boot_hart) == (2, 0x8020_0000, 1, 0, 0)
