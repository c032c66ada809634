"""Matches the frames of two sounds: blocks that agree, in order, found without comparing all with all."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WINDOW", "align", "hashes"]

#: Two sounds are in step again after this many consecutive equal frames. A power of 2.
WINDOW = 16
#: After this many blocks it is clear that the sounds differ.
_MOST_BLOCKS = 10_000
#: How many frames to search for the next agreement: 43 s at 48 kHz.
_FARTHEST = 1 << 21

_Frames = npt.NDArray[Any]
_Hashes = npt.NDArray[np.uint64]

# Odd constants without a pattern: the golden ratio's, and two of splitmix64's.
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def align(a: _Frames, b: _Frames) -> tuple[list[tuple[int, int, int]], bool]:
    """Blocks (position in a, position in b, frames) that agree, in order; and whether there were too many to find all.

    A common beginning and end are always found, so a single difference is measured exactly, even in a tone whose
    cycles are all alike.
    """
    prefix = _agreeing(a, b)
    rest = min(len(a), len(b)) - prefix
    suffix = _agreeing(a[::-1][:rest], b[::-1][:rest])
    a_end, b_end = len(a) - suffix, len(b) - suffix
    blocks = [(0, 0, prefix)] if prefix else []
    i = j = prefix
    while i < a_end and j < b_end and len(blocks) < _MOST_BLOCKS:
        step = _resync(a, (i, a_end), b, (j, b_end))
        if step is None:
            break
        i, j = i + step[0], j + step[1]
        count = _agreeing(a[i:a_end], b[j:b_end])
        blocks.append((i, j, count))
        i, j = i + count, j + count
    if suffix:
        blocks.append((a_end, b_end, suffix))
    return blocks, len(blocks) >= _MOST_BLOCKS


def hashes(frames: _Frames, window: int = WINDOW) -> _Hashes:
    """A hash of the ``window`` (a power of 2) frames from each frame on, as long as there are that many."""
    count = len(frames) - window + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    value = np.zeros(len(frames), np.uint64)
    for channel in range(frames.shape[1]):
        value = _mixed(value * _GOLDEN + frames[:, channel].astype(np.int64).view(np.uint64))
    width = 1
    while width < window:
        value = _mixed(value[:-width] * _GOLDEN + value[width:])
        width *= 2
    return value


def _mixed(value: _Hashes) -> _Hashes:
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


def _agreeing(a: _Frames, b: _Frames) -> int:
    """How many frames agree, from the beginning."""
    at, chunk = 0, 256
    most = min(len(a), len(b))
    while at < most:
        differs = (a[at : min(at + chunk, most)] != b[at : min(at + chunk, most)]).any(axis=1)
        first = int(differs.argmax())
        if differs[first]:
            return at + first
        at += chunk
        chunk = min(chunk * 4, 1 << 18)
    return most


def _resync(a: _Frames, a_span: tuple[int, int], b: _Frames, b_span: tuple[int, int]) -> tuple[int, int] | None:
    """How many frames to skip in ``a_span`` of a and ``b_span`` of b until both agree again: as few as possible.

    The range searched grows with the number skipped, so the total time is O(n log n).
    """
    (i, a_end), (j, b_end) = a_span, b_span
    size = 64
    while True:
        ahead_a = a[i : min(i + size, a_end) + WINDOW - 1]
        ahead_b = b[j : min(j + size, b_end) + WINDOW - 1]
        place = _nearest(ahead_a, ahead_b)
        if place is not None:
            x, y = place
            back = _agreeing(ahead_a[:x][::-1], ahead_b[:y][::-1])
            return x - back, y - back
        if size >= _FARTHEST or (i + size >= a_end and j + size >= b_end):
            return None
        size *= 8


def _nearest(a: _Frames, b: _Frames) -> tuple[int, int] | None:
    hash_a, hash_b = hashes(a), hashes(b)
    common = min(len(hash_a), len(hash_b))
    places: list[tuple[int, int]] = []
    in_step = np.flatnonzero(hash_a[:common] == hash_b[:common])
    if len(in_step):
        places.append((int(in_step[0]), int(in_step[0])))
    # Constant frames, like silence, agree with any others and say nothing about the position.
    varied_a, varied_b = _varied(a), _varied(b)
    _, first_a, first_b = np.intersect1d(hash_a[varied_a], hash_b[varied_b], return_indices=True)
    if len(first_a):
        x, y = varied_a[first_a], varied_b[first_b]
        best = int((np.maximum(x, y) * 4096 + np.minimum(np.abs(x - y), 4095)).argmin())
        places.append((int(x[best]), int(y[best])))
    places = [(x, y) for x, y in places if np.array_equal(a[x : x + WINDOW], b[y : y + WINDOW])]  # hashes may collide
    return min(places, key=lambda place: (max(place), abs(place[0] - place[1])), default=None)


def _varied(frames: _Frames) -> npt.NDArray[np.intp]:
    """Where non-constant windows begin."""
    if len(frames) < WINDOW:
        return np.empty(0, np.intp)
    changes = np.concatenate(([0], np.cumsum((frames[1:] != frames[:-1]).any(axis=1))))
    return np.flatnonzero(changes[WINDOW - 1 :] != changes[: len(changes) - WINDOW + 1])
