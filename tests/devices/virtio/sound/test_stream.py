"""devices/virtio/sound/stream.py and prepared.py: the state machine; every message completes when it is played."""

import itertools
import struct

import pytest

from tests.devices.virtio.fake_driver import RAM_BASE
from tests.devices.virtio.sound.guest import (
    BAD_MSG,
    IO_ERR,
    OK,
    PCM_INFO,
    PREPARE,
    RELEASE,
    S16_STEREO,
    SECOND,
    SET_PARAMS,
    START,
    STOP,
    TXQ,
    Guest,
    Recorder,
    noise,
)

# How to get to each state, and which commands are legal there.
PATHS = {
    "new": [],
    "set": [SET_PARAMS],
    "prepared": [SET_PARAMS, PREPARE],
    "running": [SET_PARAMS, PREPARE, START],
    "stopped": [SET_PARAMS, PREPARE, START, STOP],
    "released": [SET_PARAMS, PREPARE, RELEASE],
}
NEXT = {
    "new": {SET_PARAMS: "set", RELEASE: "new"},
    "set": {SET_PARAMS: "set", PREPARE: "prepared", RELEASE: "set"},
    "prepared": {SET_PARAMS: "set", PREPARE: "prepared", START: "running", RELEASE: "released"},
    "running": {STOP: "stopped"},
    "stopped": {START: "running", RELEASE: "released"},
    "released": {SET_PARAMS: "set", PREPARE: "prepared", RELEASE: "released"},
}
COMMANDS = [SET_PARAMS, PREPARE, RELEASE, START, STOP]
MATRIX = list(itertools.product(PATHS, COMMANDS))


@pytest.fixture(params=[None, 30_000, 1_000_000], ids=["whole messages", "parts", "long parts"])
def guest(request):
    """A guest whose backend keeps sound, or plays live: the driver sees the same."""
    return Guest(Recorder(part_ns=request.param))


def do(guest, command):
    return guest.set_params() if command == SET_PARAMS else guest.command(command)


# The state machine.


@pytest.mark.parametrize("state", PATHS)
def test_information_may_be_asked_for_in_every_state(guest, state):
    for step in PATHS[state]:
        do(guest, step)
    assert len(guest.request(struct.pack("<IIII", PCM_INFO, 0, 1, 32), room=36)) == 36
    for command in COMMANDS:
        if command in NEXT[state]:
            assert do(guest, command) == OK
            break


@pytest.mark.parametrize(("state", "command"), MATRIX)
def test_every_command_in_every_state(guest, state, command):
    for step in PATHS[state]:
        assert do(guest, step) == OK
    expected = NEXT[state].get(command)
    assert do(guest, command) == (BAD_MSG if expected is None else OK)
    # Whatever the command was, the stream is now in the right state: every further command shows it.
    for further in COMMANDS:
        fresh = Guest()
        for step in [*PATHS[state], command]:
            do(fresh, step)
        assert (do(fresh, further) == OK) == (further in NEXT[expected or state])


def test_parameters_survive_release(guest):
    guest.open()
    assert guest.command(RELEASE) == OK
    assert guest.command(PREPARE) == OK
    guest.send(noise(1, 16))
    assert guest.command(START) == OK
    guest.run(SECOND)
    assert guest.backend.data == noise(1, 16)


def test_refused_parameters_change_nothing(guest):
    guest.open()
    guest.send(noise(1, 16))
    assert guest.set_params(period=0) == BAD_MSG
    assert guest.command(START) == OK
    guest.run(SECOND)
    assert guest.backend.data == noise(1, 16)


# Pacing.


def test_messages_complete_when_their_last_frame_is_played(guest):
    guest.open()
    guest.send(*(noise(i, 16) for i in range(4)))
    guest.command(START)
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(frames) for frames in (4, 8, 12, 16)]
    assert {done.status for done in guest.done} == {OK}
    assert guest.backend.data == b"".join(noise(i, 16) for i in range(4))
    assert guest.stats.lateness_max_ns == 0


