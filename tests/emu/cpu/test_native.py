"""The native part: in use, the same as Python in everything, and done without where it does not fit."""

import ctypes
import platform
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import unicorn
from unicorn import riscv_const

from emu.cpu import native
from emu.cpu.engine import Reg
from emu.timing.clock import MOST_BEHIND_NS, HostClock
from tests.emu.asm import (
    A0,
    A1,
    RA,
    S0,
    T0,
    T1,
    ZERO,
    Csr,
    addi,
    assemble,
    bne,
    csrwi,
    ecall,
    j,
    jalr,
    li,
    lr_w,
    lw,
    nop,
    rdtime,
    ret,
    sc_w,
    sfence_vma,
    sw,
    wfi,
)
from tests.emu.cpu import changing, programs
from tests.emu.cpu.bare import BASE, HANDLER, PAGE, SUPERVISOR, USER, Bare
from tests.emu.cpu.paging import R, Sv, W, X

ROOT = Path(native.__file__).parents[1]
#: Words of HostClock.shared.
ORIGIN = 2  # of what HostClock shares
#: Where TranslationBlock has its code.
CODE = 32


def test_it_is_in_use() -> None:
    """Else half of the tests of the CPU test nothing new."""
    assert Bare().engine.why_not_native == ""


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_do_the_same_with_it_and_without(seed: int) -> None:
    program = programs.program(random.Random(seed))
    assert programs.digest(program, native=True) == programs.digest(program, native=False)


@pytest.mark.parametrize("seed", range(20))
def test_changed_code_is_noticed_without_fence_i(seed: int) -> None:
    """As a guest may expect that was only ever run on QEMU: old xv6."""
    changing.compare(random.Random(seed), synchronize=False)


def test_it_enters_system_calls_and_counts_them() -> None:
    bare = Bare()
    bare[Reg.MEDELEG], bare[Reg.STVEC] = 1 << 8, HANDLER
    entered = []
    bare.engine.exception = lambda cause, pc: entered.append((cause, pc))
    bare.put(HANDLER, addi(A0, A0, 1), wfi())
    for _ in range(5):
        bare.run(nop(), ecall(), mode=USER)
    assert (bare[A0], bare[Reg.SEPC], bare.hart.traps, entered) == (5, BASE + 4, 5, [])


def test_a_trap_ends_a_reservation() -> None:
    bare = Bare()
    bare[Reg.MEDELEG], bare[Reg.STVEC], bare[T0] = 1 << 8, HANDLER, BASE + 0x1000
    bare.put(HANDLER, sc_w(A0, ZERO, T0), wfi())
    bare.run(lr_w(A1, T0), ecall(), mode=USER)
    assert (bare[A0], bare.hart.traps) == (1, 1)


