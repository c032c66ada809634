"""devices/audio/wavfile.py: the file format, and that the file is valid at every moment."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from tests.devices.audio.wav_reader import read_wav

S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.wav"


def write(path, params, *pieces):
    file = WavFile(path, params)
    for piece in pieces:
        file.append(piece)
    file.close()
    return file


def test_a_new_file_is_valid_and_holds_no_frame(path):
    file = WavFile(path, S16_STEREO)
    wav = read_wav(path)
    assert (wav.frames, wav.rate, wav.channels, wav.bits) == (0, 48000, 2, 16)
    file.close()


def test_frames_appended_in_pieces_follow_each_other(path):
    write(path, S16_STEREO, b"abcd", b"efghijkl", b"mnop")
    assert read_wav(path).data == b"abcdefghijklmnop"


def test_the_standard_library_reads_the_plain_kind(path):
    write(path, S16_STEREO, b"abcdefgh")
    with wave.open(str(path)) as wav:
        assert wav.getparams()[:4] == (2, 2, 48000, 2)
        assert wav.readframes(10) == b"abcdefgh"


@pytest.mark.parametrize(
    ("name", "channels", "tag", "mask"),
    [
        ("U8", 1, 0x0001, None),
        ("S16", 2, 0x0001, None),
        ("S16", 3, 0xFFFE, 0),
        ("S24", 1, 0xFFFE, 0x4),
        ("S32", 2, 0xFFFE, 0x3),
        ("FLOAT", 2, 0x0003, None),
        ("FLOAT64", 1, 0x0003, None),
        ("FLOAT", 8, 0xFFFE, 0),
    ],
)
def test_the_header_is_the_simplest_one_that_fits(path, name, channels, tag, mask):
    params = PcmParams(FORMATS[name], 44100, channels)
    write(path, params, bytes(params.frame_size * 3))
    wav = read_wav(path)
    assert (wav.tag, wav.mask, wav.channels, wav.frames) == (tag, mask, channels, 3)
    assert wav.is_float == name.startswith("FLOAT")


def test_s8_becomes_unsigned(path):
    write(path, PcmParams(FORMATS["S8"], 8000, 1), bytes([0x80, 0xFF, 0x00, 0x7F]))
    assert read_wav(path).data == bytes([0x00, 0x7F, 0x80, 0xFF])


def test_u16_becomes_signed(path):
    write(path, PcmParams(FORMATS["U16"], 8000, 1), np.array([0, 1, 0x8000, 0xFFFF], "<u2").tobytes())
    assert list(np.frombuffer(read_wav(path).data, "<i2")) == [-0x8000, -0x7FFF, 0, 0x7FFF]


def test_u32_becomes_signed(path):
    write(path, PcmParams(FORMATS["U32"], 8000, 1), np.array([0, 0x8000_0001, 0xFFFF_FFFF], "<u4").tobytes())
    assert list(np.frombuffer(read_wav(path).data, "<i4")) == [-0x8000_0000, 1, 0x7FFF_FFFF]


def test_s24_loses_its_unused_byte(path):
    write(path, PcmParams(FORMATS["S24"], 8000, 1), b"abc?def!")
    wav = read_wav(path)
    assert (wav.data, wav.bits) == (b"abcdef", 24)


def test_read_gives_frames_by_channel(path):
    samples = np.array([[1, -1], [2, -2], [3, -3]], "<i2")
    file = write(path, S16_STEREO, samples.tobytes())
    assert np.array_equal(file.read(), samples)


def test_read_sign_extends_24_bits(path):
    file = write(path, PcmParams(FORMATS["S24_3"], 8000, 1), b"\xff\xff\xff\x01\x00\x00\x00\x00\x80")
    assert file.read().tolist() == [[-1], [1], [-0x80_0000]]


def test_an_odd_number_of_bytes_is_padded_and_goes_on(path):
    file = WavFile(path, PcmParams(FORMATS["U8"], 8000, 1))
    file.append(b"abc")
    assert read_wav(path).data == b"abc"
    assert path.stat().st_size % 2 == 0
    file.append(b"de")
    assert read_wav(path).data == b"abcde"
    file.close()


def test_another_writer_is_kept_out(path):
    file = WavFile(path, S16_STEREO)
    with pytest.raises(OSError, match="being written already"):
        WavFile(path, S16_STEREO)
    file.close()
    WavFile(path, S16_STEREO).close()


def test_a_locked_file_is_left_as_it_is(path):
    path.write_bytes(b"precious")
    with path.open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="being written already"):
            WavFile(path, S16_STEREO)
    assert path.read_bytes() == b"precious"


def test_a_named_pipe_is_refused_without_waiting(path):
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        WavFile(path, S16_STEREO)


def test_a_failed_write_leaves_the_file_as_it_was(path):
    file = WavFile(path, PcmParams(FORMATS["U8"], 8000, 1))
    file.append(b"abc")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(b"\1" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.frames == 3
    assert read_wav(path).data == b"abc"
    assert path.stat().st_size == 48
    assert path.read_bytes()[-1:] == b"\0", "the padding"
    file.append(b"de")
    assert read_wav(path).data == b"abcde"
    file.close()


@pytest.mark.parametrize("writes", range(1, 9))
def test_killed_after_any_write_the_file_is_valid(path, writes):
    """After the first few, writes alternate between frames and header; the process dies right after one."""
    script = f"""
import os, signal
from pathlib import Path
from devices.audio import wavfile
from devices.audio.pcm import FORMATS, PcmParams
left = {writes}
write = os.pwrite
def pwrite(fd, data, offset):
    global left
    written = write(fd, data, offset)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return written
os.pwrite = pwrite
file = wavfile.WavFile(Path({str(path)!r}), PcmParams(FORMATS["FLOAT"], 48000, 1))
for index in range(100):
    file.append(index.to_bytes(4, "little") * 3)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    wav = read_wav(path)
    complete = (writes - 1) // 2  # one header, then frames and header
    assert wav.data == b"".join(index.to_bytes(4, "little") * 3 for index in range(complete))
