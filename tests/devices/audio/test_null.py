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


def test_silence_is_the_middle_of_a_formats_range():
    read = {name: NullSink().open_capture(0, PcmParams(FORMATS[name], 48000, 1)).read(24) for name in FORMATS}
    assert read["U8"] == b"\x80" * 24
    assert read["U16"] == b"\x00\x80" * 12
    assert read["U32"] == b"\x00\x00\x00\x80" * 6
    assert {read[name] for name in FORMATS if name[0] != "U"} == {bytes(24)}