def test_each_message_interrupts_once(guest):
    guest.open()
    guest.send(*(noise(i, 16) for i in range(4)))
    guest.command(START)
    before = guest.driver.irq.edges
    guest.run(SECOND)
    assert guest.driver.irq.edges - before == 4


def test_nothing_is_played_before_start(guest):
    guest.open()
    guest.send(noise(1, 16))
    guest.run(SECOND)
    assert not guest.done
    assert not guest.events.pending


def test_nothing_completes_within_a_notification(guest):
    guest.open()
    guest.command(START)
    guest.submit(b"")
    guest.driver.kick(TXQ)
    assert not guest.driver.completed(TXQ)


def test_a_message_of_no_frames_takes_its_turn(guest):
    guest.open()
    guest.send(noise(1, 16), b"", noise(2, 16))
    guest.command(START)
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(4), guest.end_of(4), guest.end_of(8)]


def test_a_message_of_no_frames_delays_nothing(guest):
    guest.open(S16_STEREO, buffer=4 * 1920, period=1920)
    guest.send(noise(1, 1920), b"", noise(2, 4))
    guest.command(START)
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(480), guest.end_of(480), guest.end_of(481)]


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 7, 100, 4097])
def test_a_message_plays_for_its_own_length(guest, frames):
    guest.open()
    guest.send(noise(1, 4 * frames), noise(2, 4))
    guest.command(START)
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(frames), guest.end_of(frames + 1)]
    assert guest.backend.data == noise(1, 4 * frames) + noise(2, 4)


def test_odd_periods_gather_no_error(guest):
    """Seconds less a frame: every deadline is exact, rounded up. With parts, each frame is one."""
    guest.open(S16_STEREO, buffer=2 * 4 * 47999, period=4 * 47999)
    guest.on_done = lambda done: guest.send(bytes(4 * 47999))
    guest.send(bytes(4 * 47999), bytes(4 * 47999))
    guest.command(START)
    guest.run(10 * SECOND)
    times = [done.time for done in guest.done]
    assert len(times) == 10
    assert times == [guest.end_of(47999 * n) for n in range(1, 11)]


def test_data_is_read_when_it_is_played():
    guest = Guest()
    guest.open()
    token = guest.submit(noise(1, 16))
    guest.driver.kick(TXQ)
    guest.command(START)
    guest.run(guest.end_of(4) - guest.clock.now() - 1)
    guest.refill(token, noise(2, 16))
    guest.run(1)
    assert guest.backend.data == noise(2, 16)


def test_latency_is_the_backends(guest):
    guest.backend.latency_bytes = 96
    guest.open()
    guest.send(noise(1, 16))
    guest.command(START)
    guest.run(SECOND)
    assert [done.latency for done in guest.done] == [96]


def test_a_message_may_be_cut_anywhere(guest):
    guest.open()
    data = noise(1, 16)
    guest.driver.submit(TXQ, [b"\0", b"\0\0\0" + data[:3], data[3:4], b"", data[4:]], [1, 3, 4])
    guest.driver.kick(TXQ)
    guest.command(START)
    guest.run(SECOND)
    assert guest.backend.data == data
    assert [done.status for done in guest.done] == [OK]


# Silence.


def test_after_silence_the_next_message_begins_when_it_comes(guest):
    guest.open()
    guest.send(noise(1, 16))
    guest.command(START)
    guest.run(SECOND)
    guest.send(noise(2, 16), noise(3, 16))
    guest.started = guest.clock.now()
    guest.run(SECOND)
    assert [done.time for done in guest.done[1:]] == [guest.end_of(4), guest.end_of(8)]
    assert guest.stats.underruns == 1
    assert guest.stats.silence_ns == SECOND - 83_334


def test_a_stream_may_start_with_nothing_to_play(guest):
    guest.open()
    guest.command(START)
    guest.run(SECOND)
    guest.send(noise(1, 16))
    guest.started = guest.clock.now()
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(4)]
    assert guest.stats.underruns == 0


def test_the_end_of_a_sound_is_no_underrun(guest):
    guest.open()
    for _ in range(2):
        guest.send(noise(1, 16))
        guest.command(START)
        guest.run(SECOND)
        guest.command(STOP)
    guest.command(START)
    guest.send(noise(2, 16))
    assert guest.stats.underruns == 0


