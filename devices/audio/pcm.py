"""The sample formats and parameters of a stream of frames.

Samples are little-endian and interleaved, as in virtio sound (virtio 1.3, 5.14.6.6.1).
"""

from typing import NamedTuple

__all__ = ["FORMATS", "PcmParams", "SampleFormat"]


class SampleFormat(NamedTuple):
    """A sample format, under ALSA's ``name``."""

    name: str
    #: Bytes per sample in a stream.
    size: int

    @property
    def is_unsigned(self) -> bool:
        """Whether silence is the middle of the range rather than 0."""
        return self.name.startswith("U")

    @property
    def is_float(self) -> bool:
        """Whether a sample is a floating-point number."""
        return self.name.startswith("FLOAT")

    @property
    def significant(self) -> int:
        """How many of a sample's bytes matter: the lowest ones."""
        return 3 if self.name == "S24" else self.size

    def __str__(self) -> str:
        return self.name


#: Every format that is played without conversion, by name. S24 takes the low three bytes of four, S24_3 three bytes.
FORMATS = {
    name: SampleFormat(name, size)
    for name, size in {
        "S8": 1, "U8": 1, "S16": 2, "U16": 2, "S24_3": 3, "S24": 4, "S32": 4, "U32": 4, "FLOAT": 4, "FLOAT64": 8,
    }.items()
}  # fmt: skip


class PcmParams(NamedTuple):
    """What a stream's frames are: format, frames per second, samples per frame."""

    format: SampleFormat
    rate: int
    channels: int

    @property
    def frame_size(self) -> int:
        """Bytes of one frame."""
        return self.format.size * self.channels

    def silence(self, size: int) -> bytes:
        """Return ``size`` bytes of silence, in whole frames."""
        if not self.format.is_unsigned:
            return bytes(size)
        return (bytes(self.format.size - 1) + b"\x80") * (size // self.format.size)

    def duration_ns(self, frames: int) -> int:
        """How long ``frames`` play, rounded up."""
        return -(-frames * 1_000_000_000 // self.rate)

    def __str__(self) -> str:
        return f"{self.rate} Hz, {self.format}, {self.channels} channel{'s' if self.channels > 1 else ''}"
