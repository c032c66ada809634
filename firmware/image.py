"""What the user boots: the kernel, its initramfs, or M-mode firmware.

A kernel's header is described in Linux's Documentation/riscv/boot-image-header.rst.
"""

import logging
import struct
from collections.abc import Callable
from pathlib import Path

from devices.errors import UsageError
from firmware.elf import load_elf
from firmware.files import (
    CPIO_MAGICS,
    MAX_SIZE,
    MIB,
    PEEKED,
    SIGNATURE_SIZE,
    describe_disk_image,
    describe_foreign_kernel,
    is_compressed,
    is_elf,
    is_riscv_image,
    is_text,
    is_whole_cpio,
    peek,
    read_file,
    read_file_into,
    unpack,
)
from firmware.program import FIRMWARE_SPACE, Program

__all__ = ["fw_dynamic_info", "load_bios", "load_initrd", "load_kernel"]

logger = logging.getLogger(__name__)

#: Linux/riscv maps itself with pages of this size.
KERNEL_ALIGNMENT = 2 * MIB

# The instructions auipc and addi without their immediates, for `la a3` and `la a4`.
AUIPC_A3 = 0x697
ADDI_A3_A3 = 0x68693
AUIPC_A4 = 0x717
ADDI_A4_A4 = 0x70713
PAGE = 4096

_PARCEL = 2
#: All zeros and all ones are defined to be illegal, so that empty memory is not code (Unprivileged ISA, 1.5).
_NEVER_INSTRUCTIONS = (b"\0\0", b"\xff\xff")

SWAPPED = "the kernel comes first and the initramfs second: pyemu boot IMAGE ROOTFS"


#: code0 and code1, text_offset, image_size, flags; then version, the two magic numbers and reserved fields.
HEADER = struct.Struct("<QQQQ32x")
FLAG_BIG_ENDIAN = 1
#: arch/riscv/kernel/head.S: the only difference between the headers of a 32-bit and a 64-bit kernel.
TEXT_OFFSET_32_BIT = 0x40_0000


def load_kernel(path: Path, ram: range) -> Program:
    """Read what runs in S mode, plain or compressed with gzip, xz, bzip2 or lzma.

    It is Linux's ``Image``, an ELF file with its own addresses, or a raw binary for the end of the firmware's space
    (0x8020_0000), like U-Boot's. Raises UsageError for anything that cannot run.
    """
    image = unpack(read_file(path, "kernel"), path, "kernel")
    head = image[:SIGNATURE_SIZE]
    if is_riscv_image(head):
        return _load_linux(image, path, ram)
    next_stage = ram.start + FIRMWARE_SPACE
    if is_elf(head):
        program = load_elf(image, path, ram)
        if program.start < next_stage:
            raise UsageError(
                f"{path}: linked to {program.start:#x}, where M-mode software is; if it is M-mode software, give it "
                f"with --bios, else link it to {next_stage:#x}"
            )
        return program
    what = _not_a_kernel(head)
    if what is not None:
        raise UsageError(f"{path}: not a RISC-V kernel Image but {what}")
    return Program(next_stage, image, len(image), next_stage)


def _load_linux(image: bytes, path: Path, ram: range) -> Program:
    if len(image) < HEADER.size:
        raise UsageError(f"{path}: the kernel is truncated: {len(image)} bytes, less than its header")
    _, text_offset, image_size, flags = HEADER.unpack_from(image)
    if flags & FLAG_BIG_ENDIAN:
        raise UsageError(f"{path}: a big-endian RISC-V kernel; build a little-endian one")
    if text_offset == TEXT_OFFSET_32_BIT:
        raise UsageError(f"{path}: a 32-bit RISC-V kernel; build one with CONFIG_64BIT=y (defconfig has it)")
    if text_offset == 0:
        raise UsageError(f"{path}: a RISC-V kernel without MMU, for M mode; build one with CONFIG_MMU=y")
    if text_offset % KERNEL_ALIGNMENT or text_offset > MAX_SIZE or image_size > MAX_SIZE:
        raise UsageError(f"{path}: the header of the kernel makes no sense (offset {text_offset}, size {image_size})")
    if len(image) < _length_at_least(image):
        raise UsageError(f"{path}: the kernel is truncated; copy or download it again")
    start = ram.start + text_offset
    return Program(start, image, max(image_size, len(image)), start, is_linux=True)


def _not_a_kernel(head: bytes) -> str | None:
    """If a file given as the kernel is known not to be one, say what it is and what to do."""
    if head.startswith(CPIO_MAGICS):
        return f"a cpio archive; {SWAPPED}"
    disk = describe_disk_image(head)
    return (
        describe_foreign_kernel(head)
        or (disk and f"{disk}; give the kernel's arch/riscv/boot/Image, and this with --disk")
        or _no_code(head)
    )


