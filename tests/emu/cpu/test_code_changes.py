"""Code that changes after it has run: by the guest, by DMA, through other mappings. fence.i is enough, always."""

import random

import pytest

from emu.cpu.engine import Reg
from tests.emu.asm import (
    A0,
    A1,
    A7,
    RA,
    S0,
    S1,
    S2,
    S3,
    S4,
    T0,
    T1,
    T2,
    ZERO,
    addi,
    bne,
    ecall,
    fence_i,
    jalr,
    ld,
    li,
    nop,
    ret,
    sd,
    sw,
    wfi,
)  # fmt: skip
from tests.emu.cpu import changing
from tests.emu.cpu.bare import BASE, MACHINE, PAGE, SUPERVISOR, USER, Bare, Recorder
from tests.emu.cpu.paging import KERNEL_DATA, RWX, R, Sv, U, W, X

pytestmark = pytest.mark.usefixtures("engine_kind")


@pytest.fixture
def spares_the_kernel(engine_kind: str, request: pytest.FixtureRequest) -> None:
    """Without the native part, some changes of code above KERNEL_LINK_ADDR are not noticed."""
    if engine_kind == "python":
        request.applymarker(pytest.mark.xfail(reason="see codehook.py", strict=True))


CODE = BASE + 0x2_0000
#: How far into its page the changed code begins; the last one goes on in the next page.
OFFSETS = [0, 4, 0x100, 0x7FC, 0xFF0, 0xFFC, 0xFFA]
ROUNDS = 30
#: Where Linux has its modules, and where its own image is linked.
MODULES, KERNEL_IMAGE = 0xFFFF_FFFF_0000_0000, 0xFFFF_FFFF_8000_0000


def returns(value: int) -> int:
    """First of two instructions of code that returns ``value``."""
    return addi(A0, ZERO, value)


#: A second mapping of the code, to write through. Unicorn overlooks all stores but the first if it is not executable,
#: and if it doesn't fall on the same entry of Unicorn's TLB as the first mapping (256 of them).
WRITABLE = 0x2005_5000

#: Where in each of the two pages there is a neighbour of the changed code, which stays as it is.
NEIGHBOUR = 0x900

#: Change the code at S0, through the mapping at S1, to the words in T0 and T1, one after the other, and call it.
CHANGE_AND_CALL = [
    jalr(RA, S3), jalr(RA, S4),
    sw(T0, S1), fence_i(), jalr(RA, S0), addi(S2, A0, 0),
    sw(T1, S1), fence_i(), jalr(RA, S0), ecall(),
]  # fmt: skip


def change_and_call(bare: Bare, execute: int, write: int, mode: int) -> None:
    bare[S0], bare[S1] = execute, write
    bare[S3] = (execute & -PAGE) + NEIGHBOUR
    bare[S4] = bare[S3] + PAGE
    bare.put(CODE + NEIGHBOUR, ret())
    bare.put(CODE + PAGE + NEIGHBOUR, ret())
    bare.put(BASE, *CHANGE_AND_CALL)
    for n in range(ROUNDS):
        bare[T0], bare[T1] = returns(2 * n), returns(2 * n + 1)
        assert bare.trap(mode=mode)[0] == 8 + mode
        assert (bare[S2], bare[A0]) == (2 * n, 2 * n + 1)


@pytest.mark.parametrize("offset", OFFSETS)
def test_through_the_same_mapping(offset: int) -> None:
    bare = Bare()
    bare.put(CODE + offset, nop(), ret())
    change_and_call(bare, CODE + offset, CODE + offset, MACHINE)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("execute", [0x1000_0000, KERNEL_DATA, MODULES])
def test_through_an_alias(offset: int, execute: int) -> None:
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    for page in (0, PAGE):
        tables.map(execute + page, CODE + page)
        tables.map(KERNEL_DATA + 0x105_5000 + page, CODE + page, R | W)
    tables.enable()
    bare.put(CODE + offset, nop(), ret())
    change_and_call(bare, execute + offset, KERNEL_DATA + 0x105_5000 + offset, SUPERVISOR)


