"""devices/virtio/sound/input.py: every frame from START on is recorded once; each message completes when it is full."""

import itertools
import struct

import pytest

from devices.audio.pcm import FORMATS, PcmParams
from tests.devices.virtio.fake_driver import RAM_BASE
from tests.devices.virtio.sound.guest import (
    BAD_MSG,
    IO_ERR,
    OK,
    PREPARE,
    RELEASE,
    RXQ,
    S16_STEREO,
    SECOND,
    SET_PARAMS,
    SOURCE,
    START,
    STOP,
    Guest,
    source,
)
from tests.devices.virtio.sound.test_stream import COMMANDS, NEXT, PATHS

FRAME = SECOND // 48000  # and a third of a ns


@pytest.fixture
def guest():
    return Guest()


@pytest.fixture
def opened(guest):
    """A guest ready to record periods of 4 frames to a buffer of 16."""
    guest.open(stream=1)
    return guest


def recorded(guest):
    return b"".join(done.data for done in guest.done)


def do(guest, command):
    return guest.set_params(stream=1) if command == SET_PARAMS else guest.command(command, 1)


@pytest.mark.parametrize(("state", "command"), list(itertools.product(PATHS, COMMANDS)))
def test_every_command_in_every_state(guest, state, command):
    for step in PATHS[state]:
        assert do(guest, step) == OK
    expected = NEXT[state].get(command)
    assert do(guest, command) == (BAD_MSG if expected is None else OK)
    for further in COMMANDS:
        fresh = Guest()
        for step in [*PATHS[state], command]:
            do(fresh, step)
        assert (do(fresh, further) == OK) == (further in NEXT[expected or state])


# Pacing.


def test_messages_complete_when_their_last_frame_is_recorded(opened):
    opened.offer(16, 16, 16, 16)
    opened.command(START, 1)
    opened.run(SECOND)
    assert [done.time for done in opened.done] == [opened.end_of(frames) for frames in (4, 8, 12, 16)]
    assert [(done.status, done.latency) for done in opened.done] == [(OK, 0)] * 4
    assert recorded(opened) == SOURCE[:64]
    assert opened.device.stats[1].lateness_max_ns == 0


def test_the_status_lies_behind_the_frames(opened):
    opened.driver.submit(RXQ, [b"\1\0", b"\0\0"], [5, 3, 20, 4, 3, 1])
    opened.driver.kick(RXQ)
    opened.command(START, 1)
    opened.events.advance(SECOND)
    [done] = opened.driver.completed(RXQ)
    assert done.used_len == 8 + 28
    assert done.data == SOURCE[:28] + struct.pack("<II", OK, 0)


def test_each_message_interrupts_once(opened):
    opened.offer(16, 16, 16, 16)
    opened.command(START, 1)
    before = opened.driver.irq.edges
    opened.run(SECOND)
    assert opened.driver.irq.edges - before == 4


def test_nothing_is_recorded_before_start(opened):
    opened.offer(16)
    opened.run(SECOND)
    assert not opened.done
    assert not opened.events.pending


def test_nothing_completes_within_a_notification(opened):
    opened.command(START, 1)
    opened.clock.advance(SECOND)
    opened.offer(16)
    assert not opened.driver.completed(RXQ)
    assert opened.events.pending == [opened.clock.now()]


@pytest.mark.parametrize(("sizes", "frames"), [((16, 0, 16), (4, 0, 4)), ((4, 40, 7, 3, 17), (1, 10, 1, 0, 4))])
def test_a_message_takes_the_whole_frames_that_fit(opened, sizes, frames):
    opened.offer(*sizes)
    opened.command(START, 1)
    opened.run(SECOND)
    assert [len(done.data) for done in opened.done] == [4 * n for n in frames]
    assert [done.time for done in opened.done] == [opened.end_of(n) for n in itertools.accumulate(frames)]
    assert recorded(opened) == SOURCE[: 4 * sum(frames)]


def test_odd_periods_gather_no_error(guest):
    size = 4 * 47999
    guest.open(S16_STEREO, buffer=2 * size, period=size, stream=1)
    guest.on_done = lambda done: guest.offer(size)
    guest.offer(size, size)
    guest.command(START, 1)
    guest.run(60 * SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(47999 * n) for n in range(1, 61)]
    assert recorded(guest) == source(0, 60 * size)


