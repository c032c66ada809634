"""A guest records exactly what it is given, byte for byte, alone and while it plays."""

from collections.abc import Iterator

import pytest

from devices.audio import Loopback, WavSink
from devices.audio.wavfile import WavFile
from tests.guest.studio import CASES, S16_STEREO, SECONDS, Studio, aplay, arecord, noise, studio


@pytest.fixture(scope="module")
def guest(guest_files, tmp_path_factory) -> Iterator[Studio]:
    with studio(guest_files, tmp_path_factory.mktemp("studio")) as guest:
        yield guest


@pytest.fixture(scope="module")
def echo(guest_files, tmp_path_factory) -> Iterator[Studio]:
    """A guest that records what it plays."""
    with studio(guest_files, tmp_path_factory.mktemp("echo"), audio=Loopback(480)) as guest:
        yield guest


@pytest.mark.parametrize("params", CASES, ids=str)
def test_capture(guest, params):
    count = round(SECONDS * params.rate) + 1
    guest.tape.source = noise(params, count)
    assert guest.record(params, count) == guest.tape.source


@pytest.mark.parametrize("params", CASES, ids=str)
def test_duplex(echo, params):
    """What is played comes back in one piece, with silence before and after."""
    frames = noise(params, round(SECONDS * params.rate) + 1)
    count = round(4 * SECONDS * params.rate)
    echo.load(frames)
    echo.ok(f"{arecord(params, count)} & sleep 0.1; {aplay(params, len(frames))} && wait $!")
    before, found, after = echo.recorded(params, count).partition(frames)
    assert found
    assert before == params.silence(len(before))
    assert after == params.silence(len(after))


def test_after_the_source_there_is_silence(guest):
    guest.tape.source = noise(S16_STEREO, 1001)
    assert guest.record(S16_STEREO, 9000) == guest.tape.source + bytes(4 * (9000 - 1001))


@pytest.mark.parametrize("frames", [1, 7, 5999, 6000, 6001])
def test_recordings_of_any_length_begin_at_the_first_frame(guest, frames):
    guest.tape.source = noise(S16_STEREO, 48000)
    for _ in range(2):
        assert guest.record(S16_STEREO, frames) == guest.tape.source[: 4 * frames]


@pytest.mark.parametrize("options", ["", "-f dat -n 4s", "-f S32_LE -r 96000 -c 2 -n 4s"])
def test_alsabat_hears_what_it_plays(echo, options):
    """With its own settings, or long enough for a recording that begins in silence to have a clear spectrum."""
    text = echo.ok(f"alsabat -D hw:0,0 {options} 2>&1")
    assert "PASS: Peak detected at target frequency" in text
    assert "Return value is 0" in text


def test_a_wav_file_is_played_and_another_recorded(guest_files, tmp_path):
    """From host file to host file, without any test code in between."""
    frames, source = noise(S16_STEREO, 48000), noise(S16_STEREO, 30000, 2)
    original = WavFile(tmp_path / "in.wav", S16_STEREO)
    original.append(source)
    original.close()
    sink = WavSink(tmp_path / "out.wav", source=tmp_path / "in.wav")
    with studio(guest_files, tmp_path, audio=sink) as guest:
        guest.play(S16_STEREO, frames)
        assert guest.record(S16_STEREO, 40000) == source + bytes(4 * 10000)
    assert sink.path.read_bytes().split(b"data", 1)[1][4:].rstrip(b"\0") == frames
