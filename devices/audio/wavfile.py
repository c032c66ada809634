"""A WAV file that is valid at every moment, even if the process is killed between two system calls.

Frames are written beyond what the header covers, then the header's sizes in a single write. A crash in between leaves
a valid file that is one period shorter, followed by bytes that every reader ignores.

WAV lacks some of the guest's formats. They are stored in one that holds the same values bit for bit:

    guest            file               how
    S8               unsigned 8 bit     sign bit flipped (8-bit WAV is unsigned)
    U16, U32         signed 16, 32 bit  sign bit flipped (wider WAV is signed)
    S24              packed 24 bit      the unused fourth byte is dropped
    all others       the same           copied

Headers: WAVE_FORMAT_PCM for 8 and 16 bits with up to two channels, WAVE_FORMAT_IEEE_FLOAT for floats with up to two,
WAVE_FORMAT_EXTENSIBLE for the rest. Beyond two channels the speaker mask is 0, "unspecified": the guest has not said
which channel is which, and ALSA's and WAV's usual orders differ.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.audio.pcm import FORMATS, PcmParams, SampleFormat

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MAX_DATA", "WavFile"]

#: Most bytes of frames in one file: RIFF sizes have 32 bits, and the header and padding count too.
MAX_DATA = 0xFFFF_FF00

_PCM, _IEEE_FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
#: Where a header says how many channels there are, and frames per second.
_CHANNELS_AND_RATE = struct.Struct("<22xHI")
_LONGEST_HEADER = 80
#: KSDATAFORMAT_SUBTYPE_*: the format tag followed by this.
_SUBTYPE_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa00389b71")
#: By how a file is opened.
_FLAGS = {"w": os.O_CREAT, "x": os.O_CREAT | os.O_EXCL, "r+": 0}
_SPEAKERS = {1: 0x4, 2: 0x3}  # front centre; front left and right

_FLIP = bytes(byte ^ 0x80 for byte in range(256))


def _same(data: bytes) -> bytes:
    return data


def _flip_sign(size: int) -> Callable[[bytes], bytes]:
    def convert(data: bytes) -> bytes:
        out = bytearray(data)
        out[size - 1 :: size] = out[size - 1 :: size].translate(_FLIP)
        return bytes(out)

    return convert


def _drop_fourth_byte(data: bytes) -> bytes:
    out = bytearray(data)
    del out[3::4]
    return bytes(out)


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How a sample format is stored: bytes per sample, and the conversion of a run of samples."""

    size: int
    convert: Callable[[bytes], bytes] = _same
    is_float: bool = False


_ENCODINGS: dict[SampleFormat, _Encoding] = {
    FORMATS["S8"]: _Encoding(1, _flip_sign(1)),
    FORMATS["U8"]: _Encoding(1),
    FORMATS["S16"]: _Encoding(2),
    FORMATS["U16"]: _Encoding(2, _flip_sign(2)),
    FORMATS["S24_3"]: _Encoding(3),
    FORMATS["S24"]: _Encoding(3, _drop_fourth_byte),
    FORMATS["S32"]: _Encoding(4),
    FORMATS["U32"]: _Encoding(4, _flip_sign(4)),
    FORMATS["FLOAT"]: _Encoding(4, is_float=True),
    FORMATS["FLOAT64"]: _Encoding(8, is_float=True),
}
#: What a file is taken to hold if nobody knows: of the formats that are stored alike, the one in use.
_USUAL = ("U8", "S16", "S24", "S32", "FLOAT", "FLOAT64")


