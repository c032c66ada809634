"""What differs from run to run: random bytes, the date, timing; from a seed, where a run is to be repeated."""

import os
import random
import time

__all__ = ["Chance"]

#: 2026-01-01 00:00 UTC in ns since the epoch: a run of a seed begins in the year that follows it.
_YEAR_BEGAN, _YEAR = 1_767_225_600 * 10**9, 365 * 86_400 * 10**9


class Chance:
    """Chance for one machine: that of ``seed``, or the host's with None."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._sources: dict[str, random.Random] = {}

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

    def _random(self, use: str) -> random.Random:
        if use not in self._sources:
            self._sources[use] = random.Random(f"{self.seed} {use}")  # noqa: S311 - it is to be known
        return self._sources[use]
