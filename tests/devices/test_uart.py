from collections import deque
from random import Random
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import UsageError
from devices.uart import Uart16550
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = range(3, 8)

IER_RX, IER_THRE, IER_LINE, IER_MODEM = 1, 2, 4, 8
NO_INTERRUPT, LINE_STATUS, RX_AVAILABLE, RX_TIMEOUT, THR_EMPTY, MODEM_STATUS = 0x01, 0x06, 0x04, 0x0C, 0x02, 0x00
FIFO_ON = 0x01
TRIGGER_8 = 0x81
DATA_READY, OVERRUN, TRANSMITTER_EMPTY = 0x01, 0x02, 0x60
LOOP = 0x10
PAUSE = 100_000  # ns


class Board:
    """A UART, its output, and a console that holds the input it has not taken yet."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events = FakeEvents(self.clock)
        self.irq = False
        self.output = bytearray()
        self.waiting = b""
        self.uart = Uart16550(self.set_irq, self.clock, self.events, self.output.extend, self.feed)

    def set_irq(self, level: bool) -> None:
        assert level is not self.irq, "the line is called on change only"
        self.irq = level

    def type(self, data: bytes) -> None:
        self.waiting += data
        self.feed()

    def feed(self) -> None:
        self.waiting = self.waiting[self.uart.receive(self.waiting) :]

    def read(self, register: int) -> int:
        return self.uart.read(register, 1)

    def write(self, register: int, value: int) -> None:
        self.uart.write(register, 1, value)

    def interrupt(self) -> int:
        """The identification, without the bits that say FIFOs are on."""
        return self.read(IIR) & 0x0F

    def drain(self) -> bytes:
        """Do what a driver does on a receiver interrupt."""
        data = bytearray()
        while self.read(LSR) & DATA_READY:
            data.append(self.read(RBR))
        return bytes(data)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def fifo_board(board: Board) -> Board:
    """FIFOs on, trigger level 8, receiver interrupt enabled."""
    board.write(FCR, TRIGGER_8)
    board.write(IER, IER_RX)
    return board


def test_reset_state(board: Board) -> None:
    assert [board.read(register) for register in range(8)] == [0, 0, 0x01, 0, 0, 0x60, 0xB0, 0]
    assert not board.irq


def test_scratch_and_divisor(board: Board) -> None:
    board.write(SCR, 0xA5)
    board.write(LCR, 0x83)
    board.write(DLL, 2)
    board.write(DLM, 1)
    assert (board.read(DLL), board.read(DLM)) == (2, 1)
    board.write(LCR, 0x03)
    assert (board.read(RBR), board.read(IER), board.read(LCR), board.read(SCR)) == (0, 0, 0x03, 0xA5)
    assert board.output == b""


def test_output(board: Board) -> None:
    for byte in b"hello":
        assert board.read(LSR) & TRANSMITTER_EMPTY == TRANSMITTER_EMPTY
        board.write(THR, byte)
    assert board.output == b"hello"


# Transmitter interrupt


def test_thr_empty_interrupt_when_it_is_enabled(board: Board) -> None:
    board.write(IER, IER_THRE)
    assert board.irq
    assert board.interrupt() == THR_EMPTY
    assert not board.irq, "reading IIR clears it"
    assert board.interrupt() == NO_INTERRUPT


def test_thr_empty_interrupt_after_each_write(board: Board) -> None:
    board.write(IER, IER_THRE)
    board.interrupt()
    board.write(THR, 0x41)
    assert board.irq
    board.write(IER, 0)
    assert not board.irq


def test_thr_empty_interrupt_comes_again_only_when_enabled_anew(board: Board) -> None:
    """Linux's 8250 driver checks for this at start-up, to detect faulty UARTs."""
    board.write(IER, IER_THRE)
    board.interrupt()
    board.write(IER, IER_THRE)
    assert not board.irq
    board.write(IER, 0)
    board.write(IER, IER_THRE)
    assert board.interrupt() == THR_EMPTY


# Flow control


def test_paused_output_raises_no_interrupt_until_it_may_continue(board: Board) -> None:
    board.write(IER, IER_THRE)
    board.interrupt()
    board.uart.hold(True)
    board.write(THR, 0x41)
    assert not board.irq
    assert board.interrupt() == NO_INTERRUPT, "which has not cleared it"
    board.uart.hold(False)
    assert board.irq
    assert board.interrupt() == THR_EMPTY


def test_a_driver_that_enables_the_interrupt_is_paused_too(board: Board) -> None:
    board.uart.hold(True)
    board.write(IER, IER_THRE)
    assert not board.irq
    board.uart.hold(False)
    assert board.irq


