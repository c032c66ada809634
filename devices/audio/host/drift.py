"""The difference between the machine's clock and a sound card's, and how to follow it unheard.

Both say they have 48000 frames a second, and one has 48001. So what waits between them grows or shrinks, by 4 ms a
minute; a proportional-integral controller steers a resampler by it. It is slow on purpose: at 1.5 ppm a second the
change of pitch is below -85 dB in any third of a second. While the delay stays within a millisecond of where it began
nothing is corrected at all, and sound passes bit for bit.

When frames come from the machine is known but for how late it was, so of a second's delays the extreme one counts.
"""

import math

__all__ = ["Drift"]

_NATURAL = 0.01  # radians a second; critically damped
_TOLERANCE = 0.001  # seconds
_MOST = 1e-3  # cards are off by 1e-4 at the most
_SLEW = 1.5e-6  # a second
_NEAR = 1e-5
_WINDOW = 1.0  # seconds
_JUMP = 0.005  # seconds, from one window to the next: no drift, but a device that changed its buffers


class Drift:
    """Steers a delay to what it was in the first second. ``learned`` is what a predecessor found (``offset``)."""

    def __init__(self, learned: float = 0.0) -> None:
        #: By how much the other clock is faster, as far as is known: 1e-6 is 1 ppm.
        self.offset = learned
        #: What to stretch the sound by now.
        self.correction = 1.0 + learned
        self._wanted = self.correction
        self._target: float | None = None
        self._before = 0.0  # the last window's delay
        self._window_end = -math.inf
        self._extreme = -math.inf
        self._last = 0.0

    def restart(self) -> None:
        """Take a new delay for the right one: there was a gap."""
        self._target = None
        self._window_end = -math.inf

    def observe(self, now: float, delay: float) -> float:
        """Take note of a delay (s), too short by what the machine was late; returns the correction until the next."""
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
        # A delay that is too long: fewer frames. While the correction is still on its way there is nothing to learn.
        if abs(self._wanted - self.correction) < _NEAR:
            self.offset = _bounded(self.offset - _NATURAL**2 * _WINDOW * error)
        self._wanted = 1.0 + _bounded(self.offset - 2 * _NATURAL * error)


def _bounded(offset: float) -> float:
    return min(max(offset, -_MOST), _MOST)