def _no_code(head: bytes) -> str | None:
    """If a file cannot be a raw binary, say what it is; nearly everything can be one."""
    if is_text(head):
        return "a text file; give the kernel's arch/riscv/boot/Image"
    if len(head) < _PARCEL or head[:_PARCEL] in _NEVER_INSTRUCTIONS:
        return "something unknown that does not begin with an instruction; give the kernel's arch/riscv/boot/Image"
    return None


def _length_at_least(image: bytes) -> int:
    """Return a lower bound for the length of the file.

    The header does not tell: ``image_size`` counts the bss, which is not in the file. But the first thing a kernel does
    (``_start_kernel`` in head.S) is clear the bss, which begins within a page of the end of the file.
    """
    jump = 2 if image.startswith(b"MZ") else 0  # for EFI; as an instruction it does nothing
    entry = jump + _jump_distance(int.from_bytes(image[jump : jump + 4], "little"))
    for pc in range(entry, entry + 256, 2):
        distance = _bss_distance(image[pc : pc + 16])
        if distance is not None:
            return pc + distance - PAGE
    return entry


def _jump_distance(jal: int) -> int:
    """Decode a ``jal x0``; 0 if it is not one."""
    if jal & 0xFFF != 0x06F:
        return 0
    return -(jal >> 31) << 20 | jal & 0xF_F000 | (jal >> 20 & 1) << 11 | (jal >> 21 & 0x3FF) << 1


def _bss_distance(code: bytes) -> int | None:
    """Decode ``la a3, __bss_start; la a4, __bss_stop``: the distance to the former; None if it is not that."""
    if len(code) < 16:
        return None
    high, low, high_stop, low_stop = struct.unpack("<4I", code)
    opcodes = (high & 0xFFF, low & 0xF_FFFF, high_stop & 0xFFF, low_stop & 0xF_FFFF)
    if opcodes != (AUIPC_A3, ADDI_A3_A3, AUIPC_A4, ADDI_A4_A4):
        return None
    distance: int = (high >> 12 << 12) + ((low >> 20 ^ 0x800) - 0x800)
    return distance


def load_initrd(path: Path, room: Callable[[int], memoryview], *, for_linux: bool) -> None:
    """Read an initramfs as it is to where ``room(size)`` says: any file, if the kernel is not Linux.

    Linux takes a cpio archive (newc), plain or compressed in any way, which it unpacks itself; raises UsageError for
    what it cannot take. What it could take as an old RAM disk (root=/dev/ram0) gets a warning.
    """
    data = read_file_into(room, path, "initramfs")
    if not for_linux:
        return
    begin = bytes(data[:PEEKED])
    head = peek(begin, SIGNATURE_SIZE)
    if head.startswith(CPIO_MAGICS):
        if begin.startswith(head) and not is_whole_cpio(data):
            raise UsageError(f"{path}: the initramfs is a truncated or damaged cpio archive; make or copy it again")
        return
    if not head and is_compressed(begin):
        return  # a compression that only the kernel knows, or a damaged file, which the kernel will report
    if is_riscv_image(head) or describe_foreign_kernel(head):
        raise UsageError(f"{path}: not an initramfs but a kernel; {SWAPPED}")
    hint = "make it with: find . | cpio -o -H newc"
    if head.startswith((b"070707", b"\xc7\x71")):
        raise UsageError(f"{path}: not a cpio archive (newc) but a cpio archive in an old format; {hint}")
    disk = describe_disk_image(head)
    if disk is not None:
        hint = "give it with --disk and root=/dev/vda, or, if the kernel has RAM disks, root=/dev/ram0"
    logger.warning("%s: not a cpio archive (newc) but %s; %s", path, disk or "something unknown", hint)


def load_bios(path: Path, ram: range) -> Program:
    """Read what runs in M mode: a raw binary for the start of RAM, or an ELF file with its own addresses.

    Raises UsageError for anything else.
    """
    data = read_file(path, "firmware")
    head = data[:SIGNATURE_SIZE]
    if is_elf(head):
        return load_elf(data, path, ram)
    if is_riscv_image(head):
        raise UsageError(f"{path}: not firmware but a kernel; give it as the IMAGE")
    if is_compressed(head) or describe_foreign_kernel(head) or head.startswith(CPIO_MAGICS) or _no_code(head):
        raise UsageError(f"{path}: not M-mode software; give a raw binary, like OpenSBI's fw_jump.bin, or an ELF file")
    return Program(ram.start, data, len(data), ram.start)


#: OpenSBI, include/sbi/fw_dynamic.h: magic, version, next_addr, next_mode, options, boot_hart
FW_DYNAMIC_INFO = struct.Struct("<6Q")
FW_DYNAMIC_MAGIC = 0x4942_534F
FW_DYNAMIC_VERSION = 2
NEXT_MODE_S = 1


def fw_dynamic_info(next_address: int, boot_hart: int = 0) -> bytes:
    """Return the struct whose address ``fw_dynamic.bin`` wants in a2: start ``next_address`` in S mode."""
    return FW_DYNAMIC_INFO.pack(FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION, next_address, NEXT_MODE_S, 0, boot_hart)