class WavFile:
    """One WAV file being written, with frames of one kind.

    ``mode`` is that of ``open``: "w" begins the file anew, "x" makes one that must not be there, and "r+" goes on with
    one that was written here, behind its frames; these must be of ``params``, or of any kind if that is None. A
    symbolic link counts as its target, unless ``follow`` is false.

    Raises OSError, which says what is wrong, when the file cannot be opened: not a regular file, no permission, locked
    because something else is writing it, already there, or of another kind. From then on ``path`` holds a valid file.
    """

    def __init__(self, path: Path, params: PcmParams | None, *, mode: str = "w", follow: bool = True) -> None:
        self.path = path
        self._left: os.stat_result | None = None  # what the file was when it was closed
        self._fd: int | None = _open(path, _FLAGS[mode] if follow else _FLAGS[mode] | os.O_NOFOLLOW)
        try:
            if mode == "r+":
                self._go_on(params)
            else:
                assert params is not None
                self.keep(params, 0)
        except OSError:
            self.close()
            raise

    def _go_on(self, params: PcmParams | None) -> None:
        """Find the end of the frames; raises OSError unless the header is just what it would be here."""
        assert self._fd is not None
        head, room = os.pread(self._fd, _LONGEST_HEADER, 0), os.fstat(self._fd).st_size
        for one in _likely(head) if params is None else (params,):
            self._describe(one)
            start = self._data_start
            size = int.from_bytes(head[start - 4 : start], "little")
            self._describe(one, min(size, MAX_DATA) // self._block)
            if head[:start] == self._header() and start + self._size <= room:
                return
        kind = "" if params is None else f" with {params}"
        raise OSError(errno.EINVAL, f"not a WAV file{kind}, as pyemu writes them")

    def keep(self, params: PcmParams, frames: int) -> None:
        """Keep only the first ``frames`` of those that there are; without any, they may be of other ``params`` now.

        Raises OSError.
        """
        assert self._fd is not None
        assert not frames or (frames <= self.frames and params == self.params)
        self._describe(params, frames)
        end = self._data_start + self._size
        _write_all(self._fd, self._header(), 0)  # first, so that it never covers more than there is
        _write_all(self._fd, bytes(self._size & 1), end)
        os.ftruncate(self._fd, end + (self._size & 1))

    def _describe(self, params: PcmParams, frames: int = 0) -> None:
        self.params = params
        self.frames = frames
        self._encoding = _ENCODINGS[params.format]
        self._block: int = self._encoding.size * params.channels  # bytes of a frame
        self._size = frames * self._block  # bytes of data
        self._data_start: int = len(self._header())

    def has_room(self, size: int) -> bool:
        """Whether the sizes still fit in 32 bits after ``size`` more bytes from the guest."""
        return self._size + size <= MAX_DATA

    def append(self, data: bytes) -> None:
        """Add whole frames in the guest's format; raises OSError, leaving the file as it was."""
        assert self._fd is not None
        converted = self._encoding.convert(data)
        before = self._size, self.frames
        end = self._data_start + self._size
        self._size += len(converted)
        self.frames += len(data) // self.params.frame_size
        try:
            _write_all(self._fd, converted + bytes(self._size & 1), end)  # odd chunks are padded
            _write_all(self._fd, self._header(), 0)
        except OSError:
            self._size, self.frames = before
            with contextlib.suppress(OSError):  # the padding may have been overwritten
                _write_all(self._fd, bytes(self._size & 1), end)
                os.ftruncate(self._fd, end + (self._size & 1))
            raise

    def close(self) -> None:
        """Close the file, which is already complete."""
        if self._fd is not None:
            self._left = os.fstat(self._fd)
            os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Remove the closed file, if it can be; not one that somebody has changed or replaced."""
        with contextlib.suppress(OSError):
            if self._left is not None and _identity(self.path.lstat()) == _identity(self._left):
                self.path.unlink()

    def read(self) -> "np.ndarray[Any, Any]":
        """Read the frames back: an array (frame, channel) of what the file stores; 24 bits become int32."""
        import numpy as np  # noqa: PLC0415 - 85 ms to import, and no sound needs it to be played

        data = self.path.read_bytes()[self._data_start : self._data_start + self._size]
        shape = (-1, self.params.channels)
        size = self._encoding.size
        if size != 3:
            kind = "f" if self._encoding.is_float else "u" if size == 1 else "i"
            return np.frombuffer(data, f"<{kind}{size}").reshape(shape)
        widened = np.zeros((len(data) // 3, 4), np.uint8)
        widened[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (widened.view("<i4") >> 8).reshape(shape)

    def _header(self) -> bytes:
        channels, size, block = self.params.channels, self._encoding.size, self._block
        tag = _IEEE_FLOAT if self._encoding.is_float else _PCM
        simple = channels <= 2 and (size <= 2 or tag == _IEEE_FLOAT)
        fmt = struct.pack(
            "<HHIIHH",
            tag if simple else _EXTENSIBLE,
            channels,
            self.params.rate,
            self.params.rate * block,
            block,
            size * 8,
        )
        if not simple:
            fmt += struct.pack("<HHIH", 22, size * 8, _SPEAKERS.get(channels, 0), tag) + _SUBTYPE_TAIL
        elif tag != _PCM:
            fmt += struct.pack("<H", 0)  # no extension
        chunks = _chunk(b"fmt ", fmt)
        if tag != _PCM:
            chunks += _chunk(b"fact", struct.pack("<I", self.frames))
        chunks += b"data" + struct.pack("<I", self._size)
        return b"RIFF" + struct.pack("<I", 4 + len(chunks) + self._size + (self._size & 1)) + b"WAVE" + chunks


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body


def _open(path: Path, flags: int) -> int:
    # Do not truncate before it is known to be ours; O_NONBLOCK because opening a device may wait for ever.
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o666)
    try:
        _claim(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _likely(head: bytes) -> Iterator[PcmParams]:
    """What a file that begins so may hold."""
    if len(head) < _CHANNELS_AND_RATE.size:
        return
    channels, rate = _CHANNELS_AND_RATE.unpack_from(head)
    for name in _USUAL:
        params = PcmParams(FORMATS[name], rate, channels)
        if 0 < params.frame_size < 1 << 16 and params.frame_size * rate < 1 << 32:
            yield params


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _claim(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(error.errno, "it is being written already") from None


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
