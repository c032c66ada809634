"""``pyemu guest``: the default guest, built and found."""

from pathlib import Path

import click

from emu.cli.reporting import debug_option, reporting
from emu.cli.signals import Signals
from emu.terminal.terminal import say

__all__ = ["guest_group"]

_EPILOG = """\b
Examples:
  pyemu guest build
      Ahead of time, or in CI, so that no pyemu boot has to wait.
  pyemu boot "$(pyemu guest path --kernel)" rootfs.cpio
      The default guest's kernel with a root file system of your own.
  gdb-multiarch "$(pyemu guest path --vmlinux)" -ex "target remote :1234"
      Debug the default guest's kernel; before that: pyemu boot --gdb 1234
  PYEMU_CACHE=/var/cache/pyemu pyemu guest build
      Somewhere other than ~/.cache/pyemu.
"""


@click.group("guest", epilog=_EPILOG, short_help="The default guest: build it, or print where its files are.")
def guest_group() -> None:
    """The default guest: Linux with ALSA's tools, built on this machine and cached."""


@guest_group.command("build", epilog=_EPILOG)
@debug_option
def guest_build(debug: bool) -> None:
    """Build the default guest, unless it is already there.

    That takes four to eleven minutes. An interrupted build continues where it stopped. If the build fails, the message
    names its log or, if a package is missing, the command that installs it.
    """
    with reporting(debug), Signals():
        image, rootfs = _default_guest()
        say(f"the default guest is {image} and {rootfs}")


@guest_group.command("path", epilog=_EPILOG, short_help="Print where its Image and rootfs.cpio are.")
@click.option("--kernel", is_flag=True, help="Only the kernel's, Image.")
@click.option("--rootfs", is_flag=True, help="Only the root file system's, rootfs.cpio.")
@click.option("--vmlinux", is_flag=True, help="The kernel's, with its debug information, vmlinux; for gdb.")
@debug_option
def guest_path(kernel: bool, rootfs: bool, vmlinux: bool, debug: bool) -> None:
    """Print where the default guest's Image and rootfs.cpio are, one per line; builds them first if necessary.

    In a script, ask for one at a time, and quote it: the path may contain spaces.
    """
    with reporting(debug), Signals():
        image, cpio = _default_guest()
        files = ((image, kernel), (cpio, rootfs), (image.with_name("vmlinux"), vmlinux))
        for path, wanted in files if kernel or rootfs or vmlinux else files[:2]:
            if wanted or not (kernel or rootfs or vmlinux):
                click.echo(path)


def _default_guest() -> tuple[Path, Path]:
    from emu import guest  # noqa: PLC0415

    return guest.files(say)
