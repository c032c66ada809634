"""16550A UART (National Semiconductor PC16550D data sheet): the guest's console.

What the guest transmits is sent at once, so the transmitter is always empty; only the interrupt that says so can be
held back. What the guest receives waits outside until there is room, so the receiver never overruns. The baud rate is
not modelled; the two times that follow from it on a real line, the character timeout and the pace of input, are one
short constant.

| actor | threat | mitigation |
|---|---|---|
| guest | endless output | nothing is stored here; `output` decides, and may `hold` a driver that uses interrupts |
| user | a paste larger than the FIFO | `receive` takes what fits; `ready` asks for the rest |
| user | endless input | a FIFO's worth at a time and then a pause, so the guest gets out of its handler |
| guest | never reads | the FIFO stays full and the rest waits outside |
| snapshot | a FIFO or a trigger level that no UART has | `restore` refuses it |
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar, TypedDict

from devices.contracts import Clock, Event, Events, IrqLine, Property
from devices.state import U8, Moment, check, resume, saved

__all__ = ["Uart16550", "UartState"]

# Registers, by offset; where two share one, the first is read and the second written (table II).
RBR = THR = 0  # receiver buffer; transmitter holding
IER = 1  # interrupt enable
IIR = FCR = 2  # interrupt identification; FIFO control
LCR = 3  # line control
MCR = 4  # modem control
LSR = 5  # line status
MSR = 6  # modem status
SCR = 7  # scratch
DLL, DLM = 0, 1  # the divisor latch, which replaces the first two while LCR_DLAB is set

IER_RECEIVED = 0x01  # input has reached the trigger level, or has waited too long
IER_THR_EMPTY = 0x02  # there is room for output
IER_LINE_STATUS = 0x04  # input was lost
IER_MODEM_STATUS = 0x08  # an input of the modem has changed
IER_BITS = 0x0F

# What IIR says, most urgent first.
IIR_LINE_STATUS = 0x06  # until LSR is read
IIR_RECEIVED = 0x04  # until the FIFO is below its trigger level
IIR_TIMEOUT = 0x0C  # until RBR is read
IIR_THR_EMPTY = 0x02  # until IIR is read, or THR written
IIR_MODEM_STATUS = 0x00  # until MSR is read
IIR_NONE = 0x01
IIR_FIFOS_ENABLED = 0xC0  # beside any of them

FCR_ENABLE = 0x01  # both FIFOs
FCR_CLEAR_RECEIVER = 0x02
FCR_TRIGGER_SHIFT = 6  # the upper two bits choose from TRIGGER_LEVELS
TRIGGER_LEVELS = (1, 4, 8, 14)
FIFO_SIZE = 16

LCR_DLAB = 0x80  # divisor latch access; the other bits, the format of a character, mean nothing here

MCR_DTR = 0x01  # data terminal ready
MCR_RTS = 0x02  # request to send
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08  # on a PC it lets interrupts through
MCR_LOOP = 0x10  # the transmitter leads to the receiver, and these outputs to the inputs in MSR
MCR_BITS = 0x1F

LSR_DATA_READY = 0x01  # there is something in RBR
LSR_OVERRUN = 0x02  # input was lost; until this is read
LSR_THR_EMPTY = 0x20  # there is room in THR
LSR_TRANSMITTER_EMPTY = 0x40  # the last bit has been sent, too

MSR_DELTA_CTS = 0x01  # the four deltas: changed since this was last read
MSR_DELTA_DSR = 0x02
MSR_TRAILING_EDGE_RI = 0x04
MSR_DELTA_DCD = 0x08
MSR_CTS = 0x10  # clear to send
MSR_DSR = 0x20  # data set ready
MSR_RI = 0x40  # ring indicator
MSR_DCD = 0x80  # data carrier detect
MSR_DELTAS = 0x0F
#: A terminal is connected and ready.
MSR_CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD

#: In loop mode each modem output is connected to an input.
LOOP_WIRES = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))

CLOCK_HZ = 3_686_400
#: The character timeout, and the pause before an emptied FIFO is filled again: at most 160,000 characters a second.
PAUSE_NS = 100_000

_BYTES = tuple(bytes((value,)) for value in range(256))


class UartState(TypedDict):
    """The registers, what is in the receiver, and what is due."""

    ier: U8
    lcr: U8
    mcr: U8
    msr: U8
    scr: U8
    dll: U8
    dlm: U8
    fifos_enabled: bool
    trigger: U8
    fifo: bytes
    overrun: bool
    timed_out: bool
    timeout: Moment | None
    filled: bool
    refill: Moment | None
    thr_empty_pending: bool
    held: bool


class Uart16550:
    """A 16550A with a terminal at the other end.

    ``output`` gets what the guest transmits, a byte at a time. ``receive`` gives the guest input. If that fills the
    receiver, ``ready`` is called once, shortly after the guest has emptied it: then call ``receive`` with the rest.
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
        self._refill: Event | None = None  # when that is asked for

        self._ier = self._lcr = self._mcr = self._scr = 0
        self._dll = self._dlm = 0
        self._lsr = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY
        self._msr = MSR_CONNECTED
        self._thr_empty_pending = False
        self._held = False
        self._on_line = True  # a store to THR's offset is transmitted: neither loop mode nor the divisor latch is on

        readers: dict[int, Callable[[], int]] = {
            RBR: self._read_rbr,
            IER: lambda: self._ier,
            IIR: self._read_iir,
            LCR: lambda: self._lcr,
            MCR: lambda: self._mcr,
            LSR: self._read_lsr,
            MSR: self._read_msr,
            SCR: lambda: self._scr,
        }
        writers: dict[int, Callable[[int], None]] = {
            THR: self._loop_back,  # unless it is transmitted: see `write`
            IER: self._write_ier,
            FCR: self._write_fcr,
            LCR: self._write_lcr,
            MCR: self._write_mcr,
            SCR: self._write_scr,
        }  # LSR and MSR are read-only
        latch = {DLL: lambda: self._dll, DLM: lambda: self._dlm}, {DLL: self._write_dll, DLM: self._write_dlm}
        self._registers = readers, writers
        self._latch_and_registers = readers | latch[0], writers | latch[1]
        self._readers, self._writers = self._registers

    # The bus side: 8-bit registers; a wider access reaches only the one at its offset.

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """Value of a guest load."""
        if offset == LSR and not self._lsr & LSR_OVERRUN:  # before each byte of output
            return self._lsr
        reader = self._readers.get(offset)
        return 0 if reader is None else reader()

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Effect of a guest store."""
        if offset == THR and self._on_line:
            self._output(_BYTES[value & 0xFF])
            if not self._thr_empty_pending:  # it was empty, is full, and is empty again
                self._thr_empty_pending = True
                self._update_irq()
            return
        writer = self._writers.get(offset)
        if writer is not None:
            writer(value & 0xFF)

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

    @property
    def listening(self) -> bool:
        """Whether a driver has started and wants to be told of input."""
        return bool(self._ier & IER_RECEIVED)

    def take(self, size: int) -> bytes:
        """Take up to ``size`` bytes out of the receiver, for firmware that shares the line with the guest."""
        return bytes(self._read_rbr() for _ in range(min(size, len(self._fifo))))

    def hold(self, held: bool) -> None:
        """Pause the guest's output, or let it continue.

        This holds back the transmitter's interrupt. A polling driver is not paused, since it would only spin: Linux
        polls when it prints kernel messages.
        """
        self._held = held
        self._update_irq()

    # The snapshot's side.

    def state(self) -> UartState:
        """Return its state; what follows from it (LSR, the interrupt) is not in it."""
        return {
            "ier": self._ier,
            "lcr": self._lcr,
            "mcr": self._mcr,
            "msr": self._msr,
            "scr": self._scr,
            "dll": self._dll,
            "dlm": self._dlm,
            "fifos_enabled": self._fifos_enabled,
            "trigger": self._trigger,
            "fifo": bytes(self._fifo),
            "overrun": bool(self._lsr & LSR_OVERRUN),
            "timed_out": self._timed_out,
            "timeout": saved(self._timeout),
            "filled": self._filled,
            "refill": saved(self._refill),
            "thr_empty_pending": self._thr_empty_pending,
            "held": self._held,
        }

    def restore(self, state: UartState) -> None:
        """Become what ``state`` says; raises UsageError for what no UART can be."""
        fifo, enabled, waits = state["fifo"], state["fifos_enabled"], state["timed_out"] or state["timeout"] is not None
        check(len(fifo) <= (FIFO_SIZE if enabled else 1), "the receiver of the UART")
        check(state["trigger"] in (TRIGGER_LEVELS if enabled else (1,)), "the trigger level of the UART")
        check(bool(fifo) or not waits, "the character timeout of the UART")
        check(state["ier"] <= IER_BITS and state["mcr"] <= MCR_BITS, "the registers of the UART")
        self._ier, self._mcr, self._msr, self._scr = state["ier"], state["mcr"], state["msr"], state["scr"]
        self._dll, self._dlm = state["dll"], state["dlm"]
        self._fifos_enabled, self._trigger = enabled, state["trigger"]
        self._fifo = deque(fifo)
        self._lsr = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY
        self._lsr |= (LSR_DATA_READY if fifo else 0) | (LSR_OVERRUN if state["overrun"] else 0)
        self._timed_out, self._timeout = state["timed_out"], resume(self._events, state["timeout"], self._time_out)
        self._filled, self._refill = state["filled"], resume(self._events, state["refill"], self._take_more)
        self._thr_empty_pending, self._held = state["thr_empty_pending"], state["held"]
        self._write_lcr(state["lcr"])  # which decides what the registers are
        self._irq_level = self._pending_interrupt() != IIR_NONE

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
            if self._refill is not None:
                self._refill.cancel()  # it was full again before that came
            self._refill = self._events.at(self._clock.now() + PAUSE_NS, self._take_more)

    def _take_more(self) -> None:
        self._refill = None
        if self.ready is not None:
            self.ready()

    def _watch_timeout(self) -> None:
        """Ensure that characters below the trigger level do not wait for ever.

        The timeout counts from the first such character, not from the last access: it may expire sooner than the data
        sheet says, which costs an interrupt, but keeps reads free of timer work.
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

    # Transmitter, except what `write` does itself.

    def _loop_back(self, value: int) -> None:
        if len(self._fifo) < (FIFO_SIZE if self._fifos_enabled else 1):
            self._fifo.append(value)
        else:
            self._lsr |= LSR_OVERRUN
            if not self._fifos_enabled:
                self._fifo[0] = value
        self._received()
        self._thr_empty_pending = True
        self._update_irq()

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
        if self._thr_empty_pending and ier & IER_THR_EMPTY and not self._held:
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
        self._ier = value & IER_BITS
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
            self._received()  # the new trigger level may have been reached, or no longer be

    def _write_lcr(self, value: int) -> None:
        self._lcr = value
        self._readers, self._writers = self._latch_and_registers if value & LCR_DLAB else self._registers
        self._connect()

    def _write_dll(self, value: int) -> None:
        self._dll = value

    def _write_dlm(self, value: int) -> None:
        self._dlm = value

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
        self._connect()
        self._set_modem_inputs()
        if left_loop and not self._fifo:
            self._ask_for_more()

    def _connect(self) -> None:
        self._on_line = not (self._lcr & LCR_DLAB or self._mcr & MCR_LOOP)

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
