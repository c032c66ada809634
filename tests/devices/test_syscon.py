import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.power import PowerAction, PowerRequest
from devices.syscon import TestDevice


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    ("value", "request_"),
    [
        (0x5555, PowerRequest(PowerAction.OFF)),
        (0x7777, PowerRequest(PowerAction.RESET)),
        (0x3333, PowerRequest(PowerAction.FAIL)),
    ],
)
def test_what_a_store_requests(value: int, request_: PowerRequest, size: int) -> None:
    requests: list[PowerRequest] = []
    TestDevice(requests.append).write(0, size, value)
    assert requests == [request_]


def test_failure_has_a_code() -> None:
    requests: list[PowerRequest] = []
    TestDevice(requests.append).write(0, 4, 42 << 16 | 0x3333)
    assert requests == [PowerRequest(PowerAction.FAIL, 42)]


@given(st.integers(0, 0xFFF), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1))
def test_anything_else_does_nothing(offset: int, size: int, value: int) -> None:
    requests: list[PowerRequest] = []
    device = TestDevice(requests.append)
    device.write(offset, size, value)
    assert device.read(offset, size) == 0
    if offset or size == 1 or value & 0xFFFF not in (0x3333, 0x5555, 0x7777):
        assert requests == []
