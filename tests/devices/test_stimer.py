"""The supervisor timer."""

from random import Random
from typing import Self

import pytest

from devices.stimer import NEVER, SupervisorTimer
from tests.fakes import FakeClock, FakeEvents, FakeIrq
from tests.twins import live_through_snapshots, live_with_wrong_states


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000)


def test_the_timer_rises_at_its_tick_and_stays(clock: FakeClock) -> None:
    events, line = FakeEvents(clock), FakeIrq()
    timer = SupervisorTimer(clock, events, line)
    timer.set(10_010)  # 1,000 ns from now
    events.advance(999)
    assert not line.level
    events.advance(1)
    assert line.level
    events.advance(10_000)
    assert line.level
    timer.set(1 << 62)
    assert not line.level


@pytest.mark.parametrize("ticks", [0, 9_999, 10_000])
def test_the_timer_in_the_past(clock: FakeClock, ticks: int) -> None:
    events, line = FakeEvents(clock), FakeIrq()
    SupervisorTimer(clock, events, line).set(ticks)
    assert line.level
    assert events.pending == []


def test_set_again_and_switched_off(clock: FakeClock) -> None:
    events, line = FakeEvents(clock), FakeIrq()
    timer = SupervisorTimer(clock, events, line)
    timer.set(10_010)
    timer.set(10_020)
    assert events.pending == [1_002_000]
    timer.set(NEVER)
    assert events.pending == []
    events.advance(1 << 40)
    assert line.edges == 0


def test_a_time_in_ages_is_none_at_all(clock: FakeClock) -> None:
    """Neither the host's sleep nor a snapshot takes such numbers."""
    events, line = FakeEvents(clock), FakeIrq()
    line(True)
    SupervisorTimer(clock, events, line).set(NEVER - 1)
    assert not line.level
    assert events.pending == []


class Life:
    """All that can happen to the timer; see tests/twins.py."""

    def __init__(self) -> None:
        self.events, self.line = FakeEvents(FakeClock()), FakeIrq()
        self.timer = SupervisorTimer(self.events.clock, self.events, self.line)

    @property
    def parts(self) -> list[SupervisorTimer]:
        return [self.timer]

    def take_over(self, old: Self) -> None:
        self.line.level, self.line.edges = old.line.level, old.line.edges

    def step(self, chance: Random) -> object:
        if chance.random() < 0.4:
            self.timer.set(chance.choice([self.events.clock.now() // 100 + chance.randrange(20), NEVER]))
        else:
            self.events.advance(chance.randrange(1000))
        return self.line.level, self.line.edges, self.events.pending


@pytest.mark.parametrize("seed", range(5))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed)


def test_a_wrong_state_is_harmless() -> None:
    live_with_wrong_states(Life, seed=1)
