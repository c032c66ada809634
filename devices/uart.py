"""16550A UART (National Semiconductor PC16550D data sheet): the guest's console.

What the guest transmits is out at once, so the transmitter is always empty. What it receives waits outside until
there is room, so the line never overruns it. The baud rate is not modelled; two times that follow from it on a real
line, the character timeout and the pace of input, are one short constant.

| actor | threat | mitigation |
|---|---|---|
| guest | output without end | nothing is stored here; `output` decides |
| user | a paste larger than the FIFO | `receive` takes what fits; `ready` asks for the rest |
| user | input without end | a FIFO's worth at a time and then a pause, so the guest gets out of its handler |
| guest | never reads | the FIFO stays full and the rest stays outside |
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar

from devices.contracts import Clock, Event, Events, IrqLine, Property

__all__ = ["Uart16550"]

# Registers, by offset. DLAB selects the divisor latch instead of the first two.
RBR_THR_DLL = 0
IER_DLM = 1
IIR_FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7

# Interrupt enable.
IER_RECEIVED = 0x01
IER_THR_EMPTY = 0x02
IER_LINE_STATUS = 0x04
IER_MODEM_STATUS = 0x08

# Interrupt identification, most urgent first.
IIR_LINE_STATUS = 0x06
IIR_RECEIVED = 0x04
IIR_TIMEOUT = 0x0C
IIR_THR_EMPTY = 0x02
IIR_MODEM_STATUS = 0x00
IIR_NONE = 0x01
IIR_FIFOS_ENABLED = 0xC0

FCR_ENABLE = 0x01
FCR_CLEAR_RECEIVER = 0x02
FCR_TRIGGER_SHIFT = 6
FIFO_SIZE = 16
TRIGGER_LEVELS = (1, 4, 8, 14)

LCR_DLAB = 0x80

MCR_DTR = 0x01
MCR_RTS = 0x02
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08
MCR_LOOP = 0x10
MCR_BITS = 0x1F

LSR_DATA_READY = 0x01
LSR_OVERRUN = 0x02
LSR_THR_EMPTY = 0x20
LSR_TRANSMITTER_EMPTY = 0x40

MSR_DELTA_CTS = 0x01
MSR_DELTA_DSR = 0x02
MSR_TRAILING_EDGE_RI = 0x04
MSR_DELTA_DCD = 0x08
MSR_CTS = 0x10
MSR_DSR = 0x20
MSR_RI = 0x40
MSR_DCD = 0x80
MSR_DELTAS = 0x0F
#: A terminal that is there and ready.
MSR_CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD

#: In loop mode each modem output is connected to an input.
LOOP_WIRES = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))

CLOCK_HZ = 3_686_400
#: The character timeout, and the pause before an emptied FIFO is filled again: at most 160,000 characters a second.
PAUSE_NS = 100_000

_BYTES = tuple(bytes((value,)) for value in range(256))


class Uart16550:
    """A 16550A with a terminal at the other end.

    ``output`` gets what the guest transmits. ``receive`` gives it input. When that filled the receiver, ``ready`` is
    called once, shortly after the guest has emptied it: call ``receive`` with the rest.
    """

    size = 0x100
    node_name = "serial"
    compatible: tuple[str, ...] = ("ns16550a",)
    properties: ClassVar[Mapping[str, Property]] = {"clock-frequency": CLOCK_HZ}

    def __init__(
        self,
        irq: IrqLine,
        clock: Clock,
        events: Events,
        output: Callable[[bytes], None],
        ready: Callable[[], None] | None = None,
    ) -> None:
        self.ready = ready
        self._irq = irq
        self._clock = clock
        self._events = events
        self._output = output
        self._irq_level = False

        self._fifo: deque[int] = deque()
        self._fifos_enabled = False
        self._trigger = 1
        self._timeout: Event | None = None
        self._timed_out = False
        self._filled = False  # by the last receive(), so there may be more outside

        self._ier = self._lcr = self._mcr = self._scr = 0
        self._dll = self._dlm = 0
        self._lsr = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY
        self._msr = MSR_CONNECTED
        self._thr_empty_pending = False

        self._readers: tuple[Callable[[], int], ...] = (
            self._read_rbr,
            lambda: self._ier,
            self._read_iir,
            lambda: self._lcr,
            lambda: self._mcr,
            self._read_lsr,
            self._read_msr,
            lambda: self._scr,
        )
        self._writers: tuple[Callable[[int], None], ...] = (
            self._write_thr,
            self._write_ier,
            self._write_fcr,
            self._write_lcr,
            self._write_mcr,
            lambda value: None,  # noqa: ARG005  (LSR is read-only)
            lambda value: None,  # noqa: ARG005  (MSR is read-only)
            self._write_scr,
        )

    # The bus side: 8-bit registers; a wider access reaches the one at its offset.

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """Value of a guest load."""
        if offset > SCR:
            return 0
        if self._lcr & LCR_DLAB and offset <= IER_DLM:
            return self._dlm if offset else self._dll
        return self._readers[offset]()

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Effect of a guest store."""
        if offset > SCR:
            return
        value &= 0xFF
        if self._lcr & LCR_DLAB and offset <= IER_DLM:
            if offset:
                self._dlm = value
            else:
                self._dll = value
        else:
            self._writers[offset](value)

    # The terminal side.

    @property
    def room(self) -> int:
        """How many bytes ``receive`` would take."""
        if self._mcr & MCR_LOOP:
            return 0  # the receiver is disconnected from the line
        return (FIFO_SIZE if self._fifos_enabled else 1) - len(self._fifo)

    def receive(self, data: bytes) -> int:
        """Put ``data`` into the receiver, as far as there is room; return how many bytes were taken."""
        room = self.room
        taken = data[:room]
        self._filled = len(data) >= room
        if taken:
            self._fifo.extend(taken)
            self._received()
        return len(taken)

    # Receiver.

    def _received(self) -> None:
        self._lsr |= LSR_DATA_READY
        self._watch_timeout()
        self._update_irq()

    def _read_rbr(self) -> int:
        if not self._fifo:
            return 0
        value = self._fifo.popleft()
        self._timed_out = False
        if self._fifo:
            self._watch_timeout()
            self._update_irq()
        else:
            self._receiver_emptied()
        return value

    def _receiver_emptied(self) -> None:
        self._fifo.clear()
        self._lsr &= ~LSR_DATA_READY
        self._timed_out = False
        self._cancel_timeout()
        self._update_irq()
        self._ask_for_more()

    def _ask_for_more(self) -> None:
        if self._filled and self.ready is not None:
            self._filled = False
            self._events.at(self._clock.now() + PAUSE_NS, self.ready)

    def _watch_timeout(self) -> None:
        """See to it that a character below the trigger level doesn't wait for ever.

        The time counts from the first such character, not from the last access: it may be up sooner than the data
        sheet says, which costs an interrupt, but a read is then no more than a read.
        """
        if len(self._fifo) >= self._trigger:
            self._cancel_timeout()
        elif self._fifos_enabled and self._timeout is None:
            self._timeout = self._events.at(self._clock.now() + PAUSE_NS, self._time_out)

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None

    def _time_out(self) -> None:
        self._timeout = None
        self._timed_out = True
        self._update_irq()

    # Transmitter.

    def _write_thr(self, value: int) -> None:
        if self._mcr & MCR_LOOP:
            self._loop_back(value)
        else:
            self._output(_BYTES[value])
        if not self._thr_empty_pending:  # it was empty, is full, and is empty again
            self._thr_empty_pending = True
            self._update_irq()

    def _loop_back(self, value: int) -> None:
        if len(self._fifo) < (FIFO_SIZE if self._fifos_enabled else 1):
            self._fifo.append(value)
        else:
            self._lsr |= LSR_OVERRUN
            if not self._fifos_enabled:
                self._fifo[0] = value
        self._received()

    # Interrupts.

    def _pending_interrupt(self) -> int:
        ier = self._ier
        if self._lsr & LSR_OVERRUN and ier & IER_LINE_STATUS:
            return IIR_LINE_STATUS
        if ier & IER_RECEIVED:
            if len(self._fifo) >= self._trigger:
                return IIR_RECEIVED
            if self._timed_out:
                return IIR_TIMEOUT
        if self._thr_empty_pending and ier & IER_THR_EMPTY:
            return IIR_THR_EMPTY
        if self._msr & MSR_DELTAS and ier & IER_MODEM_STATUS:
            return IIR_MODEM_STATUS
        return IIR_NONE

    def _update_irq(self) -> None:
        level = self._pending_interrupt() != IIR_NONE
        if level is not self._irq_level:
            self._irq_level = level
            self._irq(level)

    def _read_iir(self) -> int:
        interrupt = self._pending_interrupt()
        if interrupt == IIR_THR_EMPTY:  # reading clears this one, and only this one
            self._thr_empty_pending = False
            self._update_irq()
        return interrupt | IIR_FIFOS_ENABLED if self._fifos_enabled else interrupt

    def _write_ier(self, value: int) -> None:
        if value & ~self._ier & IER_THR_EMPTY:  # enabled while the transmitter is empty, which it always is
            self._thr_empty_pending = True
        self._ier = value & 0x0F
        self._update_irq()

    # Control and status.

    def _write_fcr(self, value: int) -> None:
        enable = bool(value & FCR_ENABLE)
        clear = enable is not self._fifos_enabled or bool(value & FCR_CLEAR_RECEIVER)
        self._fifos_enabled = enable
        self._trigger = TRIGGER_LEVELS[value >> FCR_TRIGGER_SHIFT] if enable else 1
        if clear:
            self._receiver_emptied()
        elif self._fifo:
            self._received()  # perhaps on the other side of the new trigger level

    def _write_lcr(self, value: int) -> None:
        self._lcr = value

    def _write_scr(self, value: int) -> None:
        self._scr = value

    def _read_lsr(self) -> int:
        lsr = self._lsr
        if lsr & LSR_OVERRUN:  # reading clears the errors
            self._lsr = lsr & ~LSR_OVERRUN
            self._update_irq()
        return lsr

    def _write_mcr(self, value: int) -> None:
        left_loop = self._mcr & ~value & MCR_LOOP
        self._mcr = value & MCR_BITS
        self._set_modem_inputs()
        if left_loop and not self._fifo:
            self._ask_for_more()

    def _set_modem_inputs(self) -> None:
        inputs = MSR_CONNECTED
        if self._mcr & MCR_LOOP:
            inputs = sum(wire_in for wire_out, wire_in in LOOP_WIRES if self._mcr & wire_out)
        changed = (inputs ^ self._msr) & ~MSR_DELTAS
        deltas = changed >> 4 & (MSR_DELTA_CTS | MSR_DELTA_DSR | MSR_DELTA_DCD)
        if changed & MSR_RI and not inputs & MSR_RI:
            deltas |= MSR_TRAILING_EDGE_RI
        self._msr = inputs | self._msr & MSR_DELTAS | deltas
        self._update_irq()

    def _read_msr(self) -> int:
        msr = self._msr
        if msr & MSR_DELTAS:
            self._msr = msr & ~MSR_DELTAS
            self._update_irq()
        return msr
