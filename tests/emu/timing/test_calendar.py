"""The calendar's time: the host's, or a known beginning and guest time."""

import time

import pytest

from emu.timing.calendar import Calendar
from tests.fakes import FakeClock

YEAR_2026 = 1_767_225_600 * 10**9


def test_it_goes_on_with_guest_time_from_where_it_began() -> None:
    clock = FakeClock()
    calendar = Calendar(clock.now, YEAR_2026)
    clock.advance(5_000)
    assert (calendar.time(), calendar.began) == (YEAR_2026 + 5_000, YEAR_2026)


def test_it_becomes_that_of_a_snapshot() -> None:
    clock = FakeClock()
    calendar = Calendar(clock.now, YEAR_2026)
    calendar.go_back(4711)
    clock.advance(100)
    assert (calendar.time(), calendar.began) == (4811, 4711)


def test_the_right_time_stays_the_right_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    calendar = Calendar(clock.now, None)
    clock.advance(300)
    monkeypatch.setattr(time, "time_ns", lambda: YEAR_2026)
    calendar.go_back(4711)
    assert (calendar.time(), calendar.began) == (YEAR_2026, YEAR_2026 - 300)
