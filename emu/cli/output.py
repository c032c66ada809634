"""The guest's output on its way to stdout, and the flow control that makes the guest wait for a slow reader."""

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
from emu.terminal.terminal import stderr
from emu.terminal.timestamps import TimeStamps
from emu.terminal.writer import Writer

__all__ = ["GuestOutput", "finish", "write_now"]

_STDOUT = 1
#: Exit status of a process whose reader has gone, as a shell shows SIGPIPE.
_BROKEN_PIPE = 141
#: Pending bytes: above the first, the guest's programs are held up; at the second, they may go on.
_MUCH, _LITTLE = 64 << 10, 16 << 10
#: Above this, the machine is paused, because parts of the guest print without regard to flow control.
_TOO_MUCH = 1 << 20
#: How long pending output may delay a suspension.
_SETTLE_S = 0.1
#: When the run was ended from outside, a reader that takes nothing for this long is considered stopped.
_PATIENCE_S = 0.5


class Target(Protocol):
    """What the output needs from a machine."""

    @property
    def console(self) -> Console:
        """Whose output it is."""
        ...

    def post(self, message: Callable[[], None]) -> None:
        """Call ``message()`` on the machine's thread."""
        ...

    def pause(self) -> None:
        """Make the guest and its time stand still."""
        ...

    def resume(self) -> None:
        """Let them continue."""
        ...


class GuestOutput:
    """Writes what the guest prints to stdout, while entered; ``stamps`` may put the time before each line.

    It never blocks the machine. If the reader is slow, the UART's flow control holds up the guest's programs. The
    kernel's own messages and hvc0 ignore that, so with more than a megabyte pending the machine is paused. At the end
    everything is written, unless the run is ended from outside while the reader has stopped.

    Raises Ending if the reader has gone, and MachineError if writing fails for another reason, either from a message
    posted to the machine or at the end.
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
        """Queue ``data`` for writing, after the filter and with any stamps."""
        self._writer(self.stamps(self._filter(data)))
        self._unfinished_line = not data.endswith(b"\n")
        if self._writer.pending > _MUCH:
            self._hold_up()

    def aside(self, data: bytes) -> None:
        """Write to stderr something that is not the guest's, in order with its output if both are one terminal.

        It is dropped while that terminal is stuck.
        """
        if self._machine is None or not self._is_terminal:
            write_now(stderr(), data, self._signals)
        elif self._writer.pending <= _MUCH:
            self._writer(data)

    @contextlib.contextmanager
    def of(self, machine: Target) -> Iterator[None]:
        """Take the output of ``machine``; on a terminal all of it is written at the end, before the mode changes."""
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
            machine.post(machine.pause)  # posting makes the CPU return soon
        self._go_on()  # the writer may have finished before it could see that the guest is held up

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

    def settle(self) -> None:
        """Wait until everything is written, before the process is suspended; not for a reader that is stuck."""
        self._writer.finish(_SETTLE_S)

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
            if self._unfinished_line and self._is_terminal:  # so that messages and the shell's prompt begin a line
                self._writer(b"\r\n")
            self._finish(value)
        finally:
            self._writer.__exit__(kind, value, traceback)


def finish(writer: Writer, signals: Signals, error: BaseException | None) -> None:
    """Wait until everything is written, after a run that ended with ``error``; raises Ending on a signal.

    After an Ending, which comes from outside, a reader that has stopped is not waited for.
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
    """Write all of ``data`` to ``fd``, ignoring errors; signals can interrupt it while it blocks."""
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
