"""emu/analysis/tone.py: frequency, level, THD+N and drift of tones, and that music is not a tone."""

import math

import numpy as np
import pytest

from emu.analysis import measure_tone
from tests.emu.analysis.signals import RATE, music, noise, seconds, sound, tone


def measured(*args, bits=16, rate=RATE, **kwargs):
    return measure_tone(sound(tone(*args, rate=rate, **kwargs), bits=bits, rate=rate).samples(0), rate)


@pytest.mark.parametrize("bits", [8, 16, 24, 32, -32, -64])
@pytest.mark.parametrize("frequency", [20.0, 440.0, 997.123, 15000.7])
def test_frequency_and_level(frequency, bits):
    result = measured(frequency, -6.0, duration=1.0, bits=bits)
    assert result.frequency == pytest.approx(frequency, abs=0.01)
    assert result.level == pytest.approx(-6.0, abs=0.08 if bits == 8 else 0.002)


@pytest.mark.parametrize("rate", [5512, 8000, 44100, 384000])
def test_rates(rate):
    assert measured(997, rate=rate, duration=1.0).frequency == pytest.approx(997, abs=0.01)


@pytest.mark.parametrize(("bits", "floor"), [(8, -49.9), (16, -98.1), (24, -146.2)])
def test_a_full_tone_has_the_noise_of_its_rounding(bits, floor):
    result = measured(997, 0.0, bits=bits)
    assert 20 * math.log10(result.thd_n) == pytest.approx(floor, abs=0.5)


def test_the_noise_of_16_bit_dither():
    generator = np.random.default_rng(3)
    dither = (generator.random(2 * RATE) - generator.random(2 * RATE)) / 32768  # triangular, 1 LSB
    result = measure_tone(sound(tone(level=-0.1) + dither).samples(0), RATE)
    assert 20 * math.log10(result.thd_n) == pytest.approx(-98.1 + 4.8 + 0.1, abs=0.5)


@pytest.mark.parametrize("level", [-20.5, -40, -60, -80])
def test_distortion(level):
    distorted = tone(997, -6) + tone(2991, -6 + level, phase=1)
    result = measure_tone(sound(distorted, bits=24).samples(0), RATE)
    assert 20 * math.log10(result.thd_n) == pytest.approx(level, abs=0.5)
    assert result.frequency == pytest.approx(997, abs=0.01)


@pytest.mark.parametrize("ppm", [-100, -1, 0, 50])
def test_drift(ppm):
    result = measured(997 * (1 + ppm / 1e6), duration=4.0)
    assert result.drift(997) == pytest.approx(ppm, abs=0.1)


def test_missing_frames_do_not_change_the_frequency():
    result = measure_tone(sound(np.delete(tone(duration=4.0), slice(90000, 90013))).samples(0), RATE)
    assert result.drift(997) == pytest.approx(0, abs=1)
    assert 20 * math.log10(result.thd_n_median) < -90
    assert 20 * math.log10(result.thd_n) > -40
    assert "in most places" in str(result)


def test_silence_around_the_tone_does_not_count():
    padded = np.concatenate((np.zeros(12345), tone(), np.zeros(54321)))
    assert 20 * math.log10(measure_tone(sound(padded).samples(0), RATE).thd_n) < -90


def test_an_offset_is_not_noise():
    result = measure_tone(sound(tone(level=-6) + 0.3, bits=24).samples(0), RATE)
    assert 20 * math.log10(result.thd_n) < -120


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0), np.ones(1), np.zeros(RATE), np.ones(RATE), noise()[:, 0] / 32768, music(),
     np.sin(3000 * seconds(2) ** 2)],
    ids=["empty", "one frame", "silence", "constant", "noise", "music", "sweep"],
)  # fmt: skip
def test_what_is_not_a_tone(samples):
    assert measure_tone(samples, RATE) is None


def test_a_low_tone_is_a_tone():
    assert measured(440, -70).frequency == pytest.approx(440, abs=0.01)


def test_in_words():
    assert str(measured(997, -6.0, bits=24)).startswith("997.000 Hz, -6.00 dBFS, THD+N -140.")
