"""Sounds for the tests of the analyser."""

import numpy as np

from emu.analysis import Sound

RATE = 48000


def seconds(count, rate=RATE):
    return np.arange(round(count * rate)) / rate


def tone(frequency=997, level=-1.0, duration=2.0, rate=RATE, phase=0.3):
    """A sine; level in dBFS."""
    return 10 ** (level / 20) * np.sin(2 * np.pi * frequency * seconds(duration, rate) + phase)


def sound(*channels, bits=16, rate=RATE):
    """A Sound of samples with full scale 1.0; bits=-32 and -64 are floats."""
    values = np.stack([np.asarray(channel, np.float64) for channel in channels], axis=1)
    if bits < 0:
        return Sound(values.astype(f"f{-bits // 8}"), rate, -bits)
    kind = {8: np.int8, 16: np.int16, 24: np.int32, 32: np.int32}[bits]
    return Sound(np.round(values * (2 ** (bits - 1) - 1)).astype(kind), rate, bits)


def music(duration=3.0):
    """Decaying notes of a few harmonics, two per second, with soft attacks and ends."""
    time = seconds(duration)
    note = time * 2 % 1
    shape = np.sin(np.pi * note) ** 2 * np.exp(-3 * note)
    voices = [np.sin(2 * np.pi * f * k * time) / k for f in (261.63, 329.63, 392.0) for k in (1, 2, 3, 5)]
    return 0.2 * shape * sum(voices)


def noise(duration=2.0, channels=1, seed=1):
    """Full 16-bit white noise, as frames."""
    generator = np.random.default_rng(seed)
    return generator.integers(-30000, 30000, (round(duration * RATE), channels)).astype(np.int16)
