"""What a machine was made of: written when it is recorded, compared when that is replayed."""

import hashlib
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from devices.errors import UsageError
from emu.recording.file import FORMAT, MAGIC, Header
from emu.timing.warp import WarpClock

if TYPE_CHECKING:
    from devices.virtio.disk import Disk
    from emu.machine import Machine

__all__ = ["Files", "compare", "describe"]

_CHUNK = 1 << 20

#: ``kernel``, ``initrd`` and ``bios``: the machine's files, as far as it has them.
Files = dict[str, str | os.PathLike[str] | None]

_NAMES = {"kernel": "kernel", "initrd": "root file system", "bios": "bios"}
#: All that a machine may have, or not.
_PARTS = {"snapshot": "snapshot", **_NAMES}


def describe(machine: "Machine", memory: int, files: Files, snapshot: str | None) -> Header:
    """Return what ``machine``, which has not run yet, is made of; raises UsageError if a file cannot be read."""
    assert isinstance(machine.clock, WarpClock)
    return {
        MAGIC: FORMAT,
        "version": _version(),
        "seed": machine.chance.seed,
        "memory": memory,
        "append": machine.append,
        "ps_per_block": machine.clock.ps_per_block,
        "streams": list(machine.audio.streams),
        **{name: None if files[name] is None else _hash_file(Path(files[name] or "")) for name in _NAMES},
        "snapshot": snapshot,
        "disks": [[disk.size, disk.read_only, _hash(_contents(disk))] for disk in machine.disks],
    }


def compare(path: Path, recorded: Header, here: Header) -> None:
    """Raise UsageError if the machine that is ``here`` cannot replay ``path``, which that of ``recorded`` was in."""
    if recorded["version"] != here["version"]:
        raise UsageError(
            f"{path} was recorded with pyemu {_shown(recorded['version'])}, and this is {here['version']}: "
            f"use that one to replay it"
        )
    for name, what in _PARTS.items():
        if recorded[name] != here[name]:
            had = f"another {what}" if recorded[name] is not None and here[name] is not None else (
                f"a {what}" if here[name] is None else f"no {what}")  # fmt: skip
            raise UsageError(f"{path} was recorded with {had}; give the machine the same")
    for name in ("memory", "append", "seed", "streams", "ps_per_block"):
        if recorded[name] != here[name]:
            raise UsageError(f"{path} was recorded with {name} {_shown(recorded[name])}, not {_shown(here[name])}")
    _compare_disks(path, recorded, here)


def _compare_disks(path: Path, recorded: Header, here: Header) -> None:
    if len(recorded["disks"]) != len(here["disks"]):
        raise UsageError(f"{path} was recorded with disks: {len(recorded['disks'])}; here: {len(here['disks'])}")
    for number, (before, now) in enumerate(zip(recorded["disks"], here["disks"], strict=True)):
        if before[:2] != now[:2]:
            raise UsageError(f"{path} was recorded with another disk {number}: {_kind(before)}, not {_kind(now)}")
        if before != now:
            raise UsageError(
                f"disk {number} is not what it was when {path} was begun; FILE,snapshot keeps a disk as it is"
            )


def _kind(disk: list[object]) -> str:
    return f"{disk[0]} bytes{', read-only' if disk[1] else ''}"


def _shown(value: object) -> str:
    """Return ``value``, which may be anything, as a part of a line."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _version() -> str:
    try:
        return metadata.version("pyemu-riscv")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _hash(iter(lambda: file.read(_CHUNK), b""))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _contents(disk: "Disk") -> Iterator[bytes | bytearray]:
    return (disk.read(offset, min(_CHUNK, disk.size - offset)) for offset in range(0, disk.size, _CHUNK))


def _hash(pieces: Iterator[bytes | bytearray]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