def test_a_page_that_is_filled_anew_loses_all_its_code_early() -> None:
    """Else each write would look for code to drop, of which there is some until the last write."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(0x1000_0000, BASE + PAGE, R | X)
    tables.map(0x2000_0000, BASE + PAGE, R | W)
    tables.enable()
    has_code = bare.engine.native._has_code
    bare.put(BASE + PAGE + 0x800, ret())
    bare[T0], bare[T1] = 0x1000_0800, 0x2000_0000
    bare.trap(jalr(RA, T0), ecall(), mode=SUPERVISOR)
    assert list(has_code[:3]) == [1, 1, 0]
    bare.trap([sw(ZERO, T1, 4 * n) for n in range(16)], ecall(), mode=SUPERVISOR)
    assert has_code[1] == 1
    bare.trap([sw(ZERO, T1, 4 * n) for n in range(32)], ecall(), mode=SUPERVISOR)
    assert has_code[1] == 0


def test_a_page_whose_code_is_overwritten_has_none() -> None:
    bare = Bare()
    bare[T0] = BASE + PAGE
    bare.put(BASE + PAGE, ret())
    bare.run(jalr(RA, T0), sw(ZERO, T0), wfi())
    assert bare.engine.native._has_code[1] == 0


def test_whoever_watches_exceptions_gets_them_all() -> None:
    bare = Bare()
    bare[Reg.MEDELEG], bare[Reg.STVEC] = 1 << 8, HANDLER
    seen = []

    def between(handler):  # type: ignore[no-untyped-def]
        return lambda cause, pc: (seen.append((cause, pc)), handler(cause, pc))

    bare.hart.watch(between)
    bare.put(HANDLER, wfi())
    bare.run(nop(), ecall(), mode=USER)
    assert seen == [(8, BASE + 4)]
    assert bare.hart.traps == 1
    assert (bare[Reg.SEPC], bare[Reg.SCAUSE]) == (BASE + 4, 8)


def asked(bare: Bare, clock: HostClock) -> list[int]:
    """Have the engine know ``clock``, and note each time that it asks Python."""
    questions = []

    def answer() -> int:
        questions.append(clock.now())
        return questions[-1] // 100

    bare.engine.time = answer
    if clock.shared is not None:
        native = bare.engine.share_clock(clock.shared)
        native.stop_at(1 << 62)
        clock.follow(native, native=True)
    return questions


def test_it_tells_the_time_of_the_host_clock() -> None:
    bare, clock = Bare(), HostClock()
    questions = asked(bare, clock)
    for _ in range(3):
        clock.pause()
        clock.resume()
        before = clock.now() // 100
        bare.run(rdtime(A0), rdtime(A1), wfi())
        clock.settle()
        assert before <= bare[A0] <= bare[A1] <= clock.now() // 100
    assert questions == []


def test_it_settles_the_host_clock_as_python_does() -> None:
    """No more than 100 ns a block, however much time has passed; what is behind by too much is given up."""
    begun = time.monotonic_ns()
    bare, clock = Bare(), HostClock()
    asked(bare, clock)
    before, blocks = clock.now(), bare.engine.native.blocks
    clock.shared[ORIGIN] -= MOST_BEHIND_NS + 60_000_000  # the process was stopped
    bare.run(*[j(4)] * 20, rdtime(A0), wfi())
    executed = bare.engine.native.blocks - blocks
    assert 20 <= executed <= 24
    assert before // 100 < bare[A0] <= before // 100 + executed
    assert 60_000_000 - 100 * executed <= clock.given_up <= 60_000_000 + time.monotonic_ns() - begun


def test_it_asks_python_where_the_clock_is_not_the_hosts() -> None:
    bare, clock = Bare(), HostClock(lambda: time.monotonic_ns() + 1)
    questions = asked(bare, clock)
    bare.run(rdtime(A0), wfi())
    assert [bare[A0]] == [answer // 100 for answer in questions]


def test_another_time_than_the_clock_has() -> None:
    """As a test has it that shows its guest another clock; the deadline is the machine's all the same."""
    bare, clock = Bare(), HostClock()
    bare.engine.share_clock(clock.shared).stop_at(1 << 62)
    bare.engine.time = lambda: 4711
    assert bare.run(rdtime(A0), wfi())[A0] == 4711


