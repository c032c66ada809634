"""Packets are taken out of the stream, whatever else is in it."""

import random

import pytest

from emu.debug.packets import INTERRUPT, LONGEST, Framer, frame, unescape


def test_a_packet_is_framed_and_taken_apart() -> None:
    framer = Framer()
    assert frame(b"qC") == b"$qC#b4"
    assert framer.feed(b"$qC#b4") == [b"qC"]
    assert framer.answer == b"+"


def test_special_bytes_are_escaped() -> None:
    data = bytes(range(256))
    framer = Framer()
    (packet,) = framer.feed(frame(data))
    assert packet is not None
    assert unescape(packet) == data


def test_a_wrong_sum_is_refused() -> None:
    framer = Framer()
    assert framer.feed(b"$qC#b5$qC#zz$qC#b4") == [b"qC"]
    assert framer.answer == b"--+"


def test_without_acknowledgements_nothing_is_said() -> None:
    framer = Framer()
    framer.acks = False
    assert framer.feed(b"$qC#b5$qC#b4") == [b"qC"]
    assert not framer.answer


def test_c_c_counts_between_packets_only() -> None:
    framer = Framer()
    assert framer.feed(b"\3+-$\3#03\3") == [INTERRUPT, b"\3", INTERRUPT]


@pytest.mark.parametrize("size", [LONGEST, LONGEST + 1, 10 * LONGEST])
def test_what_is_too_long_is_dropped_and_takes_no_room(size: int) -> None:
    framer = Framer()
    found = framer.feed(b"$" + b"a" * size)
    assert not found
    assert len(framer._data or b"") <= LONGEST + 1
    found = framer.feed(b"#%02x" % (ord("a") * size & 0xFF))
    assert found == ([b"a" * size] if size <= LONGEST else [])


def test_any_bytes_in_any_pieces() -> None:
    choose = random.Random(1)
    for _ in range(300):
        stream = bytes(choose.choices(b"$#}+-\3ab0", k=200)) + b"##00" + frame(b"last")
        whole, pieces = Framer(), Framer()
        expected, found = whole.feed(stream), []
        while stream:
            cut = choose.randrange(1, 20)
            found += pieces.feed(stream[:cut])
            stream = stream[cut:]
        assert found == expected
        assert found[-1] == b"last" or b"last" in (found[-1] or b"")
