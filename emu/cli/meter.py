"""The meter: how loud, how late and how busy the machine is, in one line that is redrawn all the time.

A small thread asks the machine to draw it eight times a second; all else happens on the machine's thread.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from devices.audio import PcmParams
from devices.audio.samples import decode
from emu.counters import Counters
from emu.machine import Machine
from emu.terminal.statusline import StatusLine

__all__ = ["Levels", "Meter", "describe"]

_INTERVAL_S = 0.125
#: How many draws the CPU usage is averaged over.
_SMOOTH = 8
#: The bar's left end, in dB of full scale, and its greatest width.
_LEAST_DB = -60.0
_WIDEST = 24
#: A sound is over once nothing has followed its newest period for this long (ns, guest time) beyond that one's length.
_OVER_NS = 300_000_000


class Levels:
    """A tap that keeps the newest period played, and measures it only on demand."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._newest: tuple[PcmParams, bytes] | None = None
        self._until = 0

    def record(self, _stream: int, params: PcmParams, data: bytes) -> None:
        """Take frames of ``params`` that a stream has played."""
        self._newest = params, data
        self._until = self._now() + params.duration_ns(len(data) // params.frame_size) + _OVER_NS

    def peaks(self) -> list[float]:
        """Return each channel's peak at the end of the newest period, full scale being 1.0; empty if it is over."""
        if self._newest is None or self._now() > self._until:
            return []
        params, data = self._newest
        recent = round(params.rate * _INTERVAL_S) * params.frame_size
        planes = decode(data[-recent:], params)
        return [float(max(plane.max(), -plane.min())) for plane in planes]


class Meter:
    """While entered, shows on ``line`` what the attached machine does."""

    def __init__(self, line: StatusLine) -> None:
        self._line = line
        self._machine: Machine | None = None
        self._levels: Levels | None = None
        self._asked: Machine | None = None  # who is going to draw it
        self._skew = 0  # of the clocks when the machine started, which took time
        self._processor: deque[tuple[float, float]] = deque(maxlen=_SMOOTH)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="pyemu meter", daemon=True)

    def attach(self, machine: Machine) -> None:
        """Show what ``machine`` does from now on."""
        if self._machine is None:
            self._line.handle_signals()
        self._levels = Levels(machine.clock.now)
        machine.audio.taps.append(self._levels)
        self._skew = machine.counters.skew_ns
        self._machine = machine

    def _ask(self) -> None:
        while not self._closed.wait(_INTERVAL_S):
            machine = self._machine
            if machine is not None and machine is not self._asked:  # after a reset, not the one before
                self._asked = machine
                machine.post(self._draw)

    def _draw(self) -> None:
        self._asked = None
        machine, levels = self._machine, self._levels
        assert machine is not None
        assert levels is not None
        self._processor.append((time.monotonic(), time.process_time()))
        (began, before), (now, processor) = self._processor[0], self._processor[-1]
        share = (processor - before) / (now - began) if now > began else 0.0
        self._line.show(lambda columns: describe(machine.counters, self._skew, levels.peaks(), share, columns))

    def __enter__(self) -> Self:
        self._line.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()
        self._line.__exit__(kind, value, traceback)


def describe(counters: Counters, skew: int, peaks: list[float], processor: float, columns: int) -> str:
    """Return the line, in ``columns`` characters or more if it cannot be shorter; bars fill what is left.

    ``skew`` (ns) is the clocks' skew when the machine started, ``processor`` the share of a core in use.
    """
    minutes, seconds = divmod(counters.guest_ns / 1e9, 60)
    rest = (
        f"  xruns {counters.underruns + counters.overruns}  skew {(counters.skew_ns - skew) / 1e9:+.3f} s"
        f"  cpu {100 * processor:4.1f} %"
    )
    levels = [20 * math.log10(peak) if peak > 0 else -math.inf for peak in peaks]
    names = {1: "M", 2: "LR"}.get(len(levels), "12345678")
    texts = [f"{name} {level:5.1f} dB" for name, level in zip(names, levels, strict=False)] or ["silent"]
    head = f" {minutes:.0f}:{seconds:04.1f}"
    room = (columns - len(head) - len(rest) - sum(len(text) + 2 for text in texts)) // max(len(levels), 1) - 1
    width = min(room, _WIDEST)
    if levels and width > 2:
        texts = [f"{text} {_bar(level, width)}" for text, level in zip(texts, levels, strict=True)]
    return "  ".join([head, *texts]) + rest


def _bar(level: float, width: int) -> str:
    full = round(width * min(max(1 - level / _LEAST_DB, 0.0), 1.0))
    return "#" * full + "-" * (width - full)
