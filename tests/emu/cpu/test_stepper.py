"""A debugger's stops change nothing: not what the guest does, and not how many blocks that takes."""

import random

import pytest

from devices.errors import UsageError
from emu.cpu.engine import Reg
from emu.cpu.native import WATCH_READ, WATCH_WRITE
from emu.cpu.stepper import Place, Stepper
from tests.emu.asm import (
    A0,
    A1,
    S0,
    T0,
    ZERO,
    Csr,
    Item,
    addi,
    assemble,
    bne,
    csrr,
    csrsi,
    csrw,
    ecall,
    j,
    ld,
    li,
    mret,
    nop,
    sw,
    wfi,
)
from tests.emu.cpu import programs
from tests.emu.cpu.bare import BASE, HANDLER, Bare
from tests.emu.cpu.test_counting import DEVICE, MEIP, PROGRAMS, Counted, Program, switched_on, trap

BLOCKS = 400


#: An illegal instruction of four bytes. (One of two, alone in a block, is not counted without the native part where
#: there are breakpoints: Unicorn calls only the first of several hooks for it.)
ILLEGAL = 0xFFFF_FFFF


def seen(bare: Counted) -> tuple[int, int, bytes]:
    return bare.engine.blocks, bare.hart.traps, bare.everything()


def ran(program: Program, *, native: bool, blocks: int = BLOCKS) -> tuple[int, int, bytes]:
    bare = switched_on(program, native=native)
    bare.go_on(blocks)
    return seen(bare)


def run_to_the_end(bare: Counted, stepper: Stepper, blocks: int = BLOCKS) -> int:
    """Run as a debugger's user does who goes on after each stop; say how many there were."""
    bare.engine.stop_after(blocks - bare.engine.blocks)
    stops = 0
    while bare.engine.blocks < blocks or stepper.place.instructions:
        bare.engine.run()
        if stepper.stopped is not None:
            stops += 1
            stepper.go_on()
    return stops


def legal(items: list[Item]) -> list[Item]:
    """Replace the illegal instructions of two bytes."""
    return [ILLEGAL if item == 0 else legal(item) if isinstance(item, list) else item for item in items]


def longer_trap(bare: Counted) -> list[Item]:
    return legal(trap(bare))


