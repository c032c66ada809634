"""Every form of a memory access, against what binutils makes of it (objdump on the same words)."""

import pytest

from emu.cpu.operand import memory_operand

X = [0] + [n << 32 for n in range(1, 32)]


@pytest.mark.parametrize(
    ("instruction", "base", "offset", "writes"),
    [
        (0xFFF10503, 2, -1, False),  # lb a0,-1(sp)
        (0x7FF16503, 2, 2047, False),  # lwu a0,2047(sp)
        (0x80011023, 2, -2048, True),  # sh zero,-2048(sp)
        (0x7EA13C23, 2, 2040, True),  # sd a0,2040(sp)
        (0x00853087, 10, 8, False),  # fld ft1,8(a0)
        (0xFE153C27, 10, -8, True),  # fsd ft1,-8(a0)
        (0x00B6252F, 12, 0, True),  # amoadd.w a0,a1,(a2)
        (0x1005A52F, 11, 0, False),  # lr.w a0,(a1)
    ],
)
def test_instructions_of_four_bytes(instruction: int, base: int, offset: int, writes: bool) -> None:
    assert memory_operand(instruction, X) == ((X[base] + offset) % (1 << 64), writes)


@pytest.mark.parametrize("instruction", [0x00000013, 0x00000073, 0x0000006F, 0x0001, 0x8082, 0x1008])
def test_others_have_none(instruction: int) -> None:
    assert memory_operand(instruction, X) is None


@pytest.mark.parametrize(
    ("instruction", "base", "offset", "writes"),
    [
        (0x40C8, 9, 4, False),  # c.lw a0,4(s1)
        (0x40A8, 9, 64, False),  # c.lw a0,64(s1)
        (0x5F88, 15, 56, False),  # c.lw a0,56(a5)
        (0x6488, 9, 8, False),  # c.ld a0,8(s1)
        (0x60E8, 9, 192, False),  # c.ld a0,192(s1)
        (0x7FE8, 15, 248, False),  # c.ld a0,248(a5)
        (0xC0E8, 9, 68, True),  # c.sw a0,68(s1)
        (0xDC48, 8, 60, True),  # c.sw a0,60(s0)
        (0xE4E8, 9, 200, True),  # c.sd a0,200(s1)
        (0x20C8, 9, 128, False),  # c.fld fa0,128(s1)
        (0xA0A8, 9, 64, True),  # c.fsd fa0,64(s1)
        (0x4512, 2, 4, False),  # c.lw a0,4(sp)
        (0x557E, 2, 252, False),  # c.lw a0,252(sp)
        (0x6522, 2, 8, False),  # c.ld a0,8(sp)
        (0x757E, 2, 504, False),  # c.ld a0,504(sp)
        (0x2512, 2, 256, False),  # c.fld fa0,256(sp)
        (0xC22A, 2, 4, True),  # c.sw a0,4(sp)
        (0xDFAA, 2, 252, True),  # c.sw a0,252(sp)
        (0xE42A, 2, 8, True),  # c.sd a0,8(sp)
        (0xFFAA, 2, 504, True),  # c.sd a0,504(sp)
        (0xA22A, 2, 256, True),  # c.fsd fa0,256(sp)
    ],
)
def test_compressed_instructions(instruction: int, base: int, offset: int, writes: bool) -> None:
    assert memory_operand(instruction, X) == (X[base] + offset, writes)
