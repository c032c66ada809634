"""A machine and its user: what ``pyemu boot`` does between the first instruction and the exit status."""

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from devices.errors import MachineError
from devices.power import PowerAction
from emu.cli import silence
from emu.cli.keys import Keys, save
from emu.cli.listener import Listener
from emu.cli.output import GuestOutput
from emu.cli.signals import Ending, Signals
from emu.machine import Machine
from emu.terminal.filter import Filter
from emu.terminal.terminal import RawTerminal, say

__all__ = ["run"]

_STDIN, _STDOUT = 0, 1

_C_C, _INTERRUPTED = b"\x03", 130

#: Where C-a s saves the machine by default.
_SNAPSHOT = Path("saved.pyemu")
_BANNER = "C-a x quits, C-a h shows help"


def run(
    switch_on: Callable[[GuestOutput], Machine],
    signals: Signals,
    commands: Sequence[str] = (),
    *,
    rows_taken: int = 0,
    clipboard: bool = False,
    replaying: bool = False,
    snapshot: Path | None = None,
) -> int:
    """Run machines made by ``switch_on(output)``, a new one after each reset, and return the exit status.

    The user's keys go to the guest, unless there are ``commands`` to type at its shell, or it is ``replaying``: then
    only C-c and the keys after C-a count. The machine is saved in ``snapshot`` after the commands, or by C-a s.
    ``rows_taken`` rows of the user's window are not the guest's; with ``clipboard`` the guest may use the clipboard of
    the user's terminal. Raises what Machine and Shell raise, and Ending for whatever ends the run from outside.
    """
    # While a machine is made or closed, signals wait until `check`: one that raised at once could do so in the middle
    # of anything, even a __del__.
    signals.post = _wait
    shown = os.isatty(_STDOUT)
    # Nobody answers the guest in a replay, or under --exec: the terminal's answer would land at the user's next prompt.
    filter_ = Filter(clipboard=not clipboard and shown, cursor=bool(commands) or (replaying and shown))
    terminal = RawTerminal(_STDIN) if not commands and os.isatty(_STDIN) else None
    deaf = commands or (replaying and terminal is None)
    with Listener(None if deaf else _STDIN) as listener, GuestOutput(signals, filter_) as output:
        if terminal is not None:
            signals.handle(signal.SIGTSTP, lambda: _suspend(output, terminal))
            signals.handle(signal.SIGCONT, terminal.resume)
            signals.handle(signal.SIGWINCH, terminal.measure)
            say(_BANNER)
        while True:
            with switch_on(output) as machine, terminal or contextlib.nullcontext(), output.of(machine):
                output.stamps.now = machine.clock.now
                signals.post = machine.post
                if terminal is not None:
                    terminal.resized = _tell(machine, rows_taken)
                    terminal.measure()
                    send = _heed_c_c if replaying else listener.send
                    listener.receive = Keys(machine, send, output.stamps, snapshot or _SNAPSHOT)
                listener.attach(machine)
                silence.watch(machine, listener.remind, say)
                signals.check()
                if terminal is not None:
                    output(_last_line(machine))
                if commands:
                    from emu.shell import run_commands  # noqa: PLC0415 - not needed to boot

                    instead = None if snapshot is None else partial(save, machine, snapshot)
                    return run_commands(machine, commands, instead)
                request = machine.run()
            signals.post = _wait
            signals.check()
            if request.action is PowerAction.OFF:
                return 0
            if request.action is PowerAction.FAIL:
                raise MachineError(f"the guest switched the machine off because of a failure (code {request.code})")
            del machine
            gc.collect()  # frees the old machine's memory


def _tell(machine: Machine, rows_taken: int) -> Callable[[int, int], None]:
    """Return a function that tells the guest the size of its part of the user's window."""
    return lambda columns, rows: machine.post(lambda: machine.hvc.resize(columns, max(rows - rows_taken, 0)))


def _last_line(machine: Machine) -> bytes:
    """Return what is in the last line of a console that was saved: the prompt, where somebody is to type."""
    return bytes(machine.console.text.rpartition(b"\n")[2])


def _heed_c_c(data: bytes) -> None:
    """Take what is typed during a replay."""
    if _C_C in data:
        raise Ending(_INTERRUPTED)


def _suspend(output: GuestOutput, terminal: RawTerminal) -> None:
    output.settle()
    terminal.suspend()


def _wait(_message: Callable[[], None]) -> None:
    """Leave the signal to ``check``."""
