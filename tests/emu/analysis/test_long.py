"""Long sounds: memory, and the progress a user sees."""

import tracemalloc

import numpy as np
import pytest

from emu.analysis import analyse, compare
from tests.emu.analysis.signals import noise, sound, tone

LONG = 60.0  # seconds


def peak_memory(work):
    """The peak number of bytes in use, beyond those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("samples", [tone(duration=LONG), noise(LONG)[:, 0] / 32768], ids=["tone", "noise"])
def test_a_channel_takes_memory_for_less_than_three_copies_of_its_samples(samples):
    recording = sound(samples, samples)
    assert peak_memory(lambda: analyse(recording)) < 3 * 8 * len(samples) + 20_000_000


def test_sounds_that_have_nothing_in_common_take_no_more():
    first, second = sound(*noise(LONG, 2).T / 32768), sound(*noise(LONG, 2, seed=2).T / 32768)
    assert peak_memory(lambda: compare(first, second)) < 300_000_000


@pytest.mark.parametrize("samples", [tone(), noise()[:, 0] / 32768, np.zeros(1000)], ids=["tone", "noise", "silence"])
def test_progress_goes_from_nothing_to_all(samples):
    seen: list[float] = []
    analyse(sound(samples, samples), progress=seen.append)
    assert seen == sorted(seen)
    assert all(0 <= share <= 1 for share in seen)
