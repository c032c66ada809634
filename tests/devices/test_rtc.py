from random import Random
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.rtc import GoldfishRtc
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

TIME_LOW, TIME_HIGH, ALARM_LOW, ALARM_HIGH, IRQ_ENABLED, CLEAR_ALARM, ALARM_STATUS, CLEAR_INTERRUPT = range(0, 0x20, 4)
EPOCH = 1_700_000_000_000_000_000


class Board:
    def __init__(self) -> None:
        self.clock = FakeClock(5_000)  # power-on is not time 0 of the clock
        self.events = FakeEvents(self.clock)
        self.irq = False
        self.ahead = -5_000  # of the guest's clock
        self.rtc = GoldfishRtc(self.set_irq, self.clock, self.events, lambda: EPOCH + self.clock.now() + self.ahead)

    def set_irq(self, level: bool) -> None:
        self.irq = level

    def time(self) -> int:
        return self.rtc.read(TIME_LOW, 4) | self.rtc.read(TIME_HIGH, 4) << 32

    def write64(self, high_register: int, value: int) -> None:
        """As Linux does: the high half first."""
        self.rtc.write(high_register, 4, value >> 32)
        self.rtc.write(high_register - 4, 4, value & 0xFFFF_FFFF)


@pytest.fixture
def board() -> Board:
    return Board()


def test_shows_the_wall_clock(board: Board) -> None:
    assert board.time() == EPOCH
    board.clock.advance(7_000_000_001)
    assert board.time() == EPOCH + 7_000_000_001
    board.ahead += 3_000_000_000  # of which the guest got nothing
    assert board.time() == EPOCH + 10_000_000_001


def test_low_half_latches_the_high_one(board: Board) -> None:
    to_carry = -EPOCH % 2**32
    board.clock.advance(to_carry - 1)
    low = board.rtc.read(TIME_LOW, 4)
    board.clock.advance(1)
    assert low | board.rtc.read(TIME_HIGH, 4) << 32 == EPOCH + to_carry - 1


def test_guest_sets_the_time(board: Board) -> None:
    board.write64(TIME_HIGH, 123_456_789_012_345)
    board.clock.advance(10)
    assert board.time() == 123_456_789_012_355


def test_alarm_rings_when_it_is_due_and_not_before(board: Board) -> None:
    board.rtc.write(IRQ_ENABLED, 4, 1)
    board.write64(ALARM_HIGH, EPOCH + 1_000)
    assert board.rtc.read(ALARM_STATUS, 4) == 1
    board.events.advance(999)
    assert not board.irq
    board.events.advance(1)
    assert board.irq
    assert board.rtc.read(ALARM_STATUS, 4) == 0
    board.rtc.write(CLEAR_INTERRUPT, 4, 1)
    assert not board.irq


def test_alarm_in_the_past_rings_at_once(board: Board) -> None:
    board.rtc.write(IRQ_ENABLED, 4, 1)
    board.write64(ALARM_HIGH, 1)
    board.events.run_due()
    assert board.irq


def test_alarm_can_be_cleared(board: Board) -> None:
    board.rtc.write(IRQ_ENABLED, 4, 1)
    board.write64(ALARM_HIGH, EPOCH + 1_000)
    board.rtc.write(CLEAR_ALARM, 4, 1)
    board.events.advance(2_000)
    assert not board.irq


def test_interrupt_waits_until_it_is_enabled(board: Board) -> None:
    board.write64(ALARM_HIGH, EPOCH + 1)
    board.events.advance(1)
    assert not board.irq
    board.rtc.write(IRQ_ENABLED, 4, 1)
    assert board.irq


def test_alarm_follows_when_the_time_is_set(board: Board) -> None:
    board.rtc.write(IRQ_ENABLED, 4, 1)
    board.write64(ALARM_HIGH, EPOCH + 1_000)
    board.write64(TIME_HIGH, EPOCH + 900)
    board.events.advance(99)
    assert not board.irq
    board.events.advance(1)
    assert board.irq


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]))))
def test_any_access_is_harmless(stream: list[tuple[int, int | None, int]]) -> None:
    board = Board()
    for register, value, size in stream:
        if value is None:
            assert 0 <= board.rtc.read(4 * register, size) < 2**32
        else:
            board.rtc.write(4 * register, size, value & (1 << 8 * size) - 1)
        board.events.advance(100)
    assert len(board.events.pending) <= 1


def test_an_alarm_in_ages_stays_set(board: Board) -> None:
    """Neither the host's sleep nor a snapshot takes such numbers."""
    board.write64(ALARM_HIGH, 2**64 - 1)
    assert board.rtc.read(ALARM_STATUS, 4) == 1
    assert board.events.pending == []
    board.write64(TIME_HIGH, 2**64 - 11)
    board.events.advance(10)
    assert board.rtc.read(ALARM_STATUS, 4) == 0


class Life(Board):
    """All that can happen to a clock; see tests/twins.py."""

    @property
    def parts(self) -> list[GoldfishRtc]:
        return [self.rtc]

    def take_over(self, old: Self) -> None:
        self.irq, self.ahead = old.irq, old.ahead

    def step(self, chance: Random) -> object:
        seen = None
        near = EPOCH + self.clock.now() + self.ahead + chance.randrange(-100, 1000)
        match chance.randrange(5):
            case 0:
                seen = self.rtc.read(4 * chance.randrange(8), 4)
            case 1:
                self.write64(
                    chance.choice([TIME_HIGH, ALARM_HIGH]), chance.choice([near, near, chance.getrandbits(64)])
                )
            case 2:
                self.rtc.write(4 * chance.randrange(8), 4, chance.getrandbits(32))
            case 3:
                self.rtc.write(IRQ_ENABLED, 4, 1)
            case 4:
                self.events.advance(chance.randrange(1000))
        return seen, self.irq, self.rtc.read(ALARM_STATUS, 4), self.events.pending


@pytest.mark.parametrize("seed", range(5))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed)


def test_a_wrong_state_is_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)
