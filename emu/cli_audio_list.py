"""``pyemu audio list``: the host's sound devices, as ``--audio host:NAME`` wants them."""

import sys

import click

from emu.errors import PyemuError
from emu.terminal import say

__all__ = ["list_devices"]


_EPILOG = """\b
Examples:
  pyemu audio list
  pyemu boot --audio host:3
  pyemu boot --audio "host:USB Audio"
"""


@click.command("list", epilog=_EPILOG, short_help="List the host's sound devices.")
def list_devices() -> None:
    """List the host's sound devices: for --audio host:NAME, a number, a name, or a part of one that fits no other."""
    try:
        from devices.audio.card import list_cards, load_portaudio  # noqa: PLC0415 - numpy takes its time

        lines = list_cards(load_portaudio())
    except PyemuError as error:
        say(f"error: {error}")
        sys.exit(error.exit_status)
    if not lines:
        say("the host has no sound device that PortAudio can see")
    for line in lines:
        click.echo(line)
