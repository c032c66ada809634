"""``pyemu completion``: how the shell completes a command line, and the completions beyond click's own."""

import os
import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["VARIABLE", "complete_audio", "complete_directory", "complete_file", "complete_net", "completion"]

#: The environment variable that is set when a shell asks for completions.
VARIABLE = "_PYEMU_COMPLETE"

_INSTALL = {
    "bash": 'add to ~/.bashrc: eval "$(pyemu completion bash)"',
    "zsh": 'add to ~/.zshrc, after compinit: eval "$(pyemu completion zsh)"',
    "fish": "run: pyemu completion fish > ~/.config/fish/completions/pyemu.fish",
}

_EPILOG = """\b
Examples:
  eval "$(pyemu completion bash)"
      In this shell; as a line of ~/.bashrc, in every shell.
  eval "$(pyemu completion zsh)"
      The same in ~/.zshrc, after compinit.
  pyemu completion fish > ~/.config/fish/completions/pyemu.fish
"""

#: The backends, as devices/audio/spec.py knows them.
_BACKENDS = {
    "null": "nowhere, at its normal pace",
    "wav:": "into a file",
    "loopback": "back into the guest",
    "host": "the host's device",
    "auto": "the host's device, if there is one",
}
#: What a cable may lead to, as devices/net/spec.py knows it.
_NETS = {"user": "this user's network", "socket:": "another machine, through a socket of this name"}
#: Names that need no quotes in any shell.
_PLAIN = r"[\w./+@%~-]+"


@click.command(epilog=_EPILOG, short_help="Print a completion script for bash, zsh or fish.")
@click.argument("shell", metavar="SHELL", type=click.Choice(list(_INSTALL)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL (bash, zsh or fish) completes pyemu's commands, options and files.

    Its last line says how to install it.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "pyemu", VARIABLE).source())
    click.echo(f"# To have it in every shell, {_INSTALL[shell]}")


def complete_file(_context: click.Context, _option: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Let the shell complete the name of a file."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    return [CompletionItem(incomplete, "file")]


def complete_directory(
    _context: click.Context, _option: click.Parameter, incomplete: str
) -> "list[CompletionItem[str]]":
    """Let the shell complete the name of a directory."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    return [CompletionItem(incomplete, "dir")]


def complete_audio(_context: click.Context, _option: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete ``--audio``: its backends, and the name of a file after ``wav:``.

    A shell adds a space after a single completion. Where the word should continue, ``wav:out.wav`` is a second one.
    """
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    if incomplete.startswith("wav:"):
        return [CompletionItem(f"wav:{name}") for name in _sounds(incomplete.removeprefix("wav:"))]
    found = [CompletionItem(name, help=text) for name, text in _BACKENDS.items() if name.startswith(incomplete)]
    if any(item.value == "wav:" for item in found):
        found.append(CompletionItem("wav:out.wav", help="into this file"))
    return found


def complete_net(_context: click.Context, _option: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete ``--net``, as far as there is a choice."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    return [CompletionItem(name, help=text) for name, text in _NETS.items() if name.startswith(incomplete)]


def _sounds(incomplete: str) -> list[str]:
    """Return WAV files and directories whose names begin like this, and the name of a file to create."""
    folder, _, start = incomplete.rpartition("/")
    folder = f"{folder}/" if "/" in incomplete else ""
    names = {f"{folder}out.wav"} if "out.wav".startswith(start) else set()
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return sorted(names)
    for entry in entries:
        if entry.name.startswith(start) and re.fullmatch(_PLAIN, entry.name) and (start or entry.name[0] != "."):
            if entry.is_dir():
                names |= {f"{folder}{entry.name}/", f"{folder}{entry.name}/out.wav"}
            elif entry.name.lower().endswith(".wav"):
                names.add(f"{folder}{entry.name}")
    return sorted(names)
