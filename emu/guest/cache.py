"""The build cache: a directory for each part of the guest, named after a checksum of its inputs.

A finished part never changes. building.py describes what else may be beside it.
"""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["digest", "directory"]


def directory() -> Path:
    """Return where the guest is cached: $PYEMU_CACHE, else pyemu in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("PYEMU_CACHE"):
        return Path(own).absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG base directory specification says to ignore a relative one.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "pyemu"


def digest(*inputs: Path | str) -> str:
    """Return a short checksum of texts, and of files and whole directories by relative name and content.

    Nobody gains from a collision here, so a CRC is enough, and spares every start of pyemu importing hashlib.
    """
    total = 0
    for item in inputs:
        for name, data in [("", item.encode())] if isinstance(item, str) else _contents(item):
            total = zlib.crc32(f"{name}\0{len(data)}\0".encode() + data, total)
    return f"{total:08x}"


def _contents(path: Path) -> Iterable[tuple[str, bytes]]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return ((str(file.relative_to(path.parent)), file.read_bytes()) for file in files if file.is_file())
