"""A hart that was saved and restored is the hart that was not: with the native part, without, and across."""

import hashlib
import random
from collections.abc import Callable

import pytest

from devices.errors import UsageError
from emu.cpu.engine import Reg
from emu.cpu.hart import MEIP, HartState
from emu.cpu.sstc import STIMECMP
from emu.snapshot.plain import decode, encode, type_of
from emu.timing.warp import WarpClock
from tests.emu.asm import (
    A0,
    A1,
    RA,
    S0,
    T0,
    T1,
    ZERO,
    Csr,
    Item,
    addi,
    csrr,
    csrsi,
    csrw,
    csrwi,
    fdiv_d,
    fmv_d_x,
    j,
    jalr,
    ld,
    li,
    lr_w,
    nop,
    rdtime,
    ret,
    sc_w,
    wfi,
)  # fmt: skip
from tests.emu.cpu import programs
from tests.emu.cpu.bare import BASE, HANDLER, MACHINE, PAGE, SUPERVISOR, Bare
from tests.emu.cpu.paging import RWX, Sv, V
from tests.emu.cpu.test_counting import PROGRAMS, Counted, Program

#: Not whole ns.
PS_PER_BLOCK = 3_457
VIRTUAL = 0x1000_0000

#: From which kind of engine to which: with the native part, or without.
ACROSS = pytest.mark.parametrize(
    ("kinds"),
    [[True], [False], [True, False]],
    ids=["native", "python", "across"],
)


class Timed:
    """A board that tells the time by its blocks, which nobody counts yet."""

    def __init__(self, bare: Bare) -> None:
        self.bare, self.clock = bare, WarpClock(PS_PER_BLOCK)
        self.clock.follow(bare.engine)
        bare.engine.time = self.ticks

    def ticks(self) -> int:
        return self.clock.now() // 100

    def run(self, blocks: int) -> bool:
        """Run for so many blocks, or until it waits: whether it does."""
        engine = self.bare.engine
        end = engine.blocks + blocks
        engine.stop_after(blocks)
        while engine.blocks < end:
            if engine.run():
                return True
        return False

    def hop(self, other: "Timed") -> "Timed":
        """Go on, by way of a file, as another board."""
        other.bare.ram.buffer[:] = self.bare.ram.buffer[:]
        other.bare.engine.changed(None)
        other.bare.hart.restore(through_a_file(self.bare))
        other.clock.restore(self.clock.state())
        assert other.clock.now() == self.clock.now()
        assert other.bare.hart.state() == self.bare.hart.state()
        return other

    def everything(self) -> tuple[HartState, int, str]:
        return self.bare.hart.state(), self.clock.now(), hashlib.sha256(self.bare.ram.buffer).hexdigest()


def through_a_file(bare: Bare) -> HartState:
    state: HartState = decode(encode(bare.hart.state()), type_of(bare.hart))
    return state


@ACROSS
@pytest.mark.parametrize("seed", range(8))
def test_random_programs_go_on_as_if_nothing_had_been(seed: int, kinds: list[bool]) -> None:
    program, choose = programs.program(random.Random(seed)), random.Random(seed)
    straight = Timed(programs.board(program, native=choose.choice(kinds)))
    hopping = Timed(programs.board(program, native=choose.choice(kinds)))
    used = Timed(programs.board(program, native=choose.choice(kinds)))
    while not hopping.run(choose.choice([1, 2, 3, 10, 100, 300])):
        new = Timed(programs.board(program, native=choose.choice(kinds)))
        used, hopping = hopping, hopping.hop(choose.choice([new, used]))
    assert straight.run(1_000_000)
    assert hopping.everything() == straight.everything()


def floating(bare: Bare) -> list[Item]:
    """Rounding, flags and registers."""
    bare[Reg.MSTATUS] |= 3 << 13
    bare.put(BASE + PAGE, fdiv_d(2, 0, 1), csrr(A1, Csr.FFLAGS), ret())
    return [
        li(T0, 0x3FF0_0000_0000_0000), fmv_d_x(0, T0), li(T0, 0x4008_0000_0000_0000), fmv_d_x(1, T0),
        li(S0, BASE + PAGE),
        "loop", csrwi(Csr.FRM, 3), jalr(RA, S0), csrwi(Csr.FRM, 0), j("next"), "next", jalr(RA, S0),
        csrr(A0, Csr.FCSR), csrwi(Csr.FFLAGS, 0), j("loop"),
    ]  # fmt: skip


