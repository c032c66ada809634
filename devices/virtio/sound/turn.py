"""The last turn of a buffer: what was played of it, to be known again."""

import zlib
from collections import deque

from devices.audio import PcmParams

__all__ = ["Turn"]

#: Of a buffer with more periods nothing is kept; Linux has at most 16.
_MOST_PERIODS = 64


class Turn:
    """What the last ``periods`` periods were, as checksums: no guest decides how much memory they take."""

    def __init__(self, periods: int, pcm: PcmParams) -> None:
        self._periods = periods
        self._pcm = pcm
        self._silent_frame = pcm.silence(pcm.frame_size)
        self._silent = True  # what is playing, so far
        self._played: deque[int] = deque(maxlen=periods if periods <= _MOST_PERIODS else 0)
        self._playing = 0

    def play(self, data: bytes) -> None:
        """Some of a period is played."""
        self._playing = zlib.crc32(data, self._playing)
        if self._silent:  # which the first frame tells, nearly always
            self._silent = data.startswith(self._silent_frame) and data == self._pcm.silence(len(data))

    def end_period(self) -> bool:
        """Forget a period of a turn ago for the one that is over; whether they are the same, and not silence."""
        same = len(self._played) == self._periods and self._played[0] == self._playing and not self._silent
        self._played.append(self._playing)
        self._playing, self._silent = 0, True
        return same