@pytest.fixture(params=[True, False], ids=["native", "python"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_to_step_through_is_to_run_through(program: Program, native: bool) -> None:
    bare = switched_on(program, native=native)
    stepper = bare.engine.debug()
    stepper.stepping = True
    assert run_to_the_end(bare, stepper) > BLOCKS / 4
    assert seen(bare) == ran(program, native=native)


@pytest.mark.parametrize(
    "program", [longer_trap, *(one for one in PROGRAMS if one is not trap)], ids=lambda program: program.__name__
)
def test_breakpoints_everywhere_change_nothing(program: Program, native: bool) -> None:
    bare = switched_on(program, native=native)
    stepper = bare.engine.debug()
    choose = random.Random(1)
    code = [*range(BASE, BASE + 0x40, 4), *range(BASE + 0x1770, BASE + 0x17A0, 4), *range(HANDLER, HANDLER + 0x20, 4)]
    stepper.breakpoints = {BASE + 2, BASE + 8, *choose.sample(code, 16)}
    assert run_to_the_end(bare, stepper)
    assert seen(bare) == ran(program, native=native)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_are_the_same_however_they_are_stopped(seed: int, native: bool) -> None:
    program = legal(programs.program(random.Random(seed)))
    choose = random.Random(seed)
    whole, stopped = (programs.board(program, native=native) for _ in range(2))
    for bare in (whole, stopped):
        bare.engine.count_blocks()
    while not whole.engine.run():
        pass
    stepper = stopped.engine.debug()
    waits = stops = 0
    while not waits:
        if stepper.stopped is not None or not stops:
            stops += 1
            stepper.stepping = choose.random() < 0.5 or stops > 400
            code = choose.sample(range(0, 0x400, 2), 100), choose.sample(range(0, 0x60, 4), choose.choice([0, 10]))
            stepper.breakpoints = {BASE + n for n in code[0]} | {programs.HANDLER + n for n in code[1]}
            stepper.go_on()
        waits = stopped.engine.run()
    assert stops > 20
    blocks = whole.engine.blocks
    assert stopped.engine.blocks == blocks
    assert programs.digest_of(stopped) == programs.digest_of(whole)


def test_a_breakpoint_is_hit_before_its_instruction_and_once(native: bool) -> None:
    bare = Counted(native=native)
    bare.put(BASE, li(A0, 0), li(A1, 3), "loop", addi(A0, A0, 1), addi(A0, A0, 1), addi(A1, A1, -1),
             bne(A1, ZERO, "loop"), wfi())  # fmt: skip
    bare[Reg.PC] = BASE
    stepper = bare.engine.debug()
    stepper.breakpoints = {BASE + 12}
    values = []
    while not bare.engine.run():
        if stepper.stopped is not None:
            assert bare[Reg.PC] == BASE + 12
            values.append(bare[A0])
            stepper.go_on()
    assert values == [1, 3, 5]


def test_a_step_lets_an_interrupt_through(native: bool) -> None:
    """The interrupt is handled as if nobody stepped, and the step is one of the program's instructions."""
    bare = Counted(native=native)
    bare.put(HANDLER, addi(A0, A0, 1), sw(ZERO, S0), csrr(T0, Csr.MEPC), csrw(Csr.MEPC, T0), li(T0, 1), mret())
    bare.put(BASE, li(S0, DEVICE), li(T0, 1), csrsi(Csr.MSTATUS, 8), "loop", sw(T0, S0), nop(), j("loop"))
    bare[Reg.MIE], bare[Reg.MTVEC], bare[Reg.PC] = MEIP, HANDLER, BASE
    stepper = bare.engine.debug()
    stepper.stepping = True
    visited = []
    for _ in range(12):
        while not (bare.engine.run() or stepper.stopped):
            pass
        visited.append(bare[Reg.PC] - BASE)
        stepper.go_on()
    assert visited == [4, 8, 12, 16, 20, 12, 16, 20, 12, 16, 20, 12]
    assert bare[A0] == 2


def test_a_step_into_a_trap_is_a_step(native: bool) -> None:
    bare = Counted(native=native)
    bare.put(BASE, addi(A0, A0, 1), ecall())
    bare[Reg.MTVEC], bare[Reg.PC] = HANDLER, BASE
    stepper = bare.engine.debug()
    stepper.stepping = True
    pcs = []
    for _ in range(2):
        bare.engine.run()
        pcs.append(bare[Reg.PC])
        stepper.go_on()
    assert pcs == [BASE + 4, HANDLER]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_each_place_is_found_again(program: Program, native: bool) -> None:
    """A run stops at the place where another one, of steps, has been."""
    stepped = switched_on(program, native=native)
    stepper = stepped.engine.debug()
    stepper.stepping = True
    stepped.engine.stop_after(30)
    places = {}
    while stepped.engine.blocks < 30:
        stepped.engine.run()
        if stepper.stopped is not None:
            places.setdefault(stepper.place, stepped.everything())
            stepper.go_on()
    for place in random.Random(1).sample(sorted(places), min(12, len(places))):
        bare = switched_on(program, native=native)
        again = bare.engine.debug()
        again.until = place
        bare.engine.stop_after(1000)
        while again.stopped is None:
            bare.engine.run()
        assert again.stopped.reason == "place"
        assert again.place == place
        assert bare.everything() == places[place], place


def test_steps_within_a_range_are_one(native: bool) -> None:
    bare = Counted(native=native)
    bare.put(BASE, li(A1, 5), "loop", addi(A1, A1, -1), bne(A1, ZERO, "loop"), nop(), wfi())
    bare[Reg.PC] = BASE
    stepper = bare.engine.debug()
    stepper.stepping, stepper.within = True, range(BASE, BASE + 12)
    while stepper.stopped is None or stepper.stopped.reason == "busy":
        bare.engine.run()
    assert (bare[Reg.PC], bare[A1]) == (BASE + 12, 0)
    assert stepper.place == Place(5, 0, BASE + 12)


# ---------------------------------------------------------------- watchpoints


def watched_run(bare: Counted, stepper: Stepper, blocks: int = BLOCKS) -> list[tuple[str, int, int, int]]:
    """Run to the end; list the stops: why, at which address, and the pc behind it."""
    bare.engine.stop_after(blocks - bare.engine.blocks)
    stops = []
    while bare.engine.blocks < blocks or stepper.place.instructions:
        bare.engine.run()
        if stepper.stopped is not None:
            stops.append((*stepper.stopped, bare[Reg.PC]))
            stepper.go_on()
    return stops


DATA = BASE + 0x8000


def stores(_bare: Bare) -> list[Item]:
    return [
        li(S0, DATA), li(A1, 1),
        "loop", addi(A0, A0, 1), sw(A0, S0), addi(A0, A0, 1), sw(A0, S0, 4), ld(T0, S0), addi(A0, A0, 1), j("loop"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "last", "kinds", "behind"),
    [
        (DATA, DATA + 3, WATCH_WRITE, [1]),
        (DATA + 4, DATA + 4, WATCH_WRITE, [3]),
        (DATA + 1, DATA + 6, WATCH_WRITE, [1, 3]),
        (DATA, DATA, WATCH_READ, [4]),
        (DATA, DATA + 7, WATCH_READ | WATCH_WRITE, [1, 3, 4]),
        (DATA + 8, DATA + 15, WATCH_READ | WATCH_WRITE, []),
    ],
)
def test_a_watchpoint_stops_right_behind_the_access(first: int, last: int, kinds: int, behind: list[int]) -> None:
    bare = switched_on(stores, native=True)
    start = BASE + len(assemble(BASE, stores(bare)[:2]))
    stepper = bare.engine.debug()
    stepper.watch([(first, last, kinds)])
    stops = watched_run(bare, stepper, 20)
    assert [pc for *_, pc in stops] == [start + 4 * (n + 1) for _ in range(20) for n in behind]
    assert all(reason == "watch" and first <= address <= last for reason, address, *_ in stops)
    assert seen(bare) == ran(stores, native=True, blocks=20)


@pytest.mark.parametrize("stepping", [True, False])
@pytest.mark.parametrize("program", [stores, *PROGRAMS], ids=lambda program: program.__name__)
def test_watchpoints_change_nothing(program: Program, stepping: bool) -> None:
    bare = switched_on(program, native=True)
    stepper = bare.engine.debug()
    stepper.stepping = stepping
    stepper.watch([(BASE + 0x8000, BASE + 0x8007, WATCH_READ | WATCH_WRITE), (DEVICE, DEVICE + 7, WATCH_WRITE)])
    watched_run(bare, stepper)
    assert seen(bare) == ran(program, native=True)


def test_without_the_native_part_there_are_no_watchpoints() -> None:
    with pytest.raises(UsageError, match="watchpoints need the native part"):
        Counted(native=False).engine.debug().watch([(BASE, BASE, WATCH_WRITE)])
