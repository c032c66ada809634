"""What ``--record`` and ``--replay`` of the command line mean, and the line that says how to repeat a failed run."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devices.errors import UsageError
from emu.snapshot.magic import is_snapshot
from emu.terminal.terminal import say

__all__ = ["Failure", "recording"]

#: Ends that are no failures of the guest's: wrong usage, C-c.
_NO_FAILURE = (0, 2, 130)


@contextlib.contextmanager
def recording(
    image: Path | None, record: Path | None, replay: Path | None, commands: Sequence[str], hardware: dict[str, Any]
) -> Iterator[None]:
    """Open what is recorded, or replayed, and put it into ``hardware``, Machine's arguments; raises UsageError.

    What these leave out is as it was recorded, or as it is in ``image`` if that is a snapshot. In the end it is said
    whether the replay was the same.
    """
    clock = hardware["clock"]
    hardware["clock"] = clock or ("host" if replay is None else "warp")
    if record is None and replay is None:
        yield
        return
    if record is not None and replay is not None:
        raise UsageError("a replay is the same run as its recording; use one of --record and --replay")
    if hardware["clock"] != "warp":
        name = "--record" if replay is None else "--replay"
        raise UsageError(f"{name} needs --clock warp: by the other clocks no run is like another")
    if commands and replay is not None:
        raise UsageError("--replay types what was recorded; leave --exec out")
    from emu.recording import Reader, Writer  # noqa: PLC0415

    if record is not None:
        with Writer(record) as hardware["record"]:
            yield
        return
    assert replay is not None
    with Reader(replay) as reader:
        hardware["replay"] = reader
        recorded = {"seed": reader.first["seed"]}
        if image is None or not is_snapshot(image):
            recorded |= {"memory": reader.first["memory"], "append": f"={reader.first['append']}"}
        for name, value in recorded.items():
            if hardware[name] is None:
                hardware[name] = value
        yield
        if reader.same:
            say(f"this was the same run as {replay}, to the bit")


class Failure:
    """While it is entered, a run with the warp clock and --exec that fails ends with the line that repeats it.

    ``options`` are those of the command line, by their names in Python.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._told = options["clock"] != "warp" or not options["commands"]

    def told(self, status: int) -> int:
        """Return ``status``, and tell if it is a failure's."""
        if status not in _NO_FAILURE and not self._told:
            self._told = True
            say(f"to repeat it: {_repeating(self._options)}")
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(value, SystemExit) and isinstance(value.code, int):
            self.told(value.code)


def _repeating(options: dict[str, Any]) -> str:
    """Return the command line that is the same run as ``options`` were."""
    from emu.recording.command import boot_line  # noqa: PLC0415

    names = {"bios": "bios", "disks": "disk"} | ({} if options["audio"] == "auto" else {"audio": "audio"})
    if options["record"] is not None:
        last = {"replay": options["record"]}
    else:
        last = {"clock": "warp"}
        names |= {"quick": "quick", "memory": "memory", "append": "append", "seed": "seed", "commands": "exec"}
    return boot_line(options["image"], options["rootfs"], {name: options[key] for key, name in names.items()} | last)
