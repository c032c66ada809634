"""Random programs of S and U mode, full of traps, and what becomes of them: a digest that no kind of engine may change.

A program touches pages of every kind, in both modes, with SUM on and off, and raises all sorts of exceptions. Its
handler notes each of them and goes on behind it, in the other mode if the program asks for that with a7.
"""

import hashlib
import os
import random

from emu.cpu.engine import Reg
from emu.cpu.native import SWITCH
from tests.emu.asm import (
    A0,
    A1,
    A7,
    RA,
    S9,
    S10,
    S11,
    T0,
    T1,
    T5,
    T6,
    ZERO,
    Csr,
    Item,
    add,
    addi,
    amoadd_d,
    assemble,
    beq,
    bne,
    csrc,
    csrr,
    csrs,
    csrw,
    ebreak,
    ecall,
    fence_i,
    j,
    jalr,
    ld,
    li,
    mv,
    sd,
    sfence_vma,
    sret,
    wfi,
)  # fmt: skip
from tests.emu.cpu.bare import BASE, PAGE, SUPERVISOR, Bare
from tests.emu.cpu.paging import KERNEL_DATA, RWX, R, Sv, U, W, X

__all__ = ["board", "digest", "digest_of", "program"]

HANDLER, LOG = BASE + 0x8000, BASE + 0x9000
#: The program's second home, for U mode.
USER_CODE = 0x4000_0000
TRAPS = 100
SIE, SPIE, SPP, SUM, MXR = 1 << 1, 1 << 5, 1 << 8, 1 << 18, 1 << 19
ALL_EXCEPTIONS = 0xB3FF

FRAMES = BASE + (4 << 20)
#: Data: where, and with which flags. The pages of one flag differ by what TLBs of 256 entries take for the same.
PAGES = [
    *((0x1000_0000 + n * 256 * PAGE, R | W | U) for n in range(12)),
    (KERNEL_DATA, R | W),
    (KERNEL_DATA + 0x10_0000, R | W | U),
    (0x2000_0000, R | U),
    (0x2000_1000, R),
    (0x2000_2000, X | U),
    (0x2000_3000, RWX),
]
#: What may be executed: the last one's data would be anything, an endless loop too; the one of a user's, after it was
#: read, S mode can execute on Unicorn by itself.
NOT_RUN = [address for address, flags in PAGES if flags & X]
UNMAPPED = [0x3000_0000, 1 << 40, KERNEL_DATA + 0x20_0000]
#: 2 MiB at once.
SUPERPAGE = 0x5000_0000

_HANDLER: list[Item] = [
    csrr(T5, Csr.SCAUSE), sd(T5, S10), csrr(T6, Csr.SEPC), sd(T6, S10, 8), csrr(S9, Csr.STVAL), sd(S9, S10, 16),
    csrr(S9, Csr.SSTATUS), sd(S9, S10, 24), addi(S10, S10, 32),
    addi(S11, S11, -1), beq(S11, ZERO, "end"),
    addi(T6, T6, 4), addi(S9, T5, -12), bne(S9, ZERO, "not a fetch"), mv(T6, RA),
    "not a fetch",
    beq(A7, ZERO, "out"), li(A0, SPP), li(A1, USER_CODE - BASE),
    addi(S9, T5, -9), bne(S9, ZERO, "not from S"), csrc(Csr.SSTATUS, A0), add(T6, T6, A1),
    "not from S",
    addi(S9, T5, -8), bne(S9, ZERO, "out"), csrs(Csr.SSTATUS, A0), li(A1, BASE - USER_CODE), add(T6, T6, A1),
    "out",
    csrw(Csr.SEPC, T6), sret(),
    "end", wfi(),
]  # fmt: skip