def protected(_bare: Bare) -> list[Item]:
    """PMP: a range whose start Unicorn forgets to move, among others."""
    return [
        li(T0, BASE >> 2), csrw(Csr.PMPADDR0, T0), li(T0, -1), csrw(Csr.PMPADDR1, T0),
        li(T0, 0x0F08), csrw(Csr.PMPCFG0, T0),
        "loop", csrr(A0, Csr.PMPADDR0), addi(A0, A0, 1024), csrw(Csr.PMPADDR0, A0), csrr(A1, Csr.PMPCFG0), j("loop"),
    ]  # fmt: skip


def reserved(_bare: Bare) -> list[Item]:
    """A reservation across blocks."""
    return [
        li(S0, BASE + 0x8000),
        "loop", lr_w(A0, S0), j("next"), "next", addi(A0, A0, 1), sc_w(A1, A0, S0), rdtime(T1), j("loop"),
    ]  # fmt: skip


@ACROSS
@pytest.mark.parametrize("program", [*PROGRAMS, floating, protected, reserved], ids=lambda program: program.__name__)
def test_every_kind_of_block_goes_on_as_if_nothing_had_been(program: Program, kinds: list[bool]) -> None:
    choose = random.Random(1)

    def switched_on(native: bool) -> Counted:
        bare = Counted(native=native, count=lambda _engine: None)
        bare[Reg.PRIV], bare[Reg.PC], bare[Reg.MTVEC] = MACHINE, BASE, HANDLER
        bare.put(BASE, program(bare))
        return bare

    straight, hopping = (Timed(switched_on(choose.choice(kinds))) for _ in range(2))
    for _ in range(20):
        blocks = choose.choice([1, 2, 3, 10, 100])
        assert straight.run(blocks) == hopping.run(blocks)
        hopping = hopping.hop(Timed(switched_on(choose.choice(kinds))))
    assert hopping.everything() == straight.everything()


# ---------------------------------------------------------------- one by one


Board = Callable[[], Counted]


@pytest.fixture(params=[True, False], ids=["native", "python"])
def board(request: pytest.FixtureRequest) -> Board:
    return lambda: Counted(native=request.param)


def restored(bare: Bare, other: Bare) -> Bare:
    other.ram.buffer[:] = bare.ram.buffer[:]
    other.engine.changed(None)
    other.hart.restore(through_a_file(bare))
    return other


def test_an_interrupt_that_is_pending_is_entered_first(board: Board) -> None:
    bare = board()
    bare.put(BASE, addi(A0, A0, 1), wfi())
    bare.put(HANDLER, addi(A1, A1, 1), wfi())
    bare[Reg.PC], bare[Reg.MTVEC], bare[Reg.MIE], bare[Reg.MSTATUS] = BASE, HANDLER, MEIP, 8
    bare.engine.set_pending(MEIP, level=True)
    bare = restored(bare, board())
    bare.engine.stop_after(5)
    assert bare.engine.run()
    assert (bare[A0], bare[A1], bare.engine.blocks) == (0, 1, 1)


def test_one_that_is_pending_no_more_is_not_entered(board: Board) -> None:
    bare, used = board(), board()
    bare.put(BASE, csrsi(Csr.MSTATUS, 8), addi(A0, A0, 1), wfi())
    bare[Reg.PC], bare[Reg.MTVEC], bare[Reg.MIE] = BASE, HANDLER, MEIP
    used.engine.set_pending(MEIP, level=True)
    bare = restored(bare, used)
    bare.engine.stop_after(5)
    assert bare.engine.run()
    assert (bare[A0], bare[Reg.MIP]) == (1, 0)


