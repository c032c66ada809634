"""What a guest plays is heard byte for byte, in all formats, rates, channels and lengths; and what ALSA's tools see."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.audio.pcm import FORMATS
from emu.analysis import read_wav
from tests.guest.studio import CASES, RATES, S16_STEREO, SECONDS, Sound, Studio, aplay, heard, noise, studio


@pytest.fixture(scope="module")
def guest(guest_files, tmp_path_factory) -> Iterator[Studio]:
    with studio(guest_files, tmp_path_factory.mktemp("studio")) as guest:
        yield guest


def test_the_cases_are_representative():
    assert len(CASES) == 40
    assert {case.format.name for case in CASES} == set(FORMATS)
    assert {case.rate for case in CASES} == set(RATES)
    assert {case.channels for case in CASES} == set(range(1, 9))


@pytest.mark.parametrize("params", CASES, ids=str)
def test_playback(guest, params):
    frames = noise(params, round(SECONDS * params.rate) + 1)
    guest.play(params, frames)
    assert heard(guest.tape.take(), params) == frames


def test_a_failure_keeps_what_was_played(guest):
    frames = noise(S16_STEREO, 4800)
    guest.play(S16_STEREO, frames)
    guest.tape.take()
    recording, picture = (Path(line.partition(": ")[0]) for line in guest.evidence())
    assert heard([Sound(S16_STEREO, bytearray(read_wav(recording).frames.tobytes()))], S16_STEREO) == frames
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("frames", [1, 2, 7, 100, 5999, 6000, 6001, 24000, 24001])
def test_sounds_of_any_length_are_heard_once(guest, frames):
    """aplay's periods are 6000 frames: one frame, less than a period, odd lengths; twice, so that none comes back."""
    for seed in (1, 2):
        sound = noise(S16_STEREO, frames, seed)
        guest.play(S16_STEREO, sound, "--period-size=6000 --buffer-size=24000")
        assert heard(guest.tape.take(), S16_STEREO) == sound


def test_sounds_back_to_back_in_one_stream_and_in_many(guest):
    sounds = [noise(S16_STEREO, 1000 * n + 1, n) for n in range(1, 9)]
    guest.load(b"".join(sounds))
    guest.ok(aplay(S16_STEREO, len(b"".join(sounds))))
    assert heard(guest.tape.take(), S16_STEREO) == b"".join(sounds)
    for sound in sounds:
        guest.play(S16_STEREO, sound)
    assert [heard([sound], S16_STEREO) for sound in guest.tape.take()] == sounds


def test_speaker_test_takes_three_seconds_a_channel(guest):
    text = guest.ok("speaker-test -D hw:0,0 -c 6 -r 48000 -t sine -l 3")
    _, *periods = [float(seconds) for seconds in re.findall(r"Time per period = ([\d.]+)", text)]
    assert len(periods) == 2  # plus the first, which it believes over with a second of it still in its buffer
    for seconds in periods:
        assert 2.9 <= seconds / 6 <= 3.1
    for speaker in ("Front Left", "Rear Right", "LFE"):
        assert speaker in text
    assert guest.tape.played == 3 * 6 * 3 * 48000
    guest.tape.take()


def test_amixer_sees_jacks_and_channel_maps(guest):
    text = guest.ok("amixer -D hw:0 contents")
    assert re.search(r"iface=CARD,name='Line Out Jack'\s+; type=BOOLEAN.*\s+: values=on", text)
    assert re.search(r"iface=CARD,name='Mic Jack'\s+; type=BOOLEAN.*\s+: values=on", text)
    for name in ("Playback", "Capture"):
        assert f"iface=PCM,name='{name} Channel Map'" in text
    assert "chmap-fixed=FL,FR,RL,RR,FC,LFE" in text


def test_alsactl_stores_and_restores(guest):
    guest.ok("alsactl -f /tmp/state store && grep -q 'Line Out Jack' /tmp/state && alsactl -f /tmp/state restore")
