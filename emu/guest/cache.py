"""The build cache: a directory for each part of the guest, named after a checksum of its inputs.

A finished part never changes. building.py describes what else may be beside it.
"""

import contextlib
import os
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["digest", "directory", "forget", "use"]

#: What has not been used for so long, and can be made again in a moment, is forgotten.
_LONG_S = 30 * 86400


def directory() -> Path:
    """Return where the guest is cached: $PYEMU_CACHE, else pyemu in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("PYEMU_CACHE"):
        return Path(own).absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG base directory specification says to ignore a relative one.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "pyemu"


def use(path: Path) -> None:
    """Note that ``path`` is used now: its time of access says when that was last."""
    with contextlib.suppress(OSError):  # the cache is somebody else's
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def forget(paths: Iterable[Path]) -> None:
    """Remove those of the ``paths`` that nobody has used for a month, whatever they are, finished or not.

    Who has just got one of them from here has used it. Machines that run from a file do not notice.
    """
    import shutil  # noqa: PLC0415 - not needed to boot

    for path in paths:
        with contextlib.suppress(OSError):  # another process removes it, too
            status = path.lstat()
            if max(status.st_atime, status.st_mtime) > time.time() - _LONG_S:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


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
