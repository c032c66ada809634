"""Accesses to nothing: an exact exception, and not one instruction more. Loads, stores, AMOs, fetches; alignment."""

import pytest

from emu.cpu.engine import Reg
from tests.emu.asm import (
    A0,
    A1,
    A2,
    S0,
    S1,
    T0,
    ZERO,
    Csr,
    Half,
    addi,
    amoadd_d,
    amoadd_w,
    c_nop,
    csrw,
    ecall,
    fld,
    fsd,
    jr,
    ld,
    li,
    lr_w,
    lw,
    nop,
    sc_w,
    sd,
    sw,
)  # fmt: skip
from tests.emu.cpu.bare import BASE, MACHINE, PAGE, RAM_END, SUPERVISOR, Bare, Recorder
from tests.emu.cpu.paging import KERNEL_DATA, Sv

pytestmark = pytest.mark.usefixtures("engine_kind")

MMIO = 0x1000_0000
#: Below, between and above the devices, the edges of RAM, and far away.
NOTHING = [0, 0x1234_5678, MMIO - 8, MMIO + 0x1000, BASE - 8, RAM_END, 0xC000_0000, 1 << 40, (1 << 56) - 8, 1 << 63, -8]
LOAD, STORE = 5, 7
FETCH = 1
DATA = BASE + 0x2000


@pytest.mark.parametrize("address", NOTHING)
@pytest.mark.parametrize(
    ("instruction", "cause"),
    [
        (lw(A0, S1), LOAD),
        (ld(A0, S1), LOAD),
        (fld(0, S1), LOAD),
        (lr_w(A0, S1), LOAD),
        (sw(A0, S1), STORE),
        (sd(A0, S1), STORE),
        (fsd(0, S1), STORE),
        (amoadd_w(A0, A0, S1), STORE),
        (amoadd_d(A0, A0, S1), STORE),
        (Half(0x6088), LOAD),  # c.ld a0,0(s1)
        (Half(0xE088), STORE),  # c.sd a0,0(s1)
    ],
)
def test_access_to_nothing(address: int, instruction: int, cause: int) -> None:
    bare = Bare((MMIO, 0x1000, Recorder()))
    bare[S1], bare[A0], bare[A1], bare[S0] = address & (1 << 64) - 1, 77, 88, DATA
    bare[Reg.MSTATUS] = 1 << 13  # FS: initial
    before = [bare[n] for n in range(32)]
    # Everything behind the access is in the same block, and must not happen.
    trap = bare.trap(c_nop(), instruction, addi(A1, A1, 1), sd(A1, S0), amoadd_w(ZERO, A1, S0), addi(S0, ZERO, 0))
    assert trap == (cause, BASE + 2, address & (1 << 64) - 1)
    assert [bare[n] for n in range(32)] == before
    assert bare.word(DATA) == 0


@pytest.mark.parametrize("address", NOTHING)
def test_jump_to_nothing(address: int) -> None:
    bare = Bare((MMIO, 0x1000, Recorder()))
    bare[S1] = address & (1 << 64) - 1
    assert bare.trap(jr(S1)) == (FETCH, bare[S1], bare[S1])


def test_jump_to_a_device() -> None:
    device = Recorder()
    bare = Bare((MMIO, 0x1000, device))
    assert bare.trap(li(S1, MMIO), jr(S1)) == (FETCH, MMIO, MMIO)
    assert not device.reads


def test_running_over_the_end_of_ram() -> None:
    assert Bare().trap(nop(), c_nop(), at=RAM_END - 6) == (FETCH, RAM_END, RAM_END)


def test_an_instruction_that_reaches_over_the_end_of_ram() -> None:
    bare = Bare()
    bare.ram.write(RAM_END - 2, nop().to_bytes(4, "little")[:2])
    cause, epc, _ = bare.trap(at=RAM_END - 2)
    assert (cause, epc) == (FETCH, RAM_END - 2)


def test_the_machine_goes_on_after_a_store_to_nothing() -> None:
    """The state in which Unicorn gave up is gone: translation, mode and reservation are as before."""
    bare = Bare()
    bare[S1], bare[S0] = 8, DATA
    bare.trap(sw(A0, S1))
    assert bare.trap(addi(A1, ZERO, 5), sd(A1, S0), ecall())[0] == 11
    assert bare.word(DATA) == 5
    for _ in range(100):
        assert bare.trap(at=BASE)[0] == 11


