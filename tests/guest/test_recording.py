"""Record in the guest, and play at the same time: every byte is compared."""

import json
import random
from pathlib import Path

import pytest

from devices.audio import Loopback, PeriodLog, WavSink
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile

S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)
ALSA_NAMES = {"S16": "S16_LE", "S24": "S24_LE", "S24_3": "S24_3LE", "S32": "S32_LE", "FLOAT": "FLOAT_LE"}


def noise(params: PcmParams, seconds: float, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(round(params.rate * seconds) * params.frame_size)


def song(path: Path, params: PcmParams, frames: bytes) -> Path:
    """A WAV file padded to be a disk: /dev/vda is a file to aplay, and needs no file system."""
    file = WavFile(path, params)
    file.append(frames)
    file.close()
    with path.open("ab") as disk:
        disk.truncate(-(-disk.tell() // 512) * 512)
    return path


def blank(path: Path, size: int = 32 << 20) -> Path:
    with path.open("wb") as disk:
        disk.truncate(size)
    return path


def arecord(params: PcmParams, seconds: int, file: str, card: str = "hw:0,0") -> str:
    alsa = ALSA_NAMES.get(params.format.name, params.format.name)
    return f"arecord -q -D {card} -f {alsa} -r {params.rate} -c {params.channels} -d {seconds} -t raw > {file}"


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("S16", 48000, 2),
        ("U8", 8000, 1),
        ("S24_3", 96000, 2),
        ("S32", 384000, 2),
        ("FLOAT", 44100, 2),
        ("S16", 48000, 8),
        ("S16", 5512, 1),
    ],
)
def test_every_frame_from_start_on_is_recorded(boot, tmp_path, name, rate, channels):
    params = PcmParams(FORMATS[name], rate, channels)
    frames = noise(params, 2)
    source = song(tmp_path / "in.wav", params, noise(params, 2.5)[: len(frames)] + noise(params, 0.5, seed=2))
    disk = blank(tmp_path / "disk.img")
    guest = boot(audio=WavSink(tmp_path / "out.wav", source=source), disks=[str(disk)])
    guest.ok("echo 7 > /proc/asound/card0/pcm0c/xrun_debug")
    guest.ok(arecord(params, 2, "/tmp/raw"))
    guest.ok("cat /tmp/raw > /dev/vda; sync")
    guest.machine.close()
    assert disk.read_bytes().startswith(frames)
    stats = guest.machine.sound.stats[1]
    assert stats.overruns == 0


@pytest.mark.parametrize(("name", "rate", "channels"), [("S16", 48000, 2), ("S16", 48000, 8), ("S32", 384000, 2)])
def test_what_is_played_is_recorded(boot, tmp_path, name, rate, channels):
    params = PcmParams(FORMATS[name], rate, channels)
    frames = noise(params, 2)
    disks = [f"{song(tmp_path / 'song.wav', params, frames)},readonly", str(blank(tmp_path / "disk.img"))]
    audio = PeriodLog(Loopback(rate // 2), tmp_path / "log.jsonl")
    guest = boot(audio=audio, disks=disks)
    record = arecord(params, 4, "/tmp/raw")
    guest.ok(f"{record} & sleep 0.2; aplay -q -D hw:0,0 /dev/vda && wait && cat /tmp/raw > /dev/vdb && sync")
    guest.machine.close()
    recorded = (tmp_path / "disk.img").read_bytes()
    position = recorded.find(frames)
    assert position > 0
    assert not any(recorded[:position])
    periods = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for direction, seconds in (("playback", 2), ("capture", 4)):
        sizes = [period["bytes"] for period in periods if period["direction"] == direction]
        assert sum(sizes) >= seconds * rate * params.frame_size
    assert all(period["done_ns"] >= period["due_ns"] for period in periods)


def test_four_streams_of_different_kinds_at_once(boot, tmp_path):
    kinds = [S16_STEREO, PcmParams(FORMATS["S32"], 96000, 1)]
    sounds = [noise(params, 2, seed) for seed, params in enumerate(kinds)]
    songs = [song(tmp_path / f"song{i}.wav", *pair) for i, pair in enumerate(zip(kinds, sounds, strict=True))]
    source_params = PcmParams(FORMATS["S16"], 44100, 1)
    source = noise(source_params, 3)
    sink = WavSink(tmp_path / "out.wav", source=song(tmp_path / "in.wav", source_params, source), streams=(2, 2))
    records = [blank(tmp_path / f"disk{i}.img") for i in range(2)]
    guest = boot(audio=sink, disks=[*(f"{path},readonly" for path in songs), *map(str, records)])
    record = [arecord(source_params, 2, f"/tmp/raw{i}", f"hw:0,{i}") for i in range(2)]
    guest.ok(
        f"aplay -q -D hw:0,0 /dev/vda & aplay -q -D hw:0,1 /dev/vdb & {record[0]} & sleep 0.3; {record[1]}; wait; "
        "cat /tmp/raw0 > /dev/vdc; cat /tmp/raw1 > /dev/vdd; sync"
    )
    guest.machine.close()
    assert [file.params for file in sink.files] == kinds
    assert all(sound in file.path.read_bytes() for file, sound in zip(sink.files, sounds, strict=True))
    assert [disk.read_bytes()[: 2 * 44100 * 2] == source[: 2 * 44100 * 2] for disk in records] == [True, True]
