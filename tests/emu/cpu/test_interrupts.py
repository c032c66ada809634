"""Interrupts: from the real CLINT, PLIC and S-mode timer into M, S and U mode, at once, and only if they may."""

import pytest

from devices.clint import Clint, HartLines
from devices.plic import Plic
from devices.stimer import SupervisorTimer
from emu.cpu.engine import Reg
from emu.cpu.hart import MEIP, MSIP, MTIP, SEIP, SSIP, STIP
from emu.timing.clock import ManualClock
from emu.timing.events import DeadlineHeap
from tests.emu.asm import (
    A0,
    S0,
    S1,
    T0,
    T1,
    T2,
    ZERO,
    Csr,
    Item,
    addi,
    beq,
    bne,
    csrr,
    csrsi,
    csrw,
    j,
    la,
    li,
    lw,
    mret,
    nop,
    sret,
    sw,
    wfi,
)  # fmt: skip
from tests.emu.cpu.bare import BASE, HANDLER, MACHINE, SUPERVISOR, USER, Bare, Recorder, stopping

pytestmark = pytest.mark.usefixtures("engine_kind")

SIE, MIE = 1 << 1, 1 << 3
INTERRUPT = 1 << 63
ALL = MEIP | MSIP | MTIP | SEIP | SSIP | STIP
S_LEVEL = SEIP | SSIP | STIP
CODE = {SSIP: 1, MSIP: 3, STIP: 5, MTIP: 7, SEIP: 9, MEIP: 11}
CLINT, PLIC = 0x0200_0000, 0x0C00_0000


def machine(enabled: int = ALL, delegated: int = 0, status: int = SIE | MIE, device: Recorder | None = None) -> Bare:
    """A hart with handlers that end the test."""
    bare = Bare(*([] if device is None else [(0x1000_0000, 0x1000, device)]))
    bare[Reg.MTVEC], bare[Reg.STVEC] = HANDLER, HANDLER + 0x100
    bare[Reg.MIE], bare[Reg.MIDELEG], bare[Reg.MSTATUS] = enabled, delegated, status
    bare.put(HANDLER, wfi())
    bare.put(HANDLER + 0x100, wfi())
    return bare


# ---------------------------------------------------------------- taken at once


@pytest.mark.parametrize("mode", [USER, SUPERVISOR, MACHINE])
@pytest.mark.parametrize("line", CODE)
def test_each_interrupt_in_each_mode_to_m(mode: int, line: int) -> None:
    bare = machine()
    bare.engine.set_pending(line, True)
    bare.run(addi(T0, T0, 1), j(0), mode=mode)
    assert (bare[Reg.MCAUSE], bare[Reg.MEPC], bare[T0]) == (INTERRUPT | CODE[line], BASE, 0)
    assert bare[Reg.MSTATUS] >> 11 & 3 == mode
    assert bare[Reg.MTVAL] == 0


@pytest.mark.parametrize("mode", [USER, SUPERVISOR])
@pytest.mark.parametrize("line", [SSIP, STIP, SEIP])
def test_delegated_interrupts_go_to_s(mode: int, line: int) -> None:
    bare = machine(delegated=S_LEVEL)
    bare.engine.set_pending(line, True)
    bare.run(addi(T0, T0, 1), j(0), mode=mode)
    assert (bare[Reg.SCAUSE], bare[Reg.SEPC], bare[T0]) == (INTERRUPT | CODE[line], BASE, 0)
    assert bare[Reg.MSTATUS] >> 8 & 1 == mode
    assert bare[Reg.MCAUSE] == 0


def test_a_vectored_handler_in_m_and_s() -> None:
    for line, register, mode in ((MTIP, Reg.MTVEC, MACHINE), (STIP, Reg.STVEC, SUPERVISOR)):
        bare = machine(delegated=S_LEVEL)
        bare[register] |= 1
        bare.put(bare[register] - 1, [wfi()] * 16)
        bare.engine.set_pending(line, True)
        bare.run(j(0), mode=mode)
        assert bare[Reg.PC] == bare[register] - 1 + 4 * CODE[line] + 4


@pytest.mark.parametrize("line", [MTIP, MSIP, MEIP, STIP])
@pytest.mark.parametrize("unmask", [csrsi(Csr.MSTATUS, MIE), csrw(Csr.MIE, S1)])
def test_pending_and_then_unmasked_is_taken_at_once(line: int, unmask: int) -> None:
    masked_by_mie = unmask == csrw(Csr.MIE, S1)
    bare = machine(enabled=0 if masked_by_mie else ALL, status=MIE if masked_by_mie else 0)
    bare[S1] = ALL
    bare.engine.set_pending(line, True)
    bare.run(addi(T0, T0, 1), unmask, addi(T1, T1, 1), j(0))
    assert (bare[Reg.MCAUSE], bare[Reg.MEPC]) == (INTERRUPT | CODE[line], BASE + 8)
    assert (bare[T0], bare[T1]) == (1, 0)


