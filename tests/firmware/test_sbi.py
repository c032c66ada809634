"""The supervisor calls, one by one, and requests that no kernel would make (SBI 2.0)."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.power import PowerAction, PowerRequest
from emu.memory import Ram
from firmware.sbi import Sbi, SbiHart
from tests.fakes import FakeIrq

SUCCESS, FAILED, NOT_SUPPORTED, INVALID_PARAM, ALREADY_AVAILABLE = 0, -1, -2, -3, -6
BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN = 0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x4442434E
ALL_ONES = (1 << 64) - 1
RAM, RAM_SIZE = 0x8000_0000, 16 << 20


class Board:
    """The firmware with a fake hart and console."""

    def __init__(self) -> None:
        self.ticks: list[int] = []
        self.software = FakeIrq()
        self.fences: list[str] = []
        self.power: list[PowerRequest] = []
        self.output = bytearray()
        self.input = bytearray()
        self.ram = Ram(RAM, RAM_SIZE)
        hart = SbiHart(
            self.ticks.append, self.software, lambda: self.fences.append("i"), lambda: self.fences.append("vma")
        )
        self.sbi = Sbi(hart, self.ram, self.power.append, self.output.extend, self.read)

    def read(self, size: int) -> bytes:
        data = bytes(self.input[:size])
        del self.input[:size]
        return data

    def call(self, extension: int, function: int = 0, *arguments: int) -> tuple[int, int | None]:
        return self.sbi.call(extension, function, [*arguments, 0, 0, 0, 0, 0, 0][:6])


@pytest.fixture
def board() -> Board:
    return Board()


# ---------------------------------------------------------------- BASE


def test_version_2_0(board: Board) -> None:
    assert board.call(BASE, 0) == (SUCCESS, 0x0200_0000)


@pytest.mark.parametrize("function", range(7))
def test_base_functions_succeed(board: Board, function: int) -> None:
    assert board.call(BASE, function, BASE)[0] == SUCCESS


@pytest.mark.parametrize("extension", [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, 0, 1, 2, 8])
def test_probe_what_there_is(board: Board, extension: int) -> None:
    assert board.call(BASE, 3, extension) == (SUCCESS, 1)


@pytest.mark.parametrize("extension", [3, 9, 0x504D55, 0x53555350, ALL_ONES])
def test_probe_and_call_what_there_is_not(board: Board, extension: int) -> None:
    assert board.call(BASE, 3, extension) == (SUCCESS, 0)
    assert board.call(extension) == (NOT_SUPPORTED, 0)


@pytest.mark.parametrize("extension", [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN])
@pytest.mark.parametrize("function", [7, 100, ALL_ONES])
def test_functions_there_are_not(board: Board, extension: int, function: int) -> None:
    assert board.call(extension, function, 1) == (NOT_SUPPORTED, 0)


# ---------------------------------------------------------------- TIME, IPI, RFENCE


def test_set_timer(board: Board) -> None:
    assert board.call(TIME, 0, 1234) == (SUCCESS, 0)
    assert board.call(0, 0, 77) == (SUCCESS, None)
    assert board.ticks == [1234, 77]


@pytest.mark.parametrize(
    ("mask", "first", "error", "sent"),
    [
        (1, 0, SUCCESS, 1),
        (0, 0, SUCCESS, 0),
        (0, ALL_ONES, SUCCESS, 1),
        (2, 0, INVALID_PARAM, 0),
        (3, 0, INVALID_PARAM, 0),
        (1, 1, INVALID_PARAM, 0),
        (ALL_ONES, 0, INVALID_PARAM, 0),
    ],
)
def test_harts_are_named_by_mask_and_base(board: Board, mask: int, first: int, error: int, sent: int) -> None:
    assert board.call(IPI, 0, mask, first) == (error, 0)
    assert board.software.edges == sent
    for function in range(3):
        assert board.call(RFENCE, function, mask, first, 0x1000, 0x1000) == (error, 0)
    assert board.fences == ["i", "vma", "vma"] * sent


# ---------------------------------------------------------------- HSM, SRST


def test_hart_state(board: Board) -> None:
    assert board.call(HSM, 0, 0) == (ALREADY_AVAILABLE, 0)
    assert board.call(HSM, 0, 1) == (INVALID_PARAM, 0)
    assert board.call(HSM, 1) == (FAILED, 0)
    assert board.call(HSM, 2, 0) == (SUCCESS, 0)
    assert board.call(HSM, 2, 1) == (INVALID_PARAM, 0)
    assert board.call(HSM, 3, 0) == (SUCCESS, 0)
    assert board.call(HSM, 3, 0x8000_0000) == (NOT_SUPPORTED, 0)
    assert board.call(HSM, 3, 5) == (INVALID_PARAM, 0)


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        ((0, 0), PowerRequest(PowerAction.OFF)),
        ((0, 1), PowerRequest(PowerAction.FAIL, 1)),
        ((1, 0), PowerRequest(PowerAction.RESET)),
        ((2, 0), PowerRequest(PowerAction.RESET)),
        ((1 << 32, 0), PowerRequest(PowerAction.OFF)),  # the arguments have 32 bits
    ],
)
def test_system_reset(board: Board, arguments: Sequence[int], request_: PowerRequest) -> None:
    assert board.call(SRST, 0, *arguments) == (SUCCESS, 0)
    assert board.power == [request_]


def test_a_reset_of_a_kind_there_is_not(board: Board) -> None:
    assert board.call(SRST, 0, 3) == (INVALID_PARAM, 0)
    assert board.power == []


def test_legacy_shutdown(board: Board) -> None:
    assert board.call(8) == (SUCCESS, None)
    assert board.power == [PowerRequest(PowerAction.OFF)]


# ---------------------------------------------------------------- DBCN and the legacy console


def test_console_write(board: Board) -> None:
    board.ram.write(RAM + 100, b"hello")
    assert board.call(DBCN, 0, 5, RAM + 100) == (SUCCESS, 5)
    assert board.call(DBCN, 2, 0x121) == (SUCCESS, 0)
    assert board.call(1, 0, ord("?")) == (SUCCESS, None)
    assert board.output == b"hello!?"


def test_console_read(board: Board) -> None:
    board.input += b"typed"
    assert board.call(DBCN, 1, 3, RAM) == (SUCCESS, 3)
    assert board.ram.read(RAM, 4) == b"typ\0"
    assert board.call(2) == (ord("e"), None)
    assert board.call(DBCN, 1, 100, RAM) == (SUCCESS, 1)
    assert board.call(DBCN, 1, 100, RAM) == (SUCCESS, 0)
    assert board.call(2) == (-1, None)


@pytest.mark.parametrize("function", [0, 1])
@pytest.mark.parametrize(
    ("size", "low", "high"),
    [
        (1, 0, 0),
        (2, RAM + RAM_SIZE - 1, 0),
        (1, RAM, 1),
        (1, ALL_ONES, ALL_ONES),
        (ALL_ONES, RAM + RAM_SIZE - 8, 0),
        (16, 0x1000_0000, 0),
    ],
)
def test_a_console_buffer_that_is_not_ram(board: Board, function: int, size: int, low: int, high: int) -> None:
    board.input += b"typed"
    assert board.call(DBCN, function, size, low, high) == (INVALID_PARAM, 0)
    assert not board.output
    assert board.input == b"typed"


def test_a_call_moves_a_bounded_amount(board: Board) -> None:
    error, written = board.call(DBCN, 0, RAM_SIZE, RAM)
    assert error == SUCCESS
    assert written == len(board.output) <= 65536


@given(
    extension=st.sampled_from([BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, *range(16)]) | st.integers(0, ALL_ONES),
    function=st.integers(0, 8) | st.integers(0, ALL_ONES),
    arguments=st.lists(st.integers(0, ALL_ONES) | st.sampled_from([RAM, 1, 2]), min_size=6, max_size=6),
)
def test_no_call_ever_raises(extension: int, function: int, arguments: list[int]) -> None:
    error, value = Board().call(extension, function, *arguments)
    assert -(1 << 63) <= error < 1 << 63
    assert value is None or 0 <= value <= ALL_ONES
