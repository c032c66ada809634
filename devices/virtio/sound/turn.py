"""The last turn of a buffer: what was played of it, to be known again."""

import zlib
from collections import deque
from collections.abc import Callable

__all__ = ["Turn"]

#: Of a buffer with more periods nothing is kept; Linux has at most 16.
_MOST_PERIODS = 64


class Turn:
    """What the last ``periods`` periods were: checksums, so that no guest decides how much memory they take.

    ``silence(size)`` is what silence looks like.
    """

    def __init__(self, periods: int, silence: Callable[[int], bytes]) -> None:
        self._periods = periods
        self._silence = silence
        self._silent = True  # what is playing, so far
        self._played: deque[int] = deque(maxlen=periods if periods <= _MOST_PERIODS else 0)
        self._playing = 0

    def play(self, data: bytes) -> None:
        """Some of a period is played."""
        self._playing = zlib.crc32(data, self._playing)
        self._silent = self._silent and data == self._silence(len(data))

    def end_period(self) -> bool:
        """Forget a period of a turn ago for the one that is over; whether they are the same, and not silence."""
        same = len(self._played) == self._periods and self._played[0] == self._playing and not self._silent
        self._played.append(self._playing)
        self._playing, self._silent = 0, True
        return same
