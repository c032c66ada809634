"""Restores a CPU with each word of its state altered in turn, and runs what is not refused: a program of its own.

    python -m tests.emu.cpu.altered native|python

It prints how many of the states were refused, and how many ran; and dies with Unicorn, if Unicorn does.
"""

import os
import random
import sys
from contextlib import suppress

from devices.errors import PyemuError, UsageError
from emu.cpu.engine import Reg
from emu.memory import RamImage, SharedFile
from emu.timing.warp import WarpClock
from tests.emu.cpu import programs

_ANY = (1 << 64) - 1
#: For how long: without the native part each trap takes many times as long.
_BLOCKS = {"native": 10_000, "python": 2_000}
_INTERRUPTS = 0xAAA


def main(kind: str) -> None:
    """Do it with one kind of engine."""
    choose = random.Random(1)
    bare = programs.board(programs.program(choose), native=kind == "native")
    bare[Reg.MSTATUS] |= 3 << 13
    engine, clock = bare.engine, WarpClock()
    clock.follow(engine)
    engine.stop_after(300)
    engine.run()
    state, memory = bare.hart.state(), RamImage(SharedFile(os.memfd_create("ram")), 0)
    os.ftruncate(memory.file.fileno(), bare.ram.size)
    bare.ram.save(memory)
    bare.ram.rest_on(memory)
    words = state["cpu"]["words"]
    refused = ran = 0
    for word, value in enumerate(words):
        values = {0, 1, 2, 3, 5, 7, 1 << 63, _ANY, value + 1 & _ANY, value ^ 1 << choose.randrange(64)}
        for other in sorted({*values, choose.getrandbits(64)} - {value}):
            words[word] = other
            try:
                bare.hart.restore(state)
            except UsageError:
                refused += 1
                continue
            finally:
                words[word] = value
            engine.changed(bare.ram.go_back(memory))
            with suppress(PyemuError):  # of a hart that can't go on
                run(bare, _BLOCKS[kind])
            ran += 1
    print(refused, ran)


def run(bare: programs.Bare, blocks: int) -> None:
    """Run for so many blocks; at each wfi there is an interrupt."""
    engine = bare.engine
    end = engine.blocks + blocks
    engine.stop_after(blocks)
    while engine.blocks < end:
        if engine.run():
            engine.set_pending(_INTERRUPTS, level=True)


if __name__ == "__main__":
    main(sys.argv[1])