def test_a_lower_mode_cannot_mask_an_interrupt_of_a_higher_one() -> None:
    bare = machine(delegated=S_LEVEL, status=0)
    bare.engine.set_pending(STIP, True)
    assert bare.run(j(0), mode=USER)[Reg.SCAUSE] == INTERRUPT | 5
    bare = machine(delegated=S_LEVEL, status=0)
    bare.engine.set_pending(MTIP, True)
    assert bare.run(j(0), mode=SUPERVISOR)[Reg.MCAUSE] == INTERRUPT | 7


def test_a_delegated_interrupt_never_disturbs_m_mode() -> None:
    bare = machine(delegated=S_LEVEL)
    bare.engine.set_pending(STIP, True)
    assert bare.run(addi(T0, T0, 1), wfi())[T0] == 1
    assert bare[Reg.SCAUSE] == bare[Reg.MCAUSE] == 0


def test_a_line_that_drops_before_it_can_be_taken() -> None:
    bare = machine()
    bare.engine.set_pending(MTIP, True)
    bare.engine.set_pending(MTIP, False)
    assert bare.run(addi(T0, T0, 1), wfi())[T0] == 1
    assert bare[Reg.MCAUSE] == 0


def test_an_interrupt_after_mret_into_the_mode_that_may_take_it() -> None:
    bare = machine(delegated=S_LEVEL)
    bare.engine.set_pending(STIP, True)
    bare.run(
        li(T0, SUPERVISOR << 11), csrw(Csr.MSTATUS, T0), la(T1, "kernel"), csrw(Csr.MEPC, T1), mret(),
        "kernel", addi(T2, T2, 1), csrsi(Csr.SSTATUS, SIE), addi(T2, T2, 1), wfi(),
    )  # fmt: skip
    assert (bare[Reg.SCAUSE], bare[T2]) == (INTERRUPT | 5, 1)


# ---------------------------------------------------------------- the order of several


@pytest.mark.xfail(reason="Unicorn 2.1.4 takes the lowest number first: SSI, MSI, STI, MTI, SEI, MEI", strict=True)
def test_the_order_of_the_specification() -> None:
    order = []
    for _ in CODE:
        bare = machine()
        pending = ALL & ~sum(1 << code for code in order)
        bare.engine.set_pending(pending, True)
        bare.run(j(0))
        order.append(bare[Reg.MCAUSE] & 0xFF)
    assert order == [11, 3, 7, 9, 1, 5]


def test_every_one_of_several_is_taken_in_the_end() -> None:
    order = []
    bare = machine()
    bare.engine.set_pending(ALL, True)
    for _ in CODE:
        bare[Reg.MSTATUS] = MIE
        bare.run(j(0))
        order.append(bare[Reg.MCAUSE] & 0xFF)
        bare.engine.set_pending(1 << order[-1], False)
    assert sorted(order) == sorted(CODE.values())


# ---------------------------------------------------------------- while the guest runs


@pytest.mark.parametrize("mode", [USER, SUPERVISOR, MACHINE])
def test_a_loop_without_traps_is_interrupted_after_a_stop(mode: int) -> None:
    bare = machine()
    bare.put(BASE, "loop", addi(T0, T0, 1), j("loop"))
    bare[Reg.PRIV], bare[Reg.PC] = mode, BASE
    with stopping(bare.engine):
        while bare[T0] < 1000:
            assert not bare.engine.run()
    bare.engine.set_pending(MTIP, True)
    bare.go()
    assert (bare[Reg.MCAUSE], bare[Reg.MEPC] - BASE in (0, 4)) == (INTERRUPT | 7, True)


@pytest.mark.parametrize("line", CODE)
def test_a_line_raised_by_a_store_is_seen_at_the_end_of_its_block(line: int) -> None:
    device = Recorder()
    bare = machine(device=device)
    device.on_write = lambda: bare.engine.set_pending(line, True)
    bare[S1] = 0x1000_0000
    bare.run(sw(ZERO, S1), addi(T0, T0, 1), addi(T0, T0, 1), j("next"), "next", addi(T1, T1, 1), wfi())
    assert (bare[Reg.MCAUSE], bare[T0], bare[T1]) == (INTERRUPT | CODE[line], 2, 0)
    assert bare[Reg.MEPC] == BASE + 16


def test_a_line_lowered_by_a_store_is_not_taken_after_unmasking() -> None:
    device = Recorder()
    bare = machine(device=device, status=0)
    device.on_write = lambda: bare.engine.set_pending(MTIP, False)
    bare.engine.set_pending(MTIP, True)
    bare[S1] = 0x1000_0000
    bare.run(sw(ZERO, S1), csrsi(Csr.MSTATUS, MIE), addi(T0, T0, 1), wfi())
    assert (bare[Reg.MCAUSE], bare[T0]) == (0, 1)


