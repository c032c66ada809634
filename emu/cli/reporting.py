"""What all commands have in common: an error becomes one line and an exit status."""

import contextlib
import sys
from collections.abc import Iterator

import click

from devices.errors import PyemuError
from emu.cli.signals import Ending
from emu.terminal.terminal import say

__all__ = ["debug_option", "reporting"]

debug_option = click.option("--debug", is_flag=True, help="Show where an error comes from (a Python traceback).")


@contextlib.contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn every way in which a command can fail into one line and an exit status."""
    try:
        yield
    except PyemuError as error:
        if debug:
            import traceback  # noqa: PLC0415

            traceback.print_exc()
        say(f"error: {error}")
        sys.exit(error.exit_status)
    except Ending as ending:
        if ending.message:
            say(ending.message)
        sys.exit(ending.status)
