"""Everything that can be said about one recording, as text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emu.analysis.defects import Defects, Repeat, find_defects, find_repeats
from emu.analysis.sound import Sound
from emu.analysis.tone import Tone, measure_tone, peak
from emu.terminal.progress import part, unseen

__all__ = ["Channel", "Report", "analyse"]

_SHOWN = 8
_TONE_SHARE = 0.3  # of the time a channel takes


@dataclass(frozen=True, slots=True)
class Channel:
    """What one channel holds."""

    #: Root mean square and highest sample, in dB relative to a full-scale sine and to full scale; -inf: silence.
    rms: float
    peak: float
    #: Set if it is a tone.
    tone: Tone | None
    defects: Defects
    #: Samples that are not numbers (floats only).
    not_finite: int = 0

    @property
    def is_silent(self) -> bool:
        """Whether every sample is 0."""
        return math.isinf(self.peak)

    @property
    def flawless(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.defects and not self.not_finite


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What ``analyse`` found. ``str`` gives a report of a few lines."""

    sound: Sound
    channels: tuple[Channel, ...]
    repeats: tuple[Repeat, ...]
    #: The frequency the tone should have, in Hz, if known.
    nominal: float | None = None

    @property
    def flawless(self) -> bool:
        """Whether there are no clicks, skips, dropouts or repeats. Silence is flawless, too."""
        return not self.repeats and all(channel.flawless for channel in self.channels)

    @property
    def drift(self) -> float | None:
        """The first tone's deviation from the nominal frequency, in ppm, if both are known."""
        tones = [channel.tone for channel in self.channels if channel.tone is not None]
        return tones[0].drift(self.nominal) if tones and self.nominal else None

    def faults(self, *, max_drift: float | None = None, max_thd_n: float | None = None) -> list[str]:
        """What is wrong, in words: defects; a tone that drifts more than ``max_drift`` ppm from the nominal frequency
        or has a THD+N above ``max_thd_n`` dB; no tone although there is a limit.
        """  # noqa: D205
        faults = [] if self.flawless else ["there are defects"]
        for number, channel in enumerate(self.channels, 1):
            tone, where = channel.tone, f"channel {number}"
            if tone is None:
                if max_drift is not None or max_thd_n is not None:
                    faults.append(f"{where} is not a tone")
                continue
            if max_thd_n is not None and tone.thd_n > 10 ** (max_thd_n / 20):
                faults.append(f"THD+N of {where} is above {max_thd_n:g} dB")
            if max_drift is not None and self.nominal and abs(tone.drift(self.nominal)) > max_drift:
                faults.append(f"the tone of {where} is off by more than {max_drift:g} ppm")
        return faults

    @property
    def lines(self) -> list[str]:
        """The report."""
        lines = [str(self.sound)]
        for number, channel in enumerate(self.channels, 1):
            lines.append(f"channel {number}: {self._describe(channel)}")
            lines += [f"  {line}" for line in self._defects(channel)]
        lines += _some([
            f"frames from {self._at(each.position)} on: {each.length} repeated from {each.distance} frames before"
            for each in self.repeats
        ])  # fmt: skip
        return lines

    def _describe(self, channel: Channel) -> str:
        if channel.is_silent:
            return "silence"
        levels = f"RMS {channel.rms:.2f} dBFS, peak {channel.peak:.2f} dBFS"
        if channel.tone is None:
            return f"no tone; {levels}"
        text = f"{channel.tone}; {levels}"
        if self.nominal:
            text += f"; {channel.tone.drift(self.nominal):+.2f} ppm from {self.nominal:g} Hz"
        return text

    def _defects(self, channel: Channel) -> list[str]:
        found = channel.defects
        lines = [] if channel.is_silent else [str(found)]
        if channel.not_finite:
            lines.append(f"{channel.not_finite} samples are not numbers")
        lines += _some([f"click at frame {self._at(position)}" for position in found.clicks])
        lines += _some([
            f"skip at frame {self._at(each.position)}: {abs(each.frames):.2f} frames "
            f"{'missing' if each.frames > 0 else 'too many'}, or whole cycles more"
            for each in found.skips
        ])  # fmt: skip
        return lines + _some([f"dropout at frame {self._at(each.position)}: {each.length} frames of silence"
                              for each in found.dropouts])  # fmt: skip

    def _at(self, position: int) -> str:
        return f"{position} ({position / self.sound.rate:.6f} s)"

    def __str__(self) -> str:
        return "\n".join(self.lines)


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def analyse(sound: Sound, nominal: float | None = None, progress: Callable[[float], None] = unseen) -> Report:
    """Measure a recording. ``nominal`` is the frequency its tone should have, in Hz.

    ``progress`` is called now and then with the share (0 to 1) of the work done.
    """
    each = 1 / sound.channels
    channels = tuple(_analyse_channel(sound, n, part(progress, n * each, each)) for n in range(sound.channels))
    # A tone repeats itself; its skips say more.
    tonal = any(channel.tone is not None for channel in channels)
    return Report(sound, channels, () if tonal else tuple(find_repeats(sound.frames)), nominal)


def _analyse_channel(sound: Sound, number: int, progress: Callable[[float], None]) -> Channel:
    samples = sound.samples(number)
    not_finite = int((~np.isfinite(sound.frames[:, number])).sum()) if sound.is_float else 0
    highest = peak(samples)
    if not highest:
        return Channel(-math.inf, -math.inf, None, Defects(), not_finite)
    rms = math.sqrt(float(np.dot(samples, samples)) / len(samples) * 2)
    tone = measure_tone(samples, sound.rate, part(progress, 0, _TONE_SHARE))
    radians = None if tone is None else tone.frequency * math.tau / sound.rate
    defects = find_defects(samples, sound.quantum, radians, part(progress, _TONE_SHARE, 1 - _TONE_SHARE))
    return Channel(20 * math.log10(rms), 20 * math.log10(highest), tone, defects, not_finite)