def test_the_guest_raises_and_clears_its_own_software_interrupt() -> None:
    bare = machine(delegated=S_LEVEL)
    bare.put(HANDLER + 0x100, csrr(A0, Csr.SIP), csrw(Csr.SIP, ZERO), addi(T1, T1, 1), sret())
    bare.run(csrsi(Csr.SIP, SSIP), addi(T0, T0, 1), addi(T0, T0, 1), wfi(), mode=SUPERVISOR)
    assert (bare[A0], bare[T0], bare[T1], bare[Reg.MIP]) == (SSIP, 2, 1, 0)


def test_what_the_guest_clears_in_sip_does_not_touch_the_lines() -> None:
    bare = machine(delegated=S_LEVEL, status=0)
    bare.engine.set_pending(STIP | SEIP | MTIP, True)
    bare.run(csrw(Csr.SIP, ZERO), wfi(), mode=SUPERVISOR)
    assert bare[Reg.MIP] == STIP | SEIP | MTIP


# ---------------------------------------------------------------- real devices


def test_the_clint() -> None:
    bare, clock, events = machine(), ManualClock(), DeadlineHeap()
    lines = HartLines(lambda up: bare.engine.set_pending(MSIP, up), lambda up: bare.engine.set_pending(MTIP, up))
    clint = Clint(clock, events, [lines])
    bare.engine.map_device(CLINT, clint.size, clint.read, clint.write)
    bare[S1], bare[S0] = CLINT, CLINT + 0x4000
    bare.run(li(T0, 1), sw(T0, S1), nop(), j(0))
    assert bare[Reg.MCAUSE] == INTERRUPT | 3
    assert bare.run(sw(ZERO, S1), lw(A0, S1), wfi())[Reg.MIP] == 0

    bare[Reg.MSTATUS] = MIE
    bare.run(li(T0, 50), sw(T0, S0), sw(ZERO, S0, 4), wfi())
    assert events.next_deadline() == 5000
    clock.advance(5000)
    events.run_due(clock.now())
    assert bare.run(j(0))[Reg.MCAUSE] == INTERRUPT | 7
    bare.run(li(T0, -1), sw(T0, S0, 4), wfi())
    assert bare[Reg.MIP] == 0


@pytest.mark.parametrize(("context", "code", "register"), [(0, 11, Reg.MCAUSE), (1, 9, Reg.SCAUSE)])
def test_the_plic(context: int, code: int, register: int) -> None:
    bare = machine(delegated=S_LEVEL)
    plic = Plic(31, [lambda up: bare.engine.set_pending(MEIP, up), lambda up: bare.engine.set_pending(SEIP, up)])
    bare.engine.map_device(PLIC, plic.size, plic.read, plic.write)
    enable, claim = PLIC + 0x2000 + 0x80 * context, PLIC + 0x20_0004 + 0x1000 * context
    bare.run(li(T0, 1), li(T1, PLIC + 40), sw(T0, T1), li(T0, 1 << 10), li(T1, enable), sw(T0, T1), wfi())
    line = plic.line(10)
    line(True)
    bare[Reg.MSTATUS] = SIE
    assert bare.run(j(0), mode=SUPERVISOR)[register] == INTERRUPT | code
    bare.run(li(T1, claim), lw(A0, T1), wfi())
    assert (bare[A0], bare[Reg.MIP]) == (10, 0)
    bare.run(sw(A0, T1), nop(), wfi())
    assert bare[Reg.MIP] == (MEIP, SEIP)[context]
    line(False)
    assert bare[Reg.MIP] == 0


def test_the_supervisor_timer() -> None:
    bare, clock, events = machine(delegated=S_LEVEL), ManualClock(), DeadlineHeap()
    timer = SupervisorTimer(clock, events, lambda up: bare.engine.set_pending(STIP, up))
    timer.set(10)
    assert bare.run(addi(T0, T0, 1), wfi(), mode=SUPERVISOR)[T0] == 1
    clock.advance(1000)
    events.run_due(clock.now())
    assert bare.run(j(0), mode=SUPERVISOR)[Reg.SCAUSE] == INTERRUPT | 5
    timer.set((1 << 64) - 1)
    assert bare[Reg.MIP] == 0


def test_ten_thousand_interrupts_none_lost() -> None:
    device = Recorder()
    bare = machine(device=device)
    device.on_write = lambda: bare.engine.set_pending(MTIP, device.writes[-1][2] == 1)
    program: list[Item] = [
        "again", li(T0, 1), sw(T0, S1), "wait", beq(T1, T2, "wait"), addi(T2, T1, 0),
        bne(A0, ZERO, "again"), wfi(),
    ]  # fmt: skip
    bare.put(HANDLER, sw(ZERO, S1), addi(T1, T1, 1), addi(A0, A0, -1), mret())
    bare[S1], bare[A0] = 0x1000_0000, 10_000
    bare.run(*program)
    assert (bare[T1], len(device.writes)) == (10_000, 20_000)
