"""Sstc: menvcfg and stimecmp, which Unicorn does not have, and the interrupt that comes of them."""

from random import Random
from typing import Self

import pytest

from devices.errors import UsageError
from devices.stimer import NEVER, SupervisorTimer
from emu.cpu.engine import Reg
from emu.cpu.hart import STIP
from emu.cpu.sstc import MENVCFG, STIMECMP, Sstc
from emu.timing.clock import ManualClock
from emu.timing.events import DeadlineHeap
from tests.emu.asm import (
    A0,
    A1,
    A2,
    T0,
    T1,
    ZERO,
    Csr,
    Item,
    c_nop,
    csrr,
    csrrc,
    csrrci,
    csrrs,
    csrrsi,
    csrrw,
    csrrwi,
    csrw,
    csrwi,
    ecall,
    j,
    li,
    slli,
    wfi,
)  # fmt: skip
from tests.emu.cpu.bare import BASE, HANDLER, MACHINE, SUPERVISOR, USER, Bare
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots

pytestmark = pytest.mark.usefixtures("engine_kind")

FIOM, STCE, TM = 1, 1 << 63, 2
ILLEGAL = 2
SWITCH_ON: list[Item] = [li(T0, 1), slli(T0, T0, 63), csrw(MENVCFG, T0)]


