"""The host's sound devices, through PortAudio: finding, opening, listing, and telling whether one works.

All of this may wait for the host's sound system, so once the machine runs it is never called on the machine's thread.
PortAudio is loaded on first use.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from devices.audio.host.play import HostStats, Tick
from devices.audio.host.ring import Frames
from devices.errors import MissingPackageError, UsageError

__all__ = ["CardSpec", "OpenCard", "find_card", "list_cards", "load_portaudio"]

_INSTALL = (
    "PortAudio is not installed: apt-get install libportaudio2 (Debian, Ubuntu), dnf install portaudio (Fedora), "
    "brew install portaudio (macOS)"
)
#: A new stream may get its first buffers at once and then pause: an idle PulseAudio server sleeps for two seconds.
_WARM_UP = 2.5
_STANDSTILL = 1.5
_PROVEN = 1.0
#: A device that gets this far (s) ahead of time within a window of this length (s) is not a real sound card.
_WILD = 2.0
_WILD_WINDOW = 5.0
_RATE = 48000


class CardSpec(NamedTuple):
    """A device and how to open it."""

    number: int
    name: str
    rate: int
    channels: int
    kind: str  # "output" or "input"


def load_portaudio() -> Any:
    """Import sounddevice; raises MissingPackageError."""
    try:
        import sounddevice  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError("the Python package sounddevice is missing: pip install sounddevice") from error
    except OSError as error:
        raise MissingPackageError(_INSTALL) from error
    except Exception as error:
        # PortAudio itself cannot start: its exception cannot be named before the import has succeeded.
        raise UsageError(f"PortAudio does not start: {error}") from error
    _quieten_alsa()
    return sounddevice


_ALSA_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)
_say_nothing = _ALSA_HANDLER(lambda *_: None)


def _quieten_alsa() -> None:
    """Keep libasound from complaining on the user's terminal about missing devices; PortAudio reports them too."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(_say_nothing)


def find_card(portaudio: Any, name: str, kind: str) -> CardSpec:
    """Find a device by number, name or part of a name ("": the default one); raises UsageError."""
    infos = list(portaudio.query_devices())
    usable = [(i, info) for i, info in enumerate(infos) if info[f"max_{kind}_channels"] > 0]
    if not usable:
        raise UsageError(f"the host has no sound {kind}; see pyemu audio list")
    if not name:
        default = _default(portaudio, kind)
        found = [each for each in usable if each[0] == default] or usable[:1]
    else:
        found = (
            [each for each in usable if name in (str(each[0]), each[1]["name"])]
            or [each for each in usable if name.lower() in each[1]["name"].lower()]
        )  # fmt: skip
    if not found:
        raise UsageError(f"the host has no sound {kind} {name!r}; see pyemu audio list")
    if len(found) > 1:
        names = ", ".join(f"{i} ({info['name']})" for i, info in found)
        raise UsageError(f"several sound {kind}s are called {name!r}: {names}; use the number")
    index, info = found[0]
    channels = min(2, info[f"max_{kind}_channels"])
    return CardSpec(index, info["name"], _rate(portaudio, index, info, channels, kind), channels, kind)


def _default(portaudio: Any, kind: str) -> int:
    return int(portaudio.default.device[0 if kind == "input" else 1])


def _rate(portaudio: Any, index: int, info: Any, channels: int, kind: str) -> int:
    """ALSA's devices always claim 44100; elsewhere the default is what the hardware runs at."""
    default: int = round(info["default_samplerate"])
    if portaudio.query_hostapis(info["hostapi"])["name"] != "ALSA":
        return default
    check = portaudio.check_output_settings if kind == "output" else portaudio.check_input_settings
    try:
        check(device=index, channels=channels, dtype="float32", samplerate=_RATE)
    except portaudio.PortAudioError:
        return default
    return _RATE


def list_cards(portaudio: Any) -> list[str]:
    """Describe the host's sound devices, one line each."""
    lines = []
    for index, info in enumerate(portaudio.query_devices()):
        uses = [kind for kind in ("output", "input") if info[f"max_{kind}_channels"] > 0]
        if not uses:
            continue
        api = portaudio.query_hostapis(info["hostapi"])["name"]
        defaults = [kind for kind in uses if _default(portaudio, kind) == index]
        default = f"  (default {' and '.join(defaults)})" if defaults else ""
        lines.append(f"{index:3}  {info['name']}  [{api}; {' and '.join(uses)}]{default}")
    return lines


class OpenCard:
    """An open device: ``transfer`` is called with its buffer, (frame, channel), and the time at which it is heard.

    Raises PortAudio's error if the device does not open.
    """

    def __init__(
        self,
        portaudio: Any,
        spec: CardSpec,
        transfer: Callable[[Frames, Tick], None],
        *,
        latency: float,
        stats: HostStats,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self._abort = portaudio.CallbackAbort
        self._error = portaudio.PortAudioError
        self._transfer = transfer
        self._stats = stats
        self._monotonic = monotonic
        self._opened = self._called = self._window = monotonic()
        self._ahead = 0.0  # seconds of frames since the window began
        self._wild = False
        self._offset: float | None = None  # of the stream's clock from the monotonic one
        kind = portaudio.RawOutputStream if spec.kind == "output" else portaudio.RawInputStream
        self._stream = kind(
            device=spec.number,
            samplerate=spec.rate,
            channels=spec.channels,
            dtype="float32",
            latency=latency,
            callback=self._callback,
        )
        try:
            self._stream.start()
        except BaseException:
            self._stream.close()
            raise

    @property
    def is_proven(self) -> bool:
        """Whether it has been open long enough to be known to work."""
        return self._monotonic() - self._opened > _PROVEN

    def fault(self) -> str | None:
        """Say what is wrong with it: "wild", "gone", or nothing."""
        if self._wild:
            return "wild"
        try:
            now = self._monotonic()
            self._offset = now - self._stream.time
            active = self._stream.active
        except self._error:
            return "gone"
        allowed = _WARM_UP if now - self._opened < _WARM_UP else _STANDSTILL
        return None if active and now - self._called <= allowed else "gone"

    def close(self) -> None:
        """Close it at once, discarding what is still to be played."""
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)

    # PortAudio's thread: an exception would end it.

    def _callback(self, buffer: Any, frames: int, times: Any, status: Any) -> None:
        now = self._monotonic()
        self._called = now
        if status:
            self._stats.late += 1
        try:
            data = np.frombuffer(buffer, np.float32).reshape(frames, self.spec.channels)
            if self.spec.kind == "output":
                data.fill(0.0)
            self._transfer(data, Tick(now, self._when(now, times), frames))
        except Exception:  # noqa: BLE001
            self._stats.errors += 1
        self._check_pace(now, frames)

    def _when(self, now: float, times: Any) -> float:
        """Monotonic time at which the buffer's first frame is heard or was recorded."""
        when = times.outputBufferDacTime if self.spec.kind == "output" else times.inputBufferAdcTime
        current = times.currentTime
        if not when or not current or abs(when - current) > 2.0:  # not every host API can tell
            latency: float = self._stream.latency
            return now + latency if self.spec.kind == "output" else now - latency
        offset = self._offset
        return float(when) + (offset if offset is not None else now - float(current))

    def _check_pace(self, now: float, frames: int) -> None:
        if now - self._window > _WILD_WINDOW:
            self._window, self._ahead = now, 0.0
        self._ahead += frames / self.spec.rate
        if self._ahead - (now - self._window) > _WILD:
            self._wild = True
            raise self._abort
