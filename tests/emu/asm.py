"""A tiny assembler for RV64 (Unprivileged ISA, chapters 2 to 12 and 24; Privileged Architecture, chapter 2).

    code = assemble(
        BASE,
        li(T0, 10),
        "loop",
        addi(T0, T0, -1),
        bne(T0, ZERO, "loop"),
        wfi(),
    )

An instruction is its number, so ``int`` items are words too; a ``Half`` takes two bytes. A text is a label. Jumps and
branches take a label, or a distance in bytes.
"""

from collections.abc import Callable, Sequence
from typing import Union

Target = str | int
#: What needs to know where it stands: (pc, labels) -> word.
Relative = Callable[[int, dict[str, int]], int]


class Half(int):
    """A compressed instruction."""


Item = Union[int, str, Relative, Sequence["Item"]]  # noqa: UP007 - "|" cannot refer to itself

(
    ZERO, RA, SP, GP, TP, T0, T1, T2, S0, S1, A0, A1, A2, A3, A4, A5, A6, A7,
    S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, T3, T4, T5, T6,
) = range(32)  # fmt: skip


class Csr:
    """Numbers of the control and status registers."""

    FFLAGS, FRM, FCSR = 0x001, 0x002, 0x003
    CYCLE, TIME, INSTRET, MCYCLE, MINSTRET = 0xC00, 0xC01, 0xC02, 0xB00, 0xB02
    SSTATUS, SIE, STVEC, SCOUNTEREN = 0x100, 0x104, 0x105, 0x106
    SSCRATCH, SEPC, SCAUSE, STVAL, SIP, SATP = 0x140, 0x141, 0x142, 0x143, 0x144, 0x180
    MSTATUS, MISA, MEDELEG, MIDELEG, MIE, MTVEC, MCOUNTEREN = 0x300, 0x301, 0x302, 0x303, 0x304, 0x305, 0x306
    MSCRATCH, MEPC, MCAUSE, MTVAL, MIP = 0x340, 0x341, 0x342, 0x343, 0x344
    MCYCLE, MINSTRET = 0xB00, 0xB02
    PMPCFG0, PMPADDR0, PMPADDR1 = 0x3A0, 0x3B0, 0x3B1
    MHARTID = 0xF14


def assemble(base: int, *items: Item) -> bytes:
    """Machine code of ``items`` for the address ``base``."""
    flat = list(_flatten(items))
    labels, pc = {}, base
    for item in flat:
        if isinstance(item, str):
            labels[item] = pc
        else:
            pc += _size(item)
    code = bytearray()
    for item in flat:
        if not isinstance(item, str):
            word = item(base + len(code), labels) if callable(item) else item
            code += word.to_bytes(_size(item), "little")
    return bytes(code)


def _flatten(items: Sequence[Item]):  # type: ignore[no-untyped-def]
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from _flatten(item)
        else:
            yield item


def _size(item: object) -> int:
    return 2 if isinstance(item, Half) else 4


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


# ---------------------------------------------------------------- formats, chapter 2.2


def _r(opcode: int, funct3: int, funct7: int, rd: int, rs1: int, rs2: int) -> int:
    return funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def _i(opcode: int, funct3: int, rd: int, rs1: int, immediate: int) -> int:
    assert -2048 <= immediate < 4096, immediate
    return (immediate & 0xFFF) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def _s(opcode: int, funct3: int, rs1: int, rs2: int, immediate: int) -> int:
    assert -2048 <= immediate < 2048, immediate
    return (immediate >> 5 & 0x7F) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (immediate & 31) << 7 | opcode


def _distance(target: Target, pc: int, labels: dict[str, int]) -> int:
    return labels[target] - pc if isinstance(target, str) else target


def _branch(funct3: int, rs1: int, rs2: int, target: Target) -> Relative:
    def encode(pc: int, labels: dict[str, int]) -> int:
        d = _distance(target, pc, labels)
        assert -4096 <= d < 4096, d
        high, low = (d >> 12 & 1) << 6 | d >> 5 & 0x3F, (d >> 1 & 15) << 1 | d >> 11 & 1
        return high << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | low << 7 | 0x63

    return encode


def jal(rd: int, target: Target) -> Relative:
    def encode(pc: int, labels: dict[str, int]) -> int:
        d = _distance(target, pc, labels)
        assert -(1 << 20) <= d < 1 << 20, d
        bits = (d >> 20 & 1) << 19 | (d >> 1 & 0x3FF) << 9 | (d >> 11 & 1) << 8 | d >> 12 & 0xFF
        return bits << 12 | rd << 7 | 0x6F

    return encode