def test_a_polling_driver_is_never_paused(board: Board) -> None:
    """Pausing it would only keep the CPU busy; kernel messages even keep all interrupts waiting."""
    board.uart.hold(True)
    assert board.read(LSR) & TRANSMITTER_EMPTY == TRANSMITTER_EMPTY
    board.write(THR, 0x41)
    assert board.output == b"A"


def test_input_arrives_while_output_is_paused(fifo_board: Board) -> None:
    fifo_board.write(IER, IER_RX | IER_THRE)
    fifo_board.uart.hold(True)
    fifo_board.type(b"12345678")
    assert fifo_board.interrupt() == RX_AVAILABLE


# Receiver


def test_a_driver_listens_as_soon_as_it_wants_to_be_told_of_input(board: Board) -> None:
    board.write(IER, IER_THRE | IER_LINE | IER_MODEM)
    assert not board.uart.listening
    board.write(IER, IER_RX)
    assert board.uart.listening


def test_firmware_takes_what_there_is_and_the_line_continues(fifo_board: Board) -> None:
    fifo_board.type(bytes(range(20)))
    assert fifo_board.uart.take(3) == bytes(range(3))
    assert fifo_board.uart.take(100) == bytes(range(3, 16))
    assert fifo_board.uart.take(100) == b""
    fifo_board.events.advance(PAUSE)
    assert fifo_board.uart.take(100) == bytes(range(16, 20))


def test_input_without_fifos_is_one_byte_at_a_time(board: Board) -> None:
    board.write(IER, IER_RX)
    board.type(b"abc")
    assert board.waiting == b"bc"
    assert board.interrupt() == RX_AVAILABLE
    assert board.read(RBR) == ord("a")
    assert not board.irq
    board.events.advance(PAUSE)
    assert board.read(RBR) == ord("b")


def test_trigger_level(fifo_board: Board) -> None:
    fifo_board.type(b"1234567")
    assert not fifo_board.irq
    fifo_board.type(b"8")
    assert fifo_board.interrupt() == RX_AVAILABLE
    fifo_board.read(RBR)
    assert not fifo_board.irq


