"""Running, stopping and memory: what the rest of the machine builds on. Stops are the probe of a known hazard."""

import ctypes
import time

import pytest

from emu.cpu.engine import Reg
from tests.emu.asm import (
    A0,
    A1,
    A2,
    S0,
    S1,
    T0,
    T1,
    T2,
    ZERO,
    Csr,
    addi,
    amoadd_w,
    bne,
    c_addi,
    csrr,
    ebreak,
    j,
    lbu,
    ld,
    lhu,
    li,
    lr_w,
    lw,
    nop,
    sc_w,
    sd,
    sw,
    wfi,
)  # fmt: skip
from tests.emu.cpu.bare import BASE, MACHINE, SUPERVISOR, USER, Bare, Recorder, stopping

pytestmark = pytest.mark.usefixtures("engine_kind")

MMIO = 0x1000_0000
DATA = BASE + 0x1000


def run_stopped(bare: Bare, seconds: float = 1.0) -> int:
    """Run, stopped all the time, for so long and at least 500 times; say how often."""
    stops, end = 0, time.monotonic() + seconds
    with stopping(bare.engine):
        while time.monotonic() < end or stops < 500:
            assert not bare.engine.run()
            stops += 1
    return stops


# ---------------------------------------------------------------- stops


def test_stops_never_repeat_an_amo() -> None:
    bare = Bare()
    bare[S0], bare[S1] = 1, DATA
    bare.put(BASE, "loop", addi(T0, T0, 1), amoadd_w(ZERO, S0, S1), addi(T1, T1, 1), j("loop"))
    run_stopped(bare)
    assert bare[T0] == bare[T1] > 0
    assert bare.word(DATA, 4) == bare[T0] & 0xFFFF_FFFF


def test_stops_never_repeat_a_store_to_a_device() -> None:
    last, extra = 0, 0

    class Counter(Recorder):
        def write(self, offset: int, size: int, value: int) -> None:
            nonlocal last, extra
            extra += value != (last + 1) & 0xFFFF_FFFF
            last = value

    bare = Bare((MMIO, 0x1000, Counter()))
    bare[S1] = MMIO
    bare.put(BASE, "loop", addi(T0, T0, 1), sw(T0, S1), addi(T1, T1, 1), j("loop"))
    run_stopped(bare)
    assert bare[T0] == bare[T1] > 0
    assert extra == 0


def test_stops_never_break_a_reservation_for_ever() -> None:
    bare = Bare()
    bare[S1] = DATA
    bare.put(
        BASE,
        "loop", lr_w(A0, S1), addi(A0, A0, 1), sc_w(A1, A0, S1), addi(T1, T1, 1), bne(A1, ZERO, "loop"),
        addi(T0, T0, 1), j("loop"),
    )  # fmt: skip
    run_stopped(bare)
    succeeded, tried = bare[T0], bare[T1]
    assert bare.word(DATA, 4) - (succeeded & 0xFFFF_FFFF) in (0, 1)  # stopped between sc and the count
    assert succeeded > 0.9 * tried


def test_a_loop_of_one_instruction_can_be_stopped() -> None:
    bare = Bare()
    bare.put(BASE, j(0))
    run_stopped(bare, 0.5)
    assert bare[Reg.PC] == BASE


def test_a_stop_before_the_start_is_harmless() -> None:
    bare = Bare()
    bare.engine.stop()
    assert bare.run(li(A0, 5), wfi())[A0] == 5


def test_a_stop_is_told_from_wfi() -> None:
    bare = Bare()
    bare.put(BASE, "loop", j("loop"))
    with stopping(bare.engine):
        assert not bare.engine.run()
    bare.put(BASE, wfi())
    assert bare.engine.run()
    assert bare[Reg.PC] == BASE + 4


def test_a_stop_from_a_device_is_at_the_next_block_and_the_store_is_done_once() -> None:
    device = Recorder()
    bare = Bare((MMIO, 0x1000, device))
    device.on_write = bare.engine.stop
    bare[S1] = MMIO
    bare.put(BASE, sw(ZERO, S1), addi(T0, T0, 1), j("next"), "next", addi(T1, T1, 1), wfi())
    assert not bare.engine.run()
    assert (bare[Reg.PC], bare[T0], bare[T1]) == (BASE + 12, 1, 0)
    assert len(device.writes) == 1
    bare.go()
    assert (bare[T0], bare[T1], len(device.writes)) == (1, 1, 1)


def test_a_stop_from_the_exception_handler() -> None:
    bare = Bare()
    seen: list[int] = []

    def exception(cause: int, pc: int) -> None:
        seen.append(cause)
        bare[Reg.PC] = pc + 4
        bare.engine.stop()

    bare.engine.exception = exception
    bare.put(BASE, 0x0000_0073, addi(T0, T0, 1), wfi())
    assert not bare.engine.run()
    assert (seen, bare[Reg.PC], bare[T0]) == ([8], BASE + 4, 0)


# ---------------------------------------------------------------- devices