@pytest.mark.parametrize("offset", [0, 0xFFC, 0xFFA])
def test_in_user_mode(offset: int) -> None:
    """As a JIT compiler does, with one mapping to write and one to execute."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE, RWX | U)
    for page in (0, PAGE):
        tables.map(0x1000_0000 + page, CODE + page, RWX | U)
        tables.map(WRITABLE + page, CODE + page, R | W | U)
    tables.enable()
    bare.put(CODE + offset, nop(), ret())
    change_and_call(bare, 0x1000_0000 + offset, WRITABLE + offset, USER)


@pytest.mark.parametrize("execute", [0x1000_0000, MODULES])
def test_a_second_word_of_the_same_page(execute: int) -> None:
    """Write, fence.i, run; write, write elsewhere in the page, fence.i, run: the page is known to be dirty by now."""
    change_two_words(execute)


@pytest.mark.usefixtures("spares_the_kernel")
def test_a_second_word_of_the_same_page_of_the_kernel() -> None:
    change_two_words(KERNEL_IMAGE)


def change_two_words(execute: int) -> None:
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(execute, CODE)
    tables.map(WRITABLE, CODE, R | W)
    tables.enable()
    bare.put(CODE, nop(), addi(A0, A0, 1), ret())
    bare.put(CODE + NEIGHBOUR, ret())
    bare[S0], bare[S1], bare[S3] = execute, WRITABLE, execute + NEIGHBOUR
    bare.put(BASE, jalr(RA, S3), sw(T0, S1), sw(T1, S1, 4), fence_i(), jalr(RA, S0), ecall())
    for n in range(1000):
        bare[T0], bare[T1] = returns(n), addi(A0, A0, n & 15)
        bare.trap(mode=SUPERVISOR)
        assert bare[A0] == n + (n & 15)


def test_a_loop_that_changes_what_it_calls() -> None:
    bare = Bare()
    words = [addi(A1, A1, 1), addi(A1, A1, 2)]
    bare[S0], bare[S2] = words
    bare[S1], bare[S3] = CODE, CODE + NEIGHBOUR
    bare.put(CODE, nop(), ret())
    bare.put(CODE + NEIGHBOUR, ret())
    bare.run(
        li(T0, 500), "loop", jalr(RA, S3),
        sw(S0, S1), fence_i(), jalr(RA, S1), sw(S2, S1), fence_i(), jalr(RA, S1),
        addi(T0, T0, -1), bne(T0, ZERO, "loop"), wfi(),
    )  # fmt: skip
    assert bare[A1] == 500 * 3


def test_a_block_over_two_pages_changes_in_either() -> None:
    bare = Bare()
    start = CODE + PAGE - 8
    bare.put(start, returns(0), addi(A0, A0, 0), addi(A0, A0, 0), addi(A0, A0, 0), ret())
    bare[S0], bare[S3], bare[S4] = start, CODE + NEIGHBOUR, CODE + PAGE + NEIGHBOUR
    bare.put(CODE + NEIGHBOUR, ret())
    bare.put(CODE + PAGE + NEIGHBOUR, ret())
    bare.put(BASE, jalr(RA, S3), jalr(RA, S4), sw(T0, S1), fence_i(), jalr(RA, S0), ecall())
    for n in range(1, 100):
        for word in range(1, 4):
            bare[S1], bare[T0] = start + 4 * word, addi(A0, A0, n)
            bare.trap()
        assert bare[A0] == 3 * n


# ---------------------------------------------------------------- the kernel's own image


def test_the_kernel_changes_its_image_through_a_fresh_mapping() -> None:
    """As Linux does (patch_text): map the page anew, write, sfence.vma, fence.i, run."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(KERNEL_IMAGE, CODE)
    tables.map(WRITABLE, CODE, R | W)
    tables.enable()
    bare.put(CODE, nop(), ret())
    bare[S0], bare[S1] = KERNEL_IMAGE, WRITABLE
    bare.put(BASE, 0x1200_0073, sw(T0, S1), fence_i(), jalr(RA, S0), ecall())
    for n in range(50):
        bare[T0] = returns(n)
        bare.trap(mode=SUPERVISOR)
        assert bare[A0] == n


@pytest.mark.usefixtures("spares_the_kernel")
def test_the_kernel_changes_its_image_through_an_old_mapping() -> None:
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    for page in (0, PAGE):
        tables.map(KERNEL_IMAGE + page, CODE + page)
        tables.map(WRITABLE + page, CODE + page, R | W)
    tables.enable()
    bare.put(CODE, nop(), ret())
    change_and_call(bare, KERNEL_IMAGE, WRITABLE, SUPERVISOR)


# ---------------------------------------------------------------- written by a device


@pytest.mark.parametrize("fence", [nop(), fence_i()])
@pytest.mark.parametrize("offset", OFFSETS)
def test_dma_into_code_that_has_run(fence: int, offset: int) -> None:
    bare = Bare()
    bare[S0] = CODE + offset
    bare.put(BASE, fence, jalr(RA, S0), ecall())
    for n in range(ROUNDS):
        bare.put(CODE + offset, returns(n), ret())
        bare.trap()
        assert bare[A0] == n


