"""Finds defects in a recording without its original: clicks, skips, dropouts and replayed blocks.

Only what no natural sound does is reported: a rest in music, a fade or a drum is not a defect. A jump that is part of
the sound, as in a square wave or where a ramp restarts, looks like a click.
"""

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emu.analysis.align import WINDOW, hashes
from emu.analysis.prediction import ORDER, discontinuities
from emu.analysis.tone import fit_phase, peak, sounding
from emu.terminal.progress import unseen

__all__ = ["Defects", "Dropout", "Repeat", "Skip", "find_defects", "find_repeats"]

Samples = npt.NDArray[np.float64]

_OUTLIER_OF_TONE, _OUTLIER_OF_MUSIC = 16.0, 40.0
_SHORTEST_DROPOUT = 8
_NEAR_SILENCE = 1.5  # quanta
_FAR_FROM_SILENCE = 12.0
#: Samples on either side of a jump from which the phase is measured.
_PHASE_SAMPLES = 2048
_SHORTEST_REPEAT = 64
_LONGEST_REPEAT = 1 << 16
_MOST_EQUAL = 4  # places; more than that is in the nature of the sound


@dataclass(frozen=True, slots=True)
class Skip:
    """The phase of a tone jumps at ``position``: ``frames`` are missing, or if negative, that many too many.

    Whole cycles of the tone go unseen.
    """

    position: int
    frames: float


@dataclass(frozen=True, slots=True)
class Dropout:
    """Silence in the middle of sound, with abrupt edges."""

    position: int
    length: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """The ``length`` frames from ``position`` on were already played ``distance`` frames earlier."""

    position: int
    length: int
    #: Equal to ``length`` where a buffer stutters.
    distance: int


@dataclass(frozen=True, slots=True)
class Defects:
    """The defects of one channel; positions are frames."""

    clicks: tuple[int, ...] = ()
    skips: tuple[Skip, ...] = ()
    dropouts: tuple[Dropout, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.clicks or self.skips or self.dropouts)

    def __str__(self) -> str:
        counts = {"click": len(self.clicks), "skip": len(self.skips), "dropout": len(self.dropouts)}
        found = [f"{count} {kind}{'s' if count != 1 else ''}" for kind, count in counts.items() if count]
        return ", ".join(found) or "no clicks, skips or dropouts"


def find_defects(
    samples: Samples, quantum: float, frequency: float | None = None, progress: Callable[[float], None] = unseen
) -> Defects:
    """Look for defects in one channel (full scale 1.0); ``quantum`` is the step between its values.

    ``frequency`` is the tone's in radians per sample, if it is a tone: then clicks and skips can be told apart.
    ``progress`` is called with the share of the work done.
    """
    offset, end = sounding(samples, _NEAR_SILENCE * quantum)
    if offset == end:
        return Defects()
    sound = samples[offset:end]
    odd = discontinuities(sound, quantum, _OUTLIER_OF_MUSIC if frequency is None else _OUTLIER_OF_TONE, progress)
    silences = _silences(sound, quantum)
    dropouts = [silence for silence in silences if _is_dropout(sound, silence, odd, quantum)]
    events = _events(odd, silences, dropouts)
    clicks, skips = [], []
    for before, event, after in _with_neighbours(events, dropouts, len(sound)):
        frames = _skipped(sound, before, event, after, frequency) if frequency else 0.0
        if abs(frames) >= 0.5:
            skips.append(Skip(offset + event, frames))
        else:
            clicks.append(offset + event)
    moved = tuple(Dropout(offset + each.position, each.length) for each in dropouts)
    return Defects(tuple(clicks), tuple(skips), moved)


def _silences(sound: Samples, quantum: float) -> list[Dropout]:
    quiet = (sound <= _NEAR_SILENCE * quantum) & (sound >= -_NEAR_SILENCE * quantum)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], quiet, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= _SHORTEST_DROPOUT
    return [Dropout(start, end - start) for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True)]


def _is_dropout(sound: Samples, silence: Dropout, odd: npt.NDArray[np.intp], quantum: float) -> bool:
    """Whether sound breaks off and returns abruptly."""
    start, end = silence.position, silence.position + silence.length
    before, after = sound[max(start - 64, 0) : start], sound[end : end + 64]
    level = min(peak(before), peak(after))
    if level < _FAR_FROM_SILENCE * quantum:
        return False
    return _any_within(odd, start - 2, start + 8) and _any_within(odd, end - 8, end + 4)


def _any_within(positions: npt.NDArray[np.intp], start: int, end: int) -> bool:
    at = int(np.searchsorted(positions, start))
    return at < len(positions) and int(positions[at]) < end