def test_loads_come_with_offset_and_size() -> None:
    device = Recorder()
    device.value = 0x8765_4321
    bare = Bare((MMIO, 0x1000, device))
    bare[S1] = MMIO
    bare.run(lbu(A0, S1, 1), lhu(A1, S1, 2), lw(A2, S1, 4), wfi())
    assert device.reads == [(1, 1), (2, 2), (4, 4)]
    assert (bare[A0], bare[A1], bare[A2]) == (0x21, 0x4321, 0xFFFF_FFFF_8765_4321)


def test_an_access_of_8_bytes_is_two_low_then_high() -> None:
    device = Recorder()
    bare = Bare((MMIO, 0x1000, device))
    bare[S1] = MMIO
    bare.run(li(A0, 0x1122_3344_5566_7788), sd(A0, S1, 8), ld(A1, S1, 16), wfi())
    assert device.writes == [(8, 4, 0x5566_7788), (12, 4, 0x1122_3344)]
    assert device.reads == [(16, 4), (20, 4)]


@pytest.mark.parametrize("offset", [1, 2, 3, 5, 7])
def test_misaligned_accesses_to_a_device_are_split_into_aligned_ones(offset: int) -> None:
    device = Recorder()
    bare = Bare((MMIO, 0x1000, device))
    bare[S1] = MMIO
    bare.run(lw(A0, S1, offset), ld(A0, S1, offset), sw(A0, S1, offset), sd(A0, S1, offset), wfi())
    accesses = [*device.reads, *((o, s) for o, s, _ in device.writes)]
    assert all(o % s == 0 and s <= 4 for o, s in accesses)


def test_an_exception_in_a_device_comes_out_of_run_once_and_unchanged() -> None:
    device = Recorder()
    failure = LookupError("mine")

    def fail() -> None:
        raise failure

    device.on_write = fail
    bare = Bare((MMIO, 0x1000, device))
    bare[S1] = MMIO
    bare.put(BASE, sw(ZERO, S1), j("next"), "next", addi(T0, T0, 1), wfi())
    with pytest.raises(LookupError) as caught:
        bare.engine.run()
    assert caught.value is failure
    device.on_write = lambda: None
    assert bare.go()[T0] == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_so_does_what_is_no_exception_by_name(kind: type[BaseException]) -> None:
    class Interrupted(Recorder):
        def read(self, offset: int, size: int) -> int:
            raise kind

    bare = Bare((MMIO, 0x1000, Interrupted()))
    bare[S1] = MMIO
    bare.put(BASE, lw(A0, S1), wfi())
    with pytest.raises(kind):
        bare.engine.run()


def test_an_exception_while_the_time_is_read() -> None:
    def fail() -> int:
        raise LookupError

    bare = Bare()
    bare.engine.time = fail
    bare.put(BASE, csrr(A0, Csr.TIME), wfi())
    with pytest.raises(LookupError):
        bare.engine.run()


# ---------------------------------------------------------------- time and counters


@pytest.mark.parametrize("mode", [USER, SUPERVISOR, MACHINE])
def test_rdtime_is_the_clock_in_every_mode(mode: int) -> None:
    bare = Bare().allow_all()
    bare.engine.time = iter(range(1000, 2000)).__next__
    bare.put(BASE, csrr(A0, Csr.TIME), csrr(ZERO, Csr.TIME), csrr(A1, Csr.TIME), ebreak())
    bare.trap(mode=mode)
    assert 1000 <= bare[A0] < bare[A1] <= 1002
    assert bare[ZERO] == 0


def test_the_other_counters_count() -> None:
    bare = Bare()
    bare.run(csrr(A0, Csr.CYCLE), csrr(A1, Csr.CYCLE), csrr(S0, Csr.INSTRET), csrr(S1, Csr.INSTRET), wfi())
    assert bare[A0] < bare[A1]
    assert bare[S0] < bare[S1]


# ---------------------------------------------------------------- memory as the host sees it, and the end


def test_translation_of_an_address_for_the_host() -> None:
    bare = Bare()
    assert bare.engine.translate(BASE + 5) == BASE + 5


def test_an_instruction_that_cannot_be_read_is_0() -> None:
    bare = Bare()
    bare.put(BASE, c_addi(T2, 1), nop())
    assert bare.engine.instruction(BASE) == 0x0385
    assert bare.engine.instruction(BASE + 2) == nop()
    assert bare.engine.instruction(0x10) == 0
    assert bare.engine.instruction(BASE + (16 << 20) - 2) == 0


def test_a_closed_engine_gives_its_memory_back() -> None:
    bare = Bare()
    bare.engine.close()
    with pytest.raises(ValueError, match="released"):
        bare.state[0]
    assert ctypes.c_char  # the RAM outlives it
    assert bare.ram.read(BASE, 2) == b"\0\0"


def test_a_closed_engine_gives_the_guests_memory_back() -> None:
    """At once: 40 MB and more of each machine would wait for Python to look for cycles."""
    bare = Bare()
    bare.put_word(DATA, 5)
    bare.engine.close()
    assert bare.word(DATA) == 0
