"""Interrupts, from the device's line to the guest's completion.

A source is *pending* from when its line rises until it is claimed (or the line falls), then *in service* until it is
completed. If the line is still high, it is then pending again.
"""

from collections.abc import Callable

from devices.contracts import IrqLine
from devices.plic import CLAIM_COMPLETE, CONTEXT_BASE, CONTEXT_STRIDE, Plic
from emu.joints import Read, Write
from emu.trace.record import Detail, Emit

__all__ = ["Irqs"]

_CONTEXTS = ("M mode", "S mode")


class _Source:
    """One interrupt source, seen from outside the PLIC."""

    def __init__(self, track: str, emit: Emit, now: Callable[[], int]) -> None:
        self._track, self._emit, self._now = track, emit, now
        self._high = False
        self._pending: int | None = None  # since when
        self._claimed: int | None = None

    def set_level(self, level: bool) -> None:
        if level is self._high:
            return
        self._high = level
        if level and self._claimed is None:
            self._raised()
        elif self._pending is not None:
            self._end("pending", self._pending, {"until": "lowered"})
            self._pending = None

    def claim(self, context: int) -> None:
        if self._pending is not None:
            self._end("pending", self._pending, {"until": "claimed", "by": _CONTEXTS[context % 2]})
        self._pending = None
        self._claimed = self._now()

    def complete(self) -> None:
        if self._claimed is None:
            return
        self._end("in service", self._claimed, {"until": "completed"})
        self._claimed = None
        if self._high:
            self._raised()

    def _raised(self) -> None:
        self._pending = self._now()
        self._emit("plic", self._track, "raised", {})

    def _end(self, name: str, since: int, detail: Detail) -> None:
        self._emit("plic", self._track, name, detail, since=since)


class Irqs:
    """All interrupt sources."""

    def __init__(self, emit: Emit, now: Callable[[], int]) -> None:
        self._emit, self._now = emit, now
        self._sources: dict[int, _Source] = {}

    def line(self, source: int, name: str, line: IrqLine) -> IrqLine:
        """Watch the line of a device."""
        watched = self._sources[source] = _Source(f"irq {source} {name}", self._emit, self._now)

        def set_level(level: bool) -> None:
            watched.set_level(level)
            line(level)

        return set_level

    def registers(self, plic: Plic) -> tuple[Read, Write]:
        """Watch claims and completions."""

        def read(offset: int, size: int) -> int:
            value = plic.read(offset, size)
            if value and offset >= CONTEXT_BASE and offset % CONTEXT_STRIDE == CLAIM_COMPLETE:
                source = self._sources.get(value)
                if source is not None:
                    source.claim((offset - CONTEXT_BASE) // CONTEXT_STRIDE)
            return value

        def write(offset: int, size: int, value: int) -> None:
            if offset >= CONTEXT_BASE and offset % CONTEXT_STRIDE == CLAIM_COMPLETE:
                source = self._sources.get(value)
                if source is not None:
                    source.complete()
            plic.write(offset, size, value)

        return read, write
