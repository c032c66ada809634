"""The loop's state: what else there is to it is tested with the machine."""

import pytest

from emu.cpu.engine import Reg
from emu.cpu.hart import MEIP
from emu.snapshot.plain import decode, encode, type_of
from emu.timing.clock import ManualClock
from emu.timing.loop import Loop
from tests.emu.asm import A0, addi, j, wfi
from tests.emu.cpu.bare import BASE, Bare

pytestmark = pytest.mark.usefixtures("engine_kind")


def waiting_board() -> tuple[Bare, ManualClock, Loop]:
    """A guest that counts its waits; its interrupts are enabled one by one, but not together."""
    bare, clock = Bare(), ManualClock()
    bare.put(BASE, "wait", wfi(), addi(A0, A0, 1), j("wait"))
    bare[Reg.PC], bare[Reg.MIE] = BASE, MEIP
    loop = Loop(bare.engine, bare.hart, clock, run=bare.engine.run, wait=clock.wait, look=lambda: None)
    return bare, clock, loop


def steps(loop: Loop, count: int) -> None:
    left = iter(range(count))
    loop.run_until(lambda: next(left, None) is None)


@pytest.mark.parametrize("used", [False, True])
def test_a_hart_that_waits_waits_on(used: bool) -> None:
    bare, _, loop = waiting_board()
    steps(loop, 1)
    state, hart = decode(encode(loop.state()), type_of(loop)), bare.hart.state()
    loop.close()
    bare, clock, loop = waiting_board()
    if used:
        bare.engine.set_pending(MEIP, level=True)
        steps(loop, 3)
        loop.halt()
    bare.hart.restore(hart)
    loop.restore(state)
    loop.events.at(clock.now() + 50, lambda: bare.engine.set_pending(MEIP, level=True))
    steps(loop, 1)
    assert (loop.waiting, bare[A0]) == (True, 0)
    steps(loop, 1)
    assert (loop.waiting, bare[A0]) == (True, 1)
    loop.close()
