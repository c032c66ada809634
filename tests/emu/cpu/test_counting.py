"""Blocks are counted exactly: alike in every run, with the native part and without, however the CPU is stopped."""

import os
import random
import time
from collections.abc import Callable

import pytest

from devices.errors import MachineError, PyemuError
from emu.cpu import blockhook
from emu.cpu.engine import Engine, Reg
from emu.cpu.hart import MEIP
from emu.cpu.native import SWITCH
from emu.timing.warp import WarpClock
from tests.emu.asm import (
    A0,
    A1,
    RA,
    S0,
    S1,
    S2,
    T0,
    T1,
    T2,
    ZERO,
    Csr,
    Item,
    add,
    addi,
    amoadd_w,
    andi,
    bltu,
    bne,
    csrr,
    csrsi,
    csrw,
    ecall,
    fence_i,
    j,
    jalr,
    ld,
    li,
    lr_w,
    mret,
    nop,
    rdtime,
    ret,
    sc_w,
    sd,
    sfence_vma,
    sret,
    sub,
    sw,
    wfi,
)  # fmt: skip
from tests.emu.cpu import programs
from tests.emu.cpu.bare import BASE, HANDLER, MACHINE, PAGE, SUPERVISOR, Bare, Recorder
from tests.emu.cpu.paging import KERNEL_DATA, A, Sv

DEVICE, NOTHING = 0x1000_0000, 0x2000_0000
FUNCTION = BASE + PAGE


class Counted(Bare):
    """A board of one kind of engine; a 1 stored in its device raises an interrupt, a 0 lowers it.

    It counts its blocks, by ``count`` if given, which is told the engine.
    """

    def __init__(self, *, native: bool = True, count: Callable[[Engine], None] = Engine.count_blocks) -> None:
        before = os.environ.pop(SWITCH, None)
        os.environ[SWITCH] = "" if native else "off"
        try:
            self.device = Recorder()
            super().__init__((DEVICE, 0x1000, self.device))
        finally:
            os.environ[SWITCH] = before or ""
        self.device.on_write = lambda: self.engine.set_pending(MEIP, bool(self.device.writes[-1][2] & 1))
        count(self.engine)

    def go_on(self, blocks: int) -> int:
        """Run for so many blocks, going on after each wfi; say how many it was then."""
        engine = self.engine
        end = engine.blocks + blocks
        engine.stop_after(blocks)
        while engine.blocks < end:
            engine.run()
        return engine.blocks

    def everything(self) -> bytes:
        """All that the guest knows: registers, and memory."""
        return self.state.tobytes()[: 8 * (Reg.MCOUNTEREN + 1)] + bytes(self.ram.read(BASE, 16 * PAGE))


def branch(_bare: Bare) -> list[Item]:
    return ["loop", addi(A0, A0, 1), bne(A0, ZERO, "loop"), j("loop")]


def jump(bare: Bare) -> list[Item]:
    bare.put(FUNCTION, ret())
    return [li(S0, FUNCTION), "loop", addi(A0, A0, 1), jalr(RA, S0), j("loop")]


def trap(bare: Bare) -> list[Item]:
    bare.put(HANDLER, addi(A0, A0, 1), csrr(T0, Csr.MEPC), addi(T0, T0, 4), csrw(Csr.MEPC, T0), mret())
    return ["loop", ecall(), 0, j("loop")]


def native_trap(bare: Bare) -> list[Item]:
    bare[Reg.MEDELEG], bare[Reg.STVEC] = 1 << 8, HANDLER
    bare.put(HANDLER, addi(A0, A0, 1), csrr(T0, Csr.SEPC), addi(T0, T0, 4), csrw(Csr.SEPC, T0), sret())
    bare[Reg.PRIV] = 0
    return ["loop", ecall(), addi(A1, A1, 1), j("loop")]


def mmio(_bare: Bare) -> list[Item]:
    return [li(S0, DEVICE), "loop", addi(A0, A0, 2), sw(A0, S0), ld(A1, S0), bne(A1, S0, "loop")]


