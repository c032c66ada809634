"""However large or many the driver's messages are, the guest gets a turn after some of the work."""

import struct
from collections.abc import Callable
from itertools import pairwise

import pytest

from devices.audio import NullSink
from devices.virtio.sound.steps import AT_ONCE, RETURN
from tests.devices.virtio.sound.guest import (
    CONTROLQ,
    IO_ERR,
    OK,
    RELEASE,
    RXQ,
    S16_STEREO,
    SECOND,
    START,
    STOP,
    TXQ,
    Guest,
    noise,
    source,
    status_of,
)

#: Eight pieces and a frame.
LARGE = 8 * AT_ONCE + 4
MANY = 300


@pytest.fixture
def guest() -> Guest:
    return Guest()


def request(code: int, stream: int = 0) -> bytes:
    return struct.pack("<II", code, stream)


def steps(sums: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(sums)]


def turns(guest: Guest, act: Callable[[], None]) -> int:
    """Let the guest do nothing but wait for due events, calling ``act`` after each; return how many there were."""
    count = 0
    while guest.events.pending and guest.events.pending[0] <= guest.clock.now():
        guest.events.run_one()
        act()
        count += 1
    return count


def send_large(guest: Guest, *messages: bytes) -> None:
    """Open a stream, and let its first message end."""
    guest.open(buffer=4 * LARGE, period=LARGE)
    guest.send(*messages)
    guest.command(START)
    guest.clock.advance(guest.end_of(LARGE // 4) - guest.clock.now())


def test_a_large_message_is_played_piece_by_piece_and_completes_once(guest: Guest) -> None:
    sound = noise(1, LARGE)
    send_large(guest, sound)
    sizes = [0]
    count = turns(guest, lambda: sizes.append(len(guest.backend.data)))
    assert steps(sizes) == [AT_ONCE] * 8 + [4]
    assert count == 9
    guest.collect()
    assert guest.backend.data == sound
    assert [(done.status, done.time) for done in guest.done] == [(OK, guest.end_of(LARGE // 4))]
    assert (guest.stats.frames, guest.stats.messages) == (LARGE // 4, 1)
    assert [(period.size, period.fill) for period in guest.backend.periods] == [(LARGE, 0)]


def test_a_large_message_is_recorded_piece_by_piece_and_completes_once(guest: Guest) -> None:
    guest.open(buffer=4 * LARGE, period=LARGE, stream=1)
    guest.offer(LARGE)
    guest.command(START, stream=1)
    guest.clock.advance(guest.end_of(LARGE // 4) - guest.clock.now())
    positions: list[int] = []
    assert turns(guest, lambda: positions.append(guest.backend.captures[0].position)) == 9
    assert positions == [AT_ONCE * n for n in range(1, 9)] + [LARGE]
    guest.collect()
    assert [done.data for done in guest.done] == [source(0, LARGE)]


def test_stop_amid_a_message_that_is_over_does_not_tear_it(guest: Guest) -> None:
    """The backend keeps only whole messages, those that the driver was told are played."""
    send_large(guest, noise(1, LARGE), noise(2, LARGE))
    for _ in range(3):
        guest.events.run_one()
    assert len(guest.backend.data) == 3 * AT_ONCE
    guest.close()
    guest.collect()
    assert guest.backend.data == noise(1, LARGE)
    assert guest.stats.messages == 1
    assert len(guest.done) == 2
    assert not guest.events.pending


def test_a_recording_that_is_stopped_amid_a_message_goes_on_behind_it(guest: Guest) -> None:
    guest.open(buffer=4 * LARGE, period=LARGE, stream=1)
    guest.offer(LARGE, 16)
    guest.command(START, stream=1)
    guest.clock.advance(guest.end_of(LARGE // 4) - guest.clock.now())
    guest.events.run_one()
    guest.command(STOP, stream=1)
    guest.run(SECOND)
    guest.command(START, stream=1)
    guest.run(SECOND)
    assert [done.data for done in guest.done] == [source(0, LARGE), source(LARGE, 16)]


def test_a_reset_amid_a_message_ends_it() -> None:
    backend = NullSink()
    guest = Guest(backend)
    send_large(guest, noise(1, LARGE))
    guest.events.run_one()
    guest.driver.reset()
    assert not guest.events.pending
    assert backend.played == AT_ONCE // 4


def test_release_returns_some_messages_at_a_time_and_is_answered_after_all(guest: Guest) -> None:
    guest.open(buffer=1 << 16, period=1 << 12)
    tokens = [guest.submit(bytes(16)) for _ in range(MANY)]
    guest.driver.kick(TXQ)
    ring = guest.driver.queues[TXQ]
    guest.driver.submit(CONTROLQ, [request(RELEASE)], [4])
    guest.driver.write("QueueNotify", CONTROLQ)
    back = [ring.used_idx]
    while not guest.driver.completed(CONTROLQ):
        assert guest.driver.deferred == 1
        guest.driver.events.run_one()
        back.append(ring.used_idx)
    assert max(steps([0, *back])) == AT_ONCE // RETURN
    assert back[-1] == MANY
    guest.collect()
    assert [done.token for done in guest.done] == tokens
    assert guest.backend.state == "closed"


def test_requests_behind_release_wait_for_it(guest: Guest) -> None:
    guest.open(buffer=1 << 16, period=1 << 12)
    for _ in range(MANY):
        guest.submit(bytes(16))
    guest.driver.kick(TXQ)
    codes = (RELEASE, STOP, RELEASE)
    tokens = [guest.driver.submit(CONTROLQ, [request(code)], [4]) for code in codes]
    guest.driver.kick(CONTROLQ)
    replies = guest.driver.completed(CONTROLQ)
    assert [reply.token for reply in replies] == tokens
    assert [status_of(reply.data) for reply in replies] == [OK, 0x8001, OK]


def test_a_message_that_comes_while_release_goes_on_is_refused(guest: Guest) -> None:
    guest.open(buffer=1 << 16, period=1 << 12)
    for _ in range(MANY):
        guest.submit(bytes(16))
    guest.driver.kick(TXQ)
    guest.driver.submit(CONTROLQ, [request(RELEASE)], [4])
    guest.driver.write("QueueNotify", CONTROLQ)
    late = guest.submit(bytes(16))
    guest.driver.kick(TXQ)
    guest.run(0)
    assert [(done.token, done.status) for done in guest.done if done.status != OK] == [(late, IO_ERR)]
    assert len(guest.done) == MANY + 1


def test_a_reset_while_release_goes_on_closes_the_stream(guest: Guest) -> None:
    guest.open(buffer=1 << 16, period=1 << 12)
    for _ in range(MANY):
        guest.submit(bytes(16))
    guest.driver.kick(TXQ)
    guest.driver.submit(CONTROLQ, [request(RELEASE)], [4])
    guest.driver.write("QueueNotify", CONTROLQ)
    assert guest.backend.state == "stopped"
    guest.driver.check_writes()
    guest.driver.reset()
    guest.driver.run_deferred()
    assert guest.backend.state == "closed"
    assert not guest.events.pending
    guest.driver.start()
    guest.open()
    assert guest.backend.state == "stopped"


@pytest.mark.parametrize("frames", [0, 1])
def test_tiny_messages_complete_one_at_a_time(guest: Guest, frames: int) -> None:
    guest.open(buffer=1 << 16, period=1 << 12)
    for _ in range(MANY):
        guest.submit(bytes(4 * frames))
    guest.driver.kick(TXQ)
    guest.command(START)
    back = [0]
    guest.clock.advance(SECOND // 100)
    while guest.events.pending:
        guest.clock.advance(max(guest.events.pending[0] - guest.clock.now(), 0))
        guest.events.run_one()
        guest.collect()
        back.append(len(guest.done))
    assert back == [*range(MANY + 1)]


@pytest.mark.parametrize("queue", [TXQ, RXQ])
def test_some_refused_messages_are_returned_at_a_time(guest: Guest, queue: int) -> None:
    for _ in range(MANY):
        guest.driver.submit(queue, [bytes(4)], [8])
    guest.driver.kick(queue)
    ring = guest.driver.queues[queue]
    back = [0]
    turns(guest, lambda: back.append(ring.used_idx))
    assert max(steps(back)) == AT_ONCE // RETURN
    assert back[-1] == MANY


def test_a_live_backend_gets_no_more_than_a_piece_at_once_when_the_machine_is_late() -> None:
    guest = Guest()
    guest.backend.part_ns = 10_000_000
    sound = noise(1, LARGE)
    guest.open(S16_STEREO, buffer=4 * LARGE, period=LARGE)
    guest.send(sound)
    guest.command(START)
    guest.clock.advance(guest.end_of(LARGE // 8) - guest.clock.now())
    turns(guest, lambda: None)
    assert max(map(len, guest.backend.parts)) == AT_ONCE
    guest.run(10 * SECOND)
    assert guest.backend.data == sound
