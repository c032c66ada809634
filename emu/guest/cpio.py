"""A writer of cpio archives in the "newc" format, which the kernel unpacks as initramfs.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. The archive depends only on the entries:
owned by root, dated 1970, numbered and sorted by name, so the same tree gives the same bytes on every host.
"""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

__all__ = ["Entry", "device", "directory", "file", "pack", "symlink"]

_ALIGN = 4
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: path without a leading slash, full mode, contents, device number."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def directory(path: str, mode: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(path, stat.S_IFDIR | mode)


def symlink(path: str, target: str) -> Entry:
    """Return a symbolic link at path that points to target."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """Return a character device."""
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def pack(entries: Iterable[Entry]) -> bytes:
    """Return the archive of entries and of every directory above them.

    Raises ValueError if two entries share a path: the kernel would silently take the later one.
    """
    return b"".join(chain.from_iterable(map(_record, range(1, 1 << 32), _complete(entries))))


def _complete(entries: Iterable[Entry]) -> list[Entry]:
    """Entries by path, a directory before its contents, with the directories nobody named and the end mark."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        if by_path.setdefault(entry.path, entry) is not entry:
            raise ValueError(f"two files are named {entry.path}")
    for path in list(by_path):
        for parent in _parents(path):
            by_path.setdefault(parent, directory(parent))
    return [*(by_path[path] for path in sorted(by_path)), Entry(_TRAILER, 0)]


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _record(inode: int, entry: Entry) -> tuple[bytes, bytes]:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name), _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
