"""Chance: from a seed it is always the same, and one use of it does not change another."""

import os
import time
from random import Random
from typing import Self

import pytest

from devices.errors import UsageError
from emu.chance import Chance
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots


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


class Life:
    """All that can be drawn; see tests/twins.py."""

    def __init__(self) -> None:
        self.events = FakeEvents(FakeClock())
        self.chance = Chance(-(2**70))

    @property
    def parts(self) -> list[Chance]:
        return [self.chance]

    def take_over(self, old: Self) -> None:
        self.chance = Chance(5)  # the seed is in the state

    def step(self, chance: Random) -> object:
        use = f"interrupt {chance.randrange(30)}"
        return self.chance.draw(use, chance.randrange(2000)), self.chance.number(use, 9), self.chance.wall_time()


def test_as_if_it_had_never_been_saved() -> None:
    live_through_snapshots(Life, seed=1, steps=60)


def test_the_host_s_chance_takes_the_place_of_a_seed_s() -> None:
    chance = Chance(1)
    chance.draw("shell", 8)
    chance.restore(Chance(None).state())
    assert chance.state() == {"seed": None, "generators": {}}
    assert chance.draw("shell", 8) != chance.draw("shell", 8)


@pytest.mark.parametrize("seed", ["", "-", "--1", "0x1", "\u0661", "1" * 5000])
def test_what_is_no_seed(seed: str) -> None:
    with pytest.raises(UsageError, match="the seed"):
        Chance(0).restore({"seed": seed, "generators": {}})


@pytest.mark.parametrize("data", [b"", bytes(2499), bytes(2501), bytes(2496) + b"\x71\x02\0\0"])
def test_what_is_no_generator(data: bytes) -> None:
    with pytest.raises(UsageError, match="a generator of chance"):
        Chance(0).restore({"seed": "0", "generators": {"shell": data}})
