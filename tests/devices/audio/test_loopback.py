"""devices/audio/loopback.py: what is played is recorded a fixed number of frames later."""

import pytest

from devices.audio import Loopback
from devices.audio.pcm import FORMATS, PcmParams

U8_MONO = PcmParams(FORMATS["U8"], 8000, 1)
SILENCE = b"\x80"


def streams(loopback, params=U8_MONO, capture_params=U8_MONO, number=0):
    playback = loopback.open_playback(number, params)
    capture = loopback.open_capture(number, capture_params)
    playback.start()
    capture.start()
    return playback, capture


def test_frames_come_back_after_the_delay():
    playback, capture = streams(Loopback(10))
    recorded = b""
    for piece in (b"abcd", b"efgh", b"ijkl", b"mnop"):
        playback.write(piece)
        recorded += capture.read(4)
    # At the first read four frames had been played, and the recording of the fourth had just ended.
    assert recorded == SILENCE * 6 + b"abcdefghij"


@pytest.mark.parametrize("sizes", [(4, 4), (4, 6), (6, 4), (1, 7), (7, 1)])
def test_without_a_delay_it_is_as_short_as_it_can_be(sizes):
    """And there are no holes, whatever the periods: each time t sees all that was written and read by then."""
    playback, capture = streams(Loopback(0))
    sound = bytes(range(128))
    recorded = b""
    for time in range(100):
        if time % sizes[0] == 0:
            playback.write(sound[time : time + sizes[0]])
        if time % sizes[1] == 0:
            recorded += capture.read(sizes[1])
    assert sound.startswith(recorded.strip(SILENCE))
    assert len(recorded.strip(SILENCE)) > 80


def test_after_a_sound_there_is_silence_and_the_next_one_has_the_same_delay():
    playback, capture = streams(Loopback(8))
    recorded = b""
    for piece in (b"abcd", None, None, None, b"efgh", None, None):
        if piece:
            playback.write(piece)
        recorded += capture.read(4)
    assert recorded == SILENCE * 4 + b"abcd" + SILENCE * 12 + b"efgh" + SILENCE * 4


def test_nothing_is_kept_while_nobody_records():
    playback, capture = streams(Loopback(4))
    playback.write(b"abcd")
    capture.stop()
    playback.write(b"efgh")
    capture.start()
    assert capture.read(4) == SILENCE * 4
    playback.write(b"ijkl")
    assert capture.read(4) + capture.read(4) == SILENCE * 4 + b"ijkl"


def test_frames_that_are_too_late_are_skipped():
    playback, capture = streams(Loopback(4))
    playback.write(b"abcd")
    capture.skip(2)
    assert capture.read(2) == b"cd"
    capture.skip(1 << 40)
    assert capture.read(2) == SILENCE * 2


def test_other_parameters_are_silence():
    playback, capture = streams(Loopback(0), capture_params=PcmParams(FORMATS["U8"], 8000, 2))
    playback.write(b"abcd")
    assert capture.read(4) == SILENCE * 4


def test_streams_go_in_pairs():
    loopback = Loopback(0)
    pairs = [streams(loopback, number=number) for number in range(2)]
    pairs[0][0].write(b"abcd")
    pairs[1][0].write(b"efgh")
    assert [capture.read(4) + capture.read(4) for _, capture in pairs] == [SILENCE * 4 + b"abcd", SILENCE * 4 + b"efgh"]
    assert loopback.played == 8


def test_a_recording_that_never_reads_takes_no_more_memory(monkeypatch):
    monkeypatch.setattr("devices.audio.loopback._MOST", 10)
    playback, capture = streams(Loopback(0))
    for _ in range(10):
        playback.write(b"abcdefgh")
    assert capture.read(11) == SILENCE * 11
    assert capture.read(11) == b"ghabcdefgh" + SILENCE


@pytest.mark.parametrize("delay", [0, 6, 10])
def test_a_message_in_parts_comes_back_as_in_one_piece(delay):
    recorded = []
    for messages in ([b"abcdefgh"], [b"ijkl"]), ([b"abc", b"def", b"gh"], [b"ij", b"kl"]):
        playback, capture = streams(Loopback(delay))
        data = b""
        for *parts, rest in messages:
            for part in parts:
                playback.write_part(part)
            playback.write(rest)
            data += capture.read(8)
        recorded.append(data + capture.read(16))
    assert recorded[0] == recorded[1]
    assert b"abcdefgh" in recorded[0]
