from random import Random
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.contracts import IrqLine
from devices.errors import UsageError
from devices.plic import Plic
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

SOURCES = 40
M, S = 0, 1


class Board:
    """A PLIC, its inputs by source, and the levels that the hart sees."""

    def __init__(self) -> None:
        self.outputs: list[list[bool]] = [[], []]
        self.plic = Plic(SOURCES, [history.append for history in self.outputs])
        self.lines: dict[int, IrqLine] = {source: self.plic.line(source) for source in range(1, SOURCES + 1)}

    def level(self, context: int) -> bool:
        return bool(self.outputs[context]) and self.outputs[context][-1]

    def set_priority(self, source: int, priority: int) -> None:
        self.plic.write(4 * source, 4, priority)

    def enable(self, context: int, *sources: int) -> None:
        for word in range(2):
            bits = sum(1 << source % 32 for source in sources if source // 32 == word)
            self.plic.write(0x2000 + 0x80 * context + 4 * word, 4, bits)

    def set_threshold(self, context: int, threshold: int) -> None:
        self.plic.write(0x20_0000 + 0x1000 * context, 4, threshold)

    def claim(self, context: int) -> int:
        return self.plic.read(0x20_0004 + 0x1000 * context, 4)

    def complete(self, context: int, source: int) -> None:
        self.plic.write(0x20_0004 + 0x1000 * context, 4, source)

    def pending(self) -> int:
        return self.plic.read(0x1000, 4) | self.plic.read(0x1004, 4) << 32


@pytest.fixture
def board() -> Board:
    """Sources 1 to 10 and 40 at priority 1, all enabled for S."""
    board = Board()
    for source in (*range(1, 11), 40):
        board.set_priority(source, 1)
    board.enable(S, *range(1, 11), 40)
    return board


def test_an_interrupt_from_its_level_to_its_completion(board: Board) -> None:
    board.lines[10](True)
    assert board.level(S)
    assert board.pending() == 1 << 10
    assert board.claim(S) == 10
    assert not board.level(S)
    assert board.pending() == 0
    assert board.claim(S) == 0
    board.lines[10](False)
    board.complete(S, 10)
    assert not board.level(S)
    assert not board.outputs[M]


def test_a_level_that_is_still_high_at_completion_interrupts_again(board: Board) -> None:
    board.lines[3](True)
    assert board.claim(S) == 3
    board.complete(S, 3)
    assert board.level(S)
    assert board.claim(S) == 3


def test_a_level_that_falls_before_the_claim_is_forgotten(board: Board) -> None:
    board.lines[3](True)
    board.lines[3](False)
    assert not board.level(S)
    assert board.claim(S) == 0


def test_a_level_that_falls_and_rises_during_service_waits_for_completion(board: Board) -> None:
    board.lines[3](True)
    board.claim(S)
    board.lines[3](False)
    board.lines[3](True)
    assert not board.level(S)
    board.complete(S, 3)
    assert board.level(S)


def test_highest_priority_first_and_lowest_number_of_a_tie(board: Board) -> None:
    board.set_priority(40, 7)
    board.set_priority(5, 3)
    for source in (9, 2, 40, 5):
        board.lines[source](True)
    assert [board.claim(S) for _ in range(5)] == [40, 5, 2, 9, 0]


def test_priority_0_never_interrupts(board: Board) -> None:
    board.set_priority(4, 0)
    board.lines[4](True)
    assert not board.level(S)
    assert board.claim(S) == 0
    board.set_priority(4, 1)
    assert board.level(S)


def test_only_priorities_above_the_threshold_interrupt(board: Board) -> None:
    board.set_threshold(S, 2)
    board.set_priority(6, 2)
    board.lines[6](True)
    assert not board.level(S)
    board.set_priority(6, 3)
    assert board.level(S)
    board.set_threshold(S, 7)
    assert not board.level(S)


def test_threshold_does_not_stop_a_claim(board: Board) -> None:
    board.set_threshold(S, 7)
    board.lines[6](True)
    assert board.claim(S) == 6


def test_contexts_are_separate(board: Board) -> None:
    board.enable(M, 8)
    board.lines[7](True)
    assert (board.level(M), board.level(S)) == (False, True)
    board.lines[8](True)
    assert board.level(M)
    assert board.claim(M) == 8
    assert not board.level(M)
    assert board.claim(S) == 7


def test_completion_by_a_context_that_has_not_enabled_the_source_is_ignored(board: Board) -> None:
    board.lines[2](True)
    assert board.claim(S) == 2
    board.complete(M, 2)
    assert not board.level(S)
    board.complete(S, 2)
    assert board.level(S)


def test_outputs_are_called_on_change_only(board: Board) -> None:
    for _ in range(3):
        board.lines[1](True)
        board.lines[2](True)
    board.lines[1](False)
    assert board.outputs[S] == [True]


@pytest.mark.parametrize("source", [0, SOURCES + 1, 2**32 - 1])
def test_completing_no_source_is_ignored(board: Board, source: int) -> None:
    board.complete(S, source)
    assert board.pending() == 0


def test_source_0_does_not_exist(board: Board) -> None:
    board.set_priority(0, 7)
    board.plic.write(0x2000, 4, 0xFFFF_FFFF)
    assert board.plic.read(0, 4) == 0
    assert board.plic.read(0x2000, 4) == 0xFFFF_FFFE


@pytest.mark.parametrize("source", [0, SOURCES + 1, -1])
def test_no_line_for_a_missing_source(board: Board, source: int) -> None:
    with pytest.raises(ValueError, match="interrupt source"):
        board.plic.line(source)


def test_registers_keep_only_what_they_implement(board: Board) -> None:
    board.set_priority(1, 0xFFFF_FFFF)
    board.set_threshold(S, 0xFFFF_FFFF)
    board.plic.write(0x2084, 4, 0xFFFF_FFFF)
    assert board.plic.read(4, 4) == 7
    assert board.plic.read(0x20_1000, 4) == 7
    assert board.plic.read(0x2084, 4) == (1 << SOURCES - 32 + 1) - 1


def test_pending_is_read_only(board: Board) -> None:
    board.plic.write(0x1000, 4, 0xFFFF_FFFF)
    assert board.pending() == 0
    assert not board.level(S)


@pytest.mark.parametrize("offset", [4 * (SOURCES + 1), 0xFFC, 0x1008, 0x2008, 0x2100, 0x20_1008, 0x20_2004, 0x5F_FFFC])
def test_nothing_is_there(board: Board, offset: int) -> None:
    board.plic.write(offset, 4, 0xFFFF_FFFF)
    assert board.plic.read(offset, 4) == 0


accesses = st.tuples(
    st.sampled_from([0, 4, 40, 160, 0x1000, 0x1004, 0x2000, 0x2004, 0x2080, 0x2084])
    | st.sampled_from([0x20_0000, 0x20_0004, 0x20_1000, 0x20_1004])
    | st.integers(0, Plic.size // 4 - 1).map(lambda register: 4 * register),
    st.none() | st.integers(0, SOURCES + 1) | st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 4, 4, 4]),
)
steps = accesses | st.tuples(st.integers(1, SOURCES), st.booleans())


