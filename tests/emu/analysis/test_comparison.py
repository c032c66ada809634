"""emu/analysis/comparison.py and align.py: each kind of difference is found at its frame, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.analysis import Sound, compare
from tests.emu.analysis.signals import RATE, noise, sound, tone

KINDS = {
    "noise": noise(0.5, channels=2),
    "8 bits": (noise(0.5) >> 8).astype(np.int8),
    "ramp": (np.arange(200_000) % 65536 - 32768).astype(np.int16)[:, None],
    "tone": sound(tone(1000, duration=0.5)).frames,
    "floats": sound(tone(duration=0.5), bits=-32).frames,
}


def as_sound(frames, rate=RATE):
    return Sound(frames, rate, frames.dtype.itemsize * 8)


def compared(recording, original):
    return compare(as_sound(recording), as_sound(original))


def found(comparison):
    return [(each.kind, each.original, each.count, each.recording, each.length) for each in comparison.differences]


@pytest.fixture(params=KINDS)
def original(request):
    return KINDS[request.param]


def silence(frames, count):
    return np.zeros((count, frames.shape[1]), frames.dtype)


def test_equal_sounds_are_identical(original):
    comparison = compared(original.copy(), original)
    assert comparison.identical
    assert comparison.lines == [f"bit-exact: {len(original)} frames"]


def test_silence_around_is_not_a_difference(original):
    comparison = compared(np.concatenate((silence(original, 500), original, silence(original, 99))), original)
    assert comparison.exact
    assert not comparison.identical
    assert (comparison.leading, comparison.trailing) == (500, 99)
    assert str(comparison).endswith("frames of silence added: 500 before, 99 after")


def test_a_dropped_frame(original):
    assert found(compared(np.delete(original, 7777, 0), original)) == [("dropped", 7777, 1, 7777, 0)]


def test_repeated_frames(original):
    comparison = compared(np.concatenate((original[:6000], original[5936:])), original)
    assert found(comparison) == [("repeated", 6000, 0, 6000, 64)]
    assert comparison.differences[0].source == 5936


def test_a_wrong_bit(original):
    recording = original.copy()
    recording.view(np.uint8)[5000, 0] ^= 8
    comparison = compared(recording, original)
    assert found(comparison) == [("altered", 5000, 1, 5000, 1)]
    assert "that is bit 3" in str(comparison)


def test_silence_in_the_place_of_sound(original):
    recording = original.copy()
    recording[5000:5101] = 0
    (difference,) = compared(recording, original).differences
    # Its edges may be silent in the original.
    assert difference.kind == "silenced"
    assert 5000 <= difference.original <= 5001
    assert 5099 <= difference.original + difference.count <= 5101


def test_silence_in_between(original):
    recording = np.concatenate((original[:5003], silence(original, 480), original[5003:]))
    assert found(compared(recording, original)) == [("gap", 5003, 0, 5003, 480)]


def test_a_missing_end(original):
    end = len(original) - 53
    assert found(compared(original[:end], original)) == [("dropped", end, 53, end, 0)]


def test_a_missing_beginning():
    ramp = KINDS["ramp"]
    assert found(compared(ramp[53:], ramp)) == [("dropped", 0, 53, 0, 0)]


@pytest.mark.parametrize("name", ["noise", "ramp"])
def test_swapped_blocks(name):
    original = KINDS[name]
    recording = original.copy()
    recording[1000:2000], recording[2000:3000] = original[2000:3000], original[1000:2000]
    comparison = compared(recording, original)
    assert found(comparison) == [("reordered", 1000, 1000, 1000, 0)]
    assert comparison.differences[0].source == 2000


@pytest.mark.parametrize("name", ["noise", "ramp"])
def test_swapped_blocks_too_small_to_be_followed(name):
    original = KINDS[name]
    recording = original.copy()
    recording[1000:1010], recording[1010:1020] = original[1010:1020], original[1000:1010]
    assert found(compared(recording, original)) == [("reordered", 1000, 20, 1000, 20)]


@pytest.mark.parametrize("name", ["noise", "ramp"])
def test_an_old_period_in_the_place_of_a_new_one(name):
    original = KINDS[name]
    recording = original.copy()
    recording[9000:10000] = original[5000:6000]
    comparison = compared(recording, original)
    assert found(comparison) == [("replayed", 9000, 1000, 9000, 1000)]
    assert comparison.differences[0].source == 5000


def test_frames_that_belong_nowhere():
    original, other = KINDS["noise"], noise(0.01, channels=2, seed=2)
    recording = np.concatenate((original[:9000], other, original[9000:]))
    assert found(compared(recording, original)) == [("inserted", 9000, 0, 9000, len(other))]


def test_many_differences_are_all_found():
    original = noise(10.0, channels=2)
    places = list(range(1000, len(original), 5000))
    comparison = compared(np.delete(original, places, 0), original)
    assert [each.original for each in comparison.differences] == places
    assert comparison.counts == {"dropped": len(places)}
    assert comparison.lines[-1] == f"  ... and {len(places) - 12} more"


def test_sounds_that_have_nothing_in_common():
    original = noise(1.0)
    comparison = compared(noise(1.0, seed=2), original)
    assert not comparison.exact
    assert sum(each.frames for each in comparison.differences) >= 0.99 * len(original)


def test_a_softer_sound_is_altered():
    comparison = compared(noise(1.0) // 2, noise(1.0))
    assert [each.kind for each in comparison.differences] == ["altered"]


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_shortest_sounds(count, length):
    original, recording = np.full((count, 1), 7, np.int16), np.full((length, 1), 7, np.int16)
    comparison = compared(recording, original)
    assert comparison.exact == (count == length)
    if count > length:
        assert comparison.counts == {"dropped": count - length}


def test_silence_that_is_too_short_is_dropped():
    frames = np.zeros((20, 2), np.int16)
    assert compared(frames, frames).identical
    assert compared(frames, frames[:8]).exact
    assert compared(frames[:8], frames).counts == {"dropped": 12}


def test_formats_that_differ_are_not_compared():
    comparison = compare(sound(tone()), sound(tone(), tone(), bits=24, rate=44100))
    assert not comparison.exact
    assert str(comparison) == (
        "not comparable: the recording has 48000 Hz, the original 44100 Hz; "
        "the recording has 1 channels, the original 2; the recording is 16-bit integer, the original 24-bit integer"
    )


def test_a_different_rate_alone_leaves_the_frames_comparable():
    comparison = compare(sound(tone()), sound(tone(), rate=44100))
    assert not comparison.exact
    assert not comparison.differences
    assert "44100" in str(comparison)


def test_floats_are_compared_by_their_bits():
    nan = np.array([[np.nan], [0.0], [1.0]], np.float32)
    assert compared(nan.copy(), nan).identical
    assert not compared(np.array([[1.0], [-0.0], [1.0]], np.float32), np.array([[1.0], [0.0], [1.0]], np.float32)).exact


FRAMES = st.lists(st.integers(0, 3), max_size=150).map(lambda values: np.array(values, np.int8).reshape(-1, 1))


def rebuilt(comparison, original, recording):
    """The recording, rebuilt from the original and the differences (with its own frames where it differs)."""
    pieces, at = [silence(original, comparison.leading)], 0
    for each in sorted(comparison.differences, key=lambda each: (each.original, each.recording)):
        pieces += [original[at : each.original], recording[each.recording : each.recording + each.length]]
        at = each.original + each.count
    return np.concatenate([*pieces, original[at:], silence(original, comparison.trailing)])


@given(FRAMES, FRAMES)
def test_the_differences_account_for_every_frame(original, recording):
    comparison = compared(recording, original)
    if any(each.kind == "reordered" and each.source is not None for each in comparison.differences):
        return  # names both places, but covers only one
    np.testing.assert_array_equal(rebuilt(comparison, original, recording), recording)


@given(st.lists(st.tuples(st.integers(0, 7999), st.integers(1, 40), st.booleans()), max_size=8))
def test_drops_and_gaps_in_noise_are_counted_exactly(edits):
    original = noise(8000 / RATE, channels=2)
    keep = np.ones(len(original), bool)
    for start, count, _ in edits:
        keep[start : start + count] = False
    comparison = compared(original[keep], original)
    assert comparison.exact == keep.all()
    missing = sum(each.count - each.length for each in comparison.differences)
    assert missing == (~keep).sum()
