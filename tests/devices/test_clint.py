from random import Random
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.clint import TIMEBASE_HZ, Clint, HartLines, ns_from_ticks, ticks_from_ns
from devices.contracts import Ref
from devices.errors import UsageError
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

MSIP, MTIMECMP, MTIME = 0x0, 0x4000, 0xBFF8
TICK = 100  # ns
NEVER = 2**64 - 1


class Hart:
    def __init__(self) -> None:
        self.software = False
        self.timer = False
        self.timer_history: list[bool] = []

    def set_software(self, level: bool) -> None:
        self.software = level

    def set_timer(self, level: bool) -> None:
        if level is not self.timer:
            self.timer_history.append(level)
        self.timer = level


class Board:
    """A CLINT and the harts that it interrupts."""

    def __init__(self, harts: int = 1) -> None:
        self.clock = FakeClock()
        self.events = FakeEvents(self.clock)
        self.harts = [Hart() for _ in range(harts)]
        lines = [HartLines(hart.set_software, hart.set_timer) for hart in self.harts]
        self.clint = Clint(self.clock, self.events, lines)

    def read64(self, offset: int) -> int:
        """A 64-bit load, as the bus splits it."""
        return self.clint.read(offset, 4) | self.clint.read(offset + 4, 4) << 32

    def write64(self, offset: int, value: int) -> None:
        self.clint.write(offset, 4, value & 0xFFFF_FFFF)
        self.clint.write(offset + 4, 4, value >> 32)


def test_mtime_counts_the_timebase() -> None:
    board = Board()
    board.clock.advance(1_000_000_000 + TICK - 1)
    assert board.read64(MTIME) == TIMEBASE_HZ


def test_64_bit_read_of_mtime_is_never_torn() -> None:
    board = Board()
    board.clock.advance(0xFFFF_FFFF * TICK)
    low = board.clint.read(MTIME, 4)
    board.clock.advance(TICK)  # the carry falls between the two halves
    assert low | board.clint.read(MTIME + 4, 4) << 32 == 0xFFFF_FFFF


def test_high_half_read_alone_is_current() -> None:
    board = Board()
    board.read64(MTIME)
    board.clock.advance(0x3_0000_0000 * TICK)
    assert board.clint.read(MTIME + 4, 4) == 3


def test_high_low_high_sees_the_carry() -> None:
    board = Board()
    board.clock.advance(0xFFFF_FFFF * TICK)
    high = board.clint.read(MTIME + 4, 4)
    board.clock.advance(TICK)
    low = board.clint.read(MTIME, 4)
    assert high != board.clint.read(MTIME + 4, 4)  # so the driver retries
    assert low == 0


def test_timer_is_off_at_reset() -> None:
    board = Board()
    assert board.read64(MTIMECMP) == NEVER
    assert board.events.pending == []


def test_timer_fires_when_mtime_reaches_mtimecmp_and_not_before() -> None:
    board = Board()
    board.clock.advance(50)
    board.write64(MTIMECMP, 7)
    board.events.advance(7 * TICK - 51)
    assert not board.harts[0].timer
    board.events.advance(1)
    assert board.harts[0].timer


def test_timer_stays_until_mtimecmp_is_moved() -> None:
    board = Board()
    board.write64(MTIMECMP, 1)
    board.events.advance(1_000)
    assert board.harts[0].timer
    board.write64(MTIMECMP, 1_000)
    assert not board.harts[0].timer
    board.events.advance(1_000 * TICK)
    assert board.harts[0].timer
    board.write64(MTIMECMP, NEVER)
    assert not board.harts[0].timer
    assert board.events.pending == []


def test_mtimecmp_in_the_past_fires_at_once() -> None:
    board = Board()
    board.clock.advance(1_000)
    board.write64(MTIMECMP, 0)
    board.events.run_due()
    assert board.harts[0].timer


def test_first_half_of_a_store_to_mtimecmp_fires_nothing() -> None:
    board = Board()
    board.clock.advance(0x1_8000_0000 * TICK)
    board.write64(MTIMECMP, 0x1_9000_0000)
    board.write64(MTIMECMP, 0x2_0000_0000)  # after its low half: 0x1_0000_0000, which is past
    board.events.run_due()
    assert board.harts[0].timer_history == []


def test_guest_can_set_mtime() -> None:
    board = Board()
    board.clock.advance(12_345)
    board.write64(MTIMECMP, 0x1_0000_0010)
    board.write64(MTIME, 0x1_0000_0000)
    assert board.read64(MTIME) == 0x1_0000_0000
    board.events.advance(0xF * TICK)
    assert not board.harts[0].timer
    board.events.advance(TICK)
    assert board.harts[0].timer
    board.write64(MTIME, 0)
    assert not board.harts[0].timer


