"""Where Unicorn 2.1.4 keeps what: offsets into its structures, checked each time that an engine is made.

Only emu/cpu imports this: engine.py makes use of what is found here, and passes ``Reg`` on. What blockhook.py and
native.py alone need to know of Unicorn's internals stands, and is checked, there.
"""

import ctypes
from typing import NamedTuple

from devices.errors import PyemuError
from emu.cpu import unicorn
from emu.cpu.unicorn import riscv_const

__all__ = [
    "BLOCK_COUNT", "EXIT_NOW", "INTERRUPT_HARD", "NO_FLAGS", "Internals", "Reg", "check_release", "find", "misfit",
]  # fmt: skip

_RELEASE = "2.1.4"
_U64 = ctypes.c_uint64

# Offsets in bytes, the same on every 64-bit POSIX system (they lie before the first jmp_buf).
_UC_CPU = 440  # struct uc_struct: CPUState *cpu
_UC_NO_EXIT_REQUEST = 2034  # bool no_exit_request, init_done
_CPU_NEXT_FLAGS, _CPU_INTERRUPT_REQUEST = 24, 28  # CPUState: uint32_t cflags_next_tb, interrupt_request
_CPU_JUMP_CACHE = 16  # TranslationBlock *tb_jmp_cache[4096], from CPUState.env_ptr on
_CPU_HALTED = 32880  # uint32_t halted, likewise, behind the jmp_buf
_CPU_UC = 32896  # struct uc_struct *uc, likewise
# CPURISCVState: bytes from its start; the structure ends with its uc pointer, behind which the RISCVCPU goes on.
_ENV_RDTIME_FN, _ENV_UC, _ENV_SIZE = 1528, 1560, 1568
_CFG = bytes((1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1))  # ext_i, e, g, m, a, f, d, c, s, u, h, counters, ifencei, icsr
_EXT_IFENCEI = 12
_CFG_CHECKED = (0, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13)  # those of the above that an RV64GC with S and U must have

#: CPU_INTERRUPT_HARD, the bit of ``Internals.interrupt_request`` that has the CPU look at mip.
INTERRUPT_HARD = 2
#: ``Internals.next_flags``: none.
NO_FLAGS = 0xFFFF_FFFF
#: In a TranslationBlock, which begins with its pc: uint16_t icount, how many instructions it has.
BLOCK_COUNT = 22
#: For the upper half of ``Internals.exit_chain``: leave the chained blocks at the start of the next one.
EXIT_NOW = 0xFFFF


class Reg:
    """Where a register stands in the CPU state, in 8-byte words."""

    X0 = 0
    F0 = 32
    A0, A1, A2, A3, A4, A5, A6, A7 = range(10, 18)
    PC = 64
    LOAD_RES = 65
    FRM = 67
    BADADDR = 68
    PRIV = 74
    MHARTID = 77
    MSTATUS = 78
    MIP = 79
    MIE = 81
    MIDELEG = 82
    SATP = 84
    STVAL = 85
    MTVAL = 86
    MEDELEG = 87
    STVEC = 88
    SEPC = 89
    SCAUSE = 90
    MTVEC = 91
    MEPC = 92
    MCAUSE = 93
    SCOUNTEREN = 119
    MCOUNTEREN = 120
    SSCRATCH, MSCRATCH = 121, 122
    #: pmp_table_t: 16 pairs of pmpaddr and pmpcfg; 16 of the first and last address that they stand for; how many are
    #: in use, in 4 bytes.
    PMP, PMP_RANGES, PMP_USED = 126, 158, 190
    #: Pointers of this process: rdtime_fn, timer, uc.
    POINTERS = (191, 194, 195)
    #: bool debugger; float_status, whose second byte is the rounding mode, and the third the flags.
    FP_STATUS = 192


#: Registers that the public API reaches too, by which the layout is checked: (word, Unicorn's id, a legal value).
_WITNESSES = (
    (31, riscv_const.UC_RISCV_REG_X31, 0x1122334455667788),
    (Reg.A0, riscv_const.UC_RISCV_REG_X10, 0x8877665544332211),
    (Reg.MIE, riscv_const.UC_RISCV_REG_MIE, 0x222),
    (Reg.MIDELEG, riscv_const.UC_RISCV_REG_MIDELEG, 0x222),
    (Reg.MEDELEG, riscv_const.UC_RISCV_REG_MEDELEG, 0x100),
    (Reg.STVEC, riscv_const.UC_RISCV_REG_STVEC, 0x80001110),
    (Reg.SEPC, riscv_const.UC_RISCV_REG_SEPC, 0x80002220),
    (Reg.SCAUSE, riscv_const.UC_RISCV_REG_SCAUSE, 0x5),
    (Reg.STVAL, riscv_const.UC_RISCV_REG_STVAL, 0x3330),
    (Reg.MTVEC, riscv_const.UC_RISCV_REG_MTVEC, 0x80004440),
    (Reg.MEPC, riscv_const.UC_RISCV_REG_MEPC, 0x80005550),
    (Reg.MCAUSE, riscv_const.UC_RISCV_REG_MCAUSE, 0x7),
    (Reg.MTVAL, riscv_const.UC_RISCV_REG_MTVAL, 0x6660),
    (Reg.MCOUNTEREN, riscv_const.UC_RISCV_REG_MCOUNTEREN, 0x7),
    (Reg.SCOUNTEREN, riscv_const.UC_RISCV_REG_SCOUNTEREN, 0x2),
    (Reg.PRIV, riscv_const.UC_RISCV_REG_PRIV, 1),
)