# STOP, START, RELEASE, reset.


def test_stop_keeps_and_start_goes_on_with_the_next_sample(guest):
    guest.open()
    guest.send(noise(1, 16), noise(2, 16))
    guest.command(START)
    first = guest.started
    guest.run(50_001)
    guest.command(STOP)
    guest.run(SECOND)
    assert not guest.done
    guest.command(START)
    guest.run(SECOND)
    guest.started = first + SECOND
    assert [done.time for done in guest.done] == [guest.end_of(4), guest.end_of(8)]
    assert guest.backend.data == noise(1, 16) + noise(2, 16)


def test_messages_may_be_queued_while_stopped(guest):
    guest.open()
    guest.send(noise(1, 16))
    guest.command(START)
    guest.run(SECOND)
    guest.command(STOP)
    guest.send(noise(2, 16))
    guest.run(SECOND)
    assert len(guest.done) == 1
    guest.command(START)
    guest.run(SECOND)
    assert guest.done[1].time == guest.end_of(4)


def test_release_returns_everything_unplayed_before_the_answer(guest):
    guest.open()
    guest.send(*(noise(i, 16) for i in range(4)))
    guest.command(START)
    guest.run(100_000)
    assert len(guest.done) == 1
    guest.command(STOP)
    order = []
    write = guest.driver.memory.write
    rings = {guest.driver.queues[queue].used: queue for queue in (0, TXQ)}

    def spy(address, data):
        if address in rings:
            order.append(rings[address])
        write(address, data)

    guest.driver.memory.write = spy
    guest.driver.queues[0].set_used_event(0x8000)  # so that any interrupt is for the messages
    guest.driver.request(0, [struct.pack("<II", RELEASE, 0)], [4])
    assert order == [TXQ, TXQ, TXQ, 0]
    guest.collect()
    assert [(done.status, done.latency) for done in guest.done[1:]] == [(OK, 0)] * 3
    assert guest.backend.data == noise(0, 16)


def test_after_release_messages_are_refused(guest):
    guest.open()
    guest.command(RELEASE)
    guest.send(noise(1, 16))
    guest.run(0)
    assert [done.status for done in guest.done] == [IO_ERR]


def test_new_parameters_return_what_was_queued(guest):
    guest.open()
    guest.send(noise(1, 16))
    assert guest.set_params() == OK
    assert len(guest.driver.completed(TXQ)) == 1


def test_a_play_after_release_begins_anew(guest):
    guest.open()
    guest.send(noise(1, 16), noise(2, 16))
    guest.command(START)
    guest.run(50_000)
    guest.close()
    guest.driver.completed(TXQ)
    assert guest.command(PREPARE) == OK
    guest.send(noise(3, 16))
    guest.command(START)
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(4)]
    assert guest.backend.data == noise(3, 16)


@pytest.mark.parametrize("steps", range(6))
def test_a_reset_at_any_time_forgets_all(guest, steps):
    actions = [
        guest.set_params,
        lambda: guest.command(PREPARE),
        lambda: guest.send(noise(1, 16), noise(2, 16)),
        lambda: guest.command(START),
        lambda: guest.run(100_000),
    ]
    for action in actions[:steps]:
        action()
    played = bytes(guest.backend.data)
    guest.driver.reset()
    assert not guest.events.pending
    assert guest.backend.state == "closed"
    guest.driver.memory.written.clear()
    guest.events.advance(SECOND)
    assert not guest.driver.memory.written
    assert guest.backend.data == played
    guest.driver.start()
    assert guest.command(PREPARE) == BAD_MSG
    guest.open()
    guest.send(noise(3, 16))
    guest.command(START)
    guest.run(SECOND)
    assert guest.backend.data == played + noise(3, 16)


