"""devices/virtio/sound/pacing.py: exact arithmetic."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.virtio.sound.pacing import Stopwatch
from tests.devices.virtio.sound.guest import RATES, SECOND


@given(st.sampled_from(RATES), st.integers(0, 1 << 62), st.integers(0, 1 << 40), st.integers(0, 1 << 24))
def test_a_frame_is_over_when_it_is_never_before(rate, zero, done, more):
    watch = Stopwatch(rate)
    watch.start(zero)
    watch.frames = done
    end = watch.end_of(more)
    assert 0 <= end - zero - Fraction((done + more) * SECOND, rate) < 1
    assert watch.behind(end) == more
    if done + more:
        assert watch.behind(end - 1) == more - 1


@pytest.mark.parametrize("pauses", [[], [0], [7, 1], [SECOND, 3, SECOND]])
def test_time_that_it_stands_still_does_not_count(pauses):
    watch, now = Stopwatch(1000), 5
    watch.start(now)
    for pause in pauses:
        now += 333_333
        watch.stop(now)
        now += pause
        watch.start(now)
    assert watch.end_of(3) == 5 + 3_000_000 + sum(pauses)


def test_a_restart_forgets_frames_and_time():
    watch = Stopwatch(1000)
    watch.start(0)
    watch.frames = 3
    watch.restart(500)
    assert watch.end_of(1) == 1_000_500
    watch.stop(900)
    watch.rewind()
    watch.start(2000)
    assert watch.end_of(1) == 1_002_000
