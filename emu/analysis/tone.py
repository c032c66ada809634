"""A test tone: its frequency, level and purity.

The sound is cut into blocks, and a sine with free frequency, phase and amplitude is fitted to each by least squares
(IEEE 1057's four-parameter fit). What the sines leave over is distortion and noise. The phase's advance from block to
block gives the frequency far more precisely than any single block could.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emu.terminal.progress import unseen

__all__ = ["Tone", "fit_phase", "measure_tone", "peak", "sounding"]

Samples = npt.NDArray[np.float64]

_BLOCK = 1 << 14
_CYCLES = 8  # at least, in a block
_MOST_STEPS = 10  # of the fit, which takes three or four
#: It is a tone if less than this share of the energy (-20 dB) is outside the sine; otherwise music, or noise.
_PURE = 0.01


@dataclass(frozen=True, slots=True)
class Tone:
    """A sine, and how much else there is."""

    #: Hz. If the phase jumps (frames are missing), that of the pieces in between.
    frequency: float
    #: Of the sine, in dB relative to a full-scale sine.
    level: float
    #: Everything but the sine and a constant offset, as a ratio of the whole: 0.01 is 1 % or -40 dB. The bandwidth is
    #: half the sampling rate. Every defect of the sound counts.
    thd_n: float
    #: The same in the median block, away from clicks and gaps.
    thd_n_median: float

    def drift(self, nominal: float) -> float:
        """How much too fast the tone is, in ppm, if it should have ``nominal`` Hz."""
        return (self.frequency / nominal - 1) * 1e6

    def __str__(self) -> str:
        text = f"{self.frequency:.3f} Hz, {self.level:.2f} dBFS, THD+N {_decibels(self.thd_n)} ({percent(self.thd_n)})"
        if self.thd_n > 2 * self.thd_n_median:
            text += f", in most places {_decibels(self.thd_n_median)}"
        return text


def percent(ratio: float) -> str:
    """A ratio in percent, with two significant digits."""
    return f"{ratio * 100:.2g} %" if ratio < 1 else f"{ratio * 100:.0f} %"


def _decibels(ratio: float) -> str:
    return f"{20 * math.log10(ratio):.1f} dB" if ratio > 0 else "-inf dB"


@dataclass(frozen=True, slots=True)
class _Block:
    centre: float
    frequency: float  # radians per sample, as everywhere here
    phase: float  # at the centre
    amplitude: float
    total: float  # energy per sample, without the constant
    rest: float  # the part of it that is not the sine's

    @property
    def share(self) -> float:
        return self.rest / self.total


def peak(samples: Samples) -> float:
    """The highest magnitude; 0 if there are no samples."""
    return max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))


def sounding(samples: Samples, level: float) -> tuple[int, int]:
    """Start and end of the part louder than ``level``; equal if there is none."""
    loud = (samples > level) | (samples < -level)
    start = int(loud.argmax()) if len(loud) else 0
    return (start, len(loud) - int(loud[::-1].argmax())) if len(loud) and loud[start] else (0, 0)


def measure_tone(samples: Samples, rate: int, progress: Callable[[float], None] = unseen) -> Tone | None:
    """Measure the tone in one channel's samples (full scale 1.0); None if it is silence, noise or music.

    Quiet parts (40 dB below the peak) before and after the tone do not count. ``progress`` is called with the share of
    the work done.
    """
    start, end = sounding(samples, peak(samples) / 100)
    samples = samples[start:end]
    frequency = _dominant(samples)
    if frequency is None:
        return None
    size = max(min(_BLOCK, len(samples) // 8), math.ceil(_CYCLES * math.tau / frequency))
    count = max(len(samples) // size, 1)
    edges = np.linspace(0, len(samples), count + 1).astype(int).tolist()
    blocks: list[_Block] = []
    impure = 0
    for start, end in itertools.pairwise(edges):
        progress(start / len(samples))
        block = _fit(samples[start:end], start, frequency)
        if block is not None:
            blocks.append(block)
            impure += block.share > _PURE
            if impure > count // 2:  # and with it the median
                return None
    if not blocks:
        return None
    median = float(np.median([block.share for block in blocks]))
    if median > _PURE:
        return None
    total, rest = sum(block.total for block in blocks), sum(block.rest for block in blocks)
    clean = [block for block in blocks if block.share <= 4 * median]
    amplitude = float(np.median([block.amplitude for block in clean]))
    precise = _common_frequency(clean)
    return Tone(precise * rate / math.tau, 20 * math.log10(amplitude), math.sqrt(rest / total), math.sqrt(median))


def fit_phase(samples: Samples, frequency: float, origin: float) -> float:
    """The phase at sample ``origin`` (inside ``samples`` or not) of a sine of ``frequency`` radians per sample."""
    time = np.arange(len(samples)) - origin
    basis = np.column_stack((np.cos(frequency * time), np.sin(frequency * time), np.ones(len(time))))
    cosine, sine, _ = np.linalg.lstsq(basis, samples, rcond=None)[0].tolist()
    return math.atan2(-sine, cosine)


def _dominant(samples: Samples) -> float | None:
    """The strongest component's radians per sample, from a spectrum of the loudest piece."""
    size = min(len(samples), 1 << 16)
    if size < 16:
        return None
    starts = range(0, len(samples) - size + 1, size)
    loudest = max(starts, key=lambda start: float(np.square(samples[start : start + size]).sum()))
    piece = samples[loudest : loudest + size]
    piece = piece - piece.mean()
    padded = 2 * size
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(size), padded))
    peak = int(spectrum[2:-1].argmax()) + 2
    if not spectrum[peak] > 0:
        return None
    left, middle, right = np.log(spectrum[peak - 1 : peak + 2] + 1e-300).tolist()
    bend = left - 2 * middle + right
    return (peak + (0.5 * (left - right) / bend if bend else 0.0)) * math.tau / padded


