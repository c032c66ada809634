"""The supervisor timer."""

import pytest

from devices.stimer import NEVER, SupervisorTimer
from tests.fakes import FakeClock, FakeEvents, FakeIrq


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
