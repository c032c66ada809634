"""What the options ``--trace``, ``--trace-file`` and ``--meter`` mean."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emu.cli.output import GuestOutput, finish, write_now
from emu.cli.signals import Signals
from emu.terminal.terminal import say, stderr
from emu.terminal.writer import Writer
from emu.trace import DEFAULT, Trace, TraceFile, line, parse_categories

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["metering", "tracing"]

#: When more bytes of the trace than this are pending, the machine waits for its reader.
_TOO_MUCH = 1 << 20

SwitchOn = Callable[[GuestOutput], "Machine"]
SwitchOnFor = Callable[[Callable[[bytes], None]], "Machine"]


@contextlib.contextmanager
def tracing(categories: str | None, path: Path | None, signals: Signals) -> Iterator[Trace]:
    """Provide a trace of ``categories``, to the file ``path`` or as lines on stderr; raises UsageError."""
    wanted = parse_categories(DEFAULT if categories is None else categories)
    if path is None:
        with _lines(signals) as write:
            yield Trace(lambda record: write(line(record)), wanted)
        return
    with TraceFile(path) as file:
        yield Trace(file, wanted)


@contextlib.contextmanager
def metering(switch_on: SwitchOnFor, signals: Signals) -> Iterator[SwitchOn]:
    """Provide ``switch_on`` such that a meter at the bottom of the terminal shows its machines."""
    if not os.isatty(stderr()):
        say("--meter is ignored: stderr is not a terminal")
        yield switch_on
        return
    from emu.cli.meter import Meter  # noqa: PLC0415 - numpy
    from emu.terminal.statusline import StatusLine  # noqa: PLC0415

    status = StatusLine(stderr(), lambda data: write_now(stderr(), data, signals))

    def switch_on_and_attach(output: GuestOutput) -> "Machine":
        status.write, status.settle = output.aside, output.settle
        machine = switch_on(status.watch(output))
        meter.attach(machine)
        return machine

    with Meter(status) as meter:
        yield switch_on_and_attach


@contextlib.contextmanager
def _lines(signals: Signals) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a line to stderr."""
    end = "\r\n" if os.isatty(stderr()) else "\n"  # a terminal in raw mode needs the \r, and any other ignores it
    with Writer(stderr()) as writer:

        def write(text: str) -> None:
            writer(f"{text}{end}".encode())
            if writer.pending > _TOO_MUCH:
                finish(writer, signals, None)

        try:
            yield write
        except BaseException as error:
            finish(writer, signals, error)
            raise
        finish(writer, signals, None)