def _fit(samples: Samples, start: int, frequency: float) -> _Block | None:
    size = len(samples)
    centre = (size - 1) / 2
    time = np.arange(size) - centre
    one = np.ones(size)
    guess = frequency
    cosine = sine = constant = 0.0
    rest = samples
    for _ in range(_MOST_STEPS):
        c, s = np.cos(guess * time), np.sin(guess * time)
        # The derivative with respect to frequency, scaled to the size of the other columns.
        slope = (cosine * -s + sine * c) * (time / size)
        columns = (c, s, one, slope) if cosine or sine else (c, s, one)
        basis = np.column_stack(columns)
        solution = _solve(basis, samples)
        if solution is None:
            return None
        cosine, sine, constant = solution[:3]
        rest = samples - cosine * c - sine * s - constant
        if len(solution) == 4:
            step = solution[3] / size
            guess += step
            if abs(guess - frequency) * size > math.tau:  # it ran away: there is no such sine
                guess = frequency
                break
            if abs(step) * size < 1e-9:
                break
    varying = samples - samples.mean()
    amplitude = math.hypot(cosine, sine)
    total, left = float(np.square(varying).mean()), float(np.square(rest).mean())
    if not amplitude or not total:
        return None
    return _Block(start + centre, guess, math.atan2(-sine, cosine), amplitude, total, min(left, total))


def _solve(basis: Samples, samples: Samples) -> list[float] | None:
    try:
        solution: list[float] = np.linalg.solve(basis.T @ basis, basis.T @ samples).tolist()
    except np.linalg.LinAlgError:
        return None
    return solution


def _common_frequency(blocks: list[_Block]) -> float:
    """The slope of the phase over all blocks, with jumps removed."""
    guess = float(np.median([block.frequency for block in blocks]))
    if len(blocks) < 3:
        return guess
    centres = np.array([block.centre for block in blocks])
    steps = np.diff([block.phase for block in blocks]) - guess * np.diff(centres)
    steps = (steps + math.pi) % math.tau - math.pi
    usual = float(np.median(steps))
    spread = float(np.median(np.abs(steps - usual)))
    steps[np.abs(steps - usual) > 10 * spread + 1e-3] = usual
    advance = np.concatenate(([0.0], np.cumsum(steps)))
    return guess + float(np.polyfit(centres - centres.mean(), advance, 1)[0])
