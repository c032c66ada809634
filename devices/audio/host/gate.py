"""A ring with a gate at its output: frames behind a closed gate wait, and none are lost.

A sound stopped in the middle of a guest's message may resume at its next frame, or never: what lies behind the gate is
heard if it opens. So that neither clicks, the sound fades to silence from the last frame before the gate, and from
silence to the first one behind it.
"""

from typing import NamedTuple

import numpy as np

from devices.audio.host.ring import Frames, Ring

__all__ = ["FADE", "GatedRing", "fall", "rise"]

#: Frames over which a sound that breaks off fades to silence, or from there to its first frame.
FADE = 96


def rise() -> Frames:
    """Factors rising from 0 to almost 1, an array (frame, 1)."""
    return np.linspace(0.0, 1.0, FADE, endpoint=False, dtype=np.float32)[:, None]


def fall() -> Frames:
    """Factors falling from 1 to 0, an array (frame, 1)."""
    return np.linspace(1.0, 0.0, FADE, dtype=np.float32)[:, None]


class _Gate(NamedTuple):
    place: int  # in the ring: the first frame that waits
    silence: int | None  # frames of silence before that one; None while it is closed


class GatedRing(Ring):
    """A ring whose writer can close a gate in it. Only the writer sets the gate, only the reader passes it."""

    def __init__(self, capacity: int, width: int) -> None:
        super().__init__(capacity, width)
        self._gate: _Gate | None = None
        self._passed: _Gate | None = None
        self._led_out = False  # the reader has reached the closed gate
        self._last: Frames = np.zeros(width, np.float32)  # frame taken
        self._detour: Frames = np.zeros((0, width), np.float32)  # to be heard before the ring goes on

    # The writer.

    @property
    def is_closed(self) -> bool:
        """Whether the gate is closed."""
        return self._gate is not None and self._gate.silence is None

    def close_gate(self, behind: int) -> None:
        """Hold back the last ``behind`` frames, or those of them not taken yet."""
        self._gate = _Gate(self.written - behind, None)

    def open_gate(self, silence: int) -> None:
        """Go on, after ``silence`` frames of silence."""
        if self._gate is not None:
            self._gate = _Gate(self._gate.place, max(silence - (0 if self._led_out else FADE), FADE))

    def clear_gate(self) -> None:
        """Go on as if there had been no gate."""
        self._gate = None

    # The reader.

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to take until the gate opens, if there is one."""
        return not len(self._detour) and (self._led_out or self.fill == 0)

    @property
    def place(self) -> int:
        """Number of the next frame, minus the frames that are heard before it."""
        return self.read - len(self._detour)

    def take_gated(self, count: int) -> tuple[Frames, bool]:
        """Return the next frames, at most ``count``, and whether the gate is the reason if there are fewer."""
        parts: list[Frames] = []
        while count:
            part = self._next(count)
            if not len(part):
                break
            parts.append(part)
            count -= len(part)
        if len(parts) == 1:
            return parts[0], self._led_out
        return np.concatenate([self._detour[:0], *parts]), self._led_out

    def forget(self) -> None:
        """Drop everything."""
        self.skip(self.fill)
        self._led_out = False
        self._detour = self._detour[:0]

    def _next(self, count: int) -> Frames:
        gate = self._gate
        if gate is self._passed:
            gate = None
        if not len(self._detour) and (gate is not None or self._led_out):
            self._look_at(gate)
        if len(self._detour):
            part, self._detour = self._detour[:count], self._detour[count:]
            return part
        if self._led_out:
            return self._detour
        part = self.take(count if gate is None else min(count, gate.place - self.read))
        if len(part):
            self._last = part[-1]
        return part

    def _look_at(self, gate: _Gate | None) -> None:
        if gate is None or gate.place > self.read:  # it has moved
            if self._led_out:
                self._lead_in(FADE)
        elif not self._led_out:
            self._detour = self._last * fall()
            self._led_out = True
        elif gate.silence is not None:
            self._lead_in(gate.silence)
            self._passed = gate

    def _lead_in(self, silence: int) -> None:
        self._detour = np.zeros((silence, len(self._last)), np.float32)
        first = self.peek(1)
        if len(first):
            self._detour[-FADE:] = first * rise()
        self._led_out = False
