"""What the guest prints, on its way to standard output, and what holds the guest up when nobody reads that."""

import contextlib
import os
import select
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from devices.errors import MachineError
from emu.cli.signals import Ending, Signals
from emu.console import Console
from emu.terminal.filter import Filter
from emu.terminal.timestamps import TimeStamps
from emu.terminal.writer import Writer

__all__ = ["GuestOutput", "finish", "write_now"]

_STDOUT, _STDERR = 1, 2
#: Exit status of a process whose reader has gone, as a shell shows SIGPIPE.
_BROKEN_PIPE = 141
#: Bytes that wait for a reader: from here on the guest's programs wait too, to here they do,
_MUCH, _LITTLE = 64 << 10, 16 << 10
#: and from here on the whole guest, for some of what prints cannot be made to wait.
_TOO_MUCH = 1 << 20
#: How long a reader may take no byte, when the run was ended from outside, before it is taken for one that has stopped.
_PATIENCE_S = 0.5


class Target(Protocol):
    """What the output needs of a machine."""

    @property
    def console(self) -> Console:
        """Whose output it is."""
        ...

    def post(self, message: Callable[[], None]) -> None:
        """Have ``message()`` called on the machine's thread."""
        ...

    def pause(self) -> None:
        """Have the guest and its time stand still."""
        ...

    def resume(self) -> None:
        """Have them go on."""
        ...


class GuestOutput:
    """While it is entered: standard output, which gets what the guest prints, soon and beside ``stamps`` as it is.

    It never waits for a reader. Where one is slow, the guest's programs are held up, by the UART's flow control; the
    guest's kernel, and programs on hvc0, only when a megabyte waits, and then the whole machine pauses. In the end
    everything is written, unless ``signals``, or whatever ends the run from outside, comes while no reader reads.

    Raises Ending when the reader has gone, MachineError when nothing can be written for another reason: from a message
    to the machine, or in the end.
    """

    def __init__(self, signals: Signals, filter_: Filter, fd: int = _STDOUT) -> None:
        self.stamps = TimeStamps()
        self._signals = signals
        self._filter = filter_
        self._writer = Writer(fd, self._on_moved)
        self._is_terminal = os.isatty(fd)
        self._machine: Target | None = None
        self._held = self._paused = False
        self._reported = False  # that nothing can be written
        self._unfinished_line = False

    # ---------------------------------------------------------------- for the machine's thread

    def __call__(self, data: bytes) -> None:
        """Have ``data`` written."""
        self._writer(self.stamps(self._filter(data)))
        self._unfinished_line = not data.endswith(b"\n")
        if self._writer.pending > _MUCH:
            self._hold_up()

    def aside(self, data: bytes) -> None:
        """Write what is not the guest's to stderr, in its place among the guest's output if that is the same terminal.

        It is dropped if that does not move.
        """
        if self._machine is None or not self._is_terminal:
            write_now(_STDERR, data, self._signals)
        elif self._writer.pending <= _MUCH:
            self._writer(data)

    @contextlib.contextmanager
    def of(self, machine: Target) -> Iterator[None]:
        """Have the output come from ``machine``; in the end a terminal, whose mode then changes, has all of it."""
        self._machine = machine
        self._held = self._paused = False
        if self._writer.pending > _MUCH:
            self._hold_up()
        try:
            yield
        except BaseException as error:
            if self._is_terminal:
                self._finish(error)
            raise
        else:
            if self._is_terminal:
                self._finish(None)
        finally:
            self._machine = None

    def _hold_up(self) -> None:
        machine = self._machine
        if machine is None:
            return
        if not self._held:
            self._held = True
            machine.console.hold(True)
        if self._writer.pending > _TOO_MUCH and not self._paused:
            self._paused = True
            machine.post(machine.pause)  # the CPU comes back for that
        self._go_on()  # the writer may have come to its end before it could know of this

    def _go_on(self) -> None:
        machine = self._machine
        if machine is None or not self._held or self._writer.pending > _LITTLE:
            return
        self._held = False
        machine.console.hold(False)
        if self._paused:
            self._paused = False
            machine.post(machine.resume)

    # ---------------------------------------------------------------- for the writer's thread

    def _on_moved(self) -> None:
        machine = self._machine
        if machine is None:
            return
        if self._writer.error is not None:
            machine.post(self._report)
        elif self._held and self._writer.pending <= _LITTLE:
            machine.post(self._go_on)

    # ---------------------------------------------------------------- the end

    def settle(self, seconds: float) -> None:
        """Wait until everything is written, or nothing was for some seconds."""
        self._writer.finish(seconds)

    def _finish(self, error: BaseException | None) -> None:
        finish(self._writer, self._signals, error)
        if error is None:
            self._report()

    def _report(self) -> None:
        error = self._writer.error
        if error is None or self._reported:
            return
        self._reported = True
        if isinstance(error, BrokenPipeError):
            raise Ending(_BROKEN_PIPE)
        raise MachineError(f"the guest's output cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._writer(self._filter.rest())
            if self._unfinished_line and self._is_terminal:  # pyemu's words, and a shell's prompt, begin a line
                self._writer(b"\r\n")
            self._finish(value)
        finally:
            self._writer.__exit__(kind, value, traceback)


def finish(writer: Writer, signals: Signals, error: BaseException | None) -> None:
    """Wait until all is written, at the end of a run that ``error`` ends; raises Ending for a signal.

    An Ending is one from outside, which does not wait for a reader that has stopped.
    """
    ending = isinstance(error, Ending)
    signals.interruptible = True
    try:
        if not ending:
            signals.check()
        writer.finish(_PATIENCE_S if ending else None)
    finally:
        signals.interruptible = False


def write_now(fd: int, data: bytes, signals: Signals) -> None:
    """Write all of ``data`` to ``fd``, if anybody is there; while that has to wait, signals end it."""
    signals.interruptible = True
    try:
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:  # another process made our common terminal non-blocking
                select.select([], [fd], [])
    except OSError:
        pass
    finally:
        signals.interruptible = False
