"""ELF programs: what they put into RAM, and those that cannot be run."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import UsageError
from firmware.elf import load_elf
from firmware.program import Program

BASE = 0x8000_0000
RAM = range(BASE, BASE + 0x10_0000)
PATH = Path("program")
HEADER, ENTRY = 64, 56
LOAD, NOTE = 1, 4

#: kind, contents, virtual and physical address, size in memory
Segment = tuple[int, bytes, int, int, int]


def elf(*segments: Segment, entry: int = BASE, kind: int = 2, machine: int = 243, bits: int = 2) -> bytes:
    table = contents = b""
    for what, data, virtual, physical, size in segments:
        offset = HEADER + ENTRY * len(segments) + len(contents)
        table += struct.pack("<IIQQQQQQ", what, 7, offset, virtual, physical, len(data), size, 4)
        contents += data
    ident = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9)
    fields = (kind, machine, 1, entry, HEADER, 0, 0, HEADER, ENTRY, len(segments), 0, 0, 0)
    return ident + struct.pack("<HHIQQQIHHHHHH", *fields) + table + contents


def code(at: int = BASE, data: bytes = b"code", size: int = 0) -> Segment:
    return LOAD, data, at, at, max(size, len(data))


def test_one_segment_and_its_bss() -> None:
    assert load_elf(elf(code(size=0x100)), PATH, RAM) == Program(BASE, b"code", 0x100, BASE)


def test_several_segments_with_a_gap_in_any_order() -> None:
    data = elf(code(BASE + 8, b"data", 100), code(), (NOTE, b"note", 0, 0, 4), code(BASE + 64, b"", 0))
    assert load_elf(data, PATH, RAM) == Program(BASE, b"code\0\0\0\0data", 108, BASE)


def test_it_is_loaded_where_it_is_and_begins_where_that_is() -> None:
    """Linked to a virtual address: so is the entry point."""
    virtual = 0xFFFF_FFC0_0000_0000
    data = elf((LOAD, b"code", virtual, BASE + 0x100, 4), entry=virtual + 2)
    assert load_elf(data, PATH, RAM) == Program(BASE + 0x100, b"code", 4, BASE + 0x102)


WRONG = {
    "32 bits": (elf(code(), bits=1), "a 32-bit ELF file for RISC-V; build it for 64-bit RISC-V"),
    "x86": (elf(code(), machine=62), "for x86-64; build it for RISC-V"),
    "an object file": (elf(code(), kind=1), "is not linked"),
    "no segments": (elf(), "nothing to load"),
    "only notes": (elf((NOTE, b"note", 0, 0, 4)), "nothing to load"),
    "the table is missing": (elf(code())[:100], "truncated or damaged"),
    "half a segment": (elf(code(data=bytes(99)))[:150], "truncated or damaged"),
    "more in the file than in memory": (elf((LOAD, b"code", BASE, BASE, 2)), "truncated or damaged"),
    "below RAM": (elf(code(0x1000)), "loads at 0x1000, which is not RAM"),
    "beyond RAM": (
        elf(code(size=0x20_0000)),
        "loads at 0x80000000, and reaches beyond the end of RAM; use more --memory",
    ),
    "wraps around": (elf(code((1 << 64) - 4, size=0x1000)), "which is not RAM"),
    "begins elsewhere": (elf(code(), entry=BASE + 4), "whose entry point 0x80000004 is in none of its segments"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_run_gets_one_line(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_elf(data, PATH, RAM)
    assert str(error.value).startswith("program: ")
    assert "\n" not in str(error.value)


@given(
    st.integers(0, 119),
    st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, BASE.to_bytes(8, "little")]),
)
def test_a_damaged_file_is_refused_or_stays_in_ram(at: int, damage: bytes) -> None:
    good = elf(code(size=0x100))
    data = (good[:at] + damage + good[at + len(damage) :])[: len(good)]
    try:
        program = load_elf(data, PATH, RAM)
    except UsageError:
        return
    assert RAM.start <= program.start <= program.entry < program.space.stop <= RAM.stop
    assert len(program.data) <= program.size
