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
U8_MONO = PcmParams(FORMATS["U8"], 8000, 1)
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


# Going on with a file.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_goes_on_behind_any_of_its_frames(path, name, channels):
    params = PcmParams(FORMATS[name], 44100, channels)
    sound = bytes(range(params.frame_size * 5))
    write(path, params, sound)
    straight = path.read_bytes()
    for kept in (5, 3, 0):
        file = WavFile(path, params, mode="r+")
        assert file.frames == 5
        assert path.read_bytes() == straight
        file.keep(params, kept)
        assert read_wav(path).frames == kept
        file.append(sound[kept * params.frame_size :])
        file.close()
        assert path.read_bytes() == straight


def test_frames_that_are_not_kept_are_gone(path):
    write(path, U8_MONO, b"abcde")
    file = WavFile(path, U8_MONO, mode="r+")
    for kept in (4, 3, 1):
        file.keep(U8_MONO, kept)
        assert path.read_bytes()[44:] == b"abcde"[:kept] + bytes(kept % 2)
    file.close()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("U8", "U8"), ("S8", "U8"), ("S16", "S16"), ("U16", "S16"), ("S24", "S24"), ("S24_3", "S24"), ("S32", "S32"),
        ("U32", "S32"), ("FLOAT", "FLOAT"), ("FLOAT64", "FLOAT64"),
    ],
)  # fmt: skip
def test_of_formats_stored_alike_a_file_is_taken_to_hold_the_usual_one(path, name, found):
    write(path, PcmParams(FORMATS[name], 44100, 2), bytes(48))
    file = WavFile(path, None, mode="r+")
    assert file.params == PcmParams(FORMATS[found], 44100, 2)
    file.close()


def test_what_is_no_such_file_is_refused_and_not_changed(path):
    write(path, S16_STEREO, b"abcd")
    whole = path.read_bytes()
    wrong = [b"", b"RIFF", whole[:-1], whole[:40], b"x" + whole[1:], whole[:20] + b"\3" + whole[21:],
             whole[:22] + bytes(2) + whole[24:], whole[:22] + b"\xff" * 6 + whole[28:], whole[:40] + b"\xff" * 4,
             whole[:40] + b"\3" + whole[41:]]  # fmt: skip
    for data in wrong:
        path.write_bytes(data)
        for params in (S16_STEREO, None):
            with pytest.raises(OSError, match=r"not a WAV file.* as pyemu writes them"):
                WavFile(path, params, mode="r+")
        assert path.read_bytes() == data
    path.write_bytes(whole)
    with pytest.raises(OSError, match="not a WAV file with 8000 Hz, U8, 1 channel, as pyemu writes them"):
        WavFile(path, U8_MONO, mode="r+")


def test_only_a_file_that_is_there_goes_on_and_no_link_unless_it_may(path):
    with pytest.raises(FileNotFoundError):
        WavFile(path, None, mode="r+")
    target = path.with_name("target.wav")
    write(target, U8_MONO, b"abc")
    path.symlink_to(target)
    WavFile(path, None, mode="r+").close()
    with pytest.raises(OSError, match="symbolic links"):
        WavFile(path, None, mode="r+", follow=False)


def test_a_file_is_removed_only_as_long_as_it_is_the_one_that_was_closed(path):
    write(path, U8_MONO, b"abc").remove()
    assert not path.exists()
    file = write(path, U8_MONO, b"abc")
    path.write_bytes(b"somebody else's")
    file.remove()
    assert path.read_bytes() == b"somebody else's"
    path.unlink()
    file.remove()
