"""A WAV reader for tests, written from the format's description and strict about it."""

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

PCM_GUID = uuid.UUID("00000001-0000-0010-8000-00aa00389b71")
FLOAT_GUID = uuid.UUID("00000003-0000-0010-8000-00aa00389b71")


@dataclass(frozen=True)
class Wav:
    tag: int
    channels: int
    rate: int
    bits: int
    is_float: bool
    mask: int | None
    fact: int | None
    data: bytes

    @property
    def frames(self) -> int:
        return len(self.data) // (self.channels * self.bits // 8)


def read_wav(path: Path) -> Wav:
    """Read what the header covers; fails if the file is not valid. Bytes beyond its end are ignored."""
    raw = path.read_bytes()
    riff, size, wave = struct.unpack_from("<4sI4s", raw)
    assert (riff, wave) == (b"RIFF", b"WAVE")
    assert 8 + size <= len(raw), "the header covers more than there is"
    chunks, position = {}, 12
    while position < 8 + size:
        name, length = struct.unpack_from("<4sI", raw, position)
        assert position + 8 + length <= 8 + size, name
        chunks[name] = raw[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    assert position == 8 + size
    return _parse(chunks)


def _parse(chunks: dict[bytes, bytes]) -> Wav:
    fmt = chunks[b"fmt "]
    tag, channels, rate, byte_rate, block, bits = struct.unpack_from("<HHIIHH", fmt)
    assert block == channels * bits // 8
    assert byte_rate == rate * block
    assert len(chunks[b"data"]) % block == 0
    mask, is_float = None, tag == 3
    if tag == 0xFFFE:
        extension, valid_bits, mask = struct.unpack_from("<HHI", fmt, 16)
        assert (len(fmt), extension, valid_bits) == (40, 22, bits)
        is_float = {PCM_GUID: False, FLOAT_GUID: True}[uuid.UUID(bytes_le=fmt[24:40])]
    elif tag == 1:
        assert len(fmt) == 16
    else:
        assert tag == 3
        assert fmt[16:] == bytes(2)
    wav = Wav(tag, channels, rate, bits, is_float, mask, _fact(chunks), chunks[b"data"])
    assert wav.fact is None if not is_float else wav.fact == wav.frames
    return wav


def _fact(chunks: dict[bytes, bytes]) -> int | None:
    return struct.unpack("<I", chunks[b"fact"])[0] if b"fact" in chunks else None
