"""devices/audio/null.py."""

from devices.audio import NullSink
from devices.audio.pcm import FORMATS, PcmParams


def test_it_counts_frames_of_whatever_kind():
    sink = NullSink()
    sink.open_playback(0, PcmParams(FORMATS["S16"], 48000, 2)).write(bytes(40))
    sink.open_playback(0, PcmParams(FORMATS["FLOAT64"], 48000, 8)).write(bytes(128))
    assert sink.played == 12
    assert sink.summary() == []
    sink.close()
