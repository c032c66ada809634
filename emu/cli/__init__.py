"""The command line: ``pyemu``, its commands, and what else a person at a terminal needs."""

import os
import sys
from importlib import import_module
from typing import NoReturn, cast

import click

from emu.cli.completion import VARIABLE
from emu.terminal.terminal import say

__all__ = ["main"]

_FIRST_STEPS = """\b
Examples:
  pyemu boot
      Linux, with a root shell; C-a x quits.
  pyemu boot --audio host
      The same, with sound: speaker-test -c 2 -t sine -l 1
  pyemu boot --clock warp --audio wav:out.wav --exec "aplay /root/tone.wav"
      Into a file, as fast as the host can compute; then: pyemu audio check out.wav
  pyemu COMMAND --help
      Everything, with examples.
"""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status; the entry point."""
    _open_standard_files()
    _keep_stderr()
    if VARIABLE in os.environ:
        from emu.cli import completing  # noqa: PLC0415

        completing.register()
    try:
        status = cli.main(arguments, "pyemu", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = error.exit_code
    except click.ClickException as error:
        message, step = " ".join(error.format_message().split()).rstrip("."), _next_step(error, arguments)
        say(f"error: {message} {step[0].upper()}{step[1:]}" if message[-1:] == "?" else f"error: {message}; {step}")
        status = error.exit_code
    except click.Abort:
        status = 130
    sys.exit(status)


def _next_step(error: click.ClickException, arguments: list[str] | None) -> str:
    """Return what to do about wrong usage."""
    path, command, context = "pyemu", cast("click.Command", cli), click.Context(cli)
    for word in sys.argv[1:] if arguments is None else arguments:
        called = command.get_command(context, word) if isinstance(command, click.Group) else None
        if called is None:
            break
        path, command = f"{path} {word}", called
    if command is cli and isinstance(error, click.UsageError):
        return "to switch on a machine: pyemu boot [OPTIONS] [IMAGE [ROOTFS]]; see pyemu --help"
    return f"see {path} --help"


def _open_standard_files() -> None:
    """Replace a closed stdin, stdout or stderr by /dev/null: else the next file opened would take its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _keep_stderr() -> None:
    """Give sys.stderr a descriptor of its own.

    While sounddevice looks for the host's sound, which a thread of ours lets it do, 2 leads to nowhere.
    """
    before = sys.stderr
    if before is sys.__stderr__ and before is not None:
        own = os.dup(before.fileno())
        sys.stderr = os.fdopen(own, "w", 1, before.encoding, before.errors, closefd=False)


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # noqa: PLC0415

        try:
            version = metadata.version("pyemu-riscv")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        click.echo(f"pyemu {version}, {_native_part()}")
        context.exit()


def _native_part() -> str:
    """Say whether the engine's native part is in use, or why not: measurements and bug reports depend on it."""
    import mmap  # noqa: PLC0415

    from emu.cpu.engine import Engine  # noqa: PLC0415

    engine = Engine(mmap.mmap(-1, mmap.PAGESIZE), 0)
    try:
        return "with its native part" if engine.native else f"without its native part: {engine.why_not_native}"
    finally:
        engine.close()


#: Each in a module of its own, which is not imported for another's sake: that is a tenth of what it takes to boot.
_COMMANDS = {
    "audio": ("emu.cli.audio", "audio_group"),
    "boot": ("emu.cli.boot", "boot_command"),
    "completion": ("emu.cli.completion", "completion"),
    "guest": ("emu.cli.guest", "guest_group"),
    "sweep": ("emu.cli.sweep", "sweep_command"),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module, name = _COMMANDS[cmd_name]
            self.add_command(getattr(import_module(module), name))
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_FIRST_STEPS,
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version.")  # fmt: skip
def cli() -> None:
    """A RISC-V machine that boots Linux and plays sound. To begin: pyemu boot."""
