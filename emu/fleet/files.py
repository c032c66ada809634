"""A sweep's files on the computers of its workers, each known by its contents: there already, or kept in the cache.

A worker that lacks one gives its case back, and gets it again with the file. So files need no way of their own: they
come by the executor, whatever network it has. What is not used for a month is forgotten.
"""

import hashlib
import os
import re
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from devices.errors import PyemuError
from emu.guest import cache

__all__ = ["File", "find", "keep", "pack"]

_PIECE = 1 << 20
#: A file by its checksum, and what a worker was writing when it was killed.
_OURS = re.compile(r"[0-9a-f]{64}|tmp\w+(\.whole)?")


class File(NamedTuple):
    """A file by its contents; ``path`` is where it is on the computer that it comes from."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: str) -> "File":
        """Look at a file; raises OSError."""
        path = os.path.realpath(path)
        return cls(path, _checksum(path, _stamp(path)))


def find(file: File) -> str | None:
    """Return where ``file`` is on this computer, with the contents that it should have; None if nowhere."""
    for path in (file.path, str(_place(file))):
        try:
            if _checksum(path, _stamp(path)) == file.sha256:
                if path != file.path:
                    cache.use(Path(path))
                return path
        except OSError:  # it isn't there
            continue
    return None


def pack(file: File) -> bytes:
    """Return the contents, for ``keep``; raises OSError. A snapshot is mostly holes, and so becomes small."""
    packer = zlib.compressobj(1)
    with Path(file.path).open("rb") as opened:
        pieces = [packer.compress(piece) for piece in iter(lambda: opened.read(_PIECE), b"")]
    return b"".join((*pieces, packer.flush()))


def keep(file: File, packed: bytes) -> None:
    """Put a file into this computer's cache. Raises OSError, or PyemuError if the contents are others."""
    place = _place(file)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent) as made:
        digest, unpacker, size = hashlib.sha256(), zlib.decompressobj(), 0
        while not unpacker.eof and (piece := unpacker.decompress(packed, _PIECE)):
            packed = unpacker.unconsumed_tail
            digest.update(piece)
            if piece.count(0) == len(piece):
                made.seek(len(piece), os.SEEK_CUR)  # a hole
            else:
                made.write(piece)
            size += len(piece)
        made.truncate(size)
        made.flush()
        if digest.hexdigest() != file.sha256:
            raise PyemuError(f"{file.path} has changed since the sweep began; it must not")
        whole = Path(f"{made.name}.whole")
        os.link(made.name, whole)
        whole.replace(place)  # at once, whoever else brings it or looks for it
    cache.forget(path for path in place.parent.iterdir() if _OURS.fullmatch(path.name))


def _place(file: File) -> Path:
    return cache.directory() / "fleet" / file.sha256


def _stamp(path: str) -> tuple[int, ...]:
    """Return what changes when a file does."""
    status = os.stat(path)  # noqa: PTH116 - as a text, for the cache's sake
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _checksum(path: str, _as_it_is: tuple[int, ...]) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
