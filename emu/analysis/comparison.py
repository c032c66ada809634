"""Compares a recording with what was played, frame by frame: the same bits, or where and how they differ.

The two are aligned like texts in a diff. As long as they agree they are followed side by side; where they stop
agreeing, the nearest place is sought at which WINDOW consecutive frames agree again (emu/analysis/align.py), and the
frames in between are described. Silence added before or after the sound is not a difference.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emu.analysis.align import WINDOW, align, hashes
from emu.analysis.sound import Sound

__all__ = ["Comparison", "Difference", "compare"]

#: How many frames back to search for an old block that was played again: more than any ALSA buffer holds.
_MEMORY = 1 << 17
_SHOWN = 12

_Frames = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A run of frames that differ.

    ``kind`` is what happened to the original's ``count`` frames from ``original`` on, instead of which the recording
    has ``length`` frames from ``recording`` on:

        dropped    they are missing (length 0)
        inserted   nothing; the recording has frames that belong nowhere (count 0)
        repeated   nothing; the recording has the original's frames from ``source`` on once more (count 0)
        gap        nothing; the recording has silence in between (count 0)
        silenced   they are replaced by silence
        replayed   they are replaced by older frames, those from ``source`` on
        reordered  they come elsewhere, at ``source`` in the recording, or in a different order
        altered    they are replaced by others
    """

    kind: str
    original: int
    count: int
    recording: int
    length: int
    source: int | None = None
    #: Further details, in words.
    note: str = ""

    @property
    def frames(self) -> int:
        """How many frames are affected."""
        return max(self.count, self.length)

    def __str__(self) -> str:
        what = f"{self.frames} frame{'s' if self.frames != 1 else ''} {self.kind}"
        if self.kind == "gap":
            what = f"{self.frames} frame{'s' if self.frames != 1 else ''} of silence inserted"
        elif self.kind in {"repeated", "replayed"}:
            what += f" from frame {self.source}"
        elif self.kind == "reordered" and self.source is not None:
            what += f", now at frame {self.source}"
        elif self.count and self.length and self.count != self.length:
            what = f"{self.count} frames {self.kind}: {self.length} others instead"
        where = f"frame {self.recording}"
        if self.original != self.recording:
            where += f" (original {self.original})"
        return f"{where}: {what}{', ' if self.note else ''}{self.note}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ``compare`` found. ``str`` gives a report of a few lines."""

    #: Frames of the original.
    frames: int
    rate: int
    #: Frames of silence the recording has before and after the original's. Not a difference.
    leading: int
    trailing: int
    #: How the formats differ, in words. Frames are compared only if nothing but the rates differs.
    mismatches: tuple[str, ...]
    differences: tuple[Difference, ...]
    #: Whether there were too many differences to list: the last one then stands for the rest.
    truncated: bool = False

    @property
    def exact(self) -> bool:
        """Whether every frame of the original is in the recording, in order, with nothing but silence around."""
        return not self.mismatches and not self.differences

    @property
    def identical(self) -> bool:
        """Whether there is no added silence either."""
        return self.exact and not self.leading and not self.trailing

    @property
    def counts(self) -> dict[str, int]:
        """Frames affected, by kind of difference."""
        counts: Counter[str] = Counter()
        for difference in self.differences:
            counts[difference.kind] += difference.frames
        return dict(counts)

    @property
    def lines(self) -> list[str]:
        """The report."""
        if self.exact:
            return [f"bit-exact: {self.frames} frames{self._silence()}"]
        if not self.differences:
            return [f"not comparable: {'; '.join(self.mismatches)}"]
        lines = [*self.mismatches]
        counts = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        more = "at least " if self.truncated else ""
        number = len(self.differences)
        lines.append(f"not bit-exact: {more}{number} difference{'s' if number != 1 else ''} in {self.frames} frames"
                     f" ({counts}){self._silence()}")  # fmt: skip
        lines += [f"  {each.recording / self.rate:10.6f} s  {each}" for each in self.differences[:_SHOWN]]
        if number > _SHOWN:
            lines.append(f"  ... and {number - _SHOWN} more")
        return lines

    def _silence(self) -> str:
        added = [f"{count} {where}" for count, where in ((self.leading, "before"), (self.trailing, "after")) if count]
        return f"; frames of silence added: {', '.join(added)}" if added else ""

    def __str__(self) -> str:
        return "\n".join(self.lines)


