"""The address that a load, store or AMO instruction of RV64GC accesses (Unprivileged ISA, chapters 2.6, 14, 28).

For an access to nothing, Unicorn reports only the physical address; ``xtval`` needs the virtual one.
"""

from collections.abc import Sequence

__all__ = ["memory_operand"]

_LOAD, _LOAD_FP, _STORE, _STORE_FP, _AMO = 0x03, 0x07, 0x23, 0x27, 0x2F
_LR = 0x02
_SP = 2
_U64 = (1 << 64) - 1


def memory_operand(instruction: int, x: Sequence[int]) -> tuple[int, bool] | None:
    """Return the address, from the integer registers ``x``, and whether it is written; None for other instructions."""
    operand = _operand(instruction) if instruction & 3 == 3 else _compressed_operand(instruction)
    if operand is None:
        return None
    base, offset, writes = operand
    return x[base] + offset & _U64, writes


def _operand(instruction: int) -> tuple[int, int, bool] | None:
    opcode, base = instruction & 0x7F, instruction >> 15 & 31
    if opcode in (_LOAD, _LOAD_FP):
        return base, _signed12(instruction >> 20), False
    if opcode in (_STORE, _STORE_FP):
        return base, _signed12(instruction >> 20 & 0xFE0 | instruction >> 7 & 31), True
    return (base, 0, instruction >> 27 != _LR) if opcode == _AMO else None


def _compressed_operand(instruction: int) -> tuple[int, int, bool] | None:
    quadrant, funct3 = instruction & 3, instruction >> 13 & 7
    if quadrant == 1 or funct3 in (0, 4):
        return None
    store, word = funct3 > 4, funct3 & 3 == 2  # 1 and 3 are doublewords (fld, ld)
    if quadrant == 0:  # lw, ld, sw, sd and the like with rs1'
        offset = instruction >> 7 & 0x38
        offset |= instruction << 1 & 0x40 | instruction >> 4 & 4 if word else instruction << 1 & 0xC0
        return 8 + (instruction >> 7 & 7), offset, store
    if store:  # swsp, sdsp
        offset = instruction >> 7 & (0x3C if word else 0x38)
        return _SP, offset | (instruction >> 1 & 0xC0 if word else instruction >> 1 & 0x1C0), True
    offset = instruction >> 7 & 0x20 | instruction >> 2 & (0x1C if word else 0x18)  # lwsp, ldsp
    return _SP, offset | (instruction << 4 & 0xC0 if word else instruction << 4 & 0x1C0), False


def _signed12(value: int) -> int:
    return ((value & 0xFFF) ^ 0x800) - 0x800