def test_a_csr_written_behind_a_store_to_nothing_keeps_its_value() -> None:
    bare = Bare()
    bare[S1], bare[A1] = 8, 0x55
    bare.trap(sw(A0, S1), csrw(Csr.MSCRATCH, A1))
    assert bare.csr(Csr.MSCRATCH) == 0


def test_a_store_to_nothing_before_ebreak_and_wfi() -> None:
    for last in (0x0010_0073, 0x1050_0073, 0x0000_0073):
        bare = Bare()
        bare[S1] = 8
        assert bare.trap(sw(A0, S1), last) == (STORE, BASE, 8)


def test_a_load_from_nothing_after_ebreak() -> None:
    """Unicorn remembers an error after ebreak; that must not hide the next one."""
    bare = Bare()
    bare[S1] = 8
    bare.put(BASE + 0x100, lw(A0, S1))
    bare[Reg.MTVEC] = BASE + 0x100
    bare.put(BASE, 0x0010_0073)
    bare.engine.run()
    assert bare[Reg.PC] == BASE + 0x100
    assert bare.trap(at=BASE + 0x100) == (LOAD, BASE + 0x100, 8)


@pytest.mark.parametrize(
    ("instruction", "cause"), [(ld(A0, S1), LOAD), (sd(A0, S1), STORE), (amoadd_d(A0, A0, S1), STORE)]
)
def test_under_translation_the_value_is_the_virtual_address(instruction: int, cause: int) -> None:
    bare = Bare()
    tables = Sv(bare, 39)
    virtual = KERNEL_DATA + 0x123_4000
    tables.map(BASE, BASE)
    tables.map(virtual, 0x4000_0000)  # nothing is there
    tables.enable()
    bare[S1], bare[A1] = virtual + 8, 88
    assert bare.trap(instruction, addi(A1, A1, 1), mode=SUPERVISOR) == (cause, BASE, virtual + 8)
    assert bare[A1] == 88


def test_a_page_table_that_is_nowhere() -> None:
    bare = Bare()
    bare[Reg.SATP] = 8 << 60 | 0x4000_0000 >> 12
    assert bare.trap(nop(), mode=SUPERVISOR)[0] in (1, 12)


# ---------------------------------------------------------------- alignment


def test_misaligned_accesses_to_ram_work_also_over_pages() -> None:
    bare = Bare()
    for start in (DATA + 1, DATA + PAGE - 3):
        bare[S1], bare[A0] = start, 0x1122_3344_5566_7788
        bare.trap(sd(A0, S1), ld(A1, S1), lw(A2, S1, 2), ecall())
        assert (bare[A1], bare[A2]) == (bare[A0], 0x3344_5566)


@pytest.mark.parametrize(
    ("instruction", "cause"), [(lr_w(A0, S1), 4), (amoadd_w(A0, A0, S1), 6), (amoadd_d(A0, A0, S1), 6)]
)
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_misaligned_atomics_trap(instruction: int, cause: int, offset: int) -> None:
    bare = Bare()
    bare[S1] = DATA + offset
    assert bare.trap(c_nop(), instruction) == (cause, BASE + 2, DATA + offset)


def test_misaligned_sc_trap_or_fail() -> None:
    """Unicorn compares the reservation before it looks at the address: it fails, as it may without a reservation."""
    bare = Bare()
    bare[S1] = DATA + 1
    assert bare.trap(sc_w(A0, A1, S1), ecall())[0] == 11
    assert bare[A0] == 1
    assert bare.word(DATA) == 0


def test_load_over_the_end_of_ram() -> None:
    bare = Bare()
    bare[S1], bare[A0] = RAM_END - 4, 9
    assert bare.trap(ld(A0, S1)) == (LOAD, BASE, RAM_END - 4)
    assert bare[A0] == 9


def test_store_over_the_end_of_ram() -> None:
    bare = Bare()
    bare[S1] = RAM_END - 4
    assert bare.trap(sd(A0, S1), addi(A1, A1, 1)) == (STORE, BASE, RAM_END - 4)
    assert bare[A1] == 0


def test_an_amo_to_a_device_reads_and_writes_once() -> None:
    device = Recorder()
    device.value = 40
    bare = Bare((MMIO, 0x1000, device))
    bare[S1], bare[A0] = MMIO, 2
    assert bare.trap(amoadd_w(T0, A0, S1), ecall(), mode=MACHINE)[0] == 11
    assert (device.reads, device.writes, bare[T0]) == ([(0, 4)], [(0, 4, 42)], 40)