def interrupt(bare: Bare) -> list[Item]:
    """The interrupt is raised in the middle of a block; every second time, so that the next one is linked to it."""
    bare.put(HANDLER, addi(A0, A0, 1), sw(ZERO, S0), mret())
    bare[Reg.MIE] = MEIP
    return [
        li(S0, DEVICE), li(S1, 1), csrsi(Csr.MSTATUS, 8),
        "loop", addi(A1, A1, 1), sub(T0, S1, T0), sw(T0, S0), addi(A1, A1, 1), bne(A1, ZERO, "loop"),
    ]  # fmt: skip


def interrupt_and_trap(bare: Bare) -> list[Item]:
    """The block that raises it ends with an exception, so that it is noticed without the question."""
    code = csrr(T1, Csr.MCAUSE), bne(T1, T2, "out"), sw(ZERO, S0), mret()
    out = "out", csrr(T1, Csr.MEPC), addi(T1, T1, 4), csrw(Csr.MEPC, T1), mret()
    bare.put(HANDLER, addi(A0, A0, 1), code, out)
    bare[Reg.MIE], bare[T2] = MEIP, 1 << 63 | 11
    return [li(S0, DEVICE), li(T0, 1), csrsi(Csr.MSTATUS, 8), "loop", sw(T0, S0), ecall(), addi(A1, A1, 1), j("loop")]


def waiting(_bare: Bare) -> list[Item]:
    return ["loop", addi(A0, A0, 1), wfi(), addi(A1, A1, 1), j("loop")]


def page_fault(bare: Bare) -> list[Item]:
    tables = Sv(bare, 39)
    for page in range(0, 32 * PAGE, PAGE):
        tables.map(BASE + page, BASE + page)
    tables.enable()
    bare[Reg.MEDELEG], bare[Reg.STVEC], bare[Reg.PRIV] = 1 << 13 | 1 << 15 | 1 << 12, HANDLER, SUPERVISOR
    bare.put(HANDLER, addi(A0, A0, 1), csrr(T0, Csr.SEPC), addi(T0, T0, 4), csrw(Csr.SEPC, T0), sret())
    return [li(S0, NOTHING), "loop", ld(A1, S0), addi(A1, A1, 1), sw(A1, S0), addi(S1, S1, 1), j("loop")]


def access_fault(bare: Bare) -> list[Item]:
    bare.put(HANDLER, addi(A0, A0, 1), csrr(T0, Csr.MEPC), addi(T0, T0, 4), csrw(Csr.MEPC, T0), mret())
    return [
        li(S0, NOTHING), li(S1, BASE + 0x8000),
        "loop", ld(A1, S0), addi(A1, A1, 1), sw(A1, S0), sw(A1, S1), amoadd_w(A1, A0, S0), addi(S2, S2, 1), j("loop"),
    ]  # fmt: skip


def lost_store(bare: Bare) -> list[Item]:
    """Every second one, and nothing that ends the block but its jump."""
    bare.put(HANDLER, addi(A0, A0, 1), csrr(T0, Csr.MEPC), addi(T0, T0, 4), csrw(Csr.MEPC, T0), mret())
    data = BASE + 0x8000
    return [li(S0, data), li(S1, data + NOTHING), "loop", sub(S0, S1, S0), sw(ZERO, S0), addi(A1, A1, 1), j("loop")]


def amo(_bare: Bare) -> list[Item]:
    return [
        li(S0, BASE + 0x8000),
        "loop", amoadd_w(A0, S0, S0), lr_w(A0, S0), addi(A0, A0, 1), sc_w(A1, A0, S0), bne(A1, ZERO, "loop"), j("loop"),
    ]  # fmt: skip


def fence(_bare: Bare) -> list[Item]:
    return ["loop", addi(A0, A0, 1), fence_i(), addi(A1, A1, 1), sfence_vma(), j("loop")]


def changing_code(bare: Bare) -> list[Item]:
    """The function adds 1 or 2, turn and turn about."""
    bare.put(FUNCTION, addi(A0, A0, 1), ret())
    return [
        li(S0, FUNCTION), li(T0, addi(A0, A0, 1)), li(T1, addi(A0, A0, 2)),
        "loop", sw(T0, S0), fence_i(), jalr(RA, S0), sw(T1, S0), fence_i(), jalr(RA, S0), j("loop"),
    ]  # fmt: skip


