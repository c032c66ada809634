"""A recording as a picture for a bug report: waveform, spectrogram, its first defect close up, and the periods' timing.

Drawn by matplotlib, from the extra ``plot``. The same input gives the same file.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from devices.errors import MissingPackageError, UsageError
from emu.analysis.periods import Period, describe_periods
from emu.analysis.report import Report

__all__ = ["check_installed", "plot"]

_SIZE, _DPI = (12, 9), 100  # 1200 x 900 pixels
_COLUMNS = 1200  # of the waveform's envelope and the spectrogram
_QUIETEST = -120  # dB, of the spectrogram's colours
_CLOSE_UP = 64  # frames on either side of a defect
_CHANNEL_COLOURS = (
    "tab:blue",
    "tab:orange",
    "tab:green",
    "tab:purple",
    "tab:brown",
    "tab:pink",
    "tab:olive",
    "tab:cyan",
)
#: Kind, channel (-1: all), position and length.
_Defect = tuple[str, int, int, int]
_DEFECT_COLOURS = {"click": "red", "skip": "magenta", "dropout": "darkorange", "repeat": "black"}


def check_installed() -> None:
    """Raise MissingPackageError without matplotlib: call this before measuring the sound, which takes a while."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("pictures need matplotlib: pip install 'pyemu-riscv[plot]'")


