"""The stall: which ways to complete periods break ALSA, and that ours plays exactly whatever the guest's clock does.

The table that README.md shows is made by tests/benchmarks/stall.py; so are the faulty devices and clocks.
"""

import pytest

from tests.benchmarks.stall import BUFFERS, CLOCKS, COMPLETIONS, FRAMES, matrix

OURS, AT_HAND_OFF, WHOLE_BUFFER = COMPLETIONS


@pytest.mark.parametrize("clock", CLOCKS)
def test_ours_never_stalls(guest_files, clock):
    assert {name: str(outcome) for name, outcome in matrix(guest_files, OURS, clock).items()} == dict.fromkeys(
        BUFFERS, "exact"
    )


@pytest.mark.parametrize("clock", CLOCKS)
def test_at_hand_off_old_sound_is_heard_again(guest_files, clock):
    """Linux 6.1 queues a period again before it is filled, and the buffer turns as fast as the guest can."""
    for outcome in matrix(guest_files, AT_HAND_OFF, clock).values():
        assert outcome.repeated > FRAMES


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_whole_buffer_at_once_is_an_underrun_every_time(guest_files, clock):
    """To ALSA all that it had is gone: for each buffer, the stream stops and is started anew."""
    for outcome in matrix(guest_files, WHOLE_BUFFER, clock).values():
        assert outcome.underruns > 1
