"""Volume: exact where nothing changes, and without a step where something does."""

import numpy as np

from devices.audio.host.gain import Gain

FULL = np.ones((2, 1), np.float32)
ONES = np.ones((2, 100), np.float32)


def test_at_full_volume_nothing_is_touched():
    assert Gain(2).apply(ONES, FULL) is ONES


def test_a_change_takes_a_block_and_stays():
    gain, wanted = Gain(2), np.array([[0.5], [0.0]], np.float32)
    changing = gain.apply(ONES, wanted)
    assert np.array_equal(changing[:, [0, -1]], [[1.0, 0.5], [1.0, 0.0]])
    assert np.abs(np.diff(changing)).max() < 0.011
    assert np.array_equal(gain.apply(ONES, wanted), ONES * wanted)
    assert gain.now is wanted


def test_back_to_full_volume_ends_exactly_there():
    gain = Gain(2)
    gain.apply(ONES, FULL * 0.25)
    assert np.array_equal(gain.apply(ONES, FULL)[:, -1:], FULL)
    assert gain.apply(ONES, FULL) is ONES
