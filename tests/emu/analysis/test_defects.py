"""emu/analysis/defects.py: defects are found where they are; what is merely unusual is not reported."""

import math

import numpy as np
import pytest

from emu.analysis import analyse, find_repeats
from tests.emu.analysis.signals import RATE, music, noise, seconds, sound, tone


def defects(samples, **kwargs):
    report = analyse(sound(samples, **kwargs))
    assert report.flawless == (not report.channels[0].defects and not report.repeats)
    return report.channels[0].defects


def chord():
    return sum(0.1 * np.sin(2 * np.pi * f * seconds(2)) for f in (261.6, 329.6, 392, 523.3, 1046, 2093))


@pytest.mark.parametrize("bits", [8, 16, 24, -32])
@pytest.mark.parametrize("samples", [tone(), tone(50), chord(), music()], ids=["tone", "bass", "chord", "music"])
def test_a_click_of_one_sample(samples, bits):
    samples = samples.copy()
    samples[50000] += 0.15
    found = defects(samples, bits=bits)
    assert found.clicks == (50000,)
    assert not found.skips
    assert not found.dropouts


def test_a_barely_audible_click():
    samples = tone()
    samples[50000] += 16 / 32768
    assert defects(samples).clicks == (50000,)


def test_clicks_at_every_period():
    samples = tone()
    places = range(960, len(samples), 480)
    samples[places] -= 0.05
    assert defects(samples).clicks == tuple(places)


def test_a_click_in_a_rest():
    samples = np.concatenate((tone(), np.zeros(RATE), tone()))
    fade = np.sin(np.linspace(0, np.pi / 2, 4800)) ** 2
    samples[2 * RATE - 4800 : 2 * RATE] *= fade[::-1]
    samples[3 * RATE : 3 * RATE + 4800] *= fade
    assert not defects(samples)
    samples[2 * RATE + 30000] = 0.1
    assert defects(samples).clicks == (2 * RATE + 30000,)


@pytest.mark.parametrize("frequency", [100, 997, 6000.5])
def test_a_frame_missing_from_a_tone(frequency):
    (skip,) = defects(np.delete(tone(frequency), 60001)).skips
    assert skip.position == pytest.approx(60001, abs=1)
    assert skip.frames == pytest.approx(1, abs=0.05)


def test_a_block_repeated_in_a_tone():
    samples = tone(997)
    found = defects(np.concatenate((samples[:60000], samples[59990:])))
    assert [skip.position for skip in found.skips] == [60000]
    assert found.skips[0].frames == pytest.approx(-10, abs=0.05)
    assert not found.clicks


@pytest.mark.parametrize("samples", [tone(), tone(100), chord()], ids=["tone", "bass", "chord"])
@pytest.mark.parametrize("length", [10, 480, 24000])
def test_a_dropout(samples, length):
    samples = samples.copy()
    samples[50007 : 50007 + length] = 0
    found = defects(samples)
    assert not found.clicks
    assert not found.skips
    (dropout,) = found.dropouts
    assert dropout.position == pytest.approx(50007, abs=2)
    assert dropout.length == pytest.approx(length, abs=4)


def test_a_defect_is_reported_with_its_channel():
    right = tone(440)
    right[50000] += 0.1
    report = analyse(sound(tone(), right))
    assert [bool(channel.defects) for channel in report.channels] == [False, True]


def sweep(first, last, duration):
    ratio = last / first
    phase = 2 * np.pi * first * duration / math.log(ratio) * (ratio ** (seconds(duration) / duration) - 1)
    return 0.8 * np.sin(phase)


@pytest.mark.parametrize("bits", [8, 16, 24, -32])
@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0), np.full(1, 0.5), np.full(2, 0.5), np.zeros(RATE), np.full(RATE, 0.5),
        tone(), tone(50), tone(12000), tone(level=-60), tone(level=-90), tone(20, -66), tone(440, -94),
        chord(), music(), sweep(20, 20000, 1.0), sweep(20, 20000, 3.0), 0.8 * np.sin(2000 * seconds(3) ** 2),
        noise()[:, 0] / 32768, noise()[:, 0] / 32768 * 0.001, np.random.default_rng(4).standard_normal(2 * RATE) * 0.1,
        np.concatenate((np.zeros(9999), tone(), np.zeros(12345))),
        tone() * np.minimum(1, seconds(2)), tone(6) * 0.5,
    ],
    ids=[
        "empty", "one frame", "two frames", "silence", "constant", "tone", "bass", "treble", "low tone", "one bit",
        "low bass", "less than a bit", "chord", "music", "sweep", "slow sweep", "linear sweep", "noise", "low noise",
        "gaussian noise", "silence around", "fade", "below hearing",
    ],
)  # fmt: skip
def test_clean_sounds_give_no_alarm(samples, bits):
    report = analyse(sound(samples, bits=bits))
    assert report.flawless, str(report)


@pytest.mark.parametrize(("length", "distance"), [(64, 64), (1000, 1000), (1000, 4000), (1024, 4096), (65, 3001)])
def test_blocks_played_again(length, distance):
    frames = noise(channels=2)
    frames[30000 : 30000 + length] = frames[30000 - distance : 30000 - distance + length]
    (repeat,) = find_repeats(frames)
    assert (repeat.position, repeat.length, repeat.distance) == (30000, length, distance)


def test_sounds_that_naturally_repeat_are_not_reported():
    ramp = (np.arange(200_000) % 65536 - 32768).astype(np.int16)[:, None]
    loop = np.concatenate([noise(0.25)] * 6)
    for frames in (ramp, loop, sound(chord()).frames, np.zeros((RATE, 2), np.int16)):
        assert not find_repeats(frames)
    assert not find_repeats(noise(10.0, channels=2))


def test_a_replayed_block_is_in_the_report():
    frames = noise()
    frames[30000:31000] = frames[29000:30000]
    report = analyse(sound(frames[:, 0] / 32767))
    assert not report.flawless
    assert report.lines[-1] == "frames from 30000 (0.625000 s) on: 1000 repeated from 1000 frames before"


def test_samples_that_are_not_numbers_are_a_defect():
    samples = tone()
    samples[7] = np.nan
    report = analyse(sound(samples, bits=-32))
    assert not report.flawless
    assert report.channels[0].not_finite == 1