def end_of_a_page(_bare: Bare) -> list[Item]:
    return ["loop", [nop() for _ in range(1500)], addi(A0, A0, 1), j("loop")]


Program = Callable[[Bare], list[Item]]
PROGRAMS = [
    branch, jump, trap, native_trap, mmio, interrupt, interrupt_and_trap, waiting, page_fault, access_fault,
    lost_store, amo, fence, changing_code, end_of_a_page,
]  # fmt: skip


def switched_on(program: Program, *, native: bool) -> Counted:
    bare = Counted(native=native)
    bare[Reg.PRIV], bare[Reg.PC], bare[Reg.MTVEC] = MACHINE, BASE, HANDLER
    bare.put(BASE, program(bare))
    return bare


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_million_blocks_are_the_same_with_the_native_part_and_without(program: Program) -> None:
    ends = []
    for native in (True, False):
        bare = switched_on(program, native=native)
        assert bare.go_on(1_000_000) == 1_000_000
        assert bare[A0] > 0
        ends.append((bare.hart.traps, bare.everything()))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_stops_are_exact_and_change_nothing(program: Program, native: bool) -> None:
    whole, pieces = (switched_on(program, native=native) for _ in range(2))
    assert whole.go_on(20_000) == 20_000
    choose, done = random.Random(1), 0
    while done < 20_000:
        done += (piece := min(choose.choice([1, 2, 3, 10, 100, 1000]), 20_000 - done))
        assert pieces.go_on(piece) == done
    assert pieces.everything() == whole.everything()
    assert pieces.hart.traps == whole.hart.traps


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_are_counted_alike(seed: int) -> None:
    program = programs.program(random.Random(seed))
    digests = [
        programs.digest(program, native=native, stops=random.Random(stops))
        for native, stops in ((True, 1), (True, 2), (False, 1), (False, 2))
    ]
    assert len(set(digests)) == 1


@pytest.fixture(params=[True, False], ids=["native", "python"])
def counted(request: pytest.FixtureRequest) -> Counted:
    return Counted(native=request.param)


def test_handlers_know_the_count_and_the_time_reads_it(counted: Counted) -> None:
    engine, seen = counted.engine, []
    engine.time = lambda: seen.append(engine.blocks) or 0
    counted.device.on_write = lambda: seen.append(engine.blocks)
    engine.exception = lambda _cause, pc: (seen.append(engine.blocks), counted.state.__setitem__(Reg.PC, pc + 4))
    counted.put(BASE, li(S0, DEVICE), j("two"), "two", sw(ZERO, S0), rdtime(A0), ecall(), wfi())
    counted[Reg.PC] = BASE
    while not engine.run():
        pass
    assert seen == [2, 2, 3]  # a system instruction is the last one of its block
    assert engine.blocks == 4


@pytest.mark.parametrize("more", [0, 1, 2])
def test_a_handler_brings_the_stop_nearer(counted: Counted, more: int) -> None:
    engine = counted.engine
    counted.device.on_write = lambda: engine.stop_after(more) if engine.blocks == 1 else None
    counted.put(BASE, li(S0, DEVICE), "loop", sw(ZERO, S0), j("next"), "next", addi(A0, A0, 1), j("loop"))
    counted[Reg.PC] = BASE
    engine.stop_after(1000)
    assert not engine.run()
    assert (engine.blocks, counted[A0]) == (1 + more, [0, 1, 1][more])


def test_a_stop_in_a_handler_is_no_block(counted: Counted) -> None:
    engine = counted.engine
    counted.device.on_write = engine.stop
    counted.put(BASE, li(S0, DEVICE), "loop", sw(ZERO, S0), j("loop"))
    counted[Reg.PC] = BASE
    for blocks in range(1, 10):
        assert not engine.run()
        assert engine.blocks == blocks


