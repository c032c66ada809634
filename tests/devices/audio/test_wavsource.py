"""devices/audio/wavsource.py: which files are accepted, what streams get from them, and nothing raises later."""

import os
import struct

import numpy as np
import pytest

from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from devices.audio.wavsource import WavSource
from devices.errors import UsageError

SAMPLES = np.array([0, 1, -1, 0x12345678, -0x12345678, 0x7FFFFFFF, -0x80000000], "i8")


def mono(name, rate=8000, channels=1):
    return PcmParams(FORMATS[name], rate, channels)


def write(path, params, data):
    file = WavFile(path, params)
    file.append(data)
    file.close()
    return path


def as_bytes(samples, name):
    """The samples, of 32 bits, in one of the guest's formats."""
    bits = 24 if name.startswith("S24") else 8 * FORMATS[name].size
    scaled = samples >> 32 - bits
    if name[0] == "U":
        scaled = scaled + (1 << bits - 1)
    return b"".join(int(sample).to_bytes(FORMATS[name].size, "little", signed=name[0] == "S") for sample in scaled)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in.wav"


INTEGERS = [name for name in FORMATS if not name.startswith("FLOAT")]


@pytest.mark.parametrize("stored", INTEGERS)
@pytest.mark.parametrize("wanted", INTEGERS)
def test_integers_become_as_wide_as_wanted_if_nothing_is_lost(path, caplog, stored, wanted):
    bits = 24 if stored.startswith("S24") else 8 * FORMATS[stored].size
    samples = SAMPLES >> 32 - bits << 32 - bits  # what the file can hold
    source = WavSource(write(path, mono(stored), as_bytes(samples, stored)))
    capture = source.open_capture(mono(wanted))
    size = len(samples) * FORMATS[wanted].size
    wide_enough = (24 if wanted.startswith("S24") else 8 * FORMATS[wanted].size) >= bits
    expected = samples if wide_enough else 0 * samples
    assert capture.read(size) == as_bytes(expected, wanted)
    assert capture.read(size) == as_bytes(0 * samples, wanted)
    assert bool(caplog.records) != wide_enough
    source.close()


@pytest.mark.parametrize(
    ("stored", "wanted", "same"),
    [("FLOAT", "FLOAT", True), ("FLOAT64", "FLOAT64", True), ("FLOAT", "FLOAT64", False), ("S16", "FLOAT", False),
     ("FLOAT", "S32", False)],
)  # fmt: skip
def test_floats_stay_as_they_are(path, stored, wanted, same):
    data = bytes(range(1, 41))
    source = WavSource(write(path, mono(stored), data))
    assert source.open_capture(mono(wanted)).read(40) == (data if same else bytes(40))
    source.close()


def test_every_stream_begins_at_the_first_frame_and_goes_on_by_itself(path):
    source = WavSource(write(path, mono("S16"), b"aabbccddeeff"))
    one, two = source.open_capture(mono("S16")), source.open_capture(mono("S16"))
    assert (one.read(4), one.read(4), two.read(6), one.read(8)) == (b"aabb", b"ccdd", b"aabbcc", b"eeff\0\0\0\0")
    two.skip(4)
    assert two.read(4) == b"ff\0\0"
    two.skip(1 << 40)
    assert two.read(4) == bytes(4)
    source.close()


@pytest.mark.parametrize("params", [mono("S16", rate=8001), mono("S16", channels=2), mono("U8")])
def test_what_does_not_match_is_silence_and_one_warning(path, caplog, params):
    source = WavSource(write(path, mono("S16"), bytes(range(100))))
    for _ in range(3):
        assert source.open_capture(params).read(24) == params.silence(24)
    assert len(caplog.records) == 1
    assert f"the guest records {params}, which does not match this file" in caplog.text
    source.close()


# Files.


def wav(*chunks):
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(tag=1, channels=1, rate=8000, bits=16, block=None, extra=b""):
    block = channels * bits // 8 if block is None else block
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits) + extra


DATA = (b"data", b"aabb")


@pytest.mark.parametrize(
    "content",
    [
        wav(fmt(), DATA),
        wav((b"LIST", b"odd"), fmt(), (b"fact", bytes(4)), DATA, (b"junk", b"more")),
        wav(fmt(extra=b"\0\0"), DATA),
        wav(fmt(0xFFFE, extra=struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)), DATA),
        wav(fmt(), DATA)[:-8] + struct.pack("<I", 0xFFFFFFFF) + b"aabb",  # written to a pipe
        wav(fmt(), DATA) + b"behind the end",
    ],
)
def test_files_of_other_programs(path, content, caplog):
    path.write_bytes(content)
    source = WavSource(path)
    capture = source.open_capture(mono("S16"))
    assert capture.read(4) == b"aabb"
    capture.read(100)
    assert not caplog.records
    source.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a WAV file"),
        (b"RIFF\0\0\0\0WAV", "not a WAV file"),
        (b"RIFX\0\0\0\0WAVE" + bytes(100), "not a WAV file"),
        (wav(), "not a WAV file with sound"),
        (wav(fmt()), "not a WAV file with sound"),
        (wav(DATA, fmt()), "not a WAV file with sound"),
        (wav(*[(b"LIST", b"")] * 2000, fmt(), DATA), "not a WAV file with sound"),
        (wav((b"fmt ", bytes(15)), DATA), "its header is too short"),
        (wav(fmt(tag=2), DATA), "samples of 16 bits, type 2, are not supported"),
        (wav(fmt(tag=3), DATA), "samples of 16 bits, type 3, are not supported"),
        (wav(fmt(bits=12), DATA), "samples of 12 bits"),
        (wav(fmt(bits=64), DATA), "samples of 64 bits"),
        (wav(fmt(bits=0), DATA), "samples of 0 bits"),
        (wav(fmt(0xFFFE), DATA), "samples of 16 bits, type 65534"),
        (wav(fmt(channels=0), DATA), "its header contradicts itself"),
        (wav(fmt(block=3), DATA), "its header contradicts itself"),
    ],
)
def test_what_is_not_a_wav_file_is_reported_at_once(path, content, message):
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"cannot record from .*in.wav: {message}"):
        WavSource(path)


def test_a_file_that_is_not_there(path):
    with pytest.raises(UsageError, match=r"cannot record from .*in\.wav: No such file"):
        WavSource(path)
    with pytest.raises(UsageError, match="cannot record from"):
        WavSource("a\0b")


def test_a_pipe_is_refused_without_waiting(path):
    os.mkfifo(path)
    with pytest.raises(UsageError, match="not a regular file"):
        WavSource(path)


def test_a_file_that_shrinks_is_reported_once_and_silence_follows(path, caplog):
    source = WavSource(write(path, mono("S16"), bytes(range(1, 101))))
    capture = source.open_capture(mono("S16"))
    assert capture.read(4) == bytes(range(1, 5))
    os.truncate(path, 44 + 7)
    assert capture.read(4) == b"\5\6\0\0"
    assert capture.read(4) == bytes(4)
    assert len(caplog.records) == 1
    source.close()
    assert capture.read(4) == bytes(4)