def mapping(bare: Bare, page: int, at: int) -> Sv:
    """Make page tables with which a program of S mode reads ``page``."""
    tables = Sv(bare, 39, at)
    tables.map(BASE, BASE)
    tables.map(VIRTUAL, page)
    bare.put(BASE, jalr(RA, S0), ld(A1, S0, 8), wfi())
    bare.put(page, addi(A0, ZERO, page // PAGE % 8), ret())
    bare.put_word(page + 8, page // PAGE % 8)
    bare[S0], bare[Reg.SATP], bare[Reg.PRIV], bare[Reg.PC] = VIRTUAL, tables.satp, SUPERVISOR, BASE
    return tables


def test_with_other_tables_other_pages_are_seen(board: Board) -> None:
    bare = board()
    mapping(bare, BASE + PAGE, BASE + (8 << 20))
    state = through_a_file(bare)
    mapping(bare, BASE + 2 * PAGE, BASE + (9 << 20))
    bare.engine.flush_tlb()
    assert (bare.go()[A0], bare[A1]) == (2, 2)
    bare.hart.restore(state)
    assert (bare.go()[A0], bare[A1]) == (1, 1)


def test_so_they_are_where_tables_have_changed_behind_the_engine(board: Board) -> None:
    bare = board()
    mapping(bare, BASE + 2 * PAGE, BASE + (9 << 20))
    tables = mapping(bare, BASE + PAGE, BASE + (8 << 20))
    assert (bare.go()[A0], bare[A1]) == (1, 1)
    entry = tables.entry(VIRTUAL) - BASE
    bare.ram.buffer[entry : entry + 8] = ((BASE + 2 * PAGE) >> 2 | RWX | V).to_bytes(8, "little")
    bare.engine.changed([(entry & -PAGE, (entry & -PAGE) + PAGE)])
    bare[Reg.PC] = BASE
    assert (bare.go()[A0], bare[A1]) == (2, 2)


@pytest.mark.parametrize("known", [True, False])
def test_code_that_changed_behind_the_engine(board: Board, known: bool) -> None:
    bare = board()
    bare.put(BASE, jalr(RA, S0), wfi())
    bare.put(BASE + 8 * PAGE, addi(A0, ZERO, 1), ret())
    bare[S0], bare[Reg.PC] = BASE + 8 * PAGE, BASE
    state = through_a_file(bare)
    for n in range(2, 5):
        assert bare.go()[A0] == n - 1
        bare.hart.restore(state)
        bare.ram.buffer[8 * PAGE : 8 * PAGE + 4] = addi(A0, ZERO, n).to_bytes(4, "little")
        bare.engine.changed([(PAGE, 4 * PAGE), (7 * PAGE, 9 * PAGE)] if known else None)


def test_code_that_changes_after_that_is_noticed(board: Board) -> None:
    bare = board()
    bare.put(BASE, jalr(RA, S0), wfi())
    bare[S0] = BASE + PAGE
    for n in range(4):
        bare.put(BASE + PAGE, addi(A0, ZERO, n), ret())
        assert bare.run()[A0] == n
        if n == 1:
            bare.engine.changed(None)


def test_counters_go_on(board: Board) -> None:
    bare = board()
    bare.engine.time = lambda: 5
    bare.put(HANDLER, wfi())
    bare[Reg.MTVEC], bare[Reg.PC] = HANDLER, BASE
    bare.put(BASE, rdtime(A0), rdtime(A0), 0)
    assert bare.go().hart.traps == 1
    state = through_a_file(bare)
    for other in (board(), bare):
        other.hart.restore(state)
        assert (other.hart.traps, other.engine.time_reads, other.engine.blocks) == (1, 2, bare.engine.blocks)
        other.put(HANDLER, rdtime(A0), 0)
        other[Reg.PC], other[Reg.MTVEC] = HANDLER, HANDLER + 0x100
        other.put(HANDLER + 0x100, nop(), wfi())
        other.go()
        assert (other.hart.traps, other.engine.time_reads) == (2, 3)


def test_a_stop_that_was_asked_for_comes_after_as_many_blocks(board: Board) -> None:
    bare, used = board(), board()
    for one in (bare, used):
        one.put(BASE, "loop", addi(A0, A0, 1), j("loop"))
        one[Reg.PC] = BASE
    bare.go_on(1_000)
    used.go_on(10)
    used.engine.stop_after(5)
    used.hart.restore(through_a_file(bare))
    assert not used.engine.run()
    assert (used.engine.blocks, used[A0]) == (1_005, 1_005)


def test_sstc_goes_on(board: Board) -> None:
    bare, other = board(), board()
    for one in (bare, other):
        one.hart.start_machine(BASE, 0, 0, lambda _ticks: None)
    bare.run(li(T0, 123), csrw(STIMECMP, T0), wfi())
    other.hart.restore(through_a_file(bare))
    assert other.run(csrr(A0, STIMECMP), wfi())[A0] == 123


def test_a_state_shares_nothing(board: Board) -> None:
    bare = board()
    bare.put(BASE, "loop", addi(A0, A0, 1), j("loop"))
    bare[Reg.PC] = BASE
    state = bare.hart.state()
    for _ in range(2):
        bare.hart.restore(state)
        assert bare.go_on(10) == 10
        assert bare[A0] == 10


def test_a_hart_with_another_firmware_is_refused() -> None:
    bare, other = Bare(), Bare()
    other.hart.start_machine(BASE, 0, 0, lambda _ticks: None)
    for one, two in ((bare, other), (other, bare)):
        with pytest.raises(UsageError, match="the snapshot is damaged: the hart's Sstc cannot be so"):
            one.hart.restore(two.hart.state())
