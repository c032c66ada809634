"""A machine and its user: what ``pyemu boot`` does between the first instruction and the exit status."""

import contextlib
import gc
import os
import select
import signal
from collections.abc import Callable, Sequence

from devices.errors import MachineError
from devices.power import PowerAction
from emu.cli.keys import Keys
from emu.cli.listener import Listener
from emu.cli.signals import Ending, Signals
from emu.machine import Machine
from emu.terminal.terminal import RawTerminal, say
from emu.terminal.timestamps import TimeStamps

__all__ = ["GuestOutput", "run"]

_STDIN, _STDOUT = 0, 1
#: Exit status of a process whose reader has gone, as a shell shows SIGPIPE.
_BROKEN_PIPE = 141

_BANNER = "C-a x quits, C-a h helps"


class GuestOutput:
    """Standard output, which gets what the guest prints: at once, and every byte as it is, beside ``stamps``.

    Where writing has to wait for a reader, ``signals`` may interrupt it. Raises Ending when the reader has gone,
    MachineError when nothing can be written for another reason.
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._lost = False
        self._unfinished_line = False
        self.stamps = TimeStamps()

    def __call__(self, data: bytes) -> None:
        """Write all of ``data``."""
        if self._lost:
            return
        self._signals.interruptible = True
        try:
            _write(self.stamps(data))
        except BrokenPipeError:
            self._lost = True
            raise Ending(_BROKEN_PIPE) from None
        except OSError as error:
            self._lost = True
            raise MachineError(f"the guest's output cannot be written: {error.strerror}") from error
        except Ending:
            self._lost = True
            raise
        finally:
            self._signals.interruptible = False
        self._unfinished_line = not data.endswith(b"\n")

    def finish_line(self) -> None:
        """Have what pyemu says, and the shell's prompt, begin at the left edge of the user's terminal."""
        if self._unfinished_line and not self._lost and os.isatty(_STDOUT):
            with contextlib.suppress(OSError):
                _write(b"\r\n")


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(_STDOUT, view) :]
        except BlockingIOError:  # another process made our common pipe or terminal non-blocking
            select.select([], [_STDOUT], [])


def run(
    switch_on: Callable[[Callable[[bytes], None]], Machine],
    signals: Signals,
    commands: Sequence[str] = (),
    *,
    rows_taken: int = 0,
) -> int:
    """Run machines that ``switch_on(output)`` makes, a new one for each reset, and return the exit status.

    The user's keys go to the guest, or else ``commands`` are typed at its shell. So many rows of the user's window are
    not the guest's. Raises what Machine and Shell do, and Ending for whatever ends the run from outside.
    """
    # While a machine is made, or closed, signals wait until they are asked for: one that raised at once could do so in
    # the middle of anything, a __del__ even.
    signals.post = _wait
    output = GuestOutput(signals)
    terminal = RawTerminal(_STDIN) if not commands and os.isatty(_STDIN) else None
    with Listener(None if commands else _STDIN) as listener, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(output.finish_line)
        if terminal is not None:
            signals.handle(signal.SIGTSTP, terminal.suspend)
            signals.handle(signal.SIGCONT, terminal.resume)
            signals.handle(signal.SIGWINCH, terminal.measure)
            say(_BANNER)
        while True:
            with switch_on(output) as machine, terminal or contextlib.nullcontext():
                output.stamps.now = machine.clock.now
                signals.post = machine.post
                if terminal is not None:
                    terminal.resized = _tell(machine, rows_taken)
                    terminal.measure()
                    listener.receive = Keys(machine, listener.send, output.stamps)
                listener.attach(machine)
                signals.check()
                if commands:
                    from emu.shell import run_commands  # noqa: PLC0415 - not needed to boot

                    return run_commands(machine, commands)
                request = machine.run()
            signals.post = _wait
            signals.check()
            if request.action is PowerAction.OFF:
                return 0
            if request.action is PowerAction.FAIL:
                raise MachineError(f"the guest switched the machine off because of a failure (code {request.code})")
            del machine
            gc.collect()  # the memory of the machine that was


def _tell(machine: Machine, rows_taken: int) -> Callable[[int, int], None]:
    """Return what tells the guest the size of its part of the user's window."""
    return lambda columns, rows: machine.post(lambda: machine.hvc.resize(columns, max(rows - rows_taken, 0)))


def _wait(_message: Callable[[], None]) -> None:
    """Leave it to ``check``."""
