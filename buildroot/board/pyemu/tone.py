"""Writes a WAV of one second, 48 kHz, S16, stereo: 440 Hz left and 660 Hz right, at half of full scale."""

import math
import struct
import sys
import wave

RATE = 48_000
LEFT, RIGHT = 440, 660


def sample(frequency: int, frame: int) -> int:
    """One sample of a sine; whole periods fit into a second, so it can be played in a loop."""
    return round(16_384 * math.sin(2 * math.pi * (frequency * frame % RATE) / RATE))


def main(path: str) -> None:
    """Write the file at path."""
    with wave.open(path, "wb") as out:
        out.setparams((2, 2, RATE, RATE, "NONE", ""))
        out.writeframes(b"".join(struct.pack("<hh", sample(LEFT, i), sample(RIGHT, i)) for i in range(RATE)))


if __name__ == "__main__":
    main(sys.argv[1])
