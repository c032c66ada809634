"""Boot and play: every frame is different, and every byte is compared."""

import random
import re
import struct
from pathlib import Path

import pytest

from devices.audio import WavSink
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile

S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)


def song_disk(folder: Path, params: PcmParams, frames: bytes) -> str:
    """A disk whose first bytes are a WAV file: /dev/vda is a file to aplay, and needs no file system."""
    song = WavFile(folder / "song.wav", params)
    song.append(frames)
    song.close()
    with song.path.open("ab") as file:
        file.truncate(-(-file.tell() // 512) * 512)
    return f"{song.path},readonly"


def ramp(frames: int) -> bytes:
    """S16 stereo in which no two frames are alike: the left and right samples count up together."""
    return b"".join(struct.pack("<HH", i & 0xFFFF, i >> 16 ^ 0x5555) for i in range(frames))


def test_every_frame_arrives_once_and_in_order(boot, tmp_path):
    frames = ramp(3 * 48000 + 1234)
    sink = WavSink(tmp_path / "out.wav")
    guest = boot(audio=sink, disks=[song_disk(tmp_path, S16_STEREO, frames)])
    guest.ok("echo 7 > /proc/asound/card0/pcm0p/xrun_debug")
    guest.ok("aplay -q -D hw:0,0 /dev/vda")
    assert "underrun" not in guest.ok("dmesg")
    guest.machine.close()
    assert [file.params for file in sink.files] == [S16_STEREO]
    played = sink.files[0].path.read_bytes().split(b"data", 1)[1][4:]
    assert played[: len(frames)] == frames
    assert not any(played[len(frames) :])  # ALSA pads the last period with silence


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("U8", 8000, 1),
        ("S24_3", 96000, 2),
        ("S32", 384000, 2),
        ("FLOAT", 44100, 2),
        ("S16", 48000, 8),
        ("S16", 5512, 1),
    ],
)
def test_formats_rates_and_channels(boot, tmp_path, name, rate, channels):
    params = PcmParams(FORMATS[name], rate, channels)
    frames = random.Random(1).randbytes(rate * params.frame_size)
    if name == "FLOAT":  # aplay passes samples on unchanged, but they should be numbers
        frames = struct.pack(f"<{rate * channels}f", *(i / (rate * channels) for i in range(rate * channels)))
    sink = WavSink(tmp_path / "out.wav")
    guest = boot(audio=sink, disks=[song_disk(tmp_path, params, frames)])
    guest.ok("aplay -q -D hw:0,0 /dev/vda")
    guest.machine.close()
    assert [file.params for file in sink.files] == [params]
    assert frames in sink.files[0].path.read_bytes()


def test_guest_time_and_played_time_agree(boot, tmp_path):
    """By the guest's clock the song lasts exactly as long as its frames, apart from starting aplay."""
    sink = WavSink(tmp_path / "out.wav")
    guest = boot(audio=sink, disks=[song_disk(tmp_path, S16_STEREO, ramp(10 * 48000))])
    text = guest.ok("time aplay -q -D hw:0,0 /dev/vda")
    seconds = float(re.search(r"real\s+0m ?([\d.]+)s", text)[1])
    assert 10.0 <= seconds < 10.3


def test_speaker_test_plays_each_channel_for_three_seconds(boot, tmp_path):
    sink = WavSink(tmp_path / "out.wav")
    guest = boot(audio=sink)
    guest.ok("speaker-test -D hw:0,0 -c 2 -t sine -l 1")
    assert sink.played == 2 * 3 * 48000


def test_ten_sounds_in_a_row_each_exact(boot, tmp_path):
    frames = ramp(4321)
    sink = WavSink(tmp_path / "out.wav")
    guest = boot(audio=sink, disks=[song_disk(tmp_path, S16_STEREO, frames)])
    for number in range(1, 11):
        guest.ok("aplay -q -D hw:0,0 /dev/vda")
        played = sink.files[0].path.read_bytes()
        assert played.count(frames) == number


def test_nothing_played_says_so(boot, tmp_path):
    sink = WavSink(tmp_path / "out.wav")
    boot(audio=sink).ok("aplay -l")
    assert sink.summary() == [f"{tmp_path / 'out.wav'}: nothing was played"]
