"""emu/analysis/sound.py: every encoding that wavfile.py writes is read back; other files are refused."""

import struct

import numpy as np
import pytest

from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from devices.errors import UsageError
from emu.analysis import read_wav


def wav(fmt, data, *, size=None):
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


S16_MONO = struct.pack("<HHIIHH", 1, 1, 48000, 96000, 2, 16)


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize(
    ("name", "samples", "expected", "bits"),
    [
        ("S8", bytes([0x80, 0, 0x7F]), [-128, 0, 127], 8),
        ("U8", bytes([0, 0x80, 0xFF]), [-128, 0, 127], 8),
        ("S16", struct.pack("<3h", -32768, 0, 32767), [-32768, 0, 32767], 16),
        ("U16", struct.pack("<3H", 0, 32768, 65535), [-32768, 0, 32767], 16),
        ("S24_3", bytes.fromhex("000080 000000 ffff7f"), [-(2**23), 0, 2**23 - 1], 24),
        ("S24", bytes.fromhex("00008099 00000099 ffff7f99"), [-(2**23), 0, 2**23 - 1], 24),
        ("S32", struct.pack("<3i", -(2**31), 0, 2**31 - 1), [-(2**31), 0, 2**31 - 1], 32),
        ("U32", struct.pack("<3I", 0, 2**31, 2**32 - 1), [-(2**31), 0, 2**31 - 1], 32),
        ("FLOAT", struct.pack("<3f", -1, 0, 0.5), [-1, 0, 0.5], 32),
        ("FLOAT64", struct.pack("<3d", -1, 0, 0.1), [-1, 0, 0.1], 64),
    ],
)
def test_what_wavfile_writes_is_read(tmp_path, name, samples, expected, bits, channels):
    size = FORMATS[name].size
    frames = b"".join(samples[i : i + size] * channels for i in range(0, len(samples), size))
    file = WavFile(tmp_path / "a.wav", PcmParams(FORMATS[name], 44100, channels))
    file.append(frames)
    file.close()
    sound = read_wav(tmp_path / "a.wav")
    assert (sound.rate, sound.bits, sound.is_float, sound.channels) == (44100, bits, "FLOAT" in name, channels)
    np.testing.assert_array_equal(sound.frames, np.array([expected] * channels).T)
    full_scale = 1 if sound.is_float else 2 ** (bits - 1)
    np.testing.assert_array_equal(sound.samples(channels - 1), np.array(expected) / full_scale)


def test_a_file_of_no_frames(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(S16_MONO, b""))
    sound = read_wav(tmp_path / "a.wav")
    assert sound.frames.shape == (0, 1)
    assert sound.seconds == 0


def test_a_file_that_is_cut_is_read_in_whole_frames(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(S16_MONO, b"abcde", size=0xFFFFFFFF))
    assert read_wav(tmp_path / "a.wav").frames.tobytes() == b"abcd"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a WAV file"),
        (b"RIFF\0\0\0\0AVI LIST", "is not a WAV file"),
        (b"RIFF\0\0\0\0WAVE", "has no data"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "data before a format"),
        (wav(b"1234", b""), "its format takes 4 bytes"),
        (wav(struct.pack("<HHIIHH", 0x55, 2, 48000, 0, 1, 0), b""), "format 0x0055 with 0 bits"),
        (wav(struct.pack("<HHIIHH", 1, 2, 48000, 0, 4, 12), b""), "with 12 bits"),
        (wav(struct.pack("<HHIIHH", 1, 0, 48000, 0, 0, 16), b""), "0 channels"),
        (wav(struct.pack("<HHIIHH", 1, 1, 0, 0, 2, 16), b""), "at 0 Hz"),
        (wav(struct.pack("<HHIIHH", 1, 2, 48000, 0, 2, 16), b""), "2 bytes a frame"),
    ],
)
def test_what_cannot_be_read_is_reported_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read_wav(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_wav(tmp_path / "a.wav")
    with pytest.raises(UsageError, match="Is a directory"):
        read_wav(tmp_path)


def test_samples_that_are_not_numbers_are_silence(tmp_path):
    fmt = struct.pack("<HHIIHH", 3, 1, 48000, 0, 4, 32)
    (tmp_path / "a.wav").write_bytes(wav(fmt, struct.pack("<3f", float("nan"), float("inf"), 0.25)))
    assert read_wav(tmp_path / "a.wav").samples(0).tolist() == [0, 0, 0.25]