class Internals(NamedTuple):
    """Unicorn's own data, to be read and written in place, for as long as its handle lives."""

    #: Where its CPUState is.
    cpu: int
    #: CPURISCVState, 8-byte words indexed by ``Reg``.
    state: memoryview
    #: CPUState's flag: the hart waits for an interrupt.
    halted: ctypes.Array[ctypes.c_uint32]
    #: cflags_next_tb: the flags of the first block that is executed next.
    next_flags: ctypes.Array[ctypes.c_uint32]
    #: CPUState's flags.
    interrupt_request: ctypes.Array[ctypes.c_uint32]
    #: IcountDecr, its lower and upper half; generated code looks at it at the start of each block.
    exit_chain: ctypes.Array[ctypes.c_uint16]
    #: tb_jmp_cache: where translated blocks are, by a hash of their pc.
    jump_cache: ctypes.Array[ctypes.c_uint64]
    #: uc_struct's flag: no exit request is looked for after a load or store.
    no_exit_request: ctypes.c_uint8
    #: A function without arguments, which returns what the ``time`` CSR reads.
    rdtime_fn: ctypes.c_uint64
    #: Whether fence.i is legal.
    ext_ifencei: ctypes.c_uint8


def check_release() -> None:
    """Raise PyemuError unless this is the release of Unicorn that the offsets are of, on a 64-bit host."""
    if unicorn.__version__ != _RELEASE or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise PyemuError(
            f"pyemu needs unicorn {_RELEASE} on a 64-bit system, and finds {unicorn.__version__}: "
            f"pip install unicorn=={_RELEASE}"
        )


def find(uc: unicorn.Uc) -> Internals:
    """Find the internals of ``uc``, which has memory mapped already: Unicorn makes its CPU only then.

    Raises PyemuError where one of them is not where it should be.
    """
    handle: int = uc._uch.value  # noqa: SLF001
    cpu = _U64.from_address(handle + _UC_CPU).value
    words = list((_U64 * 256).from_address(cpu)) if cpu else []
    # CPUState holds a pointer to the CPU state, which follows it in the same allocation and ends with ours.
    found = [
        i
        for i, env in enumerate(words)
        if 0x8000 <= env - cpu < 0xC000 and _U64.from_address(env + _ENV_UC).value == handle
    ]
    if len(found) != 1:
        raise misfit("the CPU state was not found")
    env_ptr = cpu + 8 * found[0]
    env, exit_chain = words[found[0]], words[found[0] + 1]
    state = memoryview((_U64 * (_ENV_SIZE // 8)).from_address(env)).cast("B").cast("Q")
    _check_registers(uc, state)
    cfg = (ctypes.c_uint8 * len(_CFG)).from_address(env + _ENV_SIZE)
    if any(cfg[i] != _CFG[i] for i in _CFG_CHECKED):
        raise misfit("the list of extensions is not where it should be")
    if _U64.from_address(env_ptr + _CPU_UC).value != handle:
        raise misfit("the halted flag is not where it should be")
    if (ctypes.c_uint8 * 2).from_address(handle + _UC_NO_EXIT_REQUEST)[:] != [0, 1]:  # the other: init_done
        raise misfit("the exit request flag is not where it should be")
    next_flags = (ctypes.c_uint32 * 1).from_address(cpu + _CPU_NEXT_FLAGS)
    if next_flags[0] != NO_FLAGS:
        raise misfit("the flags of the next block are not where they should be")
    if not cpu < exit_chain < cpu + 0xC000:
        raise misfit("the block exit counter was not found")
    return Internals(
        cpu=cpu,
        state=state,
        halted=(ctypes.c_uint32 * 1).from_address(env_ptr + _CPU_HALTED),
        next_flags=next_flags,
        interrupt_request=(ctypes.c_uint32 * 1).from_address(cpu + _CPU_INTERRUPT_REQUEST),
        exit_chain=(ctypes.c_uint16 * 2).from_address(exit_chain),
        jump_cache=(_U64 * 4096).from_address(env_ptr + _CPU_JUMP_CACHE),
        no_exit_request=ctypes.c_uint8.from_address(handle + _UC_NO_EXIT_REQUEST),
        rdtime_fn=_U64.from_address(env + _ENV_RDTIME_FN),
        ext_ifencei=ctypes.c_uint8.from_address(env + _ENV_SIZE + _EXT_IFENCEI),
    )


def _check_registers(uc: unicorn.Uc, state: memoryview) -> None:
    """Write each witness by the public API, and see whether it arrives; at the end all is as it was."""
    before = state.tobytes()
    for word, register, value in _WITNESSES:
        state[Reg.PRIV] = 3
        uc.reg_write(register, value)
        if state[word] != value:
            raise misfit(f"register word {word} is not where it should be")
    state.cast("B")[:] = before


def misfit(what: str) -> PyemuError:
    """Return the error that this Unicorn is another than its version says."""
    return PyemuError(f"this build of unicorn {_RELEASE} does not fit pyemu: {what}; please report it")
