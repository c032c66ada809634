"""devices/audio/host/gate.py: what waits behind the gate is heard once, from its first frame on, or never."""

import numpy as np
import pytest

from devices.audio.host.gate import FADE, GatedRing


@pytest.fixture
def ring():
    """A ring that holds the frames 1.0 to 999.0."""
    ring = GatedRing(2000, 1)
    ring.write(np.arange(1, 1000, dtype=np.float32)[:, None])
    return ring


def take(ring, count):
    frames, gated = ring.take_gated(count)
    return frames[:, 0].tolist(), gated


def take_all(ring, block=64):
    """Frames in blocks, until one is not full."""
    frames = []
    while True:
        part, gated = take(ring, block)
        frames += part
        if len(part) < block:
            return frames, gated


def counting(first, last):
    return [float(n) for n in range(first, last + 1)]


def test_without_a_gate_it_is_a_ring(ring):
    assert take_all(ring) == (counting(1, 999), False)
    assert take(ring, 5) == ([], False)
    assert ring.is_over


def test_the_sound_fades_to_silence_before_the_gate_and_waits(ring):
    ring.close_gate(behind=99)
    frames, gated = take_all(ring)
    assert frames[:900] == counting(1, 900)
    way_out = frames[900:]
    assert (len(way_out), way_out[0], way_out[-1]) == (FADE, 900.0, 0.0)
    assert np.abs(np.diff(way_out)).max() < 10
    assert gated
    assert ring.is_closed
    assert ring.is_over
    assert take(ring, 64) == ([], True)


def test_behind_an_open_gate_the_next_frame_follows_after_silence(ring):
    ring.close_gate(behind=99)
    take_all(ring)
    ring.open_gate(silence=500)
    frames, gated = take_all(ring)
    assert frames[: 500 - FADE] == [0.0] * (500 - FADE)
    way_in = frames[500 - FADE : 500]
    assert (way_in[0], way_in[-1] > 890) == (0.0, True)
    assert frames[500:] == counting(901, 999)
    assert not gated


def test_a_gate_that_opens_before_the_reader_reaches_it_is_silence_in_its_place(ring):
    ring.close_gate(behind=99)
    take(ring, 10)
    ring.open_gate(silence=300)
    frames, _ = take_all(ring)
    assert frames[:890] == counting(11, 900)
    assert len(frames) == 890 + 300 + 99, "the fade-out is part of the silence"
    assert frames[-99:] == counting(901, 999)


def test_what_has_been_taken_before_the_gate_was_closed_is_not_taken_again(ring):
    take(ring, 950)
    ring.close_gate(behind=99)
    assert len(take_all(ring)[0]) == FADE
    ring.open_gate(silence=0)
    frames, _ = take_all(ring)
    assert len(frames) == FADE + 49
    assert frames[FADE:] == counting(951, 999)


def test_a_gate_may_be_closed_again_and_again(ring):
    sound = []
    for _ in range(5):
        ring.close_gate(behind=999 - 100 - len(sound))
        frames, _ = take_all(ring)
        sound += frames[len(frames) - FADE - 100 : -FADE]
        ring.open_gate(silence=0)
    assert sound == counting(1, 500)


def test_its_place_says_when_the_next_write_is_heard(ring):
    ring.close_gate(behind=99)
    take(ring, 910)
    assert ring.place == 900 - (FADE - 10)
    take_all(ring)
    ring.open_gate(silence=500)
    take(ring, 100)
    assert ring.place == 900 - 400


def test_forgetting_everything_forgets_the_gate(ring):
    ring.close_gate(behind=99)
    take_all(ring)
    ring.forget()
    ring.clear_gate()
    ring.write(np.full((100, 1), 7, np.float32))
    assert take_all(ring) == ([7.0] * 100, False)