def test_mtimecmp_is_unsigned() -> None:
    board = Board()
    board.write64(MTIMECMP, 2**63)
    board.events.advance(10**12)
    assert not board.harts[0].timer


def test_msip() -> None:
    board = Board()
    board.clint.write(MSIP, 4, 0xFFFF_FFFF)
    assert board.harts[0].software
    assert board.clint.read(MSIP, 4) == 1
    board.clint.write(MSIP, 4, 0)
    assert not board.harts[0].software


def test_harts_are_separate() -> None:
    board = Board(harts=2)
    board.clint.write(MSIP + 4, 4, 1)
    board.write64(MTIMECMP + 8, 1)
    board.events.advance(TICK)
    assert [(hart.software, hart.timer) for hart in board.harts] == [(False, False), (True, True)]


def test_device_tree_wires_both_lines_of_each_hart() -> None:
    first, second = Ref("cpu0-intc"), Ref("cpu1-intc")
    wires = Board(harts=2).clint.properties["interrupts-extended"]
    assert wires == (first, 3, first, 7, second, 3, second, 7)


@given(st.integers(0, 2**70))
def test_tick_begins_exactly_when_ns_from_ticks_says(ticks: int) -> None:
    assert ticks_from_ns(ns_from_ticks(ticks)) == ticks
    assert ticks_from_ns(ns_from_ticks(ticks) - 1) == ticks - 1


accesses = st.tuples(
    st.integers(0, Clint.size // 4 - 1) | st.sampled_from([0, 1, 0x1000, 0x1001, 0x1002, 0x2FFE, 0x2FFF]),
    st.none() | st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 4]),
)


@given(st.lists(accesses))
def test_any_access_is_harmless(stream: list[tuple[int, int | None, int]]) -> None:
    board = Board()
    for register, value, size in stream:
        if value is None:
            assert 0 <= board.clint.read(register * 4, size) < 2**32
        else:
            board.clint.write(register * 4, size, value & (1 << 8 * size) - 1)
        board.events.advance(30)
    assert len(board.events.pending) <= 1
    mtimecmp, mtime = board.read64(MTIMECMP), board.clint.mtime
    if mtimecmp != NEVER:
        assert board.harts[0].timer == (mtime >= mtimecmp)


def test_a_time_in_ages_is_none_at_all() -> None:
    """Neither the host's sleep nor a snapshot takes such numbers."""
    board = Board()
    board.write64(MTIMECMP, NEVER - 1)
    assert board.events.pending == []
    board.write64(MTIME, NEVER - 10)
    board.events.advance(9 * TICK)
    assert board.harts[0].timer


class Life(Board):
    """All that can happen to a CLINT; see tests/twins.py."""

    def __init__(self) -> None:
        super().__init__(harts=2)

    @property
    def parts(self) -> list[Clint]:
        return [self.clint]

    def take_over(self, old: Self) -> None:
        for mine, its in zip(self.harts, old.harts, strict=True):
            mine.software, mine.timer, mine.timer_history = its.software, its.timer, its.timer_history[:]

    def step(self, chance: Random) -> object:
        seen = None
        offset = chance.choice([MSIP, MSIP + 4, MTIMECMP, MTIMECMP + 8, MTIME])
        match chance.randrange(4):
            case 0:
                seen = self.clint.read(offset + chance.choice([0, 4]), 4)
            case 1:
                near = self.clint.mtime + chance.randrange(-5, 20)
                self.write64(offset, chance.choice([near, near, near, chance.getrandbits(64), NEVER]) & NEVER)
            case 2:
                self.clint.write(offset, 4, chance.choice([chance.getrandbits(32), 0xFFFF_FFFF]))
            case 3:
                self.events.advance(chance.randrange(10 * TICK))
        lines = [(hart.software, hart.timer, hart.timer_history[:]) for hart in self.harts]
        return seen, lines, self.clint.mtime, self.events.pending


@pytest.mark.parametrize("seed", range(5))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed)


def test_a_wrong_state_is_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)


@pytest.mark.parametrize("field", ["msip", "mtimecmp", "expiry"])
def test_another_number_of_harts(field: str) -> None:
    state: Any = Board(harts=2).clint.state()
    state[field].pop()
    with pytest.raises(UsageError, match="the harts of the CLINT"):
        Board(harts=2).clint.restore(state)
