"""The log of a sound device's periods, one JSON object per line: lateness, and the clocks' drift.

    {"stream": 0, "direction": "playback", "due_ns": 21333333, "done_ns": 21350112, "host_ns": 90021350,
     "bytes": 4096, "fill": 12288}

``due_ns`` is the guest time at which the last frame of the period is due, ``done_ns`` that at which it was completed,
``host_ns`` the host's monotonic clock then; ``bytes`` is the size of its frames, ``fill`` what the guest still had
queued. devices/audio/periodlog.py writes it.
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from devices.errors import UsageError

__all__ = ["Period", "PeriodStatistics", "describe_periods", "read_log"]

_WARPED = 100_000  # ppm; no host clock is that far off


@dataclass(frozen=True, slots=True)
class Period:
    """One line of the log."""

    stream: int
    direction: str
    due_ns: int
    done_ns: int
    host_ns: int
    bytes: int
    fill: int

    @property
    def lateness_ns(self) -> int:
        """Guest time from when it was due until it was done; negative: early."""
        return self.done_ns - self.due_ns


@dataclass(frozen=True, slots=True)
class PeriodStatistics:
    """The statistics of one stream. Lateness is in ns of guest time."""

    stream: int
    direction: str
    periods: int
    #: Periods done before they were due: there must be none.
    early: int
    median: float
    p99: float
    max: float
    #: Breaks in the cadence: pauses, and times when the guest had nothing to play.
    breaks: int
    #: Bytes per second of guest time, not counting breaks; None if there is too little data.
    byte_rate: float | None
    #: How much faster the guest's clock ran than the host's, in ppm; None if there is too little data.
    guest_drift: float | None

    def __str__(self) -> str:
        periods = f"{self.periods} period{'s' if self.periods != 1 else ''}"
        late = f"late by {self.median / 1e6:.3f} ms (median), {self.p99 / 1e6:.3f} (p99), {self.max / 1e6:.3f} (most)"
        text = f"{self.direction} {self.stream}: {periods}, {self.early} early, {late}"
        if self.breaks:
            text += f"; {self.breaks} break{'s' if self.breaks != 1 else ''}"
        if self.byte_rate is not None:
            text += f"; {self.byte_rate:.2f} bytes/s"
        if self.guest_drift is not None:
            text += f"; guest time against host time {_against(self.guest_drift)}"
        return text


def _against(ppm: float) -> str:
    """A drift for people: under warp, guest time is many times as fast as the host's."""
    return f"{ppm:+.2f} ppm" if abs(ppm) < _WARPED else f"{1 + ppm / 1e6:.1f} to 1"


def read_log(path: str | os.PathLike[str]) -> list[Period]:
    """Read a log; raises UsageError. An incomplete last line (the writer was killed) is ignored."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a log of periods: it is not text") from None
    lines = text.split("\n")[:-1]
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse(line: str, where: str) -> Period:
    try:
        record = json.loads(line)
    except ValueError:
        raise UsageError(f"{where}: not JSON, so this is not a log of periods") from None
    values: dict[str, Any] = {}
    for field in fields(Period):
        value = record.get(field.name) if isinstance(record, dict) else None
        if type(value) is not field.type:
            kind = "string" if field.type is str else "whole number"
            raise UsageError(f"{where}: a {kind} {field.name!r} is missing, so this is not a record of a period")
        values[field.name] = value
    return Period(**values)


def describe_periods(log: list[Period]) -> list[PeriodStatistics]:
    """Statistics of each stream in the log, playback and capture separately, in order of appearance."""
    streams: dict[tuple[int, str], list[Period]] = {}
    for period in log:
        streams.setdefault((period.stream, period.direction), []).append(period)
    return [_describe(periods) for periods in streams.values()]


def _describe(periods: list[Period]) -> PeriodStatistics:
    lateness = np.array([period.lateness_ns for period in periods], np.float64)
    breaks, byte_rate = _cadence(periods)
    return PeriodStatistics(
        periods[0].stream,
        periods[0].direction,
        len(periods),
        int((lateness < 0).sum()),
        float(np.median(lateness)),
        float(np.percentile(lateness, 99, method="higher")),
        float(lateness.max()),
        breaks,
        byte_rate,
        _guest_drift(periods),
    )


def _cadence(periods: list[Period]) -> tuple[int, float | None]:
    """How often a period was not due exactly its length after the one before; and bytes per second elsewhere."""
    steps = np.diff([period.due_ns for period in periods])
    sizes = np.array([period.bytes for period in periods[1:]], np.float64)
    if not len(steps) or not sizes.all() or not np.median(steps) > 0:
        return 0, None
    usual = np.median(steps / sizes) * sizes
    # A period is due to the nanosecond, give or take the rounding.
    regular = np.abs(steps - usual) <= 0.001 * usual + 1000
    return int((~regular).sum()), float(sizes[regular].sum() / steps[regular].sum() * 1e9)


def _guest_drift(periods: list[Period]) -> float | None:
    """By regression of the guest time at which periods were done on the host's."""
    host: npt.NDArray[np.float64] = np.array([period.host_ns - periods[0].host_ns for period in periods], np.float64)
    guest = np.array([period.done_ns - periods[0].done_ns for period in periods], np.float64)
    host -= host.mean()
    if len(periods) < 3 or not host.any():
        return None
    # Regress the difference, which is small: the times themselves lose too many digits when squared.
    return float((host @ (guest - guest.mean() - host)) / (host @ host)) * 1e6
