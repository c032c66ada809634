"""The keys after C-a, which are for pyemu and not for the guest."""

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from devices.errors import PyemuError
from emu.cli.signals import Ending
from emu.machine import Machine
from emu.terminal.terminal import EscapeKeys, say, show
from emu.terminal.timestamps import TimeStamps

if TYPE_CHECKING:
    from emu.terminal.prompt import Prompt

__all__ = ["Keys", "save"]

_STDOUT = 1
_HELP = (
    "C-a x    quit: the machine loses power",
    "C-a c    open or close the monitor; the guest runs on",
    "C-a s    save the machine in a file, to go on from there: --save FILE",
    "C-a t    show guest time before each line that the guest prints, or stop that",
    "C-a z    suspend pyemu, as C-z does elsewhere; fg resumes it",
    "C-a h    this help",
    "C-a C-a  send C-a to the guest",
)


class Keys:
    """Handles what is typed: passes it to the guest with ``send`` or, while it is open, to ``machine``'s monitor.

    ``stamps`` are those on the guest's output. C-a s saves the machine in ``snapshot``.
    """

    def __init__(self, machine: Machine, send: Callable[[bytes], None], stamps: TimeStamps, snapshot: Path) -> None:
        self._machine = machine
        self._snapshot = snapshot
        self._send = send
        self._stamps = stamps
        self._prompt: Prompt | None = None
        self._keys = EscapeKeys(
            send,
            {
                "x": self._leave,
                "c": self._toggle_monitor,
                "s": self._save,
                "t": self._toggle_stamps,
                "z": self._suspend,
                "h": self._help,
                "?": self._help,
            },
        )

    def __call__(self, data: bytes) -> None:
        """Handle ``data``, any piece of what is typed."""
        self._keys(data)

    def _leave(self) -> None:
        raise Ending(0)

    def _help(self) -> None:
        say("keys")
        for line in _HELP:
            say(line)

    def _save(self) -> None:
        try:
            save(self._machine, self._snapshot)
        except PyemuError as error:
            say(f"error: {error}")

    def _toggle_stamps(self) -> None:
        if os.isatty(_STDOUT):
            self._stamps.on = not self._stamps.on
        else:
            say("time stamps need a terminal, and stdout is not one")

    def _suspend(self) -> None:
        os.kill(0, signal.SIGTSTP)  # as the terminal does: the others in our pipeline stop, too

    def _toggle_monitor(self) -> None:
        if self._prompt is None:
            from emu.terminal.prompt import Prompt  # noqa: PLC0415 - not needed to boot

            self._keys.send = self._prompt = Prompt("(pyemu) ", show, self._ask_monitor, self._toggle_monitor)
        else:
            self._prompt.close()
            self._prompt = None
            self._keys.send = self._send

    def _ask_monitor(self, line: str) -> None:
        try:
            text = self._machine.monitor(line)
        except PyemuError as error:
            text = f"error: {error}"
        if text:
            show(f"{text}\n")
        if self._machine.power is not None:  # the command switched it off
            self._toggle_monitor()
            self._leave()


def save(machine: Machine, path: Path) -> None:
    """Save ``machine`` in the file ``path``, and say so; raises PyemuError."""
    machine.save(path)
    say(f"saved; to go on from there: pyemu boot {shlex.quote(str(path))}")
