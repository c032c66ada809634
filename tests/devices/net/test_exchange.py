"""Frames between the machine's thread and a network's."""

import os
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from devices.net.base import Plug
from devices.net.exchange import LIMIT, OVERHEAD, Exchange

LARGE = bytes(64 << 10)


class Card:
    """A card, and the inbox of its machine."""

    def __init__(self) -> None:
        self.looks = 0
        self.inbox: list[Callable[[], None]] = []

    def look(self) -> None:
        self.looks += 1

    def look_later(self) -> None:
        raise AssertionError("it is called by nobody here")

    @property
    def plug(self) -> Plug:
        return Plug(self, self.inbox.append, lambda: 0)

    def run(self) -> None:
        while self.inbox:
            self.inbox.pop(0)()


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    exchange = Exchange()
    yield exchange
    exchange.close()


@pytest.fixture
def card(exchange: Exchange) -> Card:
    card = Card()
    exchange.plug(card.plug)
    return card


def rings(exchange: Exchange) -> bool:
    return bool(select.select([exchange.bell], [], [], 0)[0])


def test_frames_pass_in_order_both_ways(exchange: Exchange, card: Card) -> None:
    for number in range(3):
        exchange.transmit(b"out %d" % number)
        exchange.give(b"in %d" % number)
    assert [exchange.take() for _ in range(4)] == [b"out 0", b"out 1", b"out 2", None]
    assert [exchange.fetch() for _ in range(4)] == [b"in 0", b"in 1", b"in 2", None]


def test_the_machine_is_called_once_for_all_that_waits(exchange: Exchange, card: Card) -> None:
    exchange.flush()
    assert card.inbox == []
    for _ in range(3):
        exchange.give(b"frame")
        exchange.flush()
    assert len(card.inbox) == 1
    card.run()
    assert card.looks == 1
    exchange.flush()
    assert len(card.inbox) == 1


def test_there_is_an_end_to_what_the_guest_may_leave(exchange: Exchange, card: Card) -> None:
    sent = 0
    while exchange.ready():
        exchange.transmit(b"")
        sent += 1
    assert sent == LIMIT // OVERHEAD
    taken = 0
    while not card.inbox:
        assert exchange.take() is not None
        taken += 1
    assert sent // 2 <= taken <= sent // 2 + 1, "it is called when half of it is gone"
    card.run()
    assert card.looks == 1
    assert exchange.ready()


def test_the_bell_rings_for_a_frame_when_somebody_sleeps(exchange: Exchange, card: Card) -> None:
    exchange.transmit(b"frame")
    assert not rings(exchange)
    assert not exchange.may_sleep(for_room=False, for_frame=True), "there is one already"
    exchange.awake()
    exchange.take()
    assert exchange.may_sleep(for_room=False, for_frame=True)
    exchange.transmit(b"frame")
    assert rings(exchange)
    exchange.transmit(b"frame")
    exchange.awake()
    assert not rings(exchange)


def test_the_bell_rings_for_room(exchange: Exchange, card: Card) -> None:
    for _ in range(4):
        exchange.give(LARGE)
    assert exchange.full
    assert exchange.may_sleep(for_room=True, for_frame=False)
    exchange.fetch()
    assert rings(exchange)
    exchange.awake()
    assert not exchange.may_sleep(for_room=True, for_frame=False), "there is some already"


def test_the_bell_rings_for_room_however_the_two_threads_meet(
    exchange: Exchange, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the machine takes a frame, the network's thread fills the queue up, and goes to sleep."""
    for _ in range(3):
        exchange.give(LARGE)
    get = exchange._incoming.get

    def get_late() -> bytes | None:
        exchange.give(LARGE)
        assert exchange.may_sleep(for_room=True, for_frame=False)
        return get()

    monkeypatch.setattr(exchange._incoming, "get", get_late)
    exchange.fetch()
    assert rings(exchange)


def test_a_new_machine_gets_nothing_of_the_old_one(exchange: Exchange, card: Card) -> None:
    for _ in range(4):
        exchange.give(LARGE)
    exchange.flush()
    assert exchange.may_sleep(for_room=True, for_frame=False)
    new = Card()
    exchange.unplug()
    exchange.plug(new.plug)
    assert rings(exchange)
    assert exchange.fetch() is None
    card.run()
    assert card.looks == 0
    exchange.give(b"frame")
    exchange.flush()
    new.run()
    assert new.looks == 1


def test_without_a_machine_nobody_is_called(exchange: Exchange, card: Card) -> None:
    exchange.unplug()
    exchange.give(b"frame")
    exchange.flush()
    assert card.inbox == []


class Waiting(Card):
    """A card whose thread sleeps until it is called."""

    def __init__(self) -> None:
        super().__init__()
        self._rang = threading.Event()

    @property
    def plug(self) -> Plug:
        return Plug(self, self._post, lambda: 0)

    def wait(self) -> None:
        self._rang.wait()
        self._rang.clear()
        self.run()

    def _post(self, message: Callable[[], None]) -> None:
        self.inbox.append(message)
        self._rang.set()


def echo(exchange: Exchange, frames: int) -> None:
    """Send so many frames back, on the network's thread, which sleeps when there is nothing to do."""
    poll = select.poll()
    poll.register(exchange.bell, select.POLLIN)
    while frames:
        full = exchange.full
        while not exchange.full and (frame := exchange.take()) is not None:
            exchange.give(frame)
            frames -= 1
        exchange.flush()
        if frames and exchange.may_sleep(for_room=full, for_frame=not full):
            poll.poll()
        exchange.awake()


def test_nobody_sleeps_for_ever(exchange: Exchange) -> None:
    """Two threads, each of which waits for the other, and sends all it has in bursts."""
    card, sent, received = Waiting(), 0, 0
    exchange.plug(card.plug)
    thread = threading.Thread(target=echo, args=(exchange, 20_000))
    thread.start()
    while received < 20_000:
        while sent < 20_000 and exchange.ready():
            exchange.transmit(b"frame")
            sent += 1
        before = received
        while exchange.fetch() is not None:
            received += 1
        if received == before:
            card.wait()
    thread.join()
    assert card.looks


def test_closing_gives_the_descriptor_back() -> None:
    exchange = Exchange()
    bell = exchange.bell
    exchange.close()
    exchange.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(bell)