def test_the_backends_latency_is_told(opened):
    opened.backend.captures[-1].latency_bytes = 96
    opened.offer(16)
    opened.command(START, 1)
    opened.run(SECOND)
    assert [done.latency for done in opened.done] == [96]


# A driver that has no message queued.


def test_a_message_that_comes_in_time_gets_frames_that_were_kept(opened):
    opened.command(START, 1)
    opened.run(10 * FRAME + 4)  # ten frames of a buffer of sixteen
    opened.offer(16)
    opened.run(0)
    assert [(done.time - opened.started, done.latency) for done in opened.done] == [(10 * FRAME + 4, 6 * 4)]
    opened.offer(16, 16)
    opened.run(SECOND)
    assert [done.time for done in opened.done[2:]] == [opened.end_of(12)]
    assert recorded(opened) == SOURCE[:48]
    assert opened.device.stats[1].overruns == 0
    assert opened.device.stats[1].lateness_max_ns == 0, "the driver was late, not the machine"


def test_a_message_that_begins_late_ends_on_time(opened):
    opened.command(START, 1)
    opened.run(2 * FRAME)
    opened.offer(16)
    opened.run(SECOND)
    assert [done.time for done in opened.done] == [opened.end_of(4)]
    assert recorded(opened) == SOURCE[:16]


def test_more_than_a_buffer_is_not_kept(opened):
    opened.command(START, 1)
    opened.run(SECOND)  # 48000 frames
    opened.offer(16)
    opened.run(0)
    assert recorded(opened) == source(4 * (48000 - 16), 16)
    assert opened.done[0].latency == 12 * 4
    stats = opened.device.stats[1]
    assert (stats.overruns, stats.lost_frames) == (1, 48000 - 16)


def test_years_without_a_message_are_passed_over_at_once(opened):
    opened.command(START, 1)
    opened.clock.advance(SECOND << 28)
    opened.offer(16)
    opened.run(0)
    assert len(opened.done) == 1


def test_one_message_in_flight_loses_nothing(guest):
    """Like Haiku's driver: a buffer of one period, which is queued again some time after it has completed."""
    size = 16384 * 8
    guest.open(PcmParams(FORMATS["S32"], 384000, 2), buffer=size, period=size, stream=1)
    guest.offer(size)
    guest.command(START, 1)
    for n in range(1, 9):
        guest.run(guest.end_of(16384 * n) - guest.clock.now() + 5_000_000)
        assert [done.time for done in guest.done[n - 1 :]] == [guest.end_of(16384 * n)]
        guest.offer(size)
    assert recorded(guest) == source(0, 8 * size)
    assert guest.device.stats[1].overruns == 0


# STOP, START, RELEASE, reset.


@pytest.mark.parametrize("instant", [0, 1, FRAME, 50_001, 83_333])
def test_stop_keeps_and_start_goes_on_with_the_next_frame(opened, instant):
    opened.offer(16, 16)
    opened.command(START, 1)
    first = opened.started
    opened.run(instant)
    opened.command(STOP, 1)
    opened.run(SECOND)
    assert not opened.done
    opened.command(START, 1)
    opened.run(SECOND)
    opened.started = first + SECOND
    assert [done.time for done in opened.done] == [opened.end_of(4), opened.end_of(8)]
    assert recorded(opened) == SOURCE[:32]


def test_what_was_kept_is_kept_while_stopped(opened):
    opened.command(START, 1)
    opened.run(6 * FRAME + 3)
    opened.command(STOP, 1)
    opened.run(SECOND)
    opened.offer(16, 16)
    opened.run(SECOND)
    assert not opened.done
    opened.command(START, 1)
    restarted = opened.started
    opened.run(SECOND)
    assert [done.time - restarted for done in opened.done] == [0, 2 * FRAME]
    assert recorded(opened) == SOURCE[:32]


def test_what_was_lost_when_stopped_is_lost(opened):
    opened.command(START, 1)
    opened.run(SECOND)
    opened.command(STOP, 1)
    opened.offer(16)
    opened.command(START, 1)
    opened.run(0)
    assert recorded(opened) == source(4 * (48000 - 16), 16)


