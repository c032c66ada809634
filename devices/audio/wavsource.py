"""What the guest records from a WAV file: exactly its frames, from START on, then silence.

A stream gets the file's frames if it has the file's rate and channels, and a format that holds the same values:

    file                    guest
    integers                the same size or wider (zeros below), signed or unsigned: U8 S8 S16 U16 S24_3 S24 S32 U32
    32-bit, 64-bit floats   FLOAT, FLOAT64

so what wavfile.py stores comes back unchanged (except the unused byte of S24, which extends the sign). A stream that
does not match records silence, with one warning.
"""

import logging
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devices.audio.base import Capture
from devices.audio.null import SilentCapture
from devices.audio.pcm import PcmParams, SampleFormat
from devices.errors import UsageError

__all__ = ["WavSource"]

logger = logging.getLogger(__name__)

_PCM, _IEEE_FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
#: How many chunks before the data are examined, and how many bytes of the format chunk.
_MOST_CHUNKS = 1000
_FMT_SIZE = 40

_FLIP = bytes(byte ^ 0x80 for byte in range(256))
_SIGN = bytes(0xFF if byte & 0x80 else 0 for byte in range(256))


class _NotWavError(Exception):
    """The file is not a usable WAV file; the message says why."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a WAV file holds and where."""

    channels: int
    rate: int
    size: int  # bytes of a sample
    is_float: bool
    start: int
    frames: int


class WavSource:
    """A WAV file to record from; each stream starts at its first frame. Raises UsageError if it cannot be read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._warned = False
        try:
            # O_NONBLOCK because opening a device may wait for ever.
            self._fd: int | None = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot record from {self.path}: {reason}") from error
        try:
            self._layout = _parse(self._fd)
        except (OSError, _NotWavError) as error:
            self.close()
            raise UsageError(f"cannot record from {self.path}: {error}") from error

    def is_file(self, path: Path) -> bool:
        """Whether ``path`` names this file."""
        assert self._fd is not None
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return False

    def open_capture(self, params: PcmParams) -> Capture:
        """Record from the first frame on."""
        layout = self._layout
        if (params.rate, params.channels) == (layout.rate, layout.channels):
            convert = _conversion(layout, params.format)
            if convert is not None:
                return WavCapture(self, params, layout.size * layout.channels, convert)
        self._warn(f"the guest records {params}, which does not match this file; it records silence")
        return SilentCapture(params)

    def read(self, frame: int, count: int) -> bytes:
        """Return ``count`` frames from number ``frame`` on, in the file's format; fewer at its end."""
        layout = self._layout
        count = min(count, layout.frames - frame)
        if count <= 0 or self._fd is None:
            return b""
        block = layout.size * layout.channels
        try:
            data = os.pread(self._fd, count * block, layout.start + frame * block)
        except OSError as error:
            self._warn(f"{error.strerror}; the guest records silence")
            return b""
        if len(data) < count * block:
            self._warn("the file has become shorter; the guest records silence")
            data = data[: len(data) - len(data) % block]
        return data

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("%s: %s", self.path, message)

    def close(self) -> None:
        """Close the file; streams then record silence."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class WavCapture(Capture):
    """One stream that records from a WavSource, and goes on where it was after a pause."""

    def __init__(self, source: WavSource, params: PcmParams, block: int, convert: Callable[[bytes], bytes]) -> None:
        self._source = source
        self._params = params
        self._block = block
        self._convert = convert
        self._frame = 0

    def read(self, size: int) -> bytes:
        """Return the next frames, then silence."""
        count = size // self._params.frame_size
        data = self._convert(self._source.read(self._frame, count))
        self._frame += count
        return data if len(data) == size else data + self._params.silence(size - len(data))

    def skip(self, size: int) -> None:
        """Skip frames."""
        self._frame += size // self._params.frame_size


def _same(data: bytes) -> bytes:
    return data


def _conversion(layout: _Layout, fmt: SampleFormat) -> Callable[[bytes], bytes] | None:
    """Find a lossless conversion of samples to ``fmt``; None if there is none."""
    if layout.is_float or fmt.is_float:
        return _same if layout.is_float and fmt.is_float and layout.size == fmt.size else None
    significant = fmt.significant
    if significant < layout.size:
        return None
    flip = (layout.size == 1) != fmt.is_unsigned  # 8-bit WAV is unsigned, wider WAV signed
    if layout.size == fmt.size and not flip:
        return _same

    def convert(data: bytes) -> bytes:
        out = bytearray(len(data) // layout.size * fmt.size)
        for byte in range(layout.size):
            out[significant - layout.size + byte :: fmt.size] = data[byte :: layout.size]
        top = slice(significant - 1, None, fmt.size)
        if flip:
            out[top] = out[top].translate(_FLIP)
        if significant < fmt.size:
            out[significant :: fmt.size] = out[top].translate(_SIGN)
        return bytes(out)

    return convert


def _parse(fd: int) -> _Layout:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise _NotWavError("not a regular file")
    head = os.pread(fd, 12, 0)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise _NotWavError("not a WAV file")
    position, fmt = 12, b""
    for _ in range(_MOST_CHUNKS):
        header = os.pread(fd, 8, position)
        if len(header) < 8:
            break
        name, size = struct.unpack("<4sI", header)
        position += 8
        if name == b"data" and fmt:
            # A file that is still being written, or came through a pipe, may not give its length.
            return _layout(fmt, position, min(size, status.st_size - position))
        if name == b"fmt ":
            fmt = os.pread(fd, min(size, _FMT_SIZE), position)
        position += size + size % 2
    raise _NotWavError("not a WAV file with sound")


def _layout(fmt: bytes, start: int, size: int) -> _Layout:
    if len(fmt) < 16:
        raise _NotWavError("its header is too short")
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from("<H", fmt, 24)
    width, rest = divmod(bits, 8)
    if tag not in {_PCM, _IEEE_FLOAT} or rest or width not in ({4, 8} if tag == _IEEE_FLOAT else {1, 2, 3, 4}):
        raise _NotWavError(f"samples of {bits} bits, type {tag}, are not supported")
    if not channels or block != channels * width:
        raise _NotWavError("its header contradicts itself")
    return _Layout(channels, rate, width, tag == _IEEE_FLOAT, start, size // block)
