"""A snapshot's file: a head, plain data, and what takes much room, page-aligned and with holes, to be mapped.

    head      MAGIC, format, length of the plain data and their CRC-32
    plain     JSON: what the machine is made of, and the state of each part (see plain.py)
    regions   RAM, and each disk's own changes; each begins on a page, and its pages of zeros are holes

Nobody is believed: the plain data are checked as a whole here and field by field when they are used; the regions are
only mapped, and bytes for the guest.
"""

import contextlib
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from devices.errors import UsageError
from devices.state import check
from emu.memory import PAGE, RamImage, SharedFile
from emu.snapshot.magic import MAGIC, is_snapshot

__all__ = ["FORMAT", "Contents", "Region", "identity", "read", "write", "write_all"]

#: Another one is refused. To be increased with each change of what is in there, or of its meaning.
FORMAT = 4
_HEAD = struct.Struct("<16sIIQ")
#: More plain data than any machine has: a console's text and what Python plays into a microphone are the most of it.
_MOST_PLAIN = 16 << 20


class Region(NamedTuple):
    """A part of a file, page-aligned."""

    offset: int
    size: int


class Contents(NamedTuple):
    """What is in a file: plain data as they are in JSON, and what there is beside them, by name."""

    file: SharedFile
    plain: dict[str, Any]
    regions: dict[str, Region]


def read(path: Path) -> Contents:
    """Open the snapshot ``path``; raises UsageError if it is none, is damaged or of another format."""
    try:
        file = SharedFile(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        status = os.fstat(file.fileno())
        head = os.pread(file.fileno(), _HEAD.size, 0) if stat.S_ISREG(status.st_mode) else b""
        if len(head) < _HEAD.size or not head.startswith(MAGIC):
            raise UsageError(f"{path} is not a snapshot; make one with: pyemu boot --save {path}")
        _, version, checksum, length = _HEAD.unpack(head)
        if version != FORMAT:
            raise UsageError(f"{path} has format {version}, and this pyemu reads {FORMAT}; save it again with this one")
        data = os.pread(file.fileno(), length, _HEAD.size) if length <= _MOST_PLAIN else b""
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) != length or zlib.crc32(data) != checksum:
        raise UsageError(f"{path} is damaged or truncated; save it again")
    return Contents(file, *_parse(data, status.st_size))


def _parse(data: bytes, end: int) -> tuple[dict[str, Any], dict[str, Region]]:
    try:
        sizes, plain = json.loads(data)
        pairs = list(sizes.items())
    except (ValueError, TypeError, AttributeError, RecursionError):
        check(False, "it")
        raise
    check(isinstance(plain, dict) and all(type(size) is int and size >= 0 for _, size in pairs), "it")
    regions = dict(_places(_HEAD.size + len(data), pairs))
    check(all(offset + size <= end for offset, size in regions.values()), "its length")
    return plain, regions


def identity(file: SharedFile) -> str:
    """Return what tells the snapshot in ``file`` from any other: a SHA-256, as a hexadecimal number."""
    import hashlib  # noqa: PLC0415 - only a run that is recorded needs it

    _, _, _, length = _HEAD.unpack(os.pread(file.fileno(), _HEAD.size, 0))
    return hashlib.sha256(os.pread(file.fileno(), length, _HEAD.size)).hexdigest()


def write(path: Path, plain: bytes, regions: Mapping[str, tuple[int, Callable[[RamImage], None]]]) -> None:
    """Write a snapshot to ``path``, where an older one stays whole until this one is: it takes its place at the end.

    ``plain`` is JSON; ``regions`` are sizes, and what writes each to its place in the file. Raises UsageError where
    that cannot be done, or there is a file of another kind.
    """
    if path.exists() and not is_snapshot(path):
        raise UsageError(f"{path} is not a snapshot; it is not replaced by one")
    sizes = {name: size for name, (size, _) in regions.items()}
    data = b"[%s,%s]" % (json.dumps(sizes).encode(), plain)
    if len(data) > _MOST_PLAIN:
        raise UsageError(f"there is too much to save: {len(data) >> 20} MiB beside RAM and disks")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = SharedFile(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666))
        with _removed_on_failure(unfinished):
            write_all(file, 0, _HEAD.pack(MAGIC, FORMAT, zlib.crc32(data), len(data)) + data)
            for name, (offset, size) in _places(_HEAD.size + len(data), list(sizes.items())):
                os.ftruncate(file.fileno(), offset + size)
                regions[name][1](RamImage(file, offset))
            unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be saved: {error.strerror}") from error


def _places(end: int, sizes: list[tuple[str, int]]) -> Iterator[tuple[str, Region]]:
    """Where the regions are: each on the next page."""
    for name, size in sizes:
        start = -(-end // PAGE) * PAGE
        yield name, Region(start, size)
        end = start + size


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def write_all(file: SharedFile, offset: int, data: bytes) -> None:
    """Write ``data`` at ``offset``; raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file.fileno(), view, offset)
        view, offset = view[written:], offset + written
