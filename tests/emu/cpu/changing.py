"""Random programs that change their own code, beside a model of what they compute."""

import random

from tests.emu.asm import A0, RA, S2, S3, T0, T1, T2, ZERO, Item, addi, bne, fence_i, jalr, ld, li, ret, sd, sw, wfi
from tests.emu.cpu.bare import BASE, PAGE, SUPERVISOR, Bare
from tests.emu.cpu.paging import KERNEL_DATA, RWX, R, Sv, W, X

__all__ = ["compare"]

CODE, LOG = BASE + (4 << 20), BASE + (5 << 20)
PAGES = 4
#: Where the pages are mapped: at the first address for everything, at the others to execute, or to write. Some of them
#: fall on the same entries of a TLB.
EVERYTHING, KERNEL_IMAGE = 0x1000_0000, 0xFFFF_FFFF_8000_0000
EXECUTABLE = EVERYTHING, 0x2010_0000, KERNEL_IMAGE
WRITABLE = EVERYTHING, 0x3005_5000, KERNEL_DATA + 0x10_0000
#: Where in a page there are functions, of two instructions; that of the last one's is at the start of the next page.
OFFSETS = 16, 24, 0x100, 0x7FC, 0x900, 0xFF0, PAGE - 4


class Program:
    """It grows, and so does the list of what it should log: the sum of all that its functions have added."""

    def __init__(self, *, synchronize: bool) -> None:
        self.items: list[Item] = []
        self.expected: list[int] = []
        self._synchronize = [fence_i()] if synchronize else []
        self._adds = {(page, offset): 0 for page in range(PAGES) for offset in OFFSETS}

    def write(self, page: int, offset: int, value: int, mapping: int) -> None:
        """Change what a function adds."""
        self.items += [li(T0, addi(A0, A0, value)), li(T1, mapping + page * PAGE + offset), sw(T0, T1)]
        self._adds[page, offset] = value

    def fill(self, page: int, source: int, mapping: int) -> None:
        """Fill a page with the content of another, as if it were another program's from now on."""
        loop = f"fill {len(self.items)}"
        self.items += [
            li(T0, mapping + source * PAGE), li(T1, mapping + page * PAGE), li(T2, PAGE // 8),
            loop, ld(S3, T0), sd(S3, T1), addi(T0, T0, 8), addi(T1, T1, 8), addi(T2, T2, -1), bne(T2, ZERO, loop),
        ]  # fmt: skip
        self._adds.update({(page, offset): self._adds[source, offset] for offset in OFFSETS})

    def call(self, page: int, offset: int, mapping: int) -> None:
        """Call a function and log the sum."""
        target = [li(T1, mapping + page * PAGE + offset), jalr(RA, T1)]
        self.items += [self._synchronize, target, sd(A0, S2), addi(S2, S2, 8)]
        self.expected.append((self.expected or [0])[-1] + self._adds[page, offset])


def compare(choose: random.Random, *, synchronize: bool, steps: int = 150) -> None:
    """Make a program up, run it, and compare what it logged.

    It has a fence.i before each call, and does not run where CodeHook does not look; or neither.
    """
    executable = [mapping for mapping in EXECUTABLE if not (synchronize and mapping == KERNEL_IMAGE)]
    bare = Bare()
    tables = Sv(bare, 39)
    for page in range(0, 32 * PAGE, PAGE):
        tables.map(BASE + page, BASE + page)
    for page in range(0, PAGE * (PAGES + 1), PAGE):
        tables.map(EVERYTHING + page, CODE + page, RWX)
        for execute, write in zip(EXECUTABLE[1:], WRITABLE[1:], strict=True):
            tables.map(execute + page, CODE + page, R | X)
            tables.map(write + page, CODE + page, R | W)
        bare.put(CODE + page, ret())
        for offset in OFFSETS if page < PAGE * PAGES else ():
            bare.put(CODE + page + offset, addi(A0, A0, 0), *([] if offset == OFFSETS[-1] else [ret()]))
    tables.map(LOG, LOG)
    tables.enable()
    program = Program(synchronize=synchronize)
    for _ in range(steps):
        page, offset, kind = choose.randrange(PAGES), choose.choice(OFFSETS), choose.randrange(10)
        if kind < 4:
            program.write(page, offset, choose.randrange(1, 1000), choose.choice(WRITABLE))
        elif kind < 5:
            program.fill(page, choose.randrange(PAGES), choose.choice(WRITABLE))
        else:
            program.call(page, offset, choose.choice(executable))
    bare[S2] = LOG
    bare.run(program.items, wfi(), mode=SUPERVISOR)
    assert [bare.word(LOG + 8 * n) for n in range(len(program.expected))] == program.expected