def compare(recording: Sound, original: Sound) -> Comparison:
    """Compare a recording with the sound that was played. Takes O(n log n) time for n frames."""
    mismatches = []
    if recording.rate != original.rate:
        mismatches.append(f"the recording has {recording.rate} Hz, the original {original.rate} Hz")
    if recording.channels != original.channels:
        mismatches.append(f"the recording has {recording.channels} channels, the original {original.channels}")
    if recording.encoding != original.encoding:
        mismatches.append(f"the recording is {recording.encoding}, the original {original.encoding}")
    frames = len(original.frames)
    if recording.channels != original.channels or recording.encoding != original.encoding:
        return Comparison(frames, original.rate, 0, 0, tuple(mismatches), ())
    finder = _Finder(_bits(original), _bits(recording))
    finder.find()
    differences = tuple(_pair_moved(finder.differences, finder.a, finder.b))
    return Comparison(frames, original.rate, finder.leading, finder.trailing, tuple(mismatches), differences,
                      finder.truncated)  # fmt: skip


def _bits(sound: Sound) -> _Frames:
    """The frames in a form that is equal if and only if the bits are: a NaN equals itself, and -0.0 is not 0.0."""
    frames = np.ascontiguousarray(sound.frames)
    return frames.view(f"i{frames.dtype.itemsize}") if sound.is_float else frames


class _Finder:
    """Finds the differences between the original ``a`` and the recording ``b``."""

    def __init__(self, a: _Frames, b: _Frames) -> None:
        self.a = a
        self.b = b
        self.leading = 0
        self.trailing = 0
        self.truncated = False
        self.differences: list[Difference] = []

    def find(self) -> None:
        a_start, a_end = _sounding(self.a)
        b_start, b_end = _sounding(self.b)
        blocks, self.truncated = align(self.a[a_start:a_end], self.b[b_start:b_end])
        # From here on, everything before the current positions in both has been dealt with.
        a_at = b_at = 0
        for number, (i, j, count) in enumerate(blocks):
            if number == 0:
                self._head(a_start + i, b_start + j)
            else:
                self._between(a_at, a_start + i, b_at, b_start + j)
            a_at, b_at = a_start + i + count, b_start + j + count
        self._tail(a_at, b_at)

    def _head(self, a_end: int, b_end: int) -> None:
        """Frames before the first that agree: equally many of both next to those, then the rest."""
        common = min(a_end, b_end)
        if a_end > common:
            self._between(0, a_end - common, 0, 0)
        elif not self.b[: b_end - common].any():
            self.leading = b_end - common
        else:
            self._between(0, 0, 0, b_end - common)
        self._side_by_side(a_end - common, b_end - common, common)

    def _tail(self, a_at: int, b_at: int) -> None:
        """Frames after the last that agree."""
        common = min(len(self.a) - a_at, len(self.b) - b_at)
        self._side_by_side(a_at, b_at, common)
        a_at, b_at = a_at + common, b_at + common
        if b_at < len(self.b) and not self.b[b_at:].any():
            self.trailing = len(self.b) - b_at
        else:
            self._between(a_at, len(self.a), b_at, len(self.b))

    def _between(self, a_at: int, a_end: int, b_at: int, b_end: int) -> None:
        count, length = a_end - a_at, b_end - b_at
        if count == length:
            self._side_by_side(a_at, b_at, count)
        elif not length:
            note = "silence" if _is_silence(self.a[a_at:a_end]) else ""
            self.differences.append(Difference("dropped", a_at, count, b_at, 0, note=note))
        elif count:
            self.differences.append(Difference("altered", a_at, count, b_at, length))
        else:
            source = self._source(a_at, b_at, length)
            kind = "gap" if _is_silence(self.b[b_at:b_end]) else "inserted" if source is None else "repeated"
            self.differences.append(Difference(kind, a_at, 0, b_at, length, source if kind == "repeated" else None))

    def _side_by_side(self, a_at: int, b_at: int, count: int) -> None:
        """Equally many frames of both in the same place: the runs that differ."""
        differs = np.flatnonzero((self.a[a_at : a_at + count] != self.b[b_at : b_at + count]).any(axis=1))
        if not len(differs):
            return
        breaks = np.flatnonzero(np.diff(differs) > WINDOW)
        starts = differs[np.concatenate(([0], breaks + 1))].tolist()
        ends = (differs[np.concatenate((breaks, [len(differs) - 1]))] + 1).tolist()
        for start, end in zip(starts, ends, strict=True):
            self.differences.append(self._altered(a_at + start, b_at + start, end - start))

    def _altered(self, a_at: int, b_at: int, count: int) -> Difference:
        old, new = self.a[a_at : a_at + count], self.b[b_at : b_at + count]
        if _is_silence(new):
            return Difference("silenced", a_at, count, b_at, count)
        if count > 1 and (source := self._source(a_at, b_at, count)) is not None:
            return Difference("replayed", a_at, count, b_at, count, source)
        if _same_frames(old, new):
            return Difference("reordered", a_at, count, b_at, count)
        return Difference("altered", a_at, count, b_at, count, note=_how_altered(old, new))

    def _source(self, a_at: int, b_at: int, length: int) -> int | None:
        """The last place before ``a_at`` where the original has the recording's ``length`` frames at ``b_at``."""
        wanted = self.b[b_at : b_at + length]
        if length < WINDOW:
            places = [a_at - length]
        else:
            start = max(a_at - _MEMORY, 0)
            seen = hashes(self.a[start : a_at - length + WINDOW])
            places = (np.flatnonzero(seen == hashes(wanted[:WINDOW])[0]) + start).tolist()
        for place in reversed(places[-100:]):
            if place >= 0 and np.array_equal(self.a[place : place + length], wanted):
                return int(place)
        return None


