"""devices/virtio/sound/output.py for a backend that plays live: it gets a message in parts while that plays."""

import pytest

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from tests.devices.virtio.sound.guest import OK, RELEASE, SECOND, START, STOP, Guest, Recorder, noise

MS = 1_000_000
#: 100 ms, of which the backend wants 10 ms each.
PERIOD = 4 * 4800


@pytest.fixture
def guest():
    guest = Guest(Recorder(part_ns=10 * MS))
    guest.open(buffer=4 * PERIOD, period=PERIOD)
    return guest


def sizes(guest):
    return [len(part) for part in guest.backend.parts]


def test_each_part_comes_when_its_last_frame_is_played(guest):
    guest.send(noise(1, PERIOD), noise(2, PERIOD))
    guest.command(START)
    for n in range(1, 20):
        guest.run(10 * MS - 1)
        assert len(guest.backend.data) == (n - 1) * 1920
        guest.run(1)
        assert len(guest.backend.data) == n * 1920
    guest.run(SECOND)
    assert guest.backend.data == noise(1, PERIOD) + noise(2, PERIOD)
    assert [done.time for done in guest.done] == [guest.end_of(4800), guest.end_of(9600)]


def test_a_part_interrupts_nobody(guest):
    guest.send(noise(1, PERIOD))
    guest.command(START)
    edges = guest.driver.irq.edges
    guest.run(99 * MS)
    assert sizes(guest) == [1920] * 9
    assert guest.driver.irq.edges == edges


def test_a_part_is_read_when_it_is_played(guest):
    token = guest.submit(noise(1, PERIOD))
    guest.driver.kick(2)
    guest.command(START)
    guest.run(50 * MS)
    guest.refill(token, noise(2, PERIOD))
    guest.run(SECOND)
    assert guest.backend.data == noise(1, PERIOD)[: PERIOD // 2] + noise(2, PERIOD)[PERIOD // 2 :]


def test_the_rest_of_a_message_is_never_empty(guest):
    """A message of whole parts completes with the last one; a longer one ends in a short part."""
    guest.send(noise(1, 1920), noise(2, 2 * 1920), noise(3, 2 * 1920 + 4))
    guest.command(START)
    guest.run(SECOND)
    assert sizes(guest) == [1920, 1920, 1920]
    assert guest.backend.data == noise(1, 1920) + noise(2, 2 * 1920) + noise(3, 2 * 1920 + 4)


def test_after_stop_the_next_part_follows_the_last_one(guest):
    guest.send(noise(1, PERIOD))
    guest.command(START)
    guest.run(37 * MS)
    guest.command(STOP)
    guest.run(SECOND)
    assert sizes(guest) == [1920] * 3
    guest.command(START)
    guest.run(3 * MS - 1)
    assert sizes(guest) == [1920] * 3
    guest.run(1)
    assert sizes(guest) == [1920] * 4
    guest.run(SECOND)
    assert guest.backend.data == noise(1, PERIOD)


def test_a_message_that_is_returned_unplayed_was_never_begun(guest):
    guest.send(noise(1, PERIOD), noise(2, PERIOD))
    guest.command(START)
    guest.run(150 * MS)
    guest.close()
    guest.collect()
    assert sizes(guest)[-4:] == [1920] * 4
    assert guest.backend.data == noise(1, PERIOD)
    assert guest.command(0x102) == OK  # PREPARE
    guest.send(noise(3, PERIOD))
    guest.command(START)
    guest.run(SECOND)
    assert guest.backend.data == noise(1, PERIOD) + noise(3, PERIOD)


def test_nothing_is_left_of_a_message_after_a_reset(guest):
    guest.send(noise(1, PERIOD))
    guest.command(START)
    guest.run(50 * MS)
    guest.driver.reset()
    assert not guest.events.pending
    assert guest.backend.data == b""


def test_a_late_machine_hands_over_what_is_due_at_once(guest):
    guest.send(noise(1, PERIOD))
    guest.command(START)
    guest.clock.advance(35 * MS)
    guest.events.run_due()
    assert sizes(guest) == [35 * 192]
    guest.run(10 * MS)
    assert sizes(guest) == [35 * 192, 1920]
    guest.run(SECOND)
    assert guest.backend.data == noise(1, PERIOD)
    assert guest.stats.lateness_max_ns == 0


def test_a_machine_late_by_a_message_goes_on_in_the_next_one(guest):
    guest.send(noise(1, PERIOD), noise(2, PERIOD))
    guest.command(START)
    guest.clock.advance(125 * MS)
    guest.events.run_due()
    guest.collect()
    assert len(guest.done) == 1
    assert sizes(guest) == [25 * 192]
    guest.run(SECOND)
    assert guest.backend.data == noise(1, PERIOD) + noise(2, PERIOD)
    assert guest.done[1].time == guest.end_of(9600)


def test_after_silence_a_message_has_its_parts_too(guest):
    guest.send(noise(1, PERIOD))
    guest.command(START)
    guest.run(SECOND)
    guest.backend.parts.clear()
    guest.send(noise(2, PERIOD))
    guest.run(25 * MS)
    assert sizes(guest) == [1920] * 2


def test_a_stream_that_broke_its_queue_plays_no_more_parts(guest):
    guest.send(noise(1, PERIOD))
    guest.command(START)
    guest.run(25 * MS)
    guest.device._queues[2].stop()
    guest.events.advance(SECOND)
    assert sizes(guest) == [1920] * 2
    assert not guest.events.pending


@pytest.mark.parametrize(
    ("pcm", "message", "parts"),
    [
        (PcmParams(FORMATS["FLOAT64"], 384000, 8), 1 << 20, 7),  # 43 ms; at most 5 ms are moved at once
        (PcmParams(FORMATS["S8"], 5512, 1), 1 << 20, 100),  # three minutes, of which a second is played
        (PcmParams(FORMATS["S8"], 384000, 1), 1, 0),
    ],
)
def test_no_driver_gets_more_parts_than_time_allows(guest, pcm, message, parts):
    guest.command(RELEASE)
    guest.open(pcm, buffer=4 * message, period=message)
    guest.driver.submit(2, [bytes(4 + message)], [8])
    guest.driver.kick(2)
    guest.command(START)
    guest.run(SECOND)
    assert len(guest.backend.parts) == parts
