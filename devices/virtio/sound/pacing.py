"""When a frame has been played or recorded: exact arithmetic on guest time, with no accumulating error."""

from typing import TypedDict

from devices.state import Ns, check

__all__ = ["Stopwatch", "StopwatchState"]

_NS = 1_000_000_000


class StopwatchState(TypedDict):
    """A stopwatch: its frames, when it began if it runs, and its time if it stands still."""

    frames: Ns
    zero: Ns
    elapsed: Ns


class Stopwatch:
    """Guest time (ns) that runs while a stream does, and how many of the stream's frames are done.

    Both are counted from the last ``restart``, or from the beginning of the stream.
    """

    __slots__ = ("_elapsed", "_rate", "_zero", "frames")

    def __init__(self, rate: int) -> None:
        self.frames = 0
        self._rate = rate
        self._zero = 0  # guest time at which the count began, while running
        self._elapsed = 0  # ns so far, while stopped

    def start(self, now: int) -> None:
        """Start or continue."""
        self._zero = now - self._elapsed

    def stop(self, now: int) -> None:
        """Stand still."""
        self._elapsed = now - self._zero

    def restart(self, now: int) -> None:
        """Forget frames and time: the next frame begins now."""
        self._zero = now
        self.frames = 0

    def rewind(self) -> None:
        """Forget frames and time, while stopped."""
        self._elapsed = 0
        self.frames = 0

    def end_of(self, frames: int) -> int:
        """Guest time at which ``frames`` more are over, rounded up: never early."""
        return self._zero - (self.frames + frames) * _NS // -self._rate

    def behind(self, now: int) -> int:
        """How many more whole frames are over by now."""
        return (now - self._zero) * self._rate // _NS - self.frames

    def state(self) -> StopwatchState:
        """Return what ``restore`` makes the same stopwatch from."""
        return {"frames": self.frames, "zero": self._zero, "elapsed": self._elapsed}

    def restore(self, state: StopwatchState, now: int) -> None:
        """Show what another one did ``now``."""
        self.frames, self._zero, self._elapsed = state["frames"], state["zero"], state["elapsed"]
        longest = max(now - self._zero, self._elapsed)
        check(
            max(self._zero, self._elapsed) <= now and self.frames * _NS <= longest * self._rate, "a stream's position"
        )