def tlb_sizes(bare: Bare) -> list[int]:
    """How many entries the TLB of each mode has: the masks of CPUTLBDescFast, in bytes of entries of 64."""
    tlb = ctypes.addressof(bare.engine._exit_chain) - 64
    return [ctypes.c_uint64.from_address(tlb + 16 * mode).value // 64 + 1 for mode in range(4)]


def test_a_tlb_of_which_little_is_used_does_not_grow() -> None:
    """A device's page is never found among the victims. Unicorn fills it again, subtracts the victim twice, and takes
    less than none for very many: a UART and a stack on the same entry had TLBs of 256 MB cleared at each flush.
    """
    bare = Bare()
    device, memory = 0x1000_0000, BASE + 0x10_0000
    bare.engine.map_device(device, PAGE, lambda _offset, _size: 0, lambda _offset, _size, _value: None)
    for _ in range(8):
        bare.run(li(A0, device), li(A1, memory), *[lw(T0, A0), lw(T0, A1)] * 20, sfence_vma(), wfi())
    assert max(tlb_sizes(bare)) <= 256


def test_its_cache_of_blocks_is_emptied_with_unicorns() -> None:
    bare = Bare()
    bare[S0] = BASE + PAGE
    bare.put(BASE + PAGE, ret())
    bare.run(jalr(RA, S0), sfence_vma(), jalr(RA, S0), wfi())
    assert any(bare.engine.native._blocks)
    bare.engine._uc.ctl_flush_tb()
    assert not any(bare.engine.native._blocks)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere a block calls a function instead")
def test_a_block_asks_itself_whether_to_stop() -> None:
    bare = Bare()
    bare[S0] = BASE + PAGE
    bare.put(BASE + PAGE, ret())
    bare.run(jalr(RA, S0), sfence_vma(), jalr(RA, S0), wfi())
    block = next(block for block in bare.engine.native._blocks if block)
    code = ctypes.string_at(ctypes.c_uint64.from_address(block + CODE).value, 4)
    if bare.engine.handle.value < 1 << 32:  # movl: with a Python that is not position-independent, as Debian's
        assert code.startswith(b"\xbf")
    else:  # lea: the handle happens to be near the code
        assert code.startswith(b"\x48\x8d\x3d") or code == b"\x48\xff\x45\xf8"  # incq -8(%rbp)


def test_blocks_that_call_a_function_for_it_are_counted_alike() -> None:
    """Where the handle is near the code, as it can be in a thread, or low, the call is shorter, and stays."""
    counted = []

    def count() -> None:
        bare = Bare()
        bare.engine.count_blocks()
        bare.run(li(T0, 1000), addi(T0, T0, -1), bne(T0, ZERO, -4), wfi())
        counted.append(bare.engine.blocks)

    count()
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    assert counted[0] == counted[1] > 1000


def test_several_engines_at_once_keep_their_code_apart() -> None:
    first, second = Bare(), Bare()
    for n in range(1, 30):
        for bare, value in ((first, n), (second, 2 * n)):
            bare.run(li(A0, value), wfi())
        assert (first[A0], second[A0]) == (n, 2 * n)


def test_a_cpu_that_is_not_ours_gets_what_unicorn_has() -> None:
    """Python's own use of Unicorn in the same process: self-changing code and sstatus, as ever."""
    Bare()
    uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    uc.mem_map(BASE, 0x10_0000)
    change = li(T1, BASE + 0x100), sw(T0, T1), csrwi(Csr.SSTATUS, 8), jalr(RA, T1), nop()
    code = assemble(BASE, *change)
    uc.mem_write(BASE, code)
    uc.mem_write(BASE + 0x100, assemble(BASE, nop(), ret()))
    for value in range(10):
        uc.reg_write(riscv_const.UC_RISCV_REG_T0, addi(A0, ZERO, value))
        uc.emu_start(BASE, BASE + len(code))
        assert uc.reg_read(riscv_const.UC_RISCV_REG_A0) == value


# ---------------------------------------------------------------- done without


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, "off")
    bare = Bare()
    assert bare.engine.native is None
    assert bare.engine.why_not_native == "PYEMU_NATIVE=off"
    assert bare.run(li(A0, 5), wfi())[A0] == 5


@pytest.fixture
def not_loaded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_install", native._install.__wrapped__)


@pytest.mark.usefixtures("not_loaded_yet")
def test_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libnative.so")
    assert "needs a C compiler" in Bare().engine.why_not_native


@pytest.mark.usefixtures("not_loaded_yet")
def test_built_for_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libnative.so")
    native.LIBRARY.write_bytes(bytes(4096))
    assert "invalid ELF header" in Bare().engine.why_not_native


@pytest.mark.usefixtures("not_loaded_yet")
def test_built_from_another_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libnative.so").symlink_to(native.LIBRARY)
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libnative.so")
    (tmp_path / "native.c").write_text("another")
    assert "install pyemu again" in Bare().engine.why_not_native


def test_a_process_that_was_using_unicorn_before() -> None:
    """Its engine was made without our functions, and would not know them."""
    code = (
        "import unicorn; uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)\n"
        "from tests.emu.cpu.bare import Bare; from tests.emu.asm import *\n"
        "uc.mem_map(0, 4096); uc.mem_write(0, addi(A0, 0, 7).to_bytes(4, 'little')); bare = Bare()\n"
        "uc.emu_start(0, 4); print(uc.reg_read(11), bare.run(li(A0, 5), wfi())[A0], bare.engine.why_not_native)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "7 5 this process was using unicorn before; make the first machine sooner\n"


def test_a_tlb_of_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_VICTIMS", 9)
    assert "its TLB is not where it should be" in Bare().engine.why_not_native


def test_a_library_that_is_not_unicorn() -> None:
    library = ctypes.CDLL(str(native.LIBRARY))
    library.native_install.restype = ctypes.c_char_p
    other = ctypes.c_void_p(ctypes.CDLL("libm.so.6")._handle)
    assert library.native_install(other) == b"riscv_get_csr_ops_riscv64"


def test_where_there_was_code_is_forgotten_with_it() -> None:
    """Else each write to such a page would be looked at."""
    bare = Bare().run(addi(A0, A0, 1), wfi())
    has_code = bare.engine.native._has_code
    assert sum(has_code) == 1
    bare.engine.changed(None)
    assert sum(has_code) == 0
