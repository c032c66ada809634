"""What a debugger sees of blocks: their instructions, however long each is, and what was translated of them."""

import pytest

from emu.cpu.blocks import Blocks
from tests.emu.asm import A0, Half, addi, j, wfi
from tests.emu.cpu.bare import BASE, PAGE, RAM_END, Bare

#: Two instructions of two bytes, c.nop.
SHORT = [Half(1), Half(1)]


@pytest.fixture
def bare(engine_kind: object) -> Bare:
    bare = Bare()
    bare.engine.count_blocks()
    return bare


@pytest.fixture
def blocks(bare: Bare) -> Blocks:
    return bare.engine.debug().blocks


def test_instructions_of_both_lengths(bare: Bare, blocks: Blocks) -> None:
    bare.put(BASE, addi(A0, A0, 1), SHORT, wfi())
    assert blocks.instructions(BASE, 4) == [BASE, BASE + 4, BASE + 6, BASE + 8]


def test_nothing_is_known_of_what_has_not_run(bare: Bare, blocks: Blocks) -> None:
    assert blocks.translated(BASE) == 0
    bare.run(addi(A0, A0, 1), SHORT, j("end"), "end", wfi())
    assert blocks.translated(BASE) == 4


def test_what_was_dropped_is_translated_anew(bare: Bare, blocks: Blocks) -> None:
    bare.run(addi(A0, A0, 1), wfi())
    blocks.drop(BASE)
    assert blocks.translated(BASE) == 0
    assert bare.run(addi(A0, A0, 1), wfi())[A0] == 2


def test_without_paging_an_address_is_physical(blocks: Blocks) -> None:
    assert [blocks.physical(address) for address in (0, BASE + 5, RAM_END + PAGE)] == [0, BASE + 5, RAM_END + PAGE]