@pytest.mark.timeout(20, method="thread")
def test_a_trap_whose_handler_is_on_no_page(counted: Counted) -> None:
    """No block begins any more, so none can be the last one."""
    tables = Sv(counted, 39)
    tables.map(BASE, BASE)
    tables.enable()
    counted.put(BASE, ecall())
    counted[Reg.MEDELEG], counted[Reg.STVEC] = 1 << 9 | 1 << 12, KERNEL_DATA
    counted[Reg.PRIV], counted[Reg.PC] = SUPERVISOR, BASE
    with pytest.raises(MachineError, match=r"no handler for its trap: .*ecall from S mode.*instruction page fault"):
        counted.engine.run()
    assert counted.engine.blocks == 1


def test_nothing_runs_when_there_is_nothing_left(counted: Counted) -> None:
    counted.put(BASE, addi(A0, A0, 1), wfi())
    counted[Reg.PC] = BASE
    counted.engine.stop_after(0)
    assert not counted.engine.run()
    assert (counted[A0], counted.engine.blocks) == (0, 0)
    counted.engine.stop_after(1)
    assert counted.engine.run()
    assert (counted[A0], counted.engine.blocks) == (1, 1)


def test_another_build_of_unicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter is looked for where it should be, and what is not there is said."""
    monkeypatch.setattr(blockhook, "_UC_EMU_COUNTER", 1384)
    monkeypatch.setattr(blockhook, "_hook_count_cb", blockhook._hook_count_cb.__wrapped__)
    with pytest.raises(PyemuError, match="its counter is not where it should be; please report it"):
        Counted(native=False)


# ---------------------------------------------------------------- what else Unicorn asks the host for


def a_bit_after_little_use(seconds: float) -> int:
    """Use much of the TLB, then little, with pauses of ``seconds``; say whether it then loses a page early.

    The guest finds out when it clears the page's A bit, and leaves out the fence: an access sets it if it was lost.
    """
    bare = Counted()
    WarpClock().follow(bare.engine)
    bare.device.on_write = lambda: time.sleep(seconds)
    tables = Sv(bare, 39)
    for page in range(0, 8 * PAGE, PAGE):
        tables.map(BASE + page, BASE + page)
    tables.map(DEVICE, DEVICE)
    for page in range(0, 1024 * PAGE, PAGE):
        tables.map(NOTHING + page, BASE + (4 << 20) + page)
    entry = tables.entry(NOTHING)
    tables.map(KERNEL_DATA, entry & -PAGE)
    tables.enable()
    use_much = [
        [
            li(T0, NOTHING), li(T1, NOTHING + 400 * PAGE), li(T2, PAGE),
            f"{n}", ld(ZERO, T0), add(T0, T0, T2), bltu(T0, T1, f"{n}"), sfence_vma(),
        ] for n in range(3)
    ]  # fmt: skip
    use_little = [li(S0, DEVICE), [[sw(ZERO, S0), sfence_vma()] for _ in range(3)]]
    # Pages on the same entry of a small TLB, and more of them than victims are kept.
    use_rivals = [[li(T0, NOTHING + n * 64 * PAGE), ld(ZERO, T0)] for n in range(13)]
    clear = [li(S1, KERNEL_DATA + entry % PAGE), ld(T1, S1), andi(T1, T1, ~A), sd(T1, S1)]
    use = [li(T0, NOTHING), ld(ZERO, T0), ld(A0, S1)]
    bare.run(use_much, use_little, use_rivals, clear, use, wfi(), mode=SUPERVISOR)
    return bare[A0] & A


def test_the_tlb_changes_its_size_in_guest_time() -> None:
    """Unicorn makes it smaller when little of it was in use for 100 ms."""
    assert a_bit_after_little_use(0.0) == a_bit_after_little_use(0.12) == 0


@pytest.mark.parametrize("csr", [Csr.CYCLE, Csr.INSTRET, Csr.MCYCLE, Csr.MINSTRET])
def test_cycles_and_instructions_are_guest_time(csr: int) -> None:
    """Unicorn has the host's; at 1 GHz, a block of 4 ns has four cycles."""
    bare = Counted()
    WarpClock().follow(bare.engine)
    bare.run(j("next"), "next", csrr(A0, csr), csrr(A1, csr), wfi())
    assert (bare[A0], bare[A1]) == (8, 12)
