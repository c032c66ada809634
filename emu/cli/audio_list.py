"""``pyemu audio list``: the host's sound devices, as ``--audio host:NAME`` takes them."""

import click

from emu.cli.reporting import debug_option, reporting
from emu.terminal.terminal import say

__all__ = ["list_devices"]


_EPILOG = """\b
Examples:
  pyemu audio list
  pyemu boot --audio host:3
  pyemu boot --audio "host:USB Audio"
"""


@click.command("list", epilog=_EPILOG, short_help="List the host's sound devices.")
@debug_option
def list_devices(debug: bool) -> None:
    """List the host's sound devices. --audio host:NAME takes a number, a name, or an unambiguous part of a name."""
    with reporting(debug):
        from devices.audio.host.card import list_cards, load_portaudio  # noqa: PLC0415 - numpy is slow to import

        lines = list_cards(load_portaudio())
    if not lines:
        say("the host has no sound device that PortAudio can see")
    for line in lines:
        click.echo(line)