def test_release_returns_everything_unfilled_before_the_answer(opened):
    opened.offer(16, 16, 16, 16)
    opened.command(START, 1)
    opened.run(100_000)
    assert len(opened.done) == 1
    opened.command(STOP, 1)
    order = []
    write = opened.driver.memory.write
    rings = {opened.driver.queues[queue].used: queue for queue in (0, RXQ)}

    def spy(address, data):
        if address in rings:
            order.append(rings[address])
        write(address, data)

    opened.driver.memory.write = spy
    opened.driver.queues[0].set_used_event(0x8000)  # so that any interrupt is for the messages
    opened.driver.request(0, [struct.pack("<II", RELEASE, 1)], [4])
    assert order == [RXQ, RXQ, RXQ, 0]
    opened.collect()
    assert [(done.status, done.latency, done.data) for done in opened.done[1:]] == [(OK, 0, b"")] * 3


def test_after_release_messages_are_refused(opened):
    opened.command(RELEASE, 1)
    opened.offer(16)
    opened.run(0)
    assert [(done.status, done.data) for done in opened.done] == [(IO_ERR, b"")]


def test_a_recording_after_release_begins_anew(opened):
    opened.offer(16, 16)
    opened.command(START, 1)
    opened.run(100_000)
    opened.close(1)
    opened.driver.completed(RXQ)
    opened.driver.ack()
    opened.done.clear()
    assert opened.command(PREPARE, 1) == OK
    opened.offer(16)
    opened.command(START, 1)
    opened.run(SECOND)
    assert [(done.time, done.data) for done in opened.done] == [(opened.end_of(4), SOURCE[:16])]


@pytest.mark.parametrize("steps", range(6))
def test_a_reset_at_any_time_forgets_all(guest, steps):
    actions = [
        lambda: guest.set_params(stream=1),
        lambda: guest.command(PREPARE, 1),
        lambda: guest.offer(16, 16),
        lambda: guest.command(START, 1),
        lambda: guest.run(100_000),
    ]
    for action in actions[:steps]:
        action()
    guest.driver.reset()
    assert not guest.events.pending
    assert all(capture.state == "closed" for capture in guest.backend.captures)
    guest.driver.memory.written.clear()
    guest.events.advance(SECOND)
    assert not guest.driver.memory.written
    guest.driver.start()
    assert guest.command(PREPARE, 1) == BAD_MSG
    guest.done.clear()
    guest.open(stream=1)
    guest.offer(16)
    guest.command(START, 1)
    guest.run(SECOND)
    assert recorded(guest) == SOURCE[:16]


def test_a_broken_queue_records_nothing_more(opened):
    opened.offer(16, 16)
    opened.command(START, 1)
    opened.run(100_000)
    ring = opened.driver.queues[RXQ]
    ring.put_descriptor(0, RAM_BASE - 100, 4)
    ring.make_available(0)
    opened.driver.kick(RXQ)
    opened.events.advance(SECOND)
    assert opened.backend.captures[-1].position == 16
    assert not opened.events.pending


# A machine that is late.


def late(guest, ns):
    guest.clock.advance(ns)
    guest.events.run_due()
    guest.collect()


def test_a_late_machine_loses_nothing_and_the_next_message_is_on_time(opened):
    opened.offer(16, 16, 16, 16)
    opened.command(START, 1)
    edges = opened.driver.irq.edges
    opened.clock.advance(200_000)  # nine frames
    for count in (1, 2):
        opened.events.run_one()
        opened.collect()
        assert len(opened.done) == opened.driver.irq.edges - edges == count
    assert [done.latency for done in opened.done] == [5 * 4, 1 * 4]
    opened.run(SECOND)
    assert [done.time for done in opened.done[2:]] == [opened.end_of(12), opened.end_of(16)]
    assert recorded(opened) == SOURCE[:64]
    assert opened.device.stats[1].lateness_max_ns == 200_000 - 83_334


def test_a_very_late_machine_fills_what_was_queued_and_then_keeps_a_buffer(opened):
    opened.offer(*[16] * 9)
    opened.command(START, 1)
    late(opened, SECOND)
    assert recorded(opened) == SOURCE[:144]
    assert {done.latency for done in opened.done} == {16 * 4}, "a device holds a buffer, not more"
    assert opened.device.stats[1].overruns == 0
    opened.offer(16)
    opened.run(0)
    assert opened.done[-1].data == source(4 * (48000 - 16), 16)
    assert (opened.device.stats[1].overruns, opened.device.stats[1].lost_frames) == (1, 48000 - 16 - 36)
