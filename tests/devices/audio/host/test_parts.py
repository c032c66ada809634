"""The parts of the host backend: ring, resampler, drift controller, sample formats."""

import numpy as np
import pytest

from devices.audio.host.drift import Drift
from devices.audio.host.ring import Ring
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.resample import Resampler
from devices.audio.samples import decode, encode, mix


def test_a_ring_returns_what_it_took_in_order_across_its_end():
    ring = Ring(100, 2)
    given, taken = [], []
    frames = np.arange(2000, dtype=np.float32).reshape(-1, 2)
    while len(frames):
        count = ring.write(frames[:70])
        given.append(frames[:count])
        frames = frames[count:]
        taken.append(ring.take(40))
    taken.append(ring.take(100))
    assert np.array_equal(np.concatenate(given), np.concatenate(taken))


def test_a_ring_takes_no_more_than_fits_and_returns_no_more_than_it_has():
    ring = Ring(10, 1)
    assert ring.write(np.ones((15, 1), np.float32)) == 10
    assert (ring.room, ring.skip(4), len(ring.peek(9, ahead=2)), len(ring.take(9)), ring.skip(1)) == (0, 4, 4, 6, 0)


def test_the_same_rate_passes_bit_for_bit():
    noise = np.random.default_rng(1).uniform(-1, 1, (2, 5000)).astype(np.float32)
    resampler = Resampler(48000, 48000, 2)
    out = np.concatenate([resampler.process(noise[:, i : i + 333]) for i in range(0, 5000, 333)], axis=1)
    out = np.concatenate((out, resampler.flush()), axis=1)
    assert np.array_equal(out, noise)


@pytest.mark.parametrize(("source", "target"), [(44100, 48000), (48000, 44100), (192000, 48000), (8000, 48000)])
def test_the_rates_set_the_number_of_frames_however_they_arrive(source, target):
    resampler = Resampler(source, target, 1)
    noise = np.random.default_rng(1).uniform(-1, 1, (1, source)).astype(np.float32)
    pieces = [resampler.process(noise[:, i : i + 777]) for i in range(0, source, 777)]
    once = Resampler(source, target, 1).process(noise)
    assert np.allclose(np.concatenate(pieces, axis=1), once, atol=2e-3)  # positions are less exact near half the rate
    assert abs(once.shape[1] + resampler.flush().shape[1] - target) <= 1


@pytest.mark.parametrize("frequency", [100, 5000, 15000])
def test_the_correction_changes_pitch_and_nothing_else(frequency):
    resampler = Resampler(48000, 48000, 1)
    resampler.correction = 1.0001
    wave = np.sin(2 * np.pi * frequency / 48000 * np.arange(48000)).astype(np.float32)
    out = resampler.process(wave[None])[0, 100:].astype(np.float64)
    radians = 2 * np.pi * frequency / 48000 / 1.0001 * np.arange(len(out))
    basis = np.column_stack((np.cos(radians), np.sin(radians)))
    rest = out - basis @ np.linalg.lstsq(basis, out, rcond=None)[0]
    assert 20 * np.log10(np.linalg.norm(rest) / np.linalg.norm(out)) < -80


def test_frequencies_above_the_lower_rate_are_removed():
    resampler = Resampler(96000, 48000, 1)
    wave = np.sin(2 * np.pi * 30000 / 96000 * np.arange(20000)).astype(np.float32)
    assert np.abs(resampler.process(wave[None])[0, 100:]).max() < 1e-4


def run(drift, ppm, seconds, late=0.0):
    """What is left of the card's excess speed, and the delay's change (s)."""
    noise = np.random.default_rng(1)
    delay, corrections = 0.050, []
    for i in range(seconds * 10):
        correction = drift.observe(i / 10, delay - noise.exponential(late) if late else delay)
        corrections.append(correction)
        delay += 0.1 * (correction - 1 - ppm * 1e-6)
    return corrections, delay - 0.050


def test_without_drift_there_is_no_correction():
    assert set(run(Drift(), 0, 600, late=0.0005)[0]) == {1.0}


@pytest.mark.parametrize("ppm", [20, 100, -100, -300])
def test_drift_is_followed_slowly(ppm):
    corrections, change = run(Drift(), ppm, 1200, late=0.0005)
    assert (corrections[-1] - 1) * 1e6 == pytest.approx(ppm, abs=10)
    assert abs(change) < 0.003
    assert np.abs(np.diff(corrections)).max() * 10 < 1.6e-6


def test_a_device_that_changes_its_buffers_has_not_drifted():
    drift = Drift()
    for i in range(1000):
        assert drift.observe(i / 10, 0.05 if i < 300 else 0.07) == 1.0


def test_it_starts_from_what_was_learned():
    assert run(Drift(learned=1e-4), 100, 10)[1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_there_and_back(name):
    params = PcmParams(FORMATS[name], 48000, 2)
    planes = np.random.default_rng(1).uniform(-1, 1, (2, 1000)).astype(np.float32)
    data = encode(planes, params)
    assert data.shape == (1000, params.frame_size)
    assert np.abs(decode(data.tobytes(), params) - planes).max() <= (0.5 if params.format.size > 1 else 1) / 127
    again = encode(decode(data.tobytes(), params), params)
    if name not in ("S32", "U32", "FLOAT64"):  # they have more bits than float32
        assert np.array_equal(again, data)


@pytest.mark.parametrize("name", FORMATS)
def test_silence_is_silence(name):
    params = PcmParams(FORMATS[name], 48000, 2)
    silence = params.silence(params.frame_size * 4)
    assert not decode(silence, params).any()
    assert encode(np.zeros((2, 4), np.float32), params).tobytes() == silence


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_too_loud_is_clipped_not_wrapped(name):
    params = PcmParams(FORMATS[name], 48000, 1)
    loud = decode(encode(np.array([[1.5, -1.5]], np.float32), params).tobytes(), params)
    assert loud[0, 0] > 0.99
    assert loud[0, 1] < -0.99


def test_garbage_in_floats_is_harmless():
    params = PcmParams(FORMATS["FLOAT"], 48000, 1)
    data = np.array([np.nan, np.inf, -np.inf, 1e30], "<f4").tobytes()
    assert decode(data, params).tolist() == [[0.0, 4.0, -4.0, 4.0]]


@pytest.mark.parametrize("have", range(1, 9))
@pytest.mark.parametrize("wanted", [1, 2])
def test_any_number_of_channels_becomes_one_or_two(have, wanted):
    planes = mix(np.ones((have, 10), np.float32), wanted)
    assert planes.shape == (wanted, 10)
    assert (planes > 0.5).all()
