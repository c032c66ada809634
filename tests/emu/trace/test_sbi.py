"""Calls to the firmware, by name."""

import pytest

from emu.trace import Trace
from tests.fakes import FakeClock

TIME, BASE, SRST = 0x54494D45, 0x10, 0x53525354


@pytest.fixture
def call():
    """Make a call with a given answer; return what is recorded."""

    def make(extension: int, function: int, *arguments: int, answer: tuple[int, int | None] = (0, 0)) -> tuple:
        records = []
        joints = Trace(records.append, "sbi").joints(FakeClock(1_000_000))
        calls = joints.calls(lambda *_call: answer)
        assert calls(extension, function, (*arguments, 0, 0, 0, 0, 0, 0)[:6]) == answer
        [record] = records
        return record.name, record.detail

    return make


def test_the_timer_is_set_for_a_time_from_now(call):
    assert call(TIME, 0, 10_500) == ("set_timer", {"in_us": 50.0, "result": "SUCCESS"})


def test_the_timer_is_switched_off(call):
    assert call(TIME, 0, (1 << 64) - 1)[1]["in_us"] == "never"


def test_arguments_and_value(call):
    name, detail = call(BASE, 3, TIME, answer=(0, 1))
    assert name == "probe_extension"
    assert detail == {"arguments": "0x54494d45 0x0 0x0", "result": "SUCCESS", "value": "0x1"}


@pytest.mark.parametrize(
    ("extension", "function", "name"),
    [
        (1, 0, "legacy console_putchar"),
        (SRST, 0, "system_reset"),
        (SRST, 7, "extension 0x53525354 function 7"),
        (0xDEAD, 0, "extension 0xdead function 0"),
    ],
)
def test_names(call, extension, function, name):
    assert call(extension, function, answer=(-2, None)) == (
        name,
        {"arguments": "0x0 0x0 0x0", "result": "NOT_SUPPORTED"},
    )