def plot(report: Report, path: str | os.PathLike[str], log: Sequence[Period] = ()) -> None:
    """Draw ``report`` into ``path``, whose suffix gives the format: png, svg, pdf.

    The periods of the sound in ``log``, if any, are drawn too. Raises MissingPackageError without matplotlib,
    UsageError if the file cannot be written.
    """
    check_installed()
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import, and an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    defects = list(_defects(report))
    firsts = _first_of_each_kind(defects)
    columns = max(len(firsts), 1)
    rows = [["waveform"] * columns, ["spectrogram"] * columns]
    rows += [[kind for kind, *_ in firsts]] if firsts else []
    rows += [["periods"] * columns] if log else []
    figure = Figure(_SIZE, _DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes: dict[str, Any] = figure.subplot_mosaic(rows)
    _draw_waveform(axes["waveform"], report, defects)
    _draw_spectrogram(axes["spectrogram"], report, defects)
    for defect in firsts:
        _draw_close_up(axes[defect[0]], report, defect)
    if log:
        _draw_periods(axes["periods"], log)
    for each in axes.values():
        each.title.set_fontsize(10)
    figure.suptitle(_title(report), fontsize=11, x=0.01, ha="left", family="monospace")
    _save(figure, Path(path))


def _save(figure: Any, path: Path) -> None:
    try:
        # No date or version in the file.
        figure.savefig(path, metadata={"Software": None} if path.suffix in {"", ".png"} else None)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    except ValueError:
        raise UsageError(f"{path}: {path.suffix or 'no suffix'} is not a picture format; use .png") from None


def _title(report: Report) -> str:
    lines = [f"{report.sound.name}: {report.sound}"]
    for number, channel in enumerate(report.channels[:2], 1):
        what = "silence" if channel.is_silent else channel.tone or f"RMS {channel.rms:.2f} dBFS"
        lines.append(f"channel {number}: {what}; {channel.defects}")
    if len(report.channels) > 2:
        lines[-1] += f" (and {len(report.channels) - 2} channels more)"
    return "\n".join(line if len(line) <= 150 else line[:149] + "…" for line in lines)


def _defects(report: Report) -> Iterator[_Defect]:
    for number, channel in enumerate(report.channels):
        found = channel.defects
        yield from (("click", number, position, 1) for position in found.clicks)
        yield from (("skip", number, skip.position, 1) for skip in found.skips)
        yield from (("dropout", number, dropout.position, dropout.length) for dropout in found.dropouts)
    yield from (("repeat", -1, repeat.position, repeat.length) for repeat in report.repeats)


def _first_of_each_kind(defects: list[_Defect]) -> list[_Defect]:
    """At most three kinds, in order of appearance."""
    firsts: dict[str, _Defect] = {}
    for defect in sorted(defects, key=lambda defect: defect[2]):
        firsts.setdefault(defect[0], defect)
    return list(firsts.values())[:3]


def _envelope(samples: npt.NDArray[np.float64], rate: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Times, and a line through the lowest and highest sample of each column."""
    if len(samples) <= 2 * _COLUMNS:
        return np.arange(len(samples)) / rate, samples
    edges = np.linspace(0, len(samples), _COLUMNS + 1).astype(int)[:-1]
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    return np.repeat(edges, 2) / rate, np.column_stack((low, high)).reshape(-1)


def _draw_waveform(axes: Any, report: Report, defects: list[_Defect]) -> None:
    sound = report.sound
    for number in range(sound.channels):
        time, line = _envelope(sound.samples(number), sound.rate)
        colour = _colour(number)
        axes.plot(time, line, color=colour, linewidth=0.7, alpha=0.75, label=f"channel {number + 1}")
    _mark(axes, sound.rate, defects, top=True)
    axes.set(title="Waveform", xlabel="time (s)", ylabel="full scale = 1", xlim=(0, max(sound.seconds, 1e-3)))
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _colour(number: int) -> str:
    return _CHANNEL_COLOURS[number % len(_CHANNEL_COLOURS)]


def _mark(axes: Any, rate: int, defects: list[_Defect], *, top: bool) -> None:
    """A triangle at each defect, at the top of the waveform or the spectrogram."""
    height = 1.0 if top else 0.02
    for kind, colour in _DEFECT_COLOURS.items():
        places = sorted({position / rate for each, _, position, _ in defects if each == kind})
        if places:
            axes.plot(places, [height] * len(places), linestyle="none", marker="v" if top else "^", markersize=8,
                      color=colour, transform=axes.get_xaxis_transform(), clip_on=False,
                      label=f"{kind} ({len(places)})")  # fmt: skip


def _draw_spectrogram(axes: Any, report: Report, defects: list[_Defect]) -> None:
    sound = report.sound
    axes.set(title="Spectrogram (all channels)", xlabel="time (s)", ylabel="frequency (kHz)")
    size = min(2048, len(sound.frames) & ~1)
    if size < 16:
        axes.text(0.5, 0.5, "too short", transform=axes.transAxes, ha="center")
        return
    starts = np.linspace(0, len(sound.frames) - size, min(_COLUMNS, len(sound.frames) - size + 1)).astype(int)
    power = np.zeros((size // 2 + 1, len(starts)))
    window = np.hanning(size)
    for number in range(sound.channels):
        pieces = np.lib.stride_tricks.sliding_window_view(sound.samples(number), size)[starts]
        power += np.square(np.abs(np.fft.rfft(pieces * window, axis=1)).T * 2 / window.sum())
    decibels = 10 * np.log10(np.maximum(power / sound.channels, 1e-30))
    image = axes.imshow(decibels, origin="lower", aspect="auto", cmap="magma", vmin=_QUIETEST, vmax=0,
                        extent=(0, sound.seconds, 0, sound.rate / 2000), interpolation="nearest")  # fmt: skip
    _mark(axes, sound.rate, defects, top=False)
    axes.set(xlim=(0, sound.seconds), ylim=(0, sound.rate / 2000))
    axes.figure.colorbar(image, cax=axes.inset_axes((1.01, 0, 0.015, 1)), label="dBFS")


def _draw_close_up(axes: Any, report: Report, defect: _Defect) -> None:
    sound = report.sound
    kind, channel, position, length = defect
    start = max(position - _CLOSE_UP, 0)
    end = min(position + min(length, 8 * _CLOSE_UP) + _CLOSE_UP, len(sound.frames))
    number = max(channel, 0)
    axes.plot(np.arange(start, end) - position, sound.samples(number)[start:end], marker=".", markersize=4,
              linewidth=0.8, color=_colour(number))  # fmt: skip
    axes.axvspan(-0.5, min(length, end - position) - 0.5, color=_DEFECT_COLOURS[kind], alpha=0.25)
    axes.set(title=f"First {kind}: frame {position}, channel {number + 1}", xlabel="frames from there",
             xlim=(start - position, end - 1 - position))  # fmt: skip
    axes.grid(alpha=0.3)


def _draw_periods(axes: Any, log: Sequence[Period]) -> None:
    first = min(period.due_ns for period in log)
    for number, statistics in enumerate(describe_periods(list(log))):
        own = [each for each in log if (each.stream, each.direction) == (statistics.stream, statistics.direction)]
        due = np.array([period.due_ns - first for period in own]) / 1e9
        late = np.array([period.lateness_ns for period in own]) / 1e6
        colour = _colour(number)
        axes.plot(due, late, linestyle="none", marker=".", markersize=3, color=colour,
                  label=f"{statistics.direction} {statistics.stream}: median {statistics.median / 1e6:.2f}, "
                        f"p99 {statistics.p99 / 1e6:.2f}, most {statistics.max / 1e6:.2f} ms; "
                        f"{statistics.early} early")  # fmt: skip
        axes.plot(due[late < 0], late[late < 0], linestyle="none", marker="x", color="red")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title="Periods: how late each was completed", xlabel="guest time since the first (s)", ylabel="late (ms)")
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
