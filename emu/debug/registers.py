"""The hart's registers, under the names of gdb's RISC-V features (gdb's manual, G.5.14), and the description of them.

A register's number is its place in ``REGISTERS``; gdb learns it from the description.
"""

from collections.abc import Callable
from typing import NamedTuple

from devices.errors import UsageError
from emu.cpu.engine import Engine, Reg

__all__ = ["GENERAL", "PC", "REGISTERS", "Register", "description"]

_ABI = (
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
    "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
)  # fmt: skip
_KINDS = {"ra": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr"}
_FLOAT_ABI = (
    *(f"ft{n}" for n in range(8)), "fs0", "fs1", *(f"fa{n}" for n in range(8)), *(f"fs{n}" for n in range(2, 12)),
    "ft8", "ft9", "ft10", "ft11",
)  # fmt: skip
#: CSRs that are words of the CPU's state.
_CSRS = {
    "scounteren": Reg.SCOUNTEREN, "stvec": Reg.STVEC, "sscratch": Reg.SSCRATCH, "sepc": Reg.SEPC,
    "scause": Reg.SCAUSE, "stval": Reg.STVAL, "satp": Reg.SATP, "mstatus": Reg.MSTATUS, "medeleg": Reg.MEDELEG,
    "mideleg": Reg.MIDELEG, "mie": Reg.MIE, "mtvec": Reg.MTVEC, "mcounteren": Reg.MCOUNTEREN,
    "mscratch": Reg.MSCRATCH, "mepc": Reg.MEPC, "mcause": Reg.MCAUSE, "mtval": Reg.MTVAL,
}  # fmt: skip
#: Those of M mode that S mode sees a part of.
_SSTATUS = 0x8000_0003_000D_E762
#: float_status, by byte: the rounding mode, and the flags; softfloat's flag for each of RISC-V's, NX to NV.
_FLAGS_AT, _FLAGS = 24, (32, 16, 8, 4, 1)

_Read = Callable[[Engine], int]
_Write = Callable[[Engine, int], None]


class Register(NamedTuple):
    """A register: its name, feature, size and type, and how it is read and written."""

    name: str
    feature: str
    bits: int
    type: str
    read: _Read
    write: _Write


def _refuse(_engine: Engine, _value: int) -> None:
    raise UsageError("this register cannot be written")


def _word(name: str, feature: str, word: int, kind: str = "int") -> Register:
    def write(engine: Engine, value: int) -> None:
        engine.state[word] = value

    return Register(name, feature, 64, kind, lambda engine: int(engine.state[word]), write)


def _write_pc(engine: Engine, value: int) -> None:
    engine.state[Reg.PC] = value & ~1  # as the hart has it


def _csr(name: str, word: int) -> Register:
    return Register(
        name,
        "csr",
        64,
        "int",
        lambda engine: int(engine.state[word]),
        lambda engine, value: engine.set_word(word, value),
    )


def _part(name: str, read: _Read) -> Register:
    return Register(name, "csr", 64, "int", read, _refuse)


def _read_flags(engine: Engine) -> int:
    flags = engine.state[Reg.FP_STATUS] >> _FLAGS_AT & 0xFF
    return sum(1 << n for n, flag in enumerate(_FLAGS) if flags & flag)


def _write_flags(engine: Engine, value: int) -> None:
    flags = sum(flag for n, flag in enumerate(_FLAGS) if value >> n & 1)
    engine.set_word(Reg.FP_STATUS, engine.state[Reg.FP_STATUS] & ~(0xFF << _FLAGS_AT) | flags << _FLAGS_AT)


def _write_frm(engine: Engine, value: int) -> None:
    engine.set_word(Reg.FRM, value & 7)


def _write_fcsr(engine: Engine, value: int) -> None:
    _write_flags(engine, value)
    _write_frm(engine, value >> 5)


def _read_fcsr(engine: Engine) -> int:
    return int(engine.state[Reg.FRM]) << 5 | _read_flags(engine)


REGISTERS: tuple[Register, ...] = (
    Register("zero", "cpu", 64, "int", lambda _engine: 0, lambda _engine, _value: None),
    *(_word(name, "cpu", number, _KINDS.get(name, "int")) for number, name in enumerate(_ABI) if number),
    Register("pc", "cpu", 64, "code_ptr", lambda engine: int(engine.state[Reg.PC]), _write_pc),
    *(_word(name, "fpu", Reg.F0 + number, "riscv_double") for number, name in enumerate(_FLOAT_ABI)),
    Register("fflags", "fpu", 32, "int", _read_flags, _write_flags),
    Register("frm", "fpu", 32, "int", lambda engine: int(engine.state[Reg.FRM]), _write_frm),
    Register("fcsr", "fpu", 32, "int", _read_fcsr, _write_fcsr),
    _part("sstatus", lambda engine: int(engine.state[Reg.MSTATUS]) & _SSTATUS),
    _part("sie", lambda engine: int(engine.state[Reg.MIE] & engine.state[Reg.MIDELEG])),
    _part("sip", lambda engine: int(engine.state[Reg.MIP] & engine.state[Reg.MIDELEG])),
    _part("mip", lambda engine: int(engine.state[Reg.MIP])),
    _part("mhartid", lambda engine: int(engine.state[Reg.MHARTID])),
    _part("time", lambda engine: engine.time()),
    *(_csr(name, word) for name, word in _CSRS.items()),
    Register("priv", "virtual", 64, "int", lambda engine: int(engine.state[Reg.PRIV]),
             lambda engine, value: engine.set_word(Reg.PRIV, value)),
)  # fmt: skip
#: Those that gdb reads and writes at once: the integer registers, and the pc.
GENERAL = 33
PC = 32

_DOUBLE = (
    '<union id="riscv_double"><field name="float" type="ieee_single"/><field name="double" type="ieee_double"/></union>'
)


def description() -> bytes:
    """Return the target description, an XML document (gdb's manual, G.2)."""
    features: dict[str, list[str]] = {}
    for number, register in enumerate(REGISTERS):
        text = f'<reg name="{register.name}" bitsize="{register.bits}" regnum="{number}" type="{register.type}"/>'
        features.setdefault(register.feature, []).append(text)
    features["fpu"].insert(0, _DOUBLE)
    body = "".join(
        f'<feature name="org.gnu.gdb.riscv.{name}">{"".join(parts)}</feature>' for name, parts in features.items()
    )
    head = '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
    return f"{head}<architecture>riscv:rv64</architecture>{body}</target>".encode()