def program(choose: random.Random) -> list[Item]:
    """Make one up."""
    addresses = [address for address, _ in PAGES] + UNMAPPED + [SUPERPAGE, SUPERPAGE + 0x10_0000]
    items: list[Item] = ["start"]
    for _ in range(choose.randrange(10, 80)):
        address = choose.choice(addresses) + 8 * choose.randrange(4)
        target = choose.choice([one for one in addresses if one not in NOT_RUN])
        status = choose.choice([SUM, SUM, SUM, SUM | MXR, MXR, SIE, SPIE | SUM])
        items += choose.choice(
            [
                [li(T0, address), ld(T1, T0), add(A1, A1, T1)],
                [li(T0, address), ld(T1, T0), add(A1, A1, T1)],
                [li(T0, address), addi(A1, A1, 1), sd(A1, T0)],
                [li(T0, address), addi(A1, A1, 1), sd(A1, T0)],
                [li(T0, address), amoadd_d(T1, A1, T0)],
                [li(T0, status), csrs(Csr.SSTATUS, T0)],
                [li(T0, status), csrs(Csr.SSTATUS, T0)],
                [li(T0, status), csrc(Csr.SSTATUS, T0)],
                [li(T0, status), csrc(Csr.SSTATUS, T0)],
                [csrr(T1, Csr.SSTATUS), li(T0, SUM), csrw(Csr.SSTATUS, T0)],
                [li(A7, 1), ecall(), li(A7, 0)],
                [ecall()],
                [choose.choice([0, ebreak(), sfence_vma(), fence_i(), csrr(T1, Csr.MSTATUS)])],
                [li(T0, target), jalr(RA, T0)],
            ]
        )
    return [*items, ecall(), j("start")]


def digest(items: list[Item], *, native: bool, stops: random.Random | None = None) -> str:
    """Run a program, and sum up all that it did to registers and memory.

    With ``stops``, its blocks are counted, too, and it is stopped after random numbers of them.
    """
    bare = board(items, native=native)
    if stops is None:
        return digest_of(bare.run(mode=SUPERVISOR))
    return digest_of(bare, _count(bare, stops))


def board(items: list[Item], *, native: bool) -> Bare:
    """Make a board that is about to run a program, of one kind of engine."""
    before = os.environ.get(SWITCH, "")
    os.environ[SWITCH] = "" if native else "off"
    try:
        bare = Bare()
    finally:
        os.environ[SWITCH] = before
    assert (bare.engine.native is not None) == native, bare.engine.why_not_native
    tables = Sv(bare, 39)
    for page in range(0, 0x8000, PAGE):
        tables.map(BASE + page, BASE + page, RWX)
        tables.map(USER_CODE + page, BASE + page, R | X | U)
    for page in range(0, 0x8000, PAGE):
        tables.map(HANDLER + page, HANDLER + page)
    for number, (address, flags) in enumerate(PAGES):
        tables.map(address, FRAMES + number * PAGE, flags)
        bare.put(FRAMES + number * PAGE, jalr(ZERO, RA))
    tables.map(SUPERPAGE, BASE + (6 << 20), R | W | U, level=1)
    tables.enable()
    bare.put(HANDLER, _HANDLER)
    bare.put(BASE, items)
    assert len(assemble(BASE, items)) < 0x8000
    bare[Reg.MEDELEG], bare[Reg.STVEC] = ALL_EXCEPTIONS, HANDLER
    bare[S10], bare[S11] = LOG, TRAPS
    bare[Reg.PRIV], bare[Reg.PC] = SUPERVISOR, BASE
    return bare


def digest_of(bare: Bare, blocks: int = 0) -> str:
    """Sum up what a program did."""
    state = bare.state.tobytes()[: 8 * (Reg.MCOUNTEREN + 1)]
    memory = bare.ram.read(BASE, bare.ram.size)
    return hashlib.sha256(state + memory + b"%d %d" % (bare.hart.traps, blocks)).hexdigest()


def _count(bare: Bare, stops: random.Random) -> int:
    engine = bare.engine
    engine.count_blocks()
    waits = False
    while not waits:
        end = engine.blocks + (piece := stops.choice([1, 1, 2, 3, 10, 100]))
        engine.stop_after(piece)
        while not waits and engine.blocks < end:
            waits = engine.run()
        assert engine.blocks <= end
    return engine.blocks
