"""Streams of a real sound device in virtual time: their states, each period, and the gaps."""

from itertools import pairwise

import pytest

from devices.audio import NullSink
from emu.trace.streams import watch_backend
from tests.devices.virtio.sound.guest import OK, PREPARE, S16_STEREO, SECOND, START, STOP, noise
from tests.emu.trace.watched import WatchedGuest

FRAME = SECOND / 48000


@pytest.fixture
def guest() -> WatchedGuest:
    return WatchedGuest()


def test_a_stream_from_prepare_to_release(guest):
    guest.open(buffer=64, period=16)
    guest.send(noise(1, 16), noise(2, 16))
    guest.command(START)
    start = guest.clock.now()
    guest.run(SECOND)
    guest.close()
    assert guest.told("playback 0") == [
        ("prepared", None),
        ("started", None),
        ("period", (start, guest.end_of(4))),
        ("period", (guest.end_of(4), guest.end_of(8))),
        ("running", (start, start + SECOND)),
        ("released", None),
    ]


def test_periods_follow_each_other_without_a_gap_for_hours(guest):
    guest.open(buffer=64, period=16)
    guest.on_done = lambda _done: guest.send(bytes(16))
    guest.send(*[bytes(16)] * 4)
    guest.command(START)
    guest.run(SECOND // 4)
    spans = [span for name, span in guest.told("playback 0") if name == "period"]
    assert len(spans) == 3000
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert {name for name, _ in guest.told("playback 0")} == {"prepared", "started", "period"}


def test_a_late_period_is_named_so_and_shows_how_late(guest):
    guest.open(buffer=4096, period=1024)
    guest.send(bytes(1024), bytes(1024))
    guest.command(START)
    guest.clock.advance(guest.end_of(256) + 2_500_000 - guest.clock.now())
    guest.run(SECOND // 100)
    late, punctual = [record for record in guest.records if record.name.endswith("period")]
    assert (late.name, late.detail) == ("late period", {"late_us": 2500.0, "bytes": 1024, "fill": 1024})
    assert late.span == (guest.started, guest.end_of(256))
    assert late.time == guest.end_of(256) + 2_500_000
    assert (punctual.name, punctual.detail["late_us"]) == ("period", 0.0)


def test_an_underrun_is_the_gap(guest):
    guest.open(buffer=64, period=16)
    guest.send(bytes(16))
    guest.command(START)
    guest.run(SECOND)
    arrives = guest.clock.now()
    guest.send(bytes(16))
    guest.run(SECOND)
    [underrun] = [record for record in guest.records if record.name == "underrun"]
    assert underrun.span == (guest.end_of(4), arrives)
    assert underrun.span[1] - underrun.span[0] == guest.stats.silence_ns
    assert guest.told("playback 0")[-1] == ("period", (arrives, arrives + -(-4 * SECOND // 48000)))


def test_a_pause_is_not_a_gap(guest):
    guest.open(buffer=64, period=16)
    guest.send(*[bytes(16)] * 2)
    guest.command(START)
    guest.run(round(2 * FRAME))
    guest.command(STOP)
    guest.run(SECOND)
    guest.command(START)
    again = guest.clock.now()
    guest.run(SECOND)
    periods = [span for name, span in guest.told("playback 0") if name == "period"]
    assert periods[0][0] == again
    assert [name for name, _ in guest.told("playback 0")] == [
        "prepared", "started", "running", "started", "period", "period",
    ]  # fmt: skip


def test_recording_without_a_message_is_not_a_gap_until_frames_are_lost(guest):
    guest.open(S16_STEREO, buffer=64, period=16, stream=1)
    guest.command(START, stream=1)
    guest.offer(16)
    guest.run(round(5 * FRAME))
    guest.run(round(6 * FRAME))
    guest.offer(16)
    guest.run(0)
    assert [name for name, _ in guest.told("capture 0")] == ["prepared", "started", "period", "period"]
    guest.run(SECOND)
    guest.offer(16)
    [overrun] = [record for record in guest.records if record.name == "overrun"]
    assert overrun.detail["lost_bytes"] == 4 * guest.device.stats[1].lost_frames > 0


def test_a_restored_recording_has_lost_nothing():
    """Its new port is skipped to where the old one was."""
    names = []
    backend = watch_backend(NullSink(), lambda _kind, _track, name, *_, **__: names.append(name), lambda: 0)
    port = backend.open_capture(0, S16_STEREO)
    port.skip(64)
    port.start()
    port.skip(64)
    assert names == ["prepared", "started", "overrun"]


def test_the_backend_observes_each_period_too(guest):
    guest.open(buffer=64, period=16)
    guest.send(bytes(16))
    guest.command(START)
    guest.run(SECOND)
    assert [period.size for period in guest.backend.periods] == [16]


def test_prepared_again_and_reset(guest):
    guest.open()
    assert guest.command(PREPARE) == OK
    guest.driver.reset()
    assert guest.told("playback 0") == [("prepared", None), ("released", None)]
