"""devices/audio/wav.py: which sound goes to which file, and what happens when one cannot be written."""

import contextlib
import logging
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from devices.audio import NullSink, wavfile
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wav import WavSink
from devices.audio.wavfile import WavFile
from devices.errors import UsageError
from tests.devices.audio.wav_reader import read_wav

S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)
U8_MONO = PcmParams(FORMATS["U8"], 8000, 1)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.wav"


@pytest.fixture
def sink(path):
    sink = WavSink(path)
    yield sink
    sink.close()


def play(sink, params, *pieces):
    playback = sink.open_playback(0, params)
    playback.start()
    for piece in pieces:
        playback.write(piece)
    playback.stop()
    playback.close()


def test_without_sound_the_file_is_valid_and_the_summary_says_so(sink, path):
    sink.close()
    assert read_wav(path).frames == 0
    assert sink.summary() == [f"{path}: nothing was played"]
    assert len(sink.frames) == 0


def test_a_stream_that_plays_nothing_makes_no_file(sink, path):
    play(sink, U8_MONO)
    play(sink, S16_STEREO, b"abcd")
    assert [file.path for file in sink.files] == [path]
    assert read_wav(path).data == b"abcd"


def test_the_first_sound_decides_what_the_file_holds(sink, path):
    play(sink, U8_MONO, b"abc")
    assert (read_wav(path).bits, read_wav(path).rate, read_wav(path).data) == (8, 8000, b"abc")


def test_sounds_of_one_kind_share_a_file(sink, path):
    play(sink, S16_STEREO, b"abcd", b"efgh")
    play(sink, S16_STEREO, b"ijkl")
    assert read_wav(path).data == b"abcdefghijkl"
    assert sink.summary() == [f"{path}: 3 frames (0.000 s), 48000 Hz, S16, 2 channels"]
    assert sink.played == 3


def test_a_sound_of_another_kind_begins_the_next_file(sink, path):
    play(sink, S16_STEREO, b"abcd")
    play(sink, U8_MONO, b"xyz")
    play(sink, S16_STEREO, b"efgh")
    contents = [read_wav(path.with_name(name)).data for name in ("out.wav", "out.2.wav", "out.3.wav")]
    assert contents == [b"abcd", b"xyz", b"efgh"]
    assert len(sink.summary()) == 3


def test_a_file_that_would_be_too_large_is_followed_by_the_next(sink, path, monkeypatch):
    monkeypatch.setattr(wavfile, "MAX_DATA", 10)
    play(sink, S16_STEREO, b"abcdefgh", b"ijkl")
    assert read_wav(path).data == b"abcdefgh"
    assert read_wav(path.with_name("out.2.wav")).data == b"ijkl"


def test_frames_are_those_of_the_newest_file(sink):
    play(sink, S16_STEREO, b"\1\0\2\0\3\0\4\0")
    assert sink.frames.tolist() == [[1, 2], [3, 4]]
    sink.close()
    assert sink.frames.tolist() == [[1, 2], [3, 4]]


def test_a_sound_after_close_is_not_written(sink, path):
    playback = sink.open_playback(0, S16_STEREO)
    sink.close()
    playback.write(b"abcd")
    assert read_wav(path).data == b""