class Rig(Bare):
    """A hart with Sstc, its timer, and a clock under the test's control."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.events = ManualClock(), DeadlineHeap()
        timer = SupervisorTimer(self.clock, self.events, lambda up: self.engine.set_pending(STIP, up))
        self.hart.start_machine(BASE, 0, 0, timer.set)

    def advance(self, ticks: int) -> None:
        self.clock.advance(100 * ticks)
        self.events.run_due(self.clock.now())


def test_each_instruction_on_stimecmp() -> None:
    rig = Rig()
    rig[T0], rig[T1] = 0xF0F0, 0x00FF
    rig.run(csrw(STIMECMP, T0), csrrs(A0, STIMECMP, T1), csrrc(A1, STIMECMP, T0), csrrw(A2, STIMECMP, T0), wfi())
    assert (rig[A0], rig[A1], rig[A2]) == (0xF0F0, 0xF0FF, 0x000F)
    rig.run(csrwi(STIMECMP, 5), csrrsi(A0, STIMECMP, 18), csrrci(A1, STIMECMP, 3), csrrwi(A2, STIMECMP, 31), wfi())
    assert (rig[A0], rig[A1], rig[A2]) == (5, 23, 20)
    assert rig.run(csrrw(T0, STIMECMP, T0), csrr(T1, STIMECMP), wfi())[T0] == 31
    assert rig[T1] == 0xF0F0


def test_x0_stays_zero_and_reading_writes_nothing() -> None:
    rig = Rig()
    rig.run(*SWITCH_ON, csrwi(STIMECMP, 5), csrrw(ZERO, STIMECMP, T0), csrr(A0, STIMECMP), wfi())
    assert (rig[Reg.X0], rig[A0]) == (0, STCE)
    rig.advance(1)
    timers = rig.events.next_deadline()
    rig.run(csrr(A0, STIMECMP), csrrci(A1, STIMECMP, 0), wfi())
    assert rig.events.next_deadline() == timers


def test_they_do_not_count_as_traps() -> None:
    rig = Rig()
    rig.run(c_nop(), *SWITCH_ON, csrw(STIMECMP, T0), wfi())
    assert (rig.hart.traps, rig[Reg.MCAUSE], rig[Reg.MEPC]) == (0, 0, 0)


def test_menvcfg_has_the_bits_that_mean_something() -> None:
    rig = Rig()
    rig[T0] = NEVER
    assert rig.run(csrw(MENVCFG, T0), csrr(A0, MENVCFG), wfi())[A0] == STCE | FIOM


def test_the_interrupt_comes_when_time_reaches_stimecmp_and_goes_when_it_is_set_again() -> None:
    rig = Rig()
    rig[Reg.MIDELEG], rig[Reg.MCOUNTEREN], rig[Reg.STVEC] = STIP, TM, HANDLER
    rig.put(HANDLER, wfi())
    rig.run(*SWITCH_ON, wfi())
    rig[Reg.MIE], rig[Reg.MSTATUS] = STIP, 2
    rig.run(li(T0, 50), csrw(STIMECMP, T0), wfi(), mode=SUPERVISOR)
    assert rig[Reg.MIP] == 0
    rig.advance(49)
    assert rig[Reg.MIP] == 0
    rig.advance(1)
    assert rig.run(j(0), mode=SUPERVISOR)[Reg.SCAUSE] == 1 << 63 | 5
    rig.run(li(T0, 51), csrw(STIMECMP, T0), wfi(), mode=SUPERVISOR)
    assert rig[Reg.MIP] == 0
    assert rig.events.next_deadline() == 5100


def test_a_time_in_the_past_is_due_at_once() -> None:
    rig = Rig()
    rig.advance(100)
    rig.run(*SWITCH_ON, li(T0, 100), csrw(STIMECMP, T0), wfi())
    assert rig[Reg.MIP] == STIP
    rig.run(csrw(MENVCFG, ZERO), wfi())
    assert rig[Reg.MIP] == 0


def test_without_stce_stimecmp_is_only_a_number() -> None:
    rig = Rig()
    rig.run(csrw(STIMECMP, ZERO), wfi())
    assert rig[Reg.MIP] == 0
    rig.run(*SWITCH_ON, wfi())
    assert rig[Reg.MIP] == STIP


@pytest.mark.parametrize(
    ("instruction", "mode", "menvcfg", "mcounteren"),
    [
        (csrr(A0, STIMECMP), USER, STCE, 7),
        (csrr(A0, STIMECMP), SUPERVISOR, 0, 7),
        (csrr(A0, STIMECMP), SUPERVISOR, STCE, 5),
        (csrw(STIMECMP, A0), SUPERVISOR, 0, 7),
        (csrr(A0, MENVCFG), SUPERVISOR, STCE, 7),
        (csrr(A0, 0x30B), MACHINE, STCE, 7),
        (ecall() | MENVCFG << 20, MACHINE, STCE, 7),
    ],
)
def test_what_is_not_allowed_traps(instruction: int, mode: int, menvcfg: int, mcounteren: int) -> None:
    rig = Rig()
    rig[T0] = menvcfg
    rig.run(csrw(MENVCFG, T0), wfi())
    rig[Reg.MCOUNTEREN] = mcounteren
    assert rig.trap(instruction, mode=mode) == (ILLEGAL, BASE, instruction)


def test_a_hart_without_the_timer_has_neither() -> None:
    """As under the built-in firmware, whose supervisor is not told of Sstc."""
    assert Bare().trap(csrr(A0, Csr.MSTATUS), csrr(A0, MENVCFG)) == (ILLEGAL, BASE + 4, csrr(A0, MENVCFG))


class Life:
    """All that can happen to the two CSRs; see tests/twins.py."""

    def __init__(self) -> None:
        self.events = FakeEvents(FakeClock())
        self.times: list[int] = []
        self.registers = memoryview(bytearray(8 * 512)).cast("Q")
        self.sstc = Sstc(self.registers, self.times.append)

    @property
    def parts(self) -> list[Sstc]:
        return [self.sstc]

    def take_over(self, old: Self) -> None:
        self.times[:] = old.times
        self.registers[:] = old.registers

    def step(self, chance: Random) -> object:
        self.registers[Reg.PRIV] = chance.choice([MACHINE, SUPERVISOR, USER])
        self.registers[Reg.MCOUNTEREN] = chance.choice([0, TM])
        self.registers[Reg.X0 + 5] = chance.choice([chance.getrandbits(64), STCE])
        fields = chance.choice([0, 5]) << 15 | chance.randrange(8) << 12 | chance.choice([0, 6]) << 7 | 0x73
        done = self.sstc.execute(chance.choice([STIMECMP, MENVCFG]) << 20 | fields)
        return done, self.times[:], bytes(self.registers)


@pytest.mark.parametrize("seed", range(3))
def test_as_if_they_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed)


def test_a_menvcfg_that_no_hart_has() -> None:
    sstc = Life().sstc
    with pytest.raises(UsageError, match="menvcfg"):
        sstc.restore({"menvcfg": 2, "stimecmp": 0})
