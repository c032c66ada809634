"""Streams of sound as their backend sees them: states, each period, and the gaps between them."""

from collections.abc import Callable
from typing import Any, cast

from devices.audio import AudioBackend, Capture, PcmParams, Period, Playback
from devices.audio.base import Port
from devices.audio.forwarding import ForwardingBackend
from emu.trace.record import Detail, Emit

__all__ = ["LATE_NS", "watch_backend"]

#: A period that is later than that is called so, to be found at a glance. ALSA minds it from a period's length on.
LATE_NS = 2_000_000
#: By so much the reckoning of a period's beginning may be off: its end, and its duration, are rounded up (ns).
_ROUNDING_NS = 2


def watch_backend(backend: AudioBackend, emit: Emit, now: Callable[[], int]) -> AudioBackend:
    """Return ``backend`` as the sound device is to see it."""
    return _WatchedBackend(backend, emit, now)


class _WatchedBackend(ForwardingBackend):
    def __init__(self, backend: AudioBackend, emit: Emit, now: Callable[[], int]) -> None:
        super().__init__(backend)
        self._emit, self._now = emit, now
        self._ports: dict[tuple[str, int], _WatchedPort] = {}

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        port = super().open_playback(stream, params)
        return cast("Playback", self._watch("playback", stream, params, port))

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        port = super().open_capture(stream, params)
        return cast("Capture", self._watch("capture", stream, params, port))

    def _watch(self, direction: str, stream: int, params: PcmParams, port: Port) -> "_WatchedPort":
        watched = _WatchedPort(f"{direction} {stream}", port, params, self._emit, self._now)
        self._ports[direction, stream] = watched
        return watched

    def observe(self, period: Period) -> None:
        self._ports[period.direction, period.stream].completed(period)
        super().observe(period)


class _WatchedPort:
    """One stream's port, from PREPARE to RELEASE. What is not here is the port's own."""

    def __init__(self, track: str, port: Port, params: PcmParams, emit: Emit, now: Callable[[], int]) -> None:
        self._track, self._port, self._params, self._emit_record, self._now = track, port, params, emit, now
        self._started: int | None = None
        self._over: int | None = None  # when the last period was, since it was started
        self._emit("prepared", {"format": str(params)})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def start(self) -> None:
        self._started, self._over = self._now(), None
        self._emit("started", {})
        self._port.start()

    def stop(self) -> None:
        self._port.stop()
        self._emit("running", {"until": "stopped"}, self._started)

    def close(self) -> None:
        self._port.close()
        self._emit("released", {})

    def skip(self, size: int) -> None:
        cast("Capture", self._port).skip(size)
        if self._started is not None:  # before, it is a restored machine's way to where it was
            self._emit("overrun", {"lost_bytes": size})

    def completed(self, period: Period) -> None:
        """Report a period, and the gap before it."""
        direction, _, due, done, size, fill, again = period
        began = due - self._params.duration_ns(size // self._params.frame_size)
        if self._over is None:
            began = max(began, self._started or 0)  # the rest of one that STOP had cut short
        elif began <= self._over + _ROUNDING_NS or direction == "capture":
            began = self._over  # recording goes on without a period to record to
        else:
            self._emit("underrun", {}, self._over, began)
        late = done - due
        name = "period" if late < LATE_NS else "late period"
        detail: Detail = {"late_us": late / 1000, "bytes": size, "fill": fill}
        if again:
            name, detail = "repeated period", {**detail, "again": True}
        self._emit(name, detail, began, due)
        self._over = due

    def _emit(self, name: str, detail: Detail, since: int | None = None, until: int | None = None) -> None:
        self._emit_record("snd", self._track, name, detail, since=since, until=until)
