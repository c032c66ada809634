"""The difference between the machine's clock and a sound card's, and how to follow it inaudibly.

Both claim 48000 frames a second, but one delivers, say, 48001. The backlog between them then grows or shrinks;
a proportional-integral controller watches it and steers a resampler. It is slow on purpose: at 1.5 ppm a second the
change of pitch is below -85 dB in any third of a second. While the delay stays within a millisecond of where it began,
nothing is corrected at all and sound passes bit for bit.

The time at which frames leave the machine is known except for how late it was, so each second's extreme delay counts.
"""

import math

__all__ = ["Drift"]

_NATURAL = 0.01  # radians a second; critically damped
_TOLERANCE = 0.001  # seconds
_MOST = 1e-3  # cards are off by at most 1e-4
_SLEW = 1.5e-6  # per second
_NEAR = 1e-5
_WINDOW = 1.0  # seconds
_JUMP = 0.005  # seconds, from one window to the next: not drift, but a device that changed its buffers


class Drift:
    """Steers a delay back to what it was in the first second. ``learned`` is the ``offset`` a predecessor found."""

    def __init__(self, learned: float = 0.0) -> None:
        #: How much faster the other clock is, as far as is known: 1e-6 is 1 ppm.
        self.offset = learned
        #: How much to stretch the sound now.
        self.correction = 1.0 + learned
        self._wanted = self.correction
        self._target: float | None = None
        self._before = 0.0  # the last window's delay
        self._window_end = -math.inf
        self._extreme = -math.inf
        self._last = 0.0

    def restart(self) -> None:
        """Take the next delay as the right one: there was a gap."""
        self._target = None
        self._window_end = -math.inf

    def observe(self, now: float, delay: float) -> float:
        """Note a delay (s), too short by however late the machine was; returns the correction until the next."""
        if self._window_end == -math.inf:
            self._begin(now, delay)
        elif now >= self._window_end:
            self._steer(self._extreme)
            self._begin(now, delay)
        else:
            self._extreme = max(self._extreme, delay)
        most = _SLEW * max(now - self._last, 0.0)
        self._last = now
        self.correction += min(max(self._wanted - self.correction, -most), most)
        return self.correction

    def _begin(self, now: float, delay: float) -> None:
        self._extreme = delay
        self._window_end = now + _WINDOW
        if self._target is None:
            self._last = now

    def _steer(self, delay: float) -> None:
        if self._target is None:
            self._target = self._before = delay
        if abs(delay - self._before) > _JUMP:
            self._target += delay - self._before
        self._before = delay
        error = delay - self._target
        error -= min(max(error, -_TOLERANCE), _TOLERANCE)
        # The delay is too long: fewer frames. There is nothing to learn while the correction is still ramping.
        if abs(self._wanted - self.correction) < _NEAR:
            self.offset = _bounded(self.offset - _NATURAL**2 * _WINDOW * error)
        self._wanted = 1.0 + _bounded(self.offset - 2 * _NATURAL * error)


def _bounded(offset: float) -> float:
    return min(max(offset, -_MOST), _MOST)
