"""What ``--trace``, ``--trace-file`` and ``--meter`` of the command line mean."""

import contextlib
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emu.cli.signals import Signals
from emu.terminal.terminal import say
from emu.trace import DEFAULT, Trace, TraceFile, line, parse_categories

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["metering", "tracing"]

_STDERR = 2

SwitchOn = Callable[[Callable[[bytes], None]], "Machine"]


@contextlib.contextmanager
def tracing(categories: str | None, path: Path | None, signals: Signals) -> Iterator[Trace]:
    """Have a trace of ``categories``, into the file ``path``, or in lines on stderr; raises UsageError."""
    wanted = parse_categories(DEFAULT if categories is None else categories)
    if path is None:
        write = _writer(_STDERR, signals)
        end = "\r\n" if os.isatty(_STDERR) else "\n"  # which a terminal in raw mode needs, and no other minds
        yield Trace(lambda record: write(f"{line(record)}{end}".encode()), wanted)
        return
    with TraceFile(path) as file:
        yield Trace(file, wanted)


@contextlib.contextmanager
def metering(switch_on: SwitchOn, signals: Signals) -> Iterator[SwitchOn]:
    """Have ``switch_on``, whose machines are shown by a meter at the bottom of the terminal."""
    if not os.isatty(_STDERR):
        say("--meter is ignored: stderr is not a terminal")
        yield switch_on
        return
    from emu.cli.meter import Meter  # noqa: PLC0415 - numpy
    from emu.terminal.statusline import StatusLine  # noqa: PLC0415

    status = StatusLine(_STDERR, _writer(_STDERR, signals))

    def switch_on_and_attach(output: Callable[[bytes], None]) -> "Machine":
        machine = switch_on(status.watch(output))
        meter.attach(machine)
        return machine

    with Meter(status) as meter:
        yield switch_on_and_attach


def _writer(fd: int, signals: Signals) -> Callable[[bytes], None]:
    """Write all of some bytes to ``fd``, if anybody is there; while that has to wait, signals end it."""

    def write(data: bytes) -> None:
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

    return write
