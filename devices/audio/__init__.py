"""Where the machine's sound goes and comes from: the backends of ``--audio`` and their common contract.

Backends are loaded when they are used first; a machine starts with one of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from devices.audio.base import AudioBackend, Capture, Period, Playback
from devices.audio.null import NullSink
from devices.audio.pcm import PcmParams, SampleFormat
from devices.audio.spec import parse

if TYPE_CHECKING:
    from devices.audio.loopback import Loopback
    from devices.audio.periodlog import PeriodLog
    from devices.audio.wav import WavSink

__all__ = [
    "AudioBackend",
    "Capture",
    "Loopback",
    "NullSink",
    "PcmParams",
    "Period",
    "PeriodLog",
    "Playback",
    "SampleFormat",
    "WavSink",
    "parse",
]

_HOME = {"Loopback": "loopback", "PeriodLog": "periodlog", "WavSink": "wav"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
