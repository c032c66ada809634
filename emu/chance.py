"""What differs from run to run: random bytes, the date, timing; from a seed, where a run is to be repeated."""

import os
import struct
import time
from typing import TYPE_CHECKING, TypedDict

from devices.state import check

if TYPE_CHECKING:
    from random import Random

__all__ = ["Chance", "ChanceState"]

#: 2026-01-01 00:00 UTC in ns since the epoch: a run of a seed begins in the year that follows it.
_YEAR_BEGAN, _YEAR = 1_767_225_600 * 10**9, 365 * 86_400 * 10**9


#: A random.Random's state (of the Mersenne Twister): 624 words, and how many of them have been used.
_GENERATOR = struct.Struct("<625I")
_VERSION, _WORDS = 3, 624
#: More digits than that are no number for Python.
_LONGEST_SEED = 4000


class ChanceState(TypedDict):
    """The seed in decimal, if there is one, and what has become of the generator of each use."""

    seed: str | None
    generators: dict[str, bytes]


class Chance:
    """Chance for one machine: that of ``seed``, or the host's with None."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._sources: dict[str, Random] = {}

    def draw(self, use: str, size: int) -> bytes:
        """Return random bytes; what is drawn for one use changes nothing for another."""
        return os.urandom(size) if self.seed is None else self._random(use).randbytes(size)

    def number(self, use: str, most: int) -> int:
        """Return a whole number from 0 to ``most``, which is far below 2**64."""
        return int.from_bytes(self.draw(use, 8), "little") % (most + 1)

    def wall_time(self) -> int:
        """Return the time at power-on, in ns since the epoch."""
        if self.seed is None:
            return time.time_ns()
        return _YEAR_BEGAN + self._random("wall time").randrange(_YEAR)

    def state(self) -> ChanceState:
        """Return its state; the host's chance has none."""
        generators = {use: _saved(generator) for use, generator in self._sources.items()}
        return {"seed": None if self.seed is None else str(self.seed), "generators": generators}

    def restore(self, state: ChanceState) -> None:
        """Become what ``state`` says, seed and all; raises UsageError for a seed or a generator that is none."""
        seed = state["seed"]
        check(seed is None or _is_number(seed), "the seed")
        self.seed = None if seed is None else int(seed)
        self._sources = {use: _rebuilt(data) for use, data in state["generators"].items()}

    def _random(self, use: str) -> "Random":
        if use not in self._sources:
            self._sources[use] = _generator(f"{self.seed} {use}")
        return self._sources[use]


def _generator(seed: str) -> "Random":
    from random import Random  # noqa: PLC0415 - not needed to boot

    return Random(seed)  # noqa: S311 - it is to be known


def _saved(generator: "Random") -> bytes:
    return _GENERATOR.pack(*generator.getstate()[1])


def _rebuilt(data: bytes) -> "Random":
    check(len(data) == _GENERATOR.size, "a generator of chance")
    state = _GENERATOR.unpack(data)
    check(state[_WORDS] <= _WORDS, "a generator of chance")
    generator = _generator("")
    generator.setstate((_VERSION, state, None))
    return generator


def _is_number(text: str) -> bool:
    return len(text) <= _LONGEST_SEED and text.isascii() and text.removeprefix("-").isdecimal()
