"""Where the machine's sound goes: the backends that ``--audio`` chooses from, and the contract they keep."""

from devices.audio.base import AudioBackend, Playback
from devices.audio.null import NullSink
from devices.audio.pcm import PcmParams, SampleFormat
from devices.audio.spec import parse
from devices.audio.wav import WavSink

__all__ = ["AudioBackend", "NullSink", "PcmParams", "Playback", "SampleFormat", "WavSink", "parse"]