def _sounding(frames: _Frames) -> tuple[int, int]:
    """Where the sound begins and ends, leaving out the silence around it."""
    sounding: npt.NDArray[np.bool_] = np.asarray(frames.any(axis=1))
    if not sounding.any():
        return 0, 0
    return int(sounding.argmax()), len(frames) - int(sounding[::-1].argmax())


def _is_silence(frames: _Frames) -> bool:
    """Whether they are silent, and too many for a zero crossing."""
    return len(frames) >= 8 and not frames.any()


def _same_frames(old: _Frames, new: _Frames) -> bool:
    return len(old) <= _MEMORY and np.array_equal(np.sort(hashes(old, 1)), np.sort(hashes(new, 1)))


def _how_altered(old: _Frames, new: _Frames) -> str:
    differs: npt.NDArray[np.bool_] = np.not_equal(old, new)
    frame, channel = divmod(int(differs.argmax()), differs.shape[1])
    wrong = int(differs.any(axis=1).sum())
    before, after = int(old[frame, channel]), int(new[frame, channel])
    flipped = (before ^ after) & ((1 << 8 * old.dtype.itemsize) - 1)
    note = f"channel {channel + 1}: {before} became {after}"
    if flipped.bit_count() == 1:
        note += f", that is bit {flipped.bit_length() - 1}"
    return note if len(old) == 1 else f"{wrong} of them wrong, the first in {note}"


def _pair_moved(differences: list[Difference], a: _Frames, b: _Frames) -> list[Difference]:
    """Frames dropped in one place and inserted in another have moved."""
    dropped = {_digest(a[each.original : each.original + each.count]): index
               for index, each in enumerate(differences) if each.kind == "dropped"}  # fmt: skip
    result: list[Difference | None] = list(differences)
    for index, each in enumerate(differences):
        if each.kind in {"inserted", "repeated"}:
            origin = dropped.pop(_digest(b[each.recording : each.recording + each.length]), None)
            if origin is not None:
                result[index] = None
                result[origin] = replace(differences[origin], kind="reordered", source=each.recording)
    return [each for each in result if each is not None]


def _digest(frames: _Frames) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=16).digest()