def test_a_full_disk_is_reported_once_and_the_guest_plays_on(sink, path, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    play(sink, S16_STEREO, b"abcd")
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        play(sink, S16_STEREO, bytes(400), bytes(400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_wav(path).data == b"abcd"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert (sink.played, sink.lost) == (201, 200)
    assert sink.summary()[-1] == "200 frames that were played are missing: File too large"


def test_a_next_file_that_cannot_be_made_is_reported_and_the_guest_plays_on(sink, path, caplog):
    path = path.with_name(f"{'x' * 250}.wav")
    with contextlib.closing(WavSink(path)) as sink:
        play(sink, S16_STEREO, b"abcd")
        play(sink, U8_MONO, b"xyz")
    assert "File name too long" in caplog.text
    assert sink.lost == 3
    assert read_wav(path).data == b"abcd"


def test_a_file_that_the_user_has_not_named_is_never_overwritten(path):
    names = ["out.wav", "out.2.wav", "out.3.wav", "out-s1.wav"]
    for name in names:
        path.with_name(name).write_bytes(b"the user's")
    path.with_name("out.4.wav").symlink_to("/tmp/nowhere")
    with contextlib.closing(WavSink(path, streams=(2, 1))) as sink:
        play(sink, S16_STEREO, b"abcd")
        play(sink, U8_MONO, b"xyz")
        sink.open_playback(1, U8_MONO).write(b"uvw")
    assert [file.path.name for file in sink.files] == ["out.wav", "out.5.wav", "out-s1.2.wav"]
    assert [read_wav(file.path).data for file in sink.files] == [b"abcd", b"xyz", b"uvw"]
    assert [path.with_name(name).read_bytes() for name in names[1:]] == [b"the user's"] * 3


def test_a_guest_that_changes_the_format_for_ever_fills_no_disk_with_files(path, caplog):
    with contextlib.closing(WavSink(path, streams=(2, 1))) as sink:
        for _ in range(100):
            for stream, params in ((0, U8_MONO), (1, U8_MONO), (0, S16_STEREO), (1, S16_STEREO)):
                sink.open_playback(stream, params).write(b"abcd")
    assert len(list(path.parent.iterdir())) == 100
    assert caplog.text.count("wants more than 100 files") == 2  # once for each stream
    assert sink.lost + sum(file.frames for file in sink.files) == sink.played


def test_there_is_an_end_to_the_bytes_of_all_files_together(path, caplog):
    with contextlib.closing(WavSink(path, streams=(2, 1), limit=12)) as sink:
        play(sink, S16_STEREO, b"abcd")
        sink.open_playback(1, U8_MONO).write(b"efghijkl")
        play(sink, S16_STEREO, b"mnop")
    assert [read_wav(file.path).data for file in sink.files] == [b"abcd", b"efghijkl"]
    assert sink.lost == 1
    assert "more than 12 bytes of sound; max=16G would allow for more" in caplog.text


@pytest.mark.parametrize("name", ["", "no/such/directory/out.wav", "a\0b"])
def test_a_path_that_cannot_work_is_told_at_once(tmp_path, name):
    with pytest.raises(UsageError, match="cannot write sound to"):
        WavSink(f"{tmp_path}/{name}")


def test_numpy_is_not_imported_to_record(path):
    script = f"""
import sys
from devices.audio import WavSink, PcmParams
from devices.audio.pcm import FORMATS
for name in FORMATS:
    sink = WavSink({str(path)!r})
    sink.open_playback(0, PcmParams(FORMATS[name], 48000, 1)).write(bytes(8 * FORMATS[name].size))
    sink.close()
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# Several streams.


def test_every_stream_has_files_of_its_own(path):
    sink = WavSink(path, streams=(3, 1))
    for stream, params, data in (
        (2, S16_STEREO, b"abcd"),
        (0, S16_STEREO, b"efgh"),
        (2, S16_STEREO, b"ijkl"),
        (2, U8_MONO, b"x"),
    ):
        sink.open_playback(stream, params).write(data)
    names = ["out.wav", "out-s2.wav", "out-s2.2.wav"]
    assert [file.path.name for file in sink.files] == names
    assert [read_wav(path.with_name(name)).data for name in names] == [b"efgh", b"abcdijkl", b"x"]
    assert sink.played == 4
    assert [line.split(":")[0] for line in sink.summary()] == [str(path.with_name(name)) for name in names]
    sink.close()


def test_a_stream_whose_file_cannot_be_made_is_told_and_the_others_play_on(path, caplog):
    path = path.with_name(f"{'x' * 250}.wav")
    sink = WavSink(path, streams=(2, 1))
    for stream in (1, 0, 1):
        sink.open_playback(stream, S16_STEREO).write(b"abcd")
    assert len(caplog.records) == 1
    assert "-s1.wav: File name too long" in caplog.text
    assert [read_wav(file.path).data for file in sink.files] == [b"abcd"]
    assert sink.summary()[-1] == "2 frames that were played are missing: File name too long"
    sink.close()


# Recording.


def test_without_a_source_silence_is_recorded(sink):
    assert sink.open_capture(0, U8_MONO).read(3) == b"\x80\x80\x80"


def test_every_stream_records_the_source(tmp_path, path):
    song = wavfile.WavFile(tmp_path / "in.wav", U8_MONO)
    song.append(b"abc")
    song.close()
    sink = WavSink(path, source=song.path)
    captures = [sink.open_capture(stream, U8_MONO) for stream in (0, 1)]
    assert [capture.read(4) for capture in captures] == [b"abc\x80"] * 2
    sink.close()
    assert captures[0].read(2) == b"\x80\x80"


def test_a_source_that_cannot_be_read_is_told_before_anything_is_written(tmp_path, path):
    with pytest.raises(UsageError, match="cannot record from"):
        WavSink(path, source=tmp_path / "in.wav")
    assert not path.exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_file_is_not_recorded_from_and_written_to(tmp_path, path, link):
    other = tmp_path / "other.wav"
    song = wavfile.WavFile(other if link else path, U8_MONO)
    song.append(b"abc")
    song.close()
    if link:
        path.symlink_to(other)
    with pytest.raises(UsageError, match=r"cannot record from .*out\.wav and write to it"):
        WavSink(path, source=song.path)
    assert read_wav(path).data == b"abc"


# Going on, and going back.


@pytest.fixture
def going_on(path):
    """Make sinks that go on in the files at ``path``, one after the other."""
    with contextlib.ExitStack() as sinks:

        def make(**options):
            sinks.close()
            return sinks.enter_context(contextlib.closing(WavSink(path, resume=True, **options)))

        yield make


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def files(sink):
    return [(file.path.name, file.frames, file.path.read_bytes()) for file in sink.files]


SOUNDS = [(U8_MONO, b"abc"), (U8_MONO, b"de"), (S16_STEREO, b"fghi"), (S16_STEREO, b"jklm"), (U8_MONO, b"nop")]


@pytest.mark.parametrize("saved", range(len(SOUNDS) + 1))
@pytest.mark.parametrize("since", [0, 1])
def test_the_saved_machines_files_go_on_with_its_next_frame(tmp_path, path, going_on, saved, since):
    """Each as in a run that was not saved, whatever else was played ``since`` by the machine that was."""
    (tmp_path / "straight").mkdir()
    with contextlib.closing(WavSink(tmp_path / "straight" / "out.wav", streams=(2, 1))) as straight:
        for params, data in SOUNDS:
            for stream in (0, 1):
                straight.record(stream, params, data)
    with contextlib.closing(WavSink(path, streams=(2, 1))) as sink:
        for params, data in SOUNDS[:saved]:
            for stream in (0, 1):
                sink.record(stream, params, data)
        state = sink.state()
        for params, data in SOUNDS[saved : saved + since]:
            sink.record(0, params, data)
    if saved in {2, 4}:
        path.with_name(f"out.{saved // 2 + 1}.wav").unlink(missing_ok=True)  # it would be skipped: nobody has named it
    sink = going_on(streams=(2, 1))
    sink.restore(state)
    for params, data in SOUNDS[saved:]:
        for stream in (0, 1):
            sink.record(stream, params, data)
    assert files(sink) == files(straight)
    assert sink.state() == straight.state()
    assert [line.split("/")[-1] for line in sink.summary()] == [line.split("/")[-1] for line in straight.summary()]


def test_a_file_that_the_saved_machine_has_begun_since_is_skipped(path, going_on):
    with contextlib.closing(WavSink(path)) as sink:
        sink.record(0, U8_MONO, b"abc")
        state = sink.state()
        sink.record(0, S16_STEREO, b"defg")
    sink = going_on()
    sink.restore(state)
    sink.record(0, S16_STEREO, b"hijk")
    assert [file.path.name for file in sink.files] == ["out.wav", "out.3.wav"]
    assert read_wav(path.with_name("out.2.wav")).data == b"defg"


def test_it_goes_back_with_its_machine_as_often_as_one_likes(path, going_on):
    sink = going_on(streams=(2, 1))
    states = []
    for params, data in SOUNDS:
        sink.record(0, params, data)
        states.append((sink.state(), contents(path.parent)))
    for state, then in [states[3], states[1], states[1], states[0]]:
        sink.restore(state)
        assert contents(path.parent) == then
        sink.record(0, *SOUNDS[2])
        sink.record(1, *SOUNDS[3])
        sink.record(0, *SOUNDS[4])
    sink.restore(states[0][0])
    for params, data in SOUNDS[1:]:
        sink.record(0, params, data)
    assert contents(path.parent) == states[-1][1]


def test_of_the_files_that_it_goes_on_with_only_the_newest_is_open(path, going_on):
    with contextlib.closing(WavSink(path)) as sink:
        for params, data in SOUNDS:
            sink.record(0, params, data)
        state = sink.state()
    sink = going_on()
    sink.restore(state)
    oldest, older, newest = (file.path for file in sink.files)
    for closed in (oldest, older):
        WavFile(closed, None, mode="r+").close()
    with pytest.raises(OSError, match="being written already"):
        WavFile(newest, None, mode="r+")


def test_a_port_that_was_open_before_plays_on(path, going_on):
    sink = going_on()
    playback = sink.open_playback(0, U8_MONO)
    playback.write(b"abc")
    state = sink.state()
    playback.write(b"de")
    sink.restore(state)
    playback.write(b"fg")
    assert read_wav(path).data == b"abcfg"


def test_it_goes_back_to_before_the_first_sound(path, going_on):
    sink = going_on()
    state, then = sink.state(), contents(path.parent)
    sink.record(0, U8_MONO, b"abc")
    sink.restore(state)
    assert contents(path.parent) == then
    sink.close()
    assert sink.summary() == [f"{path}: nothing was played"]


def test_without_the_option_a_state_changes_nothing(path):
    with contextlib.closing(WavSink(path)) as sink:
        sink.record(0, U8_MONO, b"abc")
        state = sink.state()
        sink.record(0, U8_MONO, b"de")
        sink.restore(state)
        sink.record(0, U8_MONO, b"fg")
    assert read_wav(path).data == b"abcdefg"


def test_with_nothing_to_go_on_from_it_appends(path, going_on):
    for state in (None, NullSink().state()):
        sink = going_on()
        if state is not None:
            sink.restore(state)
        sink.record(0, U8_MONO, b"abc")
    assert read_wav(path).data == b"abcabc"
    going_on().record(0, S16_STEREO, b"defg")
    assert read_wav(path).data == b"abcabc"
    assert read_wav(path.with_name("out.2.wav")).data == b"defg"


def test_what_is_there_counts(path, going_on, caplog):
    with contextlib.closing(WavSink(path)) as sink:
        sink.record(0, U8_MONO, b"abcdef")
        state = sink.state()
    for restored in (False, True, True):
        sink = going_on(limit=8)
        if restored:
            sink.restore(state)
        sink.record(0, U8_MONO, b"gh")
        sink.record(0, U8_MONO, b"i")
        assert (read_wav(path).data, sink.lost) == (b"abcdefgh", 1)
    assert caplog.text.count("more than 8 bytes of sound") == 3
    sink.close()
    with pytest.raises(UsageError, match=r"cannot write sound to .*out\.wav: more than 7 bytes"):
        going_on(limit=7)
    with (
        contextlib.closing(WavSink(path.with_name("x.wav"), limit=5, resume=True)) as sink,
        pytest.raises(UsageError, match=r"cannot go on in .*x\.wav: more than 5 bytes"),
    ):
        sink.restore(state)


def test_files_that_were_begun_count_when_a_machine_goes_back(path, going_on, caplog):
    sink = going_on()
    for number in range(99):
        sink.record(0, (U8_MONO, S16_STEREO)[number % 2], b"abcd")
    state = sink.state()
    for _ in range(3):
        for number in range(99, 101):
            sink.record(0, (U8_MONO, S16_STEREO)[number % 2], b"abcd")
        assert (len(list(path.parent.iterdir())), sink.lost) == (100, 4)
        sink.restore(state)
        assert (len(list(path.parent.iterdir())), sink.lost) == (99, 0)
    assert caplog.text.count("wants more than 100 files") == 3


def test_files_that_cannot_go_on_are_told_and_none_is_changed(path, going_on):
    second = path.with_name("out.2.wav")
    with contextlib.closing(WavSink(path)) as sink:
        for params, data in SOUNDS[:3]:
            sink.record(0, params, data)
        state = sink.state()
        sink.record(0, *SOUNDS[3])
    whole = contents(path.parent)
    (path.parent / "elsewhere").mkdir()
    short = WavFile(path.parent / "elsewhere" / "short.wav", U8_MONO)
    short.append(b"abcd")
    short.close()
    for damaged, data, message in (
        (path, short.path.read_bytes(), "cannot go on in .*out.wav: it has 4 frames, and had 5 when the machine was"),
        (path, whole["out.2.wav"], "cannot go on in .*out.wav: not a WAV file with 8000 Hz, U8, 1 channel, as pyemu"),
        (second, whole["out.wav"], "cannot go on in .*out.2.wav: not a WAV file with 48000 Hz, S16, 2 channels, as"),
        (second, None, "cannot go on in .*out.2.wav: No such file"),
    ):
        damaged.unlink()
        if data is not None:
            damaged.write_bytes(data)
        before = {name: (path.parent / name).read_bytes() for name in whole if (path.parent / name).exists()}
        sink = going_on()
        with pytest.raises(UsageError, match=message):
            sink.restore(state)
        sink.record(0, *SOUNDS[0])
        sink.close()
        assert {name: (path.parent / name).read_bytes() for name in before} == before
        damaged.write_bytes(whole[damaged.name])
    second.rename(path.parent / "elsewhere" / "there.wav")
    second.symlink_to(path.parent / "elsewhere" / "there.wav")
    with pytest.raises(UsageError, match=r"out\.2\.wav: .*symbolic links"):
        going_on().restore(state)


def test_what_was_cut_off_is_gone(path, going_on):
    sink = going_on()
    states = [sink.state()]
    sink.record(0, S16_STEREO, b"abcd")
    states.append(sink.state())
    sink.restore(states[0])
    with pytest.raises(
        UsageError, match=r"cannot go on in .*out\.wav: it has 0 frames, and had 1 when the machine was"
    ):
        sink.restore(states[1])
    assert read_wav(path).frames == 0


def test_a_file_that_is_not_there_is_told_and_not_left_there(path, going_on):
    with contextlib.closing(WavSink(path)) as sink:
        sink.record(0, U8_MONO, b"abc")
        state = sink.state()
    path.unlink()
    with pytest.raises(UsageError, match=r"cannot go on in .*out\.wav: No such file"):
        going_on().restore(state)
    assert not path.exists()


def test_what_is_no_wav_file_of_ours_is_told_before_the_guest_runs_and_stays(path):
    path.write_bytes(b"my diary")
    with pytest.raises(UsageError, match=r"cannot write sound to .*out\.wav: not a WAV file, as pyemu writes them"):
        WavSink(path, resume=True)
    assert path.read_bytes() == b"my diary"


def test_it_does_not_go_on_where_frames_are_missing(path, going_on):
    with contextlib.closing(WavSink(path, limit=5)) as sink:
        sink.record(0, U8_MONO, b"abc")
        sink.record(0, U8_MONO, b"def")
        state = sink.state()
    with pytest.raises(UsageError, match=r"cannot go on in .*out\.wav: .* 3 frames are missing; leave out continue"):
        going_on().restore(state)
    assert read_wav(path).data == b"abc"


def test_a_file_does_not_go_on_that_is_recorded_from(path, going_on):
    with contextlib.closing(WavSink(path)) as sink:
        for params, data in SOUNDS[:3]:
            sink.record(0, params, data)
        state = sink.state()
        sink.record(0, *SOUNDS[3])
    before = contents(path.parent)
    with pytest.raises(UsageError, match=r"cannot record from .*out\.2\.wav and write to it"):
        going_on(source=path.with_name("out.2.wav")).restore(state)
    assert contents(path.parent) == before


GOOD = {"stream": 0, "number": 1, "format": "U8", "rate": 8000, "channels": 1, "frames": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        [{**GOOD, "number": 0}],
        [{**GOOD, "number": 2}],
        [{**GOOD, "stream": 1}],
        [GOOD, GOOD],
        [GOOD, {**GOOD, "number": 3}, {**GOOD, "number": 2}],
        [GOOD, {**GOOD, "stream": 2}],
        [GOOD, {**GOOD, "stream": 1, "number": 0}],
        [GOOD, {**GOOD, "number": 2, "frames": 0}],
        [{**GOOD, "format": "../x"}],
        [{**GOOD, "rate": 0}],
        [{**GOOD, "channels": 0}],
        [{**GOOD, "rate": (1 << 32) - 1, "channels": 255}],
    ],
)
def test_a_state_that_cannot_be_is_refused(path, going_on, wrong):
    for name in ("out.wav", "out.2.wav", "out-s1.wav"):
        with contextlib.closing(WavSink(path.with_name(name))) as sink:
            sink.record(0, U8_MONO, b"abcd")
    before = contents(path.parent)
    sink = going_on(streams=(2, 1))
    with pytest.raises(UsageError, match="the snapshot is damaged: the files of sound cannot be so"):
        sink.restore({**sink.state(), "files": wrong})
    sink.close()
    assert contents(path.parent) == before


@pytest.mark.parametrize(
    "huge",
    [
        [{**GOOD, "frames": (1 << 63) - 1}],
        [GOOD, *({**GOOD, "number": number} for number in range(2, 102))],
        [GOOD, {**GOOD, "number": (1 << 32) - 1}],
        [{**GOOD, "rate": 1}],
    ],
)
def test_a_hostile_state_gets_nothing(path, going_on, huge):
    with contextlib.closing(WavSink(path)) as sink:
        sink.record(0, U8_MONO, b"abcd")
    before = contents(path.parent)
    sink = going_on()
    with pytest.raises(UsageError, match="cannot go on in"):
        sink.restore({**sink.state(), "files": huge})
    assert contents(path.parent) == before
