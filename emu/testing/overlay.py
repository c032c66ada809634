"""Adds the user's files to the guest's root file system, in a second archive after the first.

The kernel unpacks them in order (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from devices.errors import UsageError
from emu.guest import cpio

__all__ = ["overlay"]

#: An archive's end is padded to this with zeros, which the kernel skips.
_BLOCK = 512


def overlay(initrd: Path, tree: Path, out: Path) -> Path:
    """Write ``out``: the initramfs ``initrd``, then every file and symbolic link below ``tree``; return ``out``.

    The files belong to root and keep their permissions. Raises UsageError if something cannot be read or written.
    """
    if not tree.is_dir():
        raise UsageError(f"{tree} is not a directory of files for the guest")
    try:
        base = initrd.read_bytes()
        out.write_bytes(base + bytes(-len(base) % _BLOCK) + cpio.pack(_entries(tree)))
    except OSError as error:
        raise UsageError(f"cannot put {tree} over {initrd}: {error}") from error
    return out


def _entries(tree: Path) -> Iterator[cpio.Entry]:
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield cpio.symlink(name, os.readlink(path))  # noqa: PTH115 - as it is, not resolved
        elif stat.S_ISDIR(mode):
            yield cpio.directory(name, stat.S_IMODE(mode))
        elif stat.S_ISREG(mode):
            yield cpio.file(name, path.read_bytes(), stat.S_IMODE(mode))