def test_a_broken_queue_plays_nothing_more(guest):
    """Its buffers read as zeros, which nobody has played."""
    guest.open()
    guest.send(noise(1, 16), noise(2, 16))
    guest.command(START)
    guest.run(100_000)
    ring = guest.driver.queues[TXQ]
    ring.put_descriptor(0, RAM_BASE - 100, 4)
    ring.make_available(0)
    guest.driver.kick(TXQ)
    guest.events.advance(SECOND)
    assert guest.backend.data == noise(1, 16)
    assert not guest.events.pending


# A machine that is late.


def late(guest, ns):
    guest.clock.advance(ns)
    guest.events.run_due()
    guest.collect()


@pytest.mark.parametrize("periods", [1, 2, 4])
@pytest.mark.parametrize("lateness", [1, 9_999_999, 10_000_000, 35_000_000])
def test_after_a_late_message_the_next_one_that_is_not_over_is_on_time(guest, periods, lateness):
    period = 4 * 480
    guest.open(S16_STEREO, buffer=periods * period, period=period)
    guest.send(*(noise(i, period) for i in range(6)))
    guest.command(START)
    late(guest, 10_000_000 + lateness)
    over = 1 + lateness // 10_000_000
    assert len(guest.done) == over
    guest.run(SECOND)
    assert [done.time for done in guest.done[over:]] == [guest.end_of(480 * n) for n in range(over + 1, 7)]
    assert guest.backend.data == b"".join(noise(i, period) for i in range(6))
    assert guest.stats.lateness_max_ns == lateness
    assert guest.stats.stalls == sum(lateness - 10_000_000 * n > 10_000_000 * periods for n in range(over))


def test_late_messages_come_one_by_one_and_the_guest_has_its_turn_between_them(guest):
    """A driver that sees a whole turn of its buffer at once sees nothing."""
    guest.open()
    guest.send(*(noise(i, 16) for i in range(6)))
    guest.command(START)
    edges = guest.driver.irq.edges
    guest.clock.advance(300_000)
    for count in (1, 2, 3):
        guest.events.run_one()
        guest.collect()
        assert len(guest.done) == guest.driver.irq.edges - edges == count
    guest.run(0)
    assert len(guest.done) == 3


def test_a_stream_that_is_stopped_between_late_messages_plays_no_more(guest):
    """Linux 6.1 stops a drained stream as soon as it is told that the last period is played; the next is stale."""
    guest.open()
    guest.send(*(noise(i, 16) for i in range(4)))
    guest.command(START)
    guest.clock.advance(300_000)
    guest.events.run_one()
    guest.close()
    guest.collect()
    assert guest.backend.data == noise(0, 16)


def test_however_late_the_machine_is_no_more_is_played_than_was_queued(guest):
    """What comes then begins then, as after any silence."""
    guest.open()
    guest.send(*(noise(i, 16) for i in range(6)))
    guest.command(START)
    silence = guest.end_of(24)
    late(guest, SECOND)
    assert len(guest.done) == 6
    guest.send(noise(6, 16), noise(7, 16))
    guest.started = guest.clock.now()
    guest.run(SECOND)
    assert [done.time for done in guest.done[6:]] == [guest.end_of(4), guest.end_of(8)]
    assert (guest.stats.underruns, guest.stats.silence_ns) == (1, guest.started - silence)


def test_a_late_stream_does_not_keep_other_events_waiting(guest):
    guest.open()
    guest.send(*(noise(i, 16) for i in range(6)))
    guest.command(START)
    guest.clock.advance(SECOND)
    came = []
    guest.events.at(guest.clock.now(), lambda: came.append(len(guest.driver.completed(TXQ))))
    guest.events.run_due()
    assert came == [1]


def test_stop_before_an_overdue_completion_keeps_the_message(guest):
    """The driver has been told nothing: the message is not played yet, but not lost either."""
    guest.open()
    guest.send(noise(1, 16), noise(2, 16))
    guest.command(START)
    guest.clock.advance(100_000)
    guest.command(STOP)
    guest.run(SECOND)
    assert not guest.done
    guest.command(START)
    restarted = guest.started
    guest.run(SECOND)
    assert [done.time - restarted for done in guest.done] == [0, 66_667]
    assert guest.backend.data == noise(1, 16) + noise(2, 16)
