"""The stall: which ways of completing periods break ALSA, and that ours plays exactly whatever the guest's clock does.

The faulty devices and clocks are those of tests/benchmarks/stall.py, which makes the table in FIGURES.md beside it.
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
    """Linux 6.1 queues a period again before it is filled, so the buffer spins as fast as the guest can."""
    for outcome in matrix(guest_files, AT_HAND_OFF, clock).values():
        assert outcome.repeated > FRAMES


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_whole_buffer_at_once_is_an_underrun_every_time(guest_files, clock):
    """To ALSA, everything it had is gone: the stream stops and restarts for each buffer."""
    for outcome in matrix(guest_files, WHOLE_BUFFER, clock).values():
        assert outcome.underruns > 1
