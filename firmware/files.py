"""Files that the user gives: reading, unpacking and recognising them.

A file is recognised by its contents, never by its name. One that cannot work is refused with one line that says what
the file is and what to do (UsageError).
"""

import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from devices.errors import UsageError

__all__ = [
    "CPIO_MAGICS",
    "MAX_SIZE",
    "MIB",
    "PEEKED",
    "SIGNATURE_SIZE",
    "describe_disk_image",
    "describe_elf",
    "describe_foreign_kernel",
    "is_compressed",
    "is_elf",
    "is_riscv_image",
    "is_text",
    "is_whole_cpio",
    "peek",
    "read_file",
    "read_file_into",
    "unpack",
]

MIB = 1 << 20
#: The largest file, packed or unpacked, that is read: what a compressed file expands to is bounded, too.
MAX_SIZE = 512 * MIB


class _Decompressor(Protocol):
    """What zlib, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _bunzip() -> _Decompressor:
    import bz2  # noqa: PLC0415 - would cost every start half a millisecond

    return bz2.BZ2Decompressor()


def _unxz() -> _Decompressor:
    import lzma  # noqa: PLC0415 - likewise

    return lzma.LZMADecompressor()


def _damages() -> tuple[type[Exception], ...]:
    """What the decompressors raise for a damaged file."""
    from lzma import LZMAError  # noqa: PLC0415

    return zlib.error, LZMAError, OSError, EOFError, MemoryError


#: Magic number, name, and the decompressor if the standard library has one.
COMPRESSIONS: tuple[tuple[bytes, str, Callable[[], _Decompressor] | None], ...] = (
    (b"\x1f\x8b", "gzip", lambda: zlib.decompressobj(wbits=31)),
    (b"\xfd7zXZ\0", "xz", _unxz),
    (b"BZh", "bzip2", _bunzip),
    (b"\x5d\0\0", "lzma", _unxz),
    (b"\x28\xb5\x2f\xfd", "zstd", None),
    (b"\x02\x21\x4c\x18", "lz4", None),
    (b"\x04\x22\x4d\x18", "lz4", None),
    (b"\x89LZO", "lzop", None),
)


def read_file(path: Path, what: str) -> bytes:
    """Read all of a file that the user gave as ``what`` ("kernel"); raises UsageError."""
    with _opened(path, what) as file:
        data = file.read(MAX_SIZE + 1)
    _check_size(len(data), path, what)
    return data


def read_file_into(room: Callable[[int], memoryview], path: Path, what: str) -> memoryview:
    """Read all of a file that the user gave to where ``room(size)`` says, and return that: half as long as a copy."""
    with _opened(path, what) as file:
        size = os.fstat(file.fileno()).st_size  # 0 for a pipe
        if size:
            _check_size(size, path, what)
            there = room(size)
            if file.readinto(there) == size and not file.read(1):
                return there
            file.seek(0)  # it changes just now
        data = file.read(MAX_SIZE + 1)
    _check_size(len(data), path, what)
    there = room(len(data))
    there[:] = data
    return there


@contextmanager
def _opened(path: Path, what: str) -> Iterator[BufferedReader]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path}: the {what} must be a file, but this is a directory")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise UsageError(f"{path}: the {what} must be a regular file, but this is a device or a socket")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UsageError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{str(path)!r}: cannot read the {what}: {error}") from error


def _check_size(size: int, path: Path, what: str) -> None:
    if not size:
        raise UsageError(f"{path}: the {what} is empty")
    if size > MAX_SIZE:
        raise UsageError(f"{path}: the {what} is larger than {MAX_SIZE // MIB} MiB")


def _compression(data: bytes) -> tuple[str, Callable[[], _Decompressor] | None] | None:
    for magic, name, decompressor in COMPRESSIONS:
        if data.startswith(magic):
            return name, decompressor
    return None


def unpack(data: bytes, path: Path, what: str) -> bytes:
    """Return ``data`` unpacked, or unchanged if it is not compressed."""
    compression = _compression(data)
    if compression is None:
        return data
    name, make_decompressor = compression
    if make_decompressor is None:
        raise UsageError(f"{path}: the {what} is compressed with {name}; unpack it first, or use gzip or xz")
    decompressor = make_decompressor()
    try:
        unpacked = decompressor.decompress(data, MAX_SIZE + 1)
    except _damages() as error:
        raise UsageError(f"{path}: the {what} is a damaged {name} file: {error}") from error
    if len(unpacked) > MAX_SIZE:
        raise UsageError(f"{path}: the {what} is larger than {MAX_SIZE // MIB} MiB when unpacked")
    if not decompressor.eof:
        raise UsageError(f"{path}: the {what} is a truncated {name} file; copy or download it again")
    return unpacked


def is_compressed(data: bytes) -> bool:
    """Whether ``data`` begins like a compressed file."""
    return _compression(data) is not None


def peek(data: bytes, size: int) -> bytes:
    """Return the first bytes of what ``data``, of which PEEKED bytes do, unpacks to; b"" if that is impossible."""
    compression = _compression(data)
    if compression is None:
        return data[:size]
    _, make_decompressor = compression
    if make_decompressor is None:
        return b""
    try:
        return make_decompressor().decompress(data[:PEEKED], size)
    except _damages():
        return b""


ELF_MACHINES = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC", 40: "ARM", 62: "x86-64", 183: "arm64", 243: "RISC-V"}
GIVE_IMAGE = "give the kernel's arch/riscv/boot/Image instead"
BUILD_IMAGE = "build the kernel with ARCH=riscv and give its arch/riscv/boot/Image"
#: Offset, magic number there, and what has it; "MZ", with which many kernels begin for EFI's sake, comes late.
FOREIGN_KERNELS = (
    (0x202, b"HdrS", f"an x86 bzImage; {BUILD_IMAGE}"),
    (0x38, b"ARMd", f"an arm64 Image; {BUILD_IMAGE}"),
    (4, b"zimg", f"a compressed EFI kernel (zboot); {GIVE_IMAGE}"),
    (0, b"MZ", f"an EFI program; {GIVE_IMAGE}"),
    (0, b"\x27\x05\x19\x56", f"a U-Boot uImage; {GIVE_IMAGE}"),
    (0, b"\xd0\x0d\xfe\xed", f"a device tree or a U-Boot FIT image; {GIVE_IMAGE}"),
)
CPIO_MAGICS = (b"070701", b"070702")
#: Captures the sizes of the file and of its name.
_CPIO_HEADER = re.compile(rb"\0*07070[12][0-9A-Fa-f]{48}([0-9A-Fa-f]{8})[0-9A-Fa-f]{32}([0-9A-Fa-f]{8})[0-9A-Fa-f]{8}")
_ONE_MORE_CPIO = re.compile(rb"\0*07070[12]")
#: Printable ASCII, white space, and the bytes that UTF-8 uses for everything else.
_TEXT = bytes((*b"\t\n\f\r", *range(0x20, 0x7F), *range(0x80, 0xF5)))
#: As many bytes of a file as it takes to tell what it is.
SIGNATURE_SIZE = 2048
#: As many bytes of a compressed one as are looked at for that.
PEEKED = 64 << 10


def is_riscv_image(head: bytes) -> bool:
    """Whether a file is a Linux Image for RISC-V, by either of the two magic numbers in its header."""
    return head[0x38:0x3C] == b"RSC\x05" or head[0x30:0x38] == b"RISCV\0\0\0"


def is_text(head: bytes) -> bool:
    """Whether a file begins like text: a script, or a web page that was downloaded instead of the file."""
    return not head.translate(None, _TEXT)


def is_whole_cpio(data: bytes | memoryview) -> bool:
    """Whether an archive runs from file to file up to its end mark; archives after it, which Linux also unpacks, too.

    Finding the mark somewhere proves nothing: a program that unpacks archives, like busybox, contains it.
    """
    at = 0
    while header := _CPIO_HEADER.match(data, at):
        name = header.end() + int(header[2], 16)  # where the name ends
        at = _aligned(_aligned(name) + int(header[1], 16))
        if data[header.end() : name] == b"TRAILER!!!\0" and not _ONE_MORE_CPIO.match(data, at):
            return True
    return False


def _aligned(size: int) -> int:
    return size + 3 & ~3


def describe_elf(head: bytes) -> str:
    """Say what an ELF file is for."""
    bits = {1: "32-bit", 2: "64-bit"}.get(head[4], "broken")
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return f"a {bits} ELF file for {ELF_MACHINES.get(machine, f'machine {machine}')}"


def is_elf(head: bytes) -> bool:
    """Whether a file is ELF."""
    return head.startswith(b"\x7fELF") and len(head) >= 64


def describe_foreign_kernel(head: bytes) -> str | None:
    """If ``head`` begins a kernel that cannot be booted here, say what it is and what to do about it."""
    if is_elf(head):
        return f"{describe_elf(head)} (a vmlinux?); {GIVE_IMAGE}"
    for offset, magic, what in FOREIGN_KERNELS:
        if head[offset : offset + len(magic)] == magic:
            return what
    return None


def describe_disk_image(head: bytes) -> str | None:
    """Name the file system or partition table that ``head`` begins."""
    if head[0x438:0x43A] == b"\x53\xef":
        return "an ext2/3/4 file system"
    if head.startswith(b"hsqs"):
        return "a squashfs file system"
    if head.startswith(b"QFI\xfb"):
        return "a qcow2 disk image, to be made raw with: qemu-img convert -O raw"
    if head[0x200:0x208] == b"EFI PART" or head[0x1FE:0x200] == b"\x55\xaa":
        return "a disk image"
    return None
