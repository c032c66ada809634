"""Samples played into the microphone arrive in the guest's format."""

import logging

import numpy as np
import pytest

from devices.audio.microphone import Microphone
from devices.audio.pcm import FORMATS, PcmParams
from devices.errors import UsageError

#: The S16 values below, in each integer format.
VALUES = [-32768, -256, -1, 0, 1, 255, 32767]


def heard(samples, name: str, channels: int = 1) -> bytes:
    microphone = Microphone()
    microphone.play(np.asarray(samples))
    return microphone.read(PcmParams(FORMATS[name], 48000, channels), 1000)


def test_samples_of_the_same_size_arrive_as_they_are():
    samples = np.array(VALUES, np.int16)
    assert heard(samples, "S16") == samples.tobytes()
    assert heard(samples.astype(np.int32) * 65537, "S32") == (samples.astype(np.int32) * 65537).tobytes()
    assert heard(np.arange(256, dtype=np.uint8), "U8") == bytes(range(256))
    assert heard(np.array([0.25, -1, 1], np.float32), "FLOAT") == np.array([0.25, -1, 1], np.float32).tobytes()
    assert heard(np.array([0.1]), "FLOAT64") == np.array([0.1]).tobytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("S32", [value << 16 for value in VALUES]),
        ("U32", [(value << 16) + (1 << 31) for value in VALUES]),
        ("U16", [value + (1 << 15) for value in VALUES]),
        ("S24", [value << 8 for value in VALUES]),
        ("S24_3", [value << 8 for value in VALUES]),
        ("S8", [-128, -1, 0, 0, 0, 1, 127]),
        ("U8", [0, 127, 128, 128, 128, 129, 255]),
    ],
)
def test_integers_are_exact_when_widened_and_rounded_when_narrowed(name, expected):
    fmt = FORMATS[name]
    data = b"".join(value.to_bytes(fmt.size, "little", signed=not fmt.is_unsigned) for value in expected)
    assert heard(np.array(VALUES, np.int16), name) == data


def test_floats_are_full_scale_at_one_and_clipped_beyond():
    assert heard([0.5, -1.0, 1.0, -7.0, np.inf, np.nan], "S16") == np.array(
        [16384, -32768, 32767, -32768, 32767, 0], np.int16
    ).tobytes()  # fmt: skip


def test_integers_as_floats():
    assert heard(np.array([-32768, 16384], np.int16), "FLOAT") == np.array([-1, 0.5], np.float32).tobytes()
    assert heard(np.array([0, 128], np.uint8), "FLOAT") == np.array([-1, 0], np.float32).tobytes()


def test_one_channel_is_on_all_and_two_stay_in_order():
    assert heard(np.array([1, 2], np.int16), "S16", 2) == np.array([1, 1, 2, 2], np.int16).tobytes()
    assert heard(np.array([[1, 2], [3, 4]], np.int16), "S16", 2) == np.array([1, 2, 3, 4], np.int16).tobytes()


def test_arrays_follow_each_other_across_reads_and_are_copied():
    microphone = Microphone()
    samples = np.arange(5, dtype=np.int16)
    microphone.play(samples)
    microphone.play(np.arange(5, 10, dtype=np.int16))
    samples[:] = 99
    params = PcmParams(FORMATS["S16"], 8000, 1)
    read = [np.frombuffer(microphone.read(params, 4), np.int16).tolist() for _ in range(4)]
    assert read == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


def test_other_channels_are_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert heard(np.zeros((4, 3), np.int16), "S16", 2) == b""
    assert "not the 3 channels played" in caplog.text


@pytest.mark.parametrize(
    "samples", [[1], 1, np.zeros((2, 2, 2), np.int16), np.zeros(3, np.int64), np.zeros((4, 0)), np.zeros(2, bool)]
)
def test_what_is_not_sound_is_refused(samples):
    with pytest.raises(UsageError, match="is not sound"):
        Microphone().play(samples)


def test_nothing_is_nothing():
    assert heard(np.zeros(0, np.int16), "S16") == b""