@given(st.lists(steps))
def test_any_history_leaves_outputs_that_a_claim_confirms(
    history: list[tuple[int, int | None, int] | tuple[int, bool]],
) -> None:
    board = Board()
    for step in history:
        if len(step) == 2:
            board.lines[step[0]](step[1])
        elif step[1] is None:
            assert 0 <= board.plic.read(step[0], step[2]) < 2**32
        else:
            board.plic.write(step[0], step[2], step[1] & (1 << 8 * step[2]) - 1)
    for context in (M, S):
        board.set_threshold(context, 0)
        assert board.level(context) is (board.claim(context) != 0)


class Life(Board):
    """All that can happen to a PLIC; see tests/twins.py."""

    def __init__(self) -> None:
        super().__init__()
        self.events = FakeEvents(FakeClock())

    @property
    def parts(self) -> list[Plic]:
        return [self.plic]

    def take_over(self, old: Self) -> None:
        for mine, its in zip(self.outputs, old.outputs, strict=True):
            mine[:] = its

    def step(self, chance: Random) -> object:
        seen = None
        source, context = chance.randrange(1, SOURCES + 1), chance.choice([M, S])
        match chance.randrange(8):
            case 0 | 1:
                self.lines[source](chance.random() < 0.6)
            case 2 | 3:
                self.set_priority(source, chance.randrange(8))
            case 4:
                self.set_threshold(context, chance.randrange(8))
            case 5:
                self.plic.write(0x2000 + 0x80 * context + 4 * (source // 32), 4, chance.getrandbits(32))
            case 6:
                seen = self.claim(context)
            case 7:
                self.complete(context, source)
        registers = [self.plic.read(offset, 4) for offset in (0x1000, 0x1004, 4 * source, 0x2000, 0x2084, 0x20_1000)]
        return seen, [levels[:] for levels in self.outputs], registers, self.plic.claims[:]


@pytest.mark.parametrize("seed", range(5))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed)


def test_a_wrong_state_is_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"levels": 1}, "sources"),
        ({"claimed": 2 << SOURCES}, "sources"),
        ({"enabled": [0, 1]}, "sources"),
        ({"enabled": [0]}, "contexts"),
        ({"threshold": [0, 0, 0]}, "contexts"),
        ({"threshold": [0, 8]}, "priorities"),
        ({"priority": [8] * (SOURCES + 1)}, "priorities"),
        ({"priority": [0] * SOURCES}, "priorities"),
        ({"priority": []}, "priorities"),
        ({"claims": [0]}, "priorities"),
    ],
)
def test_what_no_plic_can_be(board: Board, wrong: dict[str, object], what: str) -> None:
    state: Any = {**board.plic.state(), **wrong}
    with pytest.raises(UsageError, match=f"damaged: the .*{what}"):
        board.plic.restore(state)
