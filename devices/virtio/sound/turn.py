"""The last turn of a buffer: what was played from it, so that a repeat is recognised."""

import zlib
from collections import deque
from typing import TypedDict

from devices.audio import PcmParams
from devices.state import U32, check

__all__ = ["Turn", "TurnState"]

#: Nothing is kept for a buffer with more periods; Linux has at most 16.
_MOST_PERIODS = 64


class TurnState(TypedDict):
    """The checksums of the last periods and, so far, of the one that is playing."""

    played: list[U32]
    playing: U32
    silent: bool


class Turn:
    """The last ``periods`` periods, as checksums: no guest decides how much memory they take."""

    def __init__(self, periods: int, pcm: PcmParams) -> None:
        self._periods = periods
        self._pcm = pcm
        self._silent_frame = pcm.silence(pcm.frame_size)
        self._silent = True  # the period that is playing, so far
        self._played: deque[int] = deque(maxlen=periods if periods <= _MOST_PERIODS else 0)
        self._playing = 0

    def play(self, data: bytes) -> None:
        """Note that part of a period is played."""
        self._playing = zlib.crc32(data, self._playing)
        if self._silent:  # nearly always, the first frame decides
            self._silent = data.startswith(self._silent_frame) and data == self._pcm.silence(len(data))

    def end_period(self) -> bool:
        """Replace the period of a turn ago with the one just over; return whether they are the same and not silence."""
        same = len(self._played) == self._periods and self._played[0] == self._playing and not self._silent
        self._played.append(self._playing)
        self._playing, self._silent = 0, True
        return same

    def state(self) -> TurnState:
        """Return what ``restore`` makes the same turn from."""
        return {"played": list(self._played), "playing": self._playing, "silent": self._silent}

    def restore(self, state: TurnState) -> None:
        """Continue another one, of as many periods."""
        assert self._played.maxlen is not None
        check(len(state["played"]) <= self._played.maxlen, "the last turn of a buffer")
        self._played.clear()
        self._played.extend(state["played"])
        self._playing, self._silent = state["playing"], state["silent"]
