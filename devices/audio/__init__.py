"""Where the machine's sound goes and comes from: the backends of ``--audio`` and their common contract."""

from devices.audio.base import AudioBackend, Capture, Period, Playback
from devices.audio.loopback import Loopback
from devices.audio.null import NullSink
from devices.audio.pcm import PcmParams, SampleFormat
from devices.audio.periodlog import PeriodLog
from devices.audio.spec import parse
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
