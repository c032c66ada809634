"""Interrupts: the PLIC is unchanged, and what is recorded of it."""

import pytest

from devices.placement import Placement
from devices.plic import Plic
from emu.trace import Trace
from tests.fakes import FakeClock

CLAIM = 0x20_1004  # context 1: S mode


class Board:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.records = []
        joints = Trace(self.records.append, "plic").joints(self.clock)
        plic = Plic(8, [lambda _level: None] * 2)
        self.line = joints.irq(5, "disk", plic.line(5))
        self.read, self.write = joints.registers(Placement(plic, 0))
        self.write(4 * 5, 4, 1)
        self.write(0x2080, 4, 1 << 5)

    @property
    def told(self) -> list[tuple]:
        return [(record.time, record.name, record.span, record.detail.get("until")) for record in self.records]


@pytest.fixture
def board() -> Board:
    return Board()


def test_an_interrupt_from_its_line_to_its_completion(board):
    board.clock.advance(10)
    board.line(True)
    board.line(True)
    board.clock.advance(5)
    assert board.read(CLAIM, 4) == 5
    board.clock.advance(1)
    board.line(False)
    board.clock.advance(6)
    board.write(CLAIM, 4, 5)
    assert board.told == [
        (10, "raised", None, None),
        (15, "pending", (10, 15), "claimed"),
        (22, "in service", (15, 22), "completed"),
    ]
    assert {record.track for record in board.records} == {"irq 5 disk"}
    assert board.records[1].detail["by"] == "S mode"


def test_one_that_is_still_high_when_it_is_completed_is_raised_again(board):
    board.line(True)
    board.read(CLAIM, 4)
    board.clock.advance(3)
    board.write(CLAIM, 4, 5)
    assert board.told[-1] == (3, "raised", None, None)
    assert board.read(CLAIM, 4) == 5
    assert board.told[-1] == (3, "pending", (3, 3), "claimed")


def test_one_that_falls_before_it_is_claimed(board):
    board.line(True)
    board.clock.advance(3)
    board.line(False)
    assert board.read(CLAIM, 4) == 0
    assert board.told[1:] == [(3, "pending", (0, 3), "lowered")]


def test_unclaimed_completions_and_other_registers_record_nothing(board):
    for value in (0, 5, 6, 0xFFFF_FFFF):
        board.write(CLAIM, 4, value)
    board.read(0x1000, 4)
    board.read(CLAIM, 4)
    assert board.records == []
