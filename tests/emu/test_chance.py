"""Chance: from a seed it is always the same, and one use of it does not change another."""

import os
import time

import pytest

from emu.chance import Chance


def test_a_seed_always_gives_the_same() -> None:
    """These are promised: a run that was noted down with its seed is repeated years later."""
    chance = Chance(0)
    assert chance.draw("entropy", 8).hex() == "18bba038cf42b675"
    assert chance.wall_time() == 1_779_819_528_911_759_107


def test_one_use_changes_nothing_for_another() -> None:
    disturbed = Chance(1)
    disturbed.draw("entropy", 100)
    disturbed.wall_time()
    assert disturbed.draw("shell", 8) == Chance(1).draw("shell", 8)


def test_seeds_and_draws_differ() -> None:
    chances = [Chance(seed) for seed in (0, 1, -1, 2**70)]
    assert len({chance.draw("shell", 16) for chance in chances for _ in range(3)}) == 12
    assert len({chance.wall_time() for chance in chances}) == 4


def test_numbers_are_within_their_bounds() -> None:
    chance = Chance(1)
    assert {chance.number("dice", 5) for _ in range(200)} == set(range(6))
    assert {chance.number("nothing", 0), Chance(None).number("nothing", 0)} == {0}


def test_the_calendar_begins_in_2026() -> None:
    years = {time.gmtime(Chance(seed).wall_time() // 10**9).tm_year for seed in range(50)}
    assert years == {2026}


def test_without_a_seed_it_is_the_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: b"?" * size)
    monkeypatch.setattr(time, "time_ns", lambda: 4711)
    assert (Chance(None).draw("shell", 3), Chance(None).wall_time()) == (b"???", 4711)
