"""devices/audio/spec.py: what --audio may say."""

import pytest

from devices.audio import NullSink, WavSink, parse
from emu.errors import UsageError


def test_null():
    assert isinstance(parse("null"), NullSink)


def test_wav_takes_the_rest_as_the_path(tmp_path):
    path = tmp_path / "a:b=c.wav"
    sink = parse(f"wav:{path}")
    assert isinstance(sink, WavSink)
    assert sink.path == path
    sink.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no such backend"),
        ("nul", "no such backend"),
        ("null:", "no such backend"),
        ("wav", "name of the file is missing"),
        ("wav:", "name of the file is missing"),
        ("wav:,x", "name of the file is missing"),
        ("wav:a.wav,in=b.wav", "not available yet"),
        ("wav:a,b.wav", "unknown option 'b.wav'"),
        ("host", "not available yet; use null or wav:OUT.wav"),
    ],
)
def test_nonsense_is_told_in_a_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        parse(text)
    assert not list(tmp_path.iterdir())
