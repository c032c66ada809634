"""Time stamps: one before each line, however the output is cut into pieces."""

import pytest

from emu.terminal.timestamps import TimeStamps

HOUR = 3600 * 10**9
T = b"[01:02:03.456] "


@pytest.fixture
def stamps() -> TimeStamps:
    stamps = TimeStamps()
    stamps.now = lambda: HOUR + 123_456_999_999
    return stamps


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"one\r\ntwo\r\n"], T + b"one\r\n" + T + b"two\r\n"),
        ([b"o", b"ne\r", b"\n", b"two"], T + b"one\r\n" + T + b"two"),
        ([b"\n\n"], T + b"\n" + T + b"\n"),
        ([b"one\n", b"two"], T + b"one\n" + T + b"two"),
    ],
)
def test_each_line_has_one(stamps, pieces, shown):
    stamps.on = True
    assert b"".join(map(stamps, pieces)) == shown


def test_none_while_they_are_off(stamps):
    assert stamps(b"one\ntwo\n") == b"one\ntwo\n"


def test_the_line_that_has_begun_has_none(stamps):
    assert stamps(b"one\n# ") == b"one\n# "
    stamps.on = True
    assert stamps(b"two\nthree") == b"two\n" + T + b"three"
    stamps.on = False
    assert stamps(b"\nfour\n") == b"\nfour\n"
    stamps.on = True
    assert stamps(b"five") == T + b"five"


def test_a_day_has_more_than_two_digits_of_hours_in_the_end(stamps):
    stamps.on = True
    stamps.now = lambda: 100 * HOUR
    assert stamps(b"x") == b"[100:00:00.000] x"
