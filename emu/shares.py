"""A machine's shared directories: how they are written, and the devices that they become."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from devices.errors import UsageError
from devices.virtio.aside import Aside, at_once
from devices.virtio.fs import Export, FsDevice, open_export

__all__ = ["devices", "parse_share"]


def parse_share(text: str, number: int = 0) -> Export:
    """Open the directory ``DIR[,readonly][,tag=NAME]``; without a tag it is "share", "share1" and so on by ``number``.

    Raises UsageError.
    """
    name, *options = text.split(",")
    tags = [option.removeprefix("tag=") for option in options if option.startswith("tag=")]
    unknown = [option for option in options if option != "readonly" and not option.startswith("tag=")]
    if unknown or not name or len(tags) > 1:
        what = repr(unknown[0]) if unknown else "the directory ''" if not name else "a second tag"
        raise UsageError(f"--share {text}: {what} makes no sense; write DIR, DIR,readonly or DIR,tag=NAME")
    tag = tags[0] if tags else f"share{number or ''}"
    return open_export(name, tag, read_only="readonly" in options)


def devices(
    shares: Sequence[Export | str], make_aside: Callable[[ExitStack], Aside], opened: ExitStack, *, recorded: bool
) -> list[FsDevice]:
    """Make the devices of what is shared; ``opened`` closes the directories. Raises UsageError.

    A run that is ``recorded``, or replayed, can have none.
    """
    if recorded:
        raise UsageError("a run with a shared directory can't be recorded or replayed: others change what is there; "
                         "leave it out, or use a disk")  # fmt: skip
    made: list[FsDevice] = []
    for number, share in enumerate(shares):
        if not isinstance(share, str | Export):
            raise UsageError(f'share={share!r} cannot be used; give a text like "directory,readonly"')
        export = parse_share(share, number) if isinstance(share, str) else share
        opened.callback(export.close)
        if export.tag in {device.export.tag for device in made}:
            raise UsageError(f"two shared directories are called {export.tag!r}; give one another name: DIR,tag=NAME")
        aside = make_aside(opened)
        fetch = None if aside is at_once else make_aside(opened)  # which need not wait for a flush
        made.append(FsDevice(export, aside, fetch))
    return made