# ---------------------------------------------------------------- integer instructions


def lui(rd: int, upper: int) -> int:
    return (upper & 0xFFFFF) << 12 | rd << 7 | 0x37


def addi(rd: int, rs1: int, immediate: int) -> int:
    return _i(0x13, 0, rd, rs1, immediate)


def addiw(rd: int, rs1: int, immediate: int) -> int:
    return _i(0x1B, 0, rd, rs1, immediate)


def andi(rd: int, rs1: int, immediate: int) -> int:
    return _i(0x13, 7, rd, rs1, immediate)


def slli(rd: int, rs1: int, shift: int) -> int:
    return _i(0x13, 1, rd, rs1, shift)


def srli(rd: int, rs1: int, shift: int) -> int:
    return _i(0x13, 5, rd, rs1, shift)


def add(rd: int, rs1: int, rs2: int) -> int:
    return _r(0x33, 0, 0, rd, rs1, rs2)


def sub(rd: int, rs1: int, rs2: int) -> int:
    return _r(0x33, 0, 0x20, rd, rs1, rs2)


def or_(rd: int, rs1: int, rs2: int) -> int:
    return _r(0x33, 6, 0, rd, rs1, rs2)


def nop() -> int:
    return addi(ZERO, ZERO, 0)


def mv(rd: int, rs1: int) -> int:
    return addi(rd, rs1, 0)


def li(rd: int, value: int) -> list[int]:
    """Load any 64-bit number."""
    value = _signed(value, 64)
    if -2048 <= value < 2048:
        return [addi(rd, ZERO, value)]
    low = _signed(value, 12)
    if -(1 << 31) <= value < 1 << 31:
        upper = lui(rd, value - low >> 12)
        return [upper, addiw(rd, rd, low)] if low else [upper]
    rest = [*li(rd, value - low >> 12), slli(rd, rd, 12)]
    return [*rest, addi(rd, rd, low)] if low else rest


def la(rd: int, label: str) -> list[Relative]:
    """Load the address of ``label`` relative to the pc."""

    def auipc(pc: int, labels: dict[str, int]) -> int:
        return (labels[label] - pc + 0x800 >> 12 & 0xFFFFF) << 12 | rd << 7 | 0x17

    def low(pc: int, labels: dict[str, int]) -> int:
        return addi(rd, rd, _signed(labels[label] - (pc - 4), 12))

    return [auipc, low]


def beq(rs1: int, rs2: int, target: Target) -> Relative:
    return _branch(0, rs1, rs2, target)


def bne(rs1: int, rs2: int, target: Target) -> Relative:
    return _branch(1, rs1, rs2, target)


def bltu(rs1: int, rs2: int, target: Target) -> Relative:
    return _branch(6, rs1, rs2, target)


def j(target: Target) -> Relative:
    return jal(ZERO, target)


def jalr(rd: int, rs1: int, offset: int = 0) -> int:
    return _i(0x67, 0, rd, rs1, offset)


def jr(rs1: int) -> int:
    return jalr(ZERO, rs1)


def ret() -> int:
    return jr(RA)


# ---------------------------------------------------------------- memory; the address is ``offset(base)``


def _load(funct3: int) -> Callable[..., int]:
    def load(rd: int, base: int, offset: int = 0) -> int:
        return _i(0x03, funct3, rd, base, offset)

    return load


def _store(funct3: int) -> Callable[..., int]:
    def store(source: int, base: int, offset: int = 0) -> int:
        return _s(0x23, funct3, base, source, offset)

    return store


lb, lh, lw, ld, lbu, lhu, lwu = map(_load, range(7))
sb, sh, sw, sd = map(_store, range(4))


def _amo(funct5: int, funct3: int) -> Callable[[int, int, int], int]:
    def amo(rd: int, rs2: int, address: int) -> int:
        return _r(0x2F, funct3, funct5 << 2, rd, address, rs2)

    return amo


amoadd_w, amoadd_d = _amo(0, 2), _amo(0, 3)
amoswap_w, amoswap_d = _amo(1, 2), _amo(1, 3)
sc_w, sc_d = _amo(3, 2), _amo(3, 3)


def lr_w(rd: int, address: int) -> int:
    return _amo(2, 2)(rd, 0, address)


def lr_d(rd: int, address: int) -> int:
    return _amo(2, 3)(rd, 0, address)