@pytest.mark.parametrize(("fcr", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_trigger_levels(board: Board, fcr: int, level: int) -> None:
    board.write(FCR, fcr)
    board.write(IER, IER_RX)
    board.type(bytes(level - 1))
    assert not board.irq
    board.type(b"x")
    assert board.irq


def test_character_timeout(fifo_board: Board) -> None:
    fifo_board.type(b"ab")
    fifo_board.events.advance(PAUSE - 1)
    assert not fifo_board.irq
    fifo_board.events.advance(1)
    assert fifo_board.interrupt() == RX_TIMEOUT
    fifo_board.read(RBR)
    assert not fifo_board.irq
    fifo_board.events.advance(PAUSE)
    assert fifo_board.interrupt() == RX_TIMEOUT, "one is still there"
    assert fifo_board.drain() == b"b"
    fifo_board.events.advance(PAUSE)
    assert not fifo_board.irq


def test_no_timeout_for_what_was_read_in_time(fifo_board: Board) -> None:
    fifo_board.type(b"a")
    assert fifo_board.drain() == b"a"
    assert fifo_board.events.pending == []


def test_lower_trigger_level_interrupts_for_what_is_there(fifo_board: Board) -> None:
    fifo_board.type(b"1234")
    fifo_board.write(FCR, 0x41)
    assert fifo_board.interrupt() == RX_AVAILABLE


def test_clearing_the_fifo(fifo_board: Board) -> None:
    fifo_board.type(b"12345678")
    fifo_board.write(FCR, TRIGGER_8 | 2)
    assert not fifo_board.irq
    assert fifo_board.read(LSR) & DATA_READY == 0
    assert fifo_board.events.pending == []


def test_a_paste_arrives_whole(fifo_board: Board) -> None:
    paste = bytes(range(256)) * 400
    fifo_board.type(paste)
    received = bytearray()
    for _ in range(len(paste)):
        if len(received) == len(paste):
            break
        fifo_board.events.advance(PAUSE)
        if fifo_board.irq:
            received += fifo_board.drain()
    assert received == paste
    fifo_board.events.advance(PAUSE)
    assert fifo_board.events.pending == []


def test_a_handler_that_drains_the_fifo_comes_to_an_end(fifo_board: Board) -> None:
    """Typing faster than the guest reads must not keep it in its interrupt handler."""
    fifo_board.type(bytes(1000))
    assert len(fifo_board.drain()) == 16


def test_a_console_may_offer_just_what_fits(fifo_board: Board) -> None:
    assert fifo_board.uart.receive(bytes(16)) == 16
    fifo_board.waiting = b"more"
    fifo_board.drain()
    fifo_board.events.advance(PAUSE)
    assert fifo_board.drain() == b"more"


def test_typing_costs_no_event(board: Board) -> None:
    board.write(FCR, FIFO_ON)
    board.type(b"x")
    assert board.drain() == b"x"
    assert board.events.pending == []


def test_a_guest_that_never_reads(fifo_board: Board) -> None:
    fifo_board.type(bytes(1000))
    fifo_board.events.advance(100 * PAUSE)
    assert len(fifo_board.waiting) == 1000 - 16
    assert fifo_board.uart.room == 0


def test_turning_fifos_on_empties_them_and_asks_for_the_rest(board: Board) -> None:
    board.type(b"abc")
    board.write(FCR, FIFO_ON)
    assert board.read(LSR) & DATA_READY == 0
    board.events.advance(PAUSE)
    assert board.drain() == b"bc"


# Loop mode, line and modem status


def test_loop_mode_receives_what_it_sends(fifo_board: Board) -> None:
    fifo_board.write(MCR, LOOP)
    for byte in b"loopback":
        fifo_board.write(THR, byte)
    assert fifo_board.interrupt() == RX_AVAILABLE
    assert fifo_board.drain() == b"loopback"
    assert fifo_board.output == b""


def test_after_loop_mode_output_is_output_again(board: Board) -> None:
    board.write(MCR, LOOP)
    board.write(LCR, 0x80)
    board.write(MCR, 0)
    board.write(THR, 0x41)  # the divisor's
    assert board.output == b""
    board.write(LCR, 0)
    board.write(THR, 0x42)
    assert board.output == b"B"


def test_input_waits_for_the_end_of_loop_mode(fifo_board: Board) -> None:
    fifo_board.write(MCR, LOOP)
    fifo_board.type(b"typed")
    assert fifo_board.waiting == b"typed"
    fifo_board.write(MCR, 0)
    fifo_board.events.advance(PAUSE)
    assert fifo_board.drain() == b"typed"


def test_overrun_in_loop_mode(fifo_board: Board) -> None:
    fifo_board.write(IER, IER_RX | IER_LINE)
    fifo_board.write(MCR, LOOP)
    for byte in range(17):
        fifo_board.write(THR, byte)
    assert fifo_board.interrupt() == LINE_STATUS
    assert fifo_board.read(LSR) & OVERRUN
    assert fifo_board.interrupt() == RX_AVAILABLE
    assert fifo_board.drain() == bytes(range(16)), "the FIFO keeps what it has"


def test_overrun_without_fifos_replaces_the_byte(board: Board) -> None:
    board.write(MCR, LOOP)
    board.write(THR, 1)
    board.write(THR, 2)
    assert board.read(LSR) & OVERRUN
    assert board.read(LSR) & OVERRUN == 0
    assert board.read(RBR) == 2


@pytest.mark.parametrize(("output", "input_"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)])
def test_loop_mode_connects_modem_lines(board: Board, output: int, input_: int) -> None:
    board.write(MCR, LOOP | output)
    assert board.read(MSR) & 0xF0 == input_


def test_modem_status_interrupt(board: Board) -> None:
    board.write(IER, IER_MODEM)
    board.write(MCR, LOOP | 0x0B)  # RTS, DTR and OUT2: as if still connected
    assert not board.irq
    board.write(MCR, LOOP | 0x09)
    assert board.irq
    assert board.interrupt() == MODEM_STATUS
    assert board.read(MSR) == 0xA1, "CTS has gone, and that is new"
    assert board.read(MSR) == 0xA0
    assert not board.irq


def test_ring_indicator_counts_its_trailing_edge(board: Board) -> None:
    board.write(MCR, LOOP | 0x0F)
    assert board.read(MSR) & 0x0F == 0
    board.write(MCR, LOOP | 0x0B)
    assert board.read(MSR) & 0x0F == 0x04


def test_priorities(fifo_board: Board) -> None:
    fifo_board.write(IER, 0x0F)
    fifo_board.write(MCR, LOOP)
    for byte in range(17):
        fifo_board.write(THR, byte)
    seen = [fifo_board.interrupt()]
    fifo_board.read(LSR)
    seen.append(fifo_board.interrupt())
    fifo_board.drain()
    seen += [fifo_board.interrupt(), fifo_board.interrupt()]
    fifo_board.read(MSR)
    seen.append(fifo_board.interrupt())
    assert seen == [LINE_STATUS, RX_AVAILABLE, THR_EMPTY, MODEM_STATUS, NO_INTERRUPT]
    assert not fifo_board.irq


def test_iir_tells_that_fifos_are_on(board: Board) -> None:
    assert board.read(IIR) == 0x01
    board.write(FCR, FIFO_ON)
    assert board.read(IIR) == 0xC1


def test_ready_is_optional() -> None:
    clock = FakeClock()
    output: deque[bytes] = deque()
    uart = Uart16550(lambda level: None, clock, FakeEvents(clock), output.append)
    assert uart.receive(b"ab") == 1
    assert uart.read(RBR, 1) == ord("a")


steps = st.tuples(st.integers(0, 15), st.none() | st.integers(0, 255), st.sampled_from([1, 2, 4])) | st.binary(
    max_size=40
)


@given(st.lists(steps))
def test_any_history_is_harmless(history: list[tuple[int, int | None, int] | bytes]) -> None:
    board = Board()
    for step in history:
        if isinstance(step, bytes):
            board.type(step)
        elif step[1] is None:
            assert 0 <= board.uart.read(step[0], step[2]) <= 255
        else:
            board.uart.write(step[0], step[2], step[1] * 0x0101_0101 & (1 << 8 * step[2]) - 1)
        board.events.advance(PAUSE // 3)
        assert 0 <= board.uart.room <= 16
        assert len(board.events.pending) <= 2
    board.write(LCR, 0)
    assert board.irq is (board.interrupt() != NO_INTERRUPT)


# Snapshots


class Life(Board):
    """All that can happen to a UART; see tests/twins.py."""

    calls = 0

    @property
    def parts(self) -> list[Uart16550]:
        return [self.uart]

    def set_irq(self, level: bool) -> None:
        self.irq = level
        self.calls += 1

    def take_over(self, old: Self) -> None:
        self.irq, self.calls, self.waiting = old.irq, old.calls, old.waiting
        self.output[:] = old.output

    def step(self, chance: Random) -> object:
        seen: object = None
        match chance.randrange(8):
            case 0 | 1:
                seen = self.read(chance.choice([RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR]))
            case 2:
                usual = [(FCR, TRIGGER_8), (IER, 0x0F), (LCR, 0), (MCR, 0)]
                rare = [(FCR, 0), (FCR, 0xC1), (LCR, 0x80), (MCR, LOOP)]
                any_ = [(chance.choice([IER, LCR, MCR, SCR]), chance.randrange(256))]
                self.write(*chance.choice(usual + usual + rare + any_))
            case 3:
                for _ in range(chance.choice([1, 17])):
                    self.write(chance.choice([THR, DLL, DLM]), chance.randrange(256))
            case 4:
                self.type(chance.randbytes(chance.choice([1, 1, 3, 40])))
            case 5:
                self.uart.hold(chance.random() < 0.5)
            case 6:
                seen = self.uart.take(chance.choice([1, 100]))
            case 7:
                self.events.advance(chance.choice([1, PAUSE // 3, PAUSE]))
        lines = self.irq, self.calls, bytes(self.output), self.waiting
        return seen, lines, self.uart.room, self.uart.listening, self.events.pending


@pytest.mark.parametrize("seed", range(5))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed, steps=1000)


def test_a_wrong_state_is_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"fifo": bytes(17)}, "receiver"),
        ({"fifo": bytes(2), "fifos_enabled": False, "trigger": 1}, "receiver"),
        ({"trigger": 2}, "trigger level"),
        ({"trigger": 0}, "trigger level"),
        ({"fifos_enabled": False}, "trigger level"),
        ({"timed_out": True}, "timeout"),
        ({"timeout": (0, 0)}, "timeout"),
        ({"refill": (1 << 62, 0)}, "deadline"),
        ({"ier": 0x10}, "registers"),
        ({"mcr": 0x20}, "registers"),
    ],
)
def test_what_no_uart_can_be(fifo_board: Board, wrong: dict[str, object], what: str) -> None:
    state: Any = {**fifo_board.uart.state(), **wrong}
    with pytest.raises(UsageError, match=f"damaged: .*{what}"):
        Board().uart.restore(state)


def test_more_input_is_asked_for_once(fifo_board: Board) -> None:
    """Typing at the wrong moment does not make the UART ask twice."""
    for _ in range(3):
        assert fifo_board.uart.receive(bytes(16)) == 16
        fifo_board.drain()
    assert fifo_board.events.pending == [PAUSE]
