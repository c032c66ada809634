"""What the guest's real-time clock shows."""

import time
from collections.abc import Callable

__all__ = ["Calendar"]


class Calendar:
    """The calendar's time, in ns since the epoch: the right one, also after the host has slept; or guest time.

    ``now()`` is guest time; ``began`` is what the calendar showed at guest time 0, or None for the right time.
    """

    def __init__(self, now: Callable[[], int], began: int | None) -> None:
        self._now, self._began = now, began

    def time(self) -> int:
        """Return what it shows."""
        return time.time_ns() if self._began is None else self._began + self._now()

    @property
    def began(self) -> int:
        """What it showed at guest time 0, or would have shown if guest time were the right time."""
        return self.time() - self._now()

    def go_back(self, began: int) -> None:
        """Be the calendar that showed ``began`` at guest time 0, unless it shows the right time."""
        if self._began is not None:
            self._began = began