def fence() -> int:
    return 0x0FF0000F


def fence_i(rd: int = 0, rs1: int = 0, immediate: int = 0) -> int:
    return _i(0x0F, 1, rd, rs1, immediate)


# ---------------------------------------------------------------- CSRs, traps and translation


def csrrw(rd: int, csr: int, rs1: int) -> int:
    return _i(0x73, 1, rd, rs1, csr)


def csrrs(rd: int, csr: int, rs1: int) -> int:
    return _i(0x73, 2, rd, rs1, csr)


def csrrc(rd: int, csr: int, rs1: int) -> int:
    return _i(0x73, 3, rd, rs1, csr)


def csrrwi(rd: int, csr: int, immediate: int) -> int:
    return _i(0x73, 5, rd, immediate, csr)


def csrrsi(rd: int, csr: int, immediate: int) -> int:
    return _i(0x73, 6, rd, immediate, csr)


def csrrci(rd: int, csr: int, immediate: int) -> int:
    return _i(0x73, 7, rd, immediate, csr)


def csrr(rd: int, csr: int) -> int:
    return csrrs(rd, csr, ZERO)


def csrw(csr: int, rs1: int) -> int:
    return csrrw(ZERO, csr, rs1)


def csrs(csr: int, rs1: int) -> int:
    return csrrs(ZERO, csr, rs1)


def csrc(csr: int, rs1: int) -> int:
    return csrrc(ZERO, csr, rs1)


def csrwi(csr: int, immediate: int) -> int:
    return csrrwi(ZERO, csr, immediate)


def csrsi(csr: int, immediate: int) -> int:
    return csrrsi(ZERO, csr, immediate)


def csrci(csr: int, immediate: int) -> int:
    return csrrci(ZERO, csr, immediate)


def rdtime(rd: int) -> int:
    return csrr(rd, Csr.TIME)


def ecall() -> int:
    return 0x0000_0073


def ebreak() -> int:
    return 0x0010_0073


def sret() -> int:
    return 0x1020_0073


def mret() -> int:
    return 0x3020_0073


def wfi() -> int:
    return 0x1050_0073


def sfence_vma() -> int:
    return 0x1200_0073


# ---------------------------------------------------------------- floating point, chapters 11 and 12


def fmv_d_x(fd: int, rs1: int) -> int:
    return _r(0x53, 0, 0x79, fd, rs1, 0)


def fmv_x_d(rd: int, fs1: int) -> int:
    return _r(0x53, 0, 0x71, rd, fs1, 0)


def fmv_w_x(fd: int, rs1: int) -> int:
    return _r(0x53, 0, 0x78, fd, rs1, 0)


def fmv_x_w(rd: int, fs1: int) -> int:
    return _r(0x53, 0, 0x70, rd, fs1, 0)


def fadd_s(fd: int, fs1: int, fs2: int) -> int:
    return _r(0x53, 7, 0x00, fd, fs1, fs2)


def fcvt_d_s(fd: int, fs1: int) -> int:
    return _r(0x53, 0, 0x21, fd, fs1, 0)


def fmin_s(fd: int, fs1: int, fs2: int) -> int:
    return _r(0x53, 0, 0x14, fd, fs1, fs2)


def fmax_s(fd: int, fs1: int, fs2: int) -> int:
    return _r(0x53, 1, 0x14, fd, fs1, fs2)


def fmin_d(fd: int, fs1: int, fs2: int) -> int:
    return _r(0x53, 0, 0x15, fd, fs1, fs2)


def fmax_d(fd: int, fs1: int, fs2: int) -> int:
    return _r(0x53, 1, 0x15, fd, fs1, fs2)


def fdiv_d(fd: int, fs1: int, fs2: int) -> int:
    return _r(0x53, 7, 0x0D, fd, fs1, fs2)


def fld(fd: int, base: int, offset: int = 0) -> int:
    return _i(0x07, 3, fd, base, offset)


def fsd(source: int, base: int, offset: int = 0) -> int:
    return _s(0x27, 3, base, source, offset)


# ---------------------------------------------------------------- compressed, chapter 16


def c_nop() -> Half:
    return Half(0x0001)


def c_addi(rd: int, immediate: int) -> Half:
    return Half((immediate >> 5 & 1) << 12 | rd << 7 | (immediate & 31) << 2 | 1)


def c_ebreak() -> Half:
    return Half(0x9002)


def c_illegal() -> Half:
    """All zeros: defined to be illegal."""
    return Half(0)