def test_dma_into_translated_addresses() -> None:
    """Unicorn looks for what is to be dropped by virtual address; the machine names a physical one."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(KERNEL_DATA, CODE)
    tables.enable()
    bare[S0] = KERNEL_DATA + 8
    bare.put(BASE, jalr(RA, S0), ecall())
    for n in range(ROUNDS):
        bare.put(CODE + 8, returns(n), ret())
        bare.trap(mode=SUPERVISOR)
        assert bare[A0] == n
        assert bare[Reg.PRIV] == MACHINE


def test_dma_from_a_register_write_into_code_that_runs_next() -> None:
    device = Recorder()
    bare = Bare((0x1000_0000, 0x1000, device))
    values = iter(range(1, 2000))
    device.on_write = lambda: bare.put(CODE, returns(next(values)), ret())
    bare[S0], bare[S1] = CODE, 0x1000_0000
    bare.put(CODE, returns(0), ret())
    bare.run(
        li(T0, 500), "loop", sw(ZERO, S1), jalr(RA, S0), addi(T0, T0, -1), bne(T0, ZERO, "loop"), wfi()
    )  # fmt: skip
    assert bare[A0] == 500


def test_dma_into_the_block_that_is_running() -> None:
    """What is left of the block may run in its old form; the next time round it is the new one."""
    device = Recorder()
    bare = Bare((0x1000_0000, 0x1000, device))
    bare[S1] = 0x1000_0000
    bare.put(BASE, "loop", addi(A0, A0, 1), sw(ZERO, S1), addi(T0, T0, -1), bne(T0, ZERO, "loop"), wfi())
    device.on_write = lambda: bare.put(BASE, addi(A0, A0, 0x100))
    bare[T0] = 10
    bare.go()
    assert bare[A0] == 1 + 9 * 0x100
    assert len(device.writes) == 10


# ---------------------------------------------------------------- remote fence.i


def test_the_firmware_synchronizes_code() -> None:
    """SBI's remote_fence_i, as Linux uses it for modules, kprobes and what a program asks of its kernel."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(MODULES, CODE)
    tables.map(WRITABLE, CODE, R | W)
    bare.put(CODE, nop(), ret())

    def call(_extension: int, _function: int, _arguments: object) -> tuple[int, int | None]:
        bare.engine.synchronize_code()
        return 0, 0

    bare.hart.start_supervisor(BASE, 0, call)
    tables.enable()
    bare[S0], bare[S1], bare[S3] = MODULES, WRITABLE, MODULES + NEIGHBOUR
    bare.put(CODE + NEIGHBOUR, ret())
    bare.put(BASE, jalr(RA, S3), sw(T0, S1), li(A7, 0x52464E43), ecall(), jalr(RA, S0), wfi())
    for n in range(100):
        bare[T0] = returns(n)
        bare.run(mode=SUPERVISOR)
        assert bare[A0] == n


# ---------------------------------------------------------------- pages that are used again


FRESH = 0x3001_0000


@pytest.mark.parametrize("first", [0x100, 0x800])
def test_a_page_filled_anew_for_another_program(first: int) -> None:
    """As a kernel does when a program ends and the next one starts; where the new one runs first, it has new code."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(0x1000_0000, CODE, R | X)
    tables.map(FRESH, CODE, R | W)
    programs = BASE + (4 << 20), BASE + (4 << 20) + PAGE
    for number, program in enumerate(programs):
        tables.map(program, program)
        for offset in (0x100, 0x800):
            bare.put(program + offset, addi(A0, A0, 1 + number + offset // 0x800 * 10), ret())
    tables.enable()
    bare[S0], bare[S1] = 0x1000_0000 + first, 0x1000_0000 + (0x900 - first)
    bare.put(
        BASE,
        li(T1, FRESH), li(T2, PAGE // 8),
        "fill", ld(S2, T0), sd(S2, T1), addi(T0, T0, 8), addi(T1, T1, 8), addi(T2, T2, -1), bne(T2, ZERO, "fill"),
        fence_i(), jalr(RA, S0), jalr(RA, S1), ecall(),
    )  # fmt: skip
    for n in range(ROUNDS):
        bare[A0], bare[T0] = 0, programs[n % 2]
        bare.trap(mode=SUPERVISOR)
        assert bare[A0] == 2 * (1 + n % 2) + 10


def test_a_writable_mapping_that_is_only_in_the_victim_tlb() -> None:
    """It was written to before there was code, and comes back from there when the code changes."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(0x1000_0000, CODE, R | X)
    for n in range(4):  # all of them the same entry of the TLB, as long as that has 1024 at most
        tables.map(FRESH + n * 1024 * PAGE, CODE + n * PAGE, R | W)
    tables.enable()
    bare.put(CODE, returns(1), ret())
    bare[S0], bare[S1] = 0x1000_0000, FRESH
    bare[S3], bare[S4] = FRESH + 1024 * PAGE, FRESH + 2 * 1024 * PAGE
    bare[T0] = returns(2)
    bare.trap(
        sw(T0, S1, 0x100), sw(T0, S3), sw(T0, S4), jalr(RA, S0), sw(T0, S1), fence_i(), jalr(RA, S0), ecall(),
        mode=SUPERVISOR,
    )  # fmt: skip
    assert bare[A0] == 2


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_that_change_their_code(seed: int) -> None:
    changing.compare(random.Random(seed), synchronize=True)


def test_the_first_code_that_an_engine_executes() -> None:
    """Unicorn doesn't report it to CodeHook; in a machine that was restored, it can be any program's."""
    bare = Bare()
    tables = Sv(bare, 39)
    tables.map(BASE, BASE)
    tables.map(CODE, CODE, R | X)
    tables.map(WRITABLE, CODE, R | W)
    tables.enable()
    bare.put(CODE, returns(1), ret())
    bare.put(BASE, sw(ZERO, S1, 64), sw(T0, S1), fence_i(), jalr(RA, S0), wfi())
    bare[S0], bare[S1], bare[T0], bare[RA] = CODE, WRITABLE, returns(2), BASE
    assert bare.run(mode=SUPERVISOR, at=CODE)[A0] == 2
