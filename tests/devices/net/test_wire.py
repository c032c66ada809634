"""A cable whose other end is in Python."""

import pytest

from devices.errors import UsageError
from devices.net import Wire
from devices.net.base import MOST_FRAME, Plug
from devices.net.wire import MOST_WAITING

FRAME = bytes(60)


class Card:
    def __init__(self) -> None:
        self.looks = 0

    def look(self) -> None:
        raise AssertionError("this could be in the middle of something")

    def look_later(self) -> None:
        self.looks += 1


def test_frames_for_the_guest_wait_in_order() -> None:
    wire, card = Wire(), Card()
    wire.send(b"before" + FRAME)
    wire.plug(Plug(card, lambda message: message(), lambda: 0))
    wire.send(b"after" + FRAME)
    assert card.looks == 1
    assert [wire.fetch(), wire.fetch(), wire.fetch()] == [b"before" + FRAME, b"after" + FRAME, None]


def test_frames_of_the_guest_are_there_once() -> None:
    wire = Wire()
    wire.transmit(FRAME)
    assert wire.received() == [FRAME]
    assert wire.received() == []


def test_an_answer_gets_each_frame_at_once() -> None:
    seen: list[bytes] = []
    wire = Wire(seen.append)
    wire.transmit(FRAME)
    assert seen == [FRAME]
    assert wire.received() == []


def test_after_unplugging_nobody_is_called() -> None:
    wire, card = Wire(), Card()
    wire.plug(Plug(card, lambda message: message(), lambda: 0))
    wire.unplug()
    wire.send(FRAME)
    assert card.looks == 0


def test_there_is_an_end_to_what_waits() -> None:
    wire = Wire()
    for _ in range(MOST_WAITING + 2):
        wire.send(FRAME)
        wire.transmit(FRAME)
    assert wire.lost == 4
    assert len(wire.received()) == MOST_WAITING


@pytest.mark.parametrize("size", [0, 13, MOST_FRAME + 1])
def test_what_is_no_frame_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"a frame has 14 to {MOST_FRAME} bytes, not {size}"):
        Wire().send(bytes(size))


@pytest.mark.parametrize("mtu", [67, 65521])
def test_an_mtu_that_cannot_be(mtu: int) -> None:
    with pytest.raises(UsageError, match=f"between 68 and 65520, not {mtu}"):
        Wire(mtu=mtu)
