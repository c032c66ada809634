"""ELF programs, as far as a loader needs them: their segments, at physical addresses, and their entry points.

Layout: System V gABI, chapters 4 and 5; EM_RISCV is from the RISC-V psABI.
"""

import struct
from pathlib import Path
from typing import NamedTuple

from devices.errors import UsageError
from firmware.files import describe_elf
from firmware.program import Program

__all__ = ["load_elf"]

_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_EM_RISCV, _ET_EXEC, _ET_DYN, _PT_LOAD = 243, 2, 3, 1
#: From the header: type, machine, entry, program header offset, size and number of its entries.
_HEADER = struct.Struct("<16xHH4xQQ8x4x2xHH6x")
#: type, offset, virtual and physical address, size in the file and in memory.
_SEGMENT = struct.Struct("<I4xQQQQQ8x")


class _Segment(NamedTuple):
    """A program header of type PT_LOAD."""

    offset: int
    virtual: int
    physical: int
    size: int
    memory_size: int


def load_elf(data: bytes, path: Path, ram: range) -> Program:
    """Return what an ELF file puts into ``ram``; raises UsageError if it cannot run there."""
    entry, segments = _parse(data, path)
    for segment in segments:
        if not ram.start <= segment.physical <= segment.physical + segment.memory_size <= ram.stop:
            raise UsageError(
                f"{path}: {describe_elf(data)} that loads at {segment.physical:#x}, {_not_in(ram, segment.physical)}"
            )
    start = min(segment.physical for segment in segments)
    image = bytearray(max(segment.physical + segment.size for segment in segments) - start)
    for offset, _, physical, size, _ in segments:
        image[physical - start : physical - start + size] = data[offset : offset + size]
    end = max(segment.physical + segment.memory_size for segment in segments)
    for segment in segments:
        if segment.virtual <= entry < segment.virtual + segment.memory_size:
            return Program(start, bytes(image), end - start, entry - segment.virtual + segment.physical)
    raise UsageError(f"{path}: {describe_elf(data)} whose entry point {entry:#x} is in none of its segments")


def _parse(data: bytes, path: Path) -> tuple[int, list[_Segment]]:
    """Return the entry point and the segments, checked to lie within the file."""
    what = describe_elf(data)
    if not data.startswith(_IDENT) or len(data) < _HEADER.size:
        raise UsageError(f"{path}: {what}; build it for 64-bit RISC-V")
    kind, machine, entry, table, entry_size, count = _HEADER.unpack_from(data)
    if machine != _EM_RISCV:
        raise UsageError(f"{path}: {what}; build it for RISC-V")
    if kind not in (_ET_EXEC, _ET_DYN):
        raise UsageError(f"{path}: {what} that is not linked; link it to an address in RAM")
    whole = not count or (entry_size == _SEGMENT.size and table + count * entry_size <= len(data))
    headers = [_SEGMENT.unpack_from(data, table + number * entry_size) for number in range(count if whole else 0)]
    segments = [_Segment(*fields) for kind, *fields in headers if kind == _PT_LOAD]
    segments = [one for one in segments if one.memory_size]
    if not whole or any(one.size > one.memory_size or one.offset + one.size > len(data) for one in segments):
        raise UsageError(f"{path}: the ELF file is truncated or damaged; copy or build it again")
    if not segments:
        raise UsageError(f"{path}: {what} with nothing to load")
    return entry, segments


def _not_in(ram: range, physical: int) -> str:
    if physical in ram:
        return "and reaches beyond the end of RAM; use more --memory"
    return "which is not RAM (a vmlinux? give the kernel's arch/riscv/boot/Image instead)"
