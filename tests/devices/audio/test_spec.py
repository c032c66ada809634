"""devices/audio/spec.py: what --audio accepts."""

import pytest

from devices.audio import Loopback, NullSink, PeriodLog, WavSink, parse
from devices.audio.auto import AutoAudio
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from devices.errors import UsageError


@pytest.fixture
def recording(tmp_path):
    file = WavFile(tmp_path / "in.wav", PcmParams(FORMATS["S16"], 48000, 2))
    file.close()
    return file.path


def test_null():
    assert isinstance(parse("null"), NullSink)


def test_wav_takes_the_rest_as_the_path(tmp_path):
    path = tmp_path / "a:b=c.wav"
    sink = parse(f"wav:{path}")
    assert isinstance(sink, WavSink)
    assert sink.path == path
    sink.close()


def test_wav_records_from_a_file(tmp_path, recording):
    sink = parse(f"wav:{tmp_path}/out.wav,in={recording}")
    assert sink.source.path == recording
    sink.close()


@pytest.mark.parametrize(("size", "kept"), [("1k", 1024), ("1023", 0)])
def test_wav_keeps_at_most_max_bytes(tmp_path, size, kept):
    sink = parse(f"wav:{tmp_path}/out.wav,max={size}")
    sink.open_playback(0, PcmParams(FORMATS["U8"], 8000, 1)).write(bytes(1024))
    sink.close()
    assert sink.played - sink.lost == kept


def test_wav_continues_if_it_should(tmp_path):
    for option in ("", ",continue,max=1k", ",continue"):
        sink = parse(f"wav:{tmp_path}/out.wav{option}")
        sink.open_playback(0, PcmParams(FORMATS["U8"], 8000, 1)).write(b"abc")
        sink.close()
    assert sink.frames.tobytes() == b"abcabcabc"


@pytest.mark.parametrize(("text", "frames"), [("loopback", 4800), ("loopback:0", 0), ("loopback:96000", 96000)])
def test_loopback(text, frames):
    loopback = parse(text)
    assert isinstance(loopback, Loopback)
    assert loopback.frames == frames


@pytest.mark.parametrize("kind", ["null", "loopback", "wav"])
@pytest.mark.parametrize(("text", "streams"), [("", (1, 1)), (",streams=3+2", (3, 2)), (",streams=0+8", (0, 8))])
def test_any_backend_has_as_many_streams_as_it_should(kind, text, streams, tmp_path):
    backend = parse(f"wav:{tmp_path}/out.wav{text}" if kind == "wav" else kind + text)
    assert backend.streams == streams
    backend.close()


def test_any_backend_may_keep_a_log(tmp_path):
    backend = parse(f"loopback:7,streams=2+1,log={tmp_path}/log.jsonl")
    assert isinstance(backend, PeriodLog)
    assert isinstance(backend.backend, Loopback)
    assert (backend.streams, backend.path) == ((2, 1), tmp_path / "log.jsonl")
    backend.close()


def test_without_its_log_a_backend_is_closed(tmp_path):
    with pytest.raises(UsageError, match="cannot write the record of periods"):
        parse(f"wav:{tmp_path}/out.wav,log={tmp_path}/no/log.jsonl")
    parse(f"wav:{tmp_path}/out.wav").close()  # otherwise it would be locked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no such backend"),
        ("nul", "no such backend"),
        ("null:", "no such backend"),
        ("wav", "name of the file is missing"),
        ("wav:", "name of the file is missing"),
        ("wav:,x", "name of the file is missing"),
        ("wav:a.wav,in=b.wav", "cannot record from b.wav: No such file"),
        ("wav:a.wav,in=", "in= needs one value"),
        ("wav:a.wav,in", "unknown option 'in'"),
        ("wav:a.wav,continue=", "unknown option 'continue='; there are in=, log=, max=, streams=, continue"),
        ("wav:a.wav,continue,continue", "continue is there twice"),
        ("null,continue", "unknown option 'continue'"),
        ("wav:a.wav,max=much", "max=much: use a size, like 500M"),
        ("wav:a.wav,max=0", "max=0: use a size, like 500M"),
        ("null,in=b.wav", "unknown option 'in=b.wav'"),
        ("loopback,frames=3", "unknown option 'frames=3'"),
        ("loopback:", "no such backend"),
        ("loopback:x", "use a number of frames"),
        ("loopback:-1", "use a number of frames"),
        ("loopback:3840001", "use a number of frames, at most 3840000"),
        ("loopback:" + 5000 * "9", "use a number of frames"),
        ("null,streams=", "streams= needs one value"),
        ("null,streams=1", "use OUT[+]IN"),
        ("null,streams=1+", "use OUT[+]IN"),
        ("null,streams=1+2+3", "use OUT[+]IN"),
        ("null,streams=9+1", "use OUT[+]IN, like 2[+]1, at most 8 of each"),
        ("null,streams=-1+1", "use OUT[+]IN"),
        ("null,streams=1+1,streams=1+1", "streams= needs one value"),
        ("wav:a.wav,streams=x,log=b", "use OUT[+]IN"),
        ("wav:a,b.wav", "unknown option 'b.wav'"),
    ],
)
def test_nonsense_is_reported_in_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        parse(text)
    assert not list(tmp_path.iterdir())


def test_auto_looks_for_the_hosts_devices_later():
    auto = parse("auto,latency=20ms,streams=2+1")
    auto.close()
    assert isinstance(auto, AutoAudio)
    assert (auto.part_ns, auto.streams) == (4_000_000, (2, 1))


def test_on_a_warping_clock_auto_is_null_and_host_makes_no_sense():
    assert isinstance(parse("auto,latency=20ms,streams=2+1", real_time=False), NullSink)
    with pytest.raises(UsageError, match="--clock host"):
        parse("host", real_time=False)


@pytest.mark.parametrize("kind", ["host", "auto"])
def test_latency_is_checked_before_anything_is_opened(kind):
    with pytest.raises(UsageError, match="latency=1h"):
        parse(f"{kind},latency=1h")