def _events(odd: npt.NDArray[np.intp], silences: list[Dropout], dropouts: list[Dropout]) -> list[int]:
    """Where something odd begins that is neither an edge of a dropout nor sound setting in after a rest."""
    if not len(odd):
        return []
    starts = odd[np.concatenate(([True], np.diff(odd) > ORDER))]
    hard = set(dropouts)
    quiet = np.array([silence.position for silence in silences])
    expected = np.zeros(int(odd[-1]) + 1, np.bool_)
    for silence in silences:
        end = silence.position + silence.length
        # A click in a rest is soon followed by silence again; sound is not.
        if silence in hard or not _any_within(quiet, end, end + 2 * ORDER):
            expected[silence.position : silence.position + ORDER] = True
            expected[end - 2 : end + ORDER] = True
    return [start for start in starts.tolist() if not expected[start]]


def _with_neighbours(events: list[int], dropouts: list[Dropout], end: int) -> Iterator[tuple[int, int, int]]:
    """Each event, with the positions between which nothing else is wrong."""
    edges = [edge for each in dropouts for edge in (each.position, each.position + each.length)]
    bounds = sorted({-1, end, *events, *edges})
    for event in events:
        index = bisect.bisect_left(bounds, event)
        yield bounds[index - 1] + 1, event, bounds[index + 1]


def _skipped(sound: Samples, before: int, event: int, after: int, frequency: float) -> float:
    """How many frames the tone's phase jumps at ``event``, give or take whole cycles."""
    # A click spoils some samples, so those next to the event are left out.
    left_start, right_start = max(before + 4, event - _PHASE_SAMPLES), event + 4
    left, right = sound[left_start:event], sound[right_start : min(after, right_start + _PHASE_SAMPLES)]
    if min(len(left), len(right)) < max(8, math.tau / frequency):
        return 0.0
    jump = fit_phase(right, frequency, event - right_start) - fit_phase(left, frequency, event - left_start)
    return ((jump + math.pi) % math.tau - math.pi) / frequency


def find_repeats(frames: npt.NDArray[Any], *, memory: int = 1 << 17) -> list[Repeat]:
    """Find old buffers: blocks of 64 to 65536 frames, bit-identical to ones up to ``memory`` frames earlier.

    A sound that naturally repeats itself, like a tone or a loop, has many equal places or repeats to its end: neither
    is reported.
    """
    all_hashes = hashes(frames)
    if not len(all_hashes):
        return []
    anchors = np.arange(0, len(all_hashes), WINDOW)
    anchors = anchors[_varied(frames)[anchors]]
    values, first, counts = np.unique(all_hashes[anchors], return_index=True, return_counts=True)
    anchors, values = anchors[first[counts <= _MOST_EQUAL]], values[counts <= _MOST_EQUAL]
    if not len(values):
        return []
    candidates = _perhaps_among(values, all_hashes)
    index = np.minimum(np.searchsorted(values, all_hashes[candidates]), len(values) - 1)
    equal = (values[index] == all_hashes[candidates]) & (anchors[index] != candidates)
    repeats: list[Repeat] = []
    done = 0
    for later, earlier in zip(candidates[equal].tolist(), anchors[index[equal]].tolist(), strict=True):
        distance = abs(later - earlier)
        position = max(later, earlier)
        if position < done or distance > memory:
            continue
        start, end = _extend(frames, position, distance)
        done = max(done, end)
        if _SHORTEST_REPEAT <= end - start <= min(distance, _LONGEST_REPEAT) and end < len(frames):
            repeats.append(Repeat(start, end - start, distance))
    return repeats


def _perhaps_among(values: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Where ``hashes`` may be one of ``values``, judging by the lower bits. Spares most of them a slow search."""
    mask = np.uint64((1 << 24) - 1)
    known = np.zeros(1 << 24, np.bool_)
    known[values & mask] = True
    return np.flatnonzero(known[hashes & mask])


def _varied(frames: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether the window from each frame on has at least a few different values; silence and the like always repeat."""
    changes = np.concatenate(([0], np.cumsum((frames[1:] != frames[:-1]).any(axis=1))))
    return np.asarray(changes[WINDOW - 1 :] - changes[: len(changes) - WINDOW + 1] >= WINDOW // 2)


def _extend(frames: npt.NDArray[Any], position: int, distance: int) -> tuple[int, int]:
    """How far, around ``position``, frames equal those ``distance`` frames earlier."""
    low, high = max(position - _LONGEST_REPEAT - 1, distance), min(position + _LONGEST_REPEAT + 1, len(frames))
    differs = (frames[low:high] != frames[low - distance : high - distance]).any(axis=1)
    after = np.flatnonzero(differs[position - low :])
    before = np.flatnonzero(differs[: position - low])
    start = low + int(before[-1]) + 1 if len(before) else low
    end = position + int(after[0]) if len(after) else high
    return start, end
