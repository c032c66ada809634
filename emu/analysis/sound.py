"""WAV files as numpy arrays: those of devices/audio/wavfile.py, and other programs' PCM and float files."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from devices.errors import UsageError

__all__ = ["Sound", "read_wav"]

_PCM, _IEEE_FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
#: Each (format tag, bits) that can be read.
_READABLE = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_IEEE_FLOAT, 32), (_IEEE_FLOAT, 64)}


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Frames of sound, bit for bit.

    ``frames`` is an array (frame, channel): signed integers of ``bits`` bits (24 bits in an int32), or floats. WAV's
    unsigned 8-bit samples are stored with 128 subtracted, so that silence is 0 in every encoding.
    """

    frames: npt.NDArray[Any]
    rate: int
    bits: int
    name: str = "sound"

    @property
    def is_float(self) -> bool:
        """Whether the samples are floats, with full scale 1.0."""
        return bool(self.frames.dtype.kind == "f")

    @property
    def channels(self) -> int:
        """Samples per frame."""
        return int(self.frames.shape[1])

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.frames) / self.rate

    @property
    def encoding(self) -> str:
        """How a sample is stored, in words."""
        return f"{self.bits}-bit {'float' if self.is_float else 'integer'}"

    @property
    def quantum(self) -> float:
        """The smallest step between samples, with full scale 1.0. For floats that of 24 bits, a float32's precision."""
        return 2.0**-23 if self.is_float else 2.0 ** (1 - self.bits)

    def samples(self, channel: int) -> npt.NDArray[np.float64]:
        """One channel, counted from 0, with full scale 1.0. Values that are not finite become 0."""
        values = self.frames[:, channel].astype(np.float64)
        if self.is_float:
            return np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        values *= self.quantum
        return values

    def __str__(self) -> str:
        channels = f"{self.channels} channel{'s' if self.channels != 1 else ''}"
        return f"{len(self.frames)} frames ({self.seconds:.3f} s), {self.rate} Hz, {self.encoding}, {channels}"


def read_wav(path: str | os.PathLike[str]) -> Sound:
    """Read a WAV file; raises UsageError, which says what is wrong with it.

    A file that ends early (its writer was killed) is read as far as it goes, in whole frames.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _read(file: BinaryIO, path: Path) -> Sound:
    magic = file.read(12)
    if len(magic) < 12 or magic[:4] != b"RIFF" or magic[8:] != b"WAVE":
        raise UsageError(f"{path} is not a WAV file")
    fmt: bytes | None = None
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            if fmt is None:
                raise UsageError(f"{path} is damaged: it has data before a format")
            return _decode(file, size, _parse_format(fmt, path), path)
        if name == b"fmt ":
            fmt = file.read(min(size, 40))
            size -= len(fmt)
        file.seek(size + (size & 1), os.SEEK_CUR)
    raise UsageError(f"{path} is damaged: it has no data")


def _parse_format(fmt: bytes, path: Path) -> tuple[int, int, int, int]:
    """Return tag, channels, rate, bits."""
    if len(fmt) < 16:
        raise UsageError(f"{path} is damaged: its format takes {len(fmt)} bytes, not 16")
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from("<H", fmt, 24)
    if (tag, bits) not in _READABLE:
        raise UsageError(f"{path} has samples of format {tag:#06x} with {bits} bits; only PCM and float can be read")
    if not channels or not rate or block != channels * bits // 8:
        raise UsageError(f"{path} is damaged: {channels} channels of {bits} bits at {rate} Hz, {block} bytes a frame")
    return tag, channels, rate, bits


def _decode(file: BinaryIO, size: int, fmt: tuple[int, int, int, int], path: Path) -> Sound:
    tag, channels, rate, bits = fmt
    data = file.read(size)
    data = data[: len(data) // (channels * bits // 8) * (channels * bits // 8)]
    values: npt.NDArray[Any]
    if bits == 24:
        widened = np.zeros((len(data) // 3, 4), np.uint8)
        widened[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = widened.view("<i4").reshape(-1) >> 8
    elif bits == 8:
        values = (np.frombuffer(data, np.uint8) ^ 0x80).view(np.int8)
    else:
        values = np.frombuffer(data, f"<{'f' if tag == _IEEE_FLOAT else 'i'}{bits // 8}")
    return Sound(values.reshape(-1, channels), rate, bits, path.name)
