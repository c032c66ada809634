"""Converts frames from one rate to another; the ratio may change all the time.

Each output frame is the sum of the input frames around its position, weighted by a windowed sinc. Polynomials in the
position between two input frames give the weights (a Farrow structure), so that no position is special and the ratio
can follow a clock. While it is exactly 1 and the position is still a whole number, frames pass unchanged.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["Planes", "Resampler"]

#: An array (channel, frame).
Planes = npt.NDArray[np.float32]

_HALF = 16  # input frames on each side, at the lower of the two rates
_DEGREE = 5  # its error is below -100 dB up to 8 kHz, -85 dB up to 15 kHz (of 48)
_KAISER = 9.0  # 90 dB of stop band; flat up to 0.8 of half the rate
_PIECE = 2048  # input frames processed at once


@lru_cache(maxsize=8)
def _weights(half: int) -> npt.NDArray[np.float32]:
    """Polynomials in the fraction, an array (tap, power): taps 1 - half to half, relative to the position's floor."""
    places = (np.cos(np.pi * (np.arange(3 * _DEGREE) + 0.5) / (3 * _DEGREE)) + 1) / 2
    distance = np.arange(1 - half, half + 1)[:, None] - places
    window = np.i0(_KAISER * np.sqrt(np.maximum(1 - (distance / half) ** 2, 0))) / np.i0(_KAISER)
    cutoff = _HALF / half
    values = cutoff * np.sinc(cutoff * distance) * window
    powers = np.vander(places, _DEGREE + 1, increasing=True)
    return np.linalg.lstsq(powers, values.T, rcond=None)[0].T.astype(np.float32)


class Resampler:
    """From ``source`` frames a second to ``target``; times ``correction``, to follow a clock."""

    def __init__(self, source: float, target: float, channels: int) -> None:
        self._nominal = source / target
        half = math.ceil(_HALF * max(self._nominal, 1.0))
        self._half = half
        self._weights = _weights(half)
        self._held: Planes = np.zeros((channels, half - 1), np.float32)
        self._place = float(half - 1)  # of the next output frame, among the held input frames
        #: Factor on the number of output frames that the two rates give.
        self.correction = 1.0

    @property
    def held(self) -> float:
        """How many of the latest input frames have not come out yet."""
        count: int = self._held.shape[1]
        return count - self._place

    def process(self, frames: Planes) -> Planes:
        """Return the output frames that can be computed so far."""
        pieces = [self._piece(frames[:, i : i + _PIECE]) for i in range(0, frames.shape[1], _PIECE)]
        return np.concatenate(pieces, axis=1) if pieces else frames

    def flush(self) -> Planes:
        """Return the last frames, computed as if silence followed them."""
        return self._piece(np.zeros((len(self._held), self._half), np.float32))

    def _piece(self, frames: Planes) -> Planes:
        held = np.concatenate((self._held, frames), axis=1)
        step = self._nominal / self.correction
        end = held.shape[1] - self._half
        count = max(math.ceil((end - self._place) / step), 0)
        if step == 1.0 and self._place.is_integer():
            first = int(self._place)
            out = held[:, first : first + count].copy()
        else:
            places = self._place + step * np.arange(count)
            floors = places.astype(np.int64)
            out = self._interpolate(held, floors, (places - floors).astype(np.float32))
        self._place += step * count
        done = int(self._place) - self._half + 1
        self._held = held[:, done:]
        self._place -= done
        return out

    def _interpolate(self, held: Planes, floors: npt.NDArray[np.int64], fractions: npt.NDArray[np.float32]) -> Planes:
        powers = np.vander(fractions, _DEGREE + 1, increasing=True)
        out = np.empty((len(held), len(floors)), np.float32)
        starts = floors - self._half + 1
        for channel, samples in enumerate(held):
            taps = np.take(sliding_window_view(samples, 2 * self._half), starts, axis=0)
            out[channel] = ((taps @ self._weights) * powers).sum(axis=1)
        return out
