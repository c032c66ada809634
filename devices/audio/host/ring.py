"""A bounded queue of frames between two threads: one writes, one reads, and neither ever waits.

Both positions only grow, and each has one owner, which moves it after copying the frames; an assignment is atomic, so
there is no lock. What does not fit is not taken, and what is not there is not returned: the caller decides.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Frames", "Ring"]

#: An array (frame, channel).
Frames = npt.NDArray[Any]


class Ring:
    """Room for ``capacity`` frames of ``width`` elements."""

    def __init__(self, capacity: int, width: int, dtype: npt.DTypeLike = np.float32) -> None:
        self._data: Frames = np.zeros((capacity, width), dtype)
        self._capacity = capacity
        #: Frames since the beginning: moved only by the writer, and only by the reader.
        self.written = 0
        self.read = 0

    @property
    def fill(self) -> int:
        """How many frames can be read."""
        return self.written - self.read

    @property
    def room(self) -> int:
        """How many frames can be written."""
        return self._capacity - self.fill

    def write(self, frames: Frames) -> int:
        """Take the first frames, as many as there is room for; returns their number."""
        count = min(len(frames), self.room)
        start = self.written % self._capacity
        first = min(count, self._capacity - start)
        self._data[start : start + first] = frames[:first]
        self._data[: count - first] = frames[first:count]
        self.written += count
        return count

    def peek(self, count: int, ahead: int = 0) -> Frames:
        """Return a copy of up to ``count`` frames, from ``ahead`` frames past the next one, without taking them."""
        count = max(min(count, self.fill - ahead), 0)
        start = (self.read + ahead) % self._capacity
        first = min(count, self._capacity - start)
        if first == count:
            return self._data[start : start + count].copy()
        return np.concatenate((self._data[start:], self._data[: count - first]))

    def take(self, count: int) -> Frames:
        """Return the next frames, at most ``count``."""
        frames = self.peek(count)
        self.read += len(frames)
        return frames

    def replace(self, ahead: int, frames: Frames) -> None:
        """Change frames already written, from ``ahead`` frames past the next one; for the reader."""
        places = (self.read + ahead + np.arange(len(frames))) % self._capacity
        self._data[places] = frames

    def skip(self, count: int) -> int:
        """Skip up to ``count`` frames; returns their number."""
        count = max(min(count, self.fill), 0)
        self.read += count
        return count
