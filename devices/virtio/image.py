"""The file or block device that a disk is in.

All offsets and sizes are in bytes, within the disk; an operation that fails raises OSError.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import TypedDict

from devices.errors import PyemuError, UsageError
from devices.state import I64, U64
from devices.virtio.pagecache import expect_leaps, read_ahead, read_cached
from devices.virtio.sparse import data_in, punch_hole

__all__ = ["CHUNK", "SECTOR", "DiskState", "FileDisk", "ImageState", "Read", "check_kind", "chunks"]

SECTOR = 512
# Copies are cut into pieces of this size, so that the guest cannot decide how much of the host's memory they take.
CHUNK = 64 << 10
#: A file is as it was if it was last written at the same time, unless that was only so long (ns) before its state was
#: taken: file systems tell no times that are closer to each other.
_SETTLED_NS = 2_000_000_000

#: Reads exactly so many bytes from an offset, or raises OSError.
Read = Callable[[int, int], bytes]


class ImageState(TypedDict):
    """Which image a disk is in, and how to see that it has not changed since.

    ``path`` is absolute. ``sha256`` is empty until whoever saves the state for another process asks for ``digest()``.
    """

    path: str
    raw: bool
    read_only: bool
    size: U64
    device: U64
    inode: U64
    modified: I64
    settled: bool
    version: U64
    sha256: bytes


class DiskState(TypedDict):
    """An image, and the numbers of the blocks that a snapshot of it has changed; None if it is no snapshot."""

    image: ImageState
    changed: list[U64] | None


class FileDisk:
    """A disk in the file or block device open as ``descriptor``, which ``close`` closes.

    A ``temporary`` disk is never synchronised, because it is never read again. ``raw`` is how it was opened.
    """

    def __init__(
        self, descriptor: int, name: str, *, read_only: bool = False, temporary: bool = False, raw: bool = False
    ) -> None:
        self._descriptor = descriptor
        self._name = name
        self._path = os.path.abspath(name)  # noqa: PTH100 - resolves no link
        self._raw = raw
        self._version = int.from_bytes(os.urandom(7))  # what no other disk has ever been like, and one more each write
        self._flush_failed = False
        self._flushable = not read_only and not temporary
        expect_leaps(descriptor)
        end = os.lseek(descriptor, 0, os.SEEK_END)
        self.read_only = read_only
        self.size = end - end % SECTOR
        self.warning = (
            f"{name}: the last {end % SECTOR} bytes are not part of the disk, which consists of {SECTOR}-byte sectors"
            if end % SECTOR
            else None
        )

    def read(self, offset: int, size: int) -> bytes | bytearray:
        """Read exactly ``size`` bytes; raises OSError if the file has been truncated."""
        cached = self.read_cached(offset, size)
        return self._read_ahead(offset, size) if cached is None else cached

    def read_cached(self, offset: int, size: int) -> bytes | bytearray | None:
        """Read as ``read`` does, if the host's disk need not be asked for any of it; else return None."""
        data = read_cached(self._descriptor, offset, size)
        # A block device has no size in its status, so a piece that is there in part looks like the last one.
        return data if data is not None and len(data) == size else None

    def _read_ahead(self, offset: int, size: int) -> bytes:
        parts = []
        while size:
            part = read_ahead(self._descriptor, offset, size)
            if not part:
                raise OSError(errno.EIO, f"{self._name} ends at {offset}")
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Write all of ``data`` to the host's cache."""
        self._version += 1
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            offset += written
            view = view[written:]

    def flush(self) -> None:
        """Return when everything written is on stable storage."""
        if not self._flushable:
            return
        if self._flush_failed:
            # The kernel reports a lost write once and then forgets it, but the data is still lost.
            raise OSError(errno.EIO, f"{self._name}: an earlier flush failed")
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self._flush_failed = True
            raise

    def discard(self, offset: int, size: int) -> None:
        """Give the space back to the host, if it can take it."""
        self._version += 1
        punch_hole(self._descriptor, offset, size)

    def write_zeroes(self, offset: int, size: int, *, may_unmap: bool) -> None:
        """Make a range read as zeros; if ``may_unmap``, by giving its space back if the host can take it."""
        self._version += 1
        if may_unmap and punch_hole(self._descriptor, offset, size):
            return
        for position, length in chunks(size):
            self.write(offset + position, bytes(length))

    def close(self) -> None:
        """Flush and close the file, which unlocks it. Harmless when repeated."""
        if self._descriptor < 0:
            return
        try:
            self.flush()
        except OSError as error:
            raise PyemuError(f"{self._name}: not everything could be written: {error.strerror}") from error
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def state(self) -> DiskState:
        """Return the state."""
        status = os.fstat(self._descriptor)
        image: ImageState = {
            "path": self._path,
            "raw": self._raw,
            "read_only": self.read_only,
            "size": self.size,
            "device": status.st_dev,
            "inode": status.st_ino,
            "modified": status.st_mtime_ns,
            "settled": stat.S_ISREG(status.st_mode) and status.st_mtime_ns + _SETTLED_NS < time.time_ns(),
            "version": self._version,
            "sha256": b"",
        }
        return {"image": image, "changed": None}

    def digest(self) -> bytes:
        """Return the SHA-256 of the contents: of the size, and of each CHUNK that is not all zeros, with its offset."""
        from hashlib import sha256  # noqa: PLC0415 - only what is saved needs it

        digest, zeros = sha256(self.size.to_bytes(8, "little")), bytes(CHUNK)
        for offset in data_in(self._descriptor, self.size, CHUNK):
            data = self.read(offset, min(CHUNK, self.size - offset))
            if not zeros.startswith(data):
                digest.update(offset.to_bytes(8, "little"))
                digest.update(data)
        return digest.digest()

    def copy_changes(self, write: Callable[[int, bytes], None]) -> None:
        """Do nothing: all changes are in the image."""

    def restore(self, state: DiskState, read: Read) -> None:  # noqa: ARG002
        """Make sure that the image is as it was."""
        check_kind(self.state(), state)
        self.check_unchanged(state["image"])

    def check_unchanged(self, image: ImageState) -> None:
        """Raise UsageError unless the contents are still those of ``image``."""
        now = self.state()["image"]
        if _stamp(now) == _stamp(image) and (image["settled"] or now["version"] == image["version"]):
            return
        if not self._is(image["sha256"]):
            raise UsageError(
                f"disk {self._path} is not as it was when the machine was saved; bring it back, "
                f"or save a machine with {self._path},snapshot, which leaves it alone"
            )

    def _is(self, digest: bytes) -> bool:
        try:
            return bool(digest) and self.digest() == digest
        except OSError:  # it has become shorter
            return False

    def clear(self) -> None:
        """Make it all zeros, which take no space."""
        self._version += 1
        os.ftruncate(self._descriptor, 0)
        os.ftruncate(self._descriptor, self.size)


def _stamp(image: ImageState) -> tuple[int, ...]:
    """Return what tells whether a file is the same one, last written at the same time."""
    return image["device"], image["inode"], image["size"], image["modified"]


def check_kind(disk: DiskState, state: DiskState) -> None:
    """Raise UsageError unless ``disk`` was opened like the one of ``state``, so that its driver will not notice."""
    if _options(disk) != _options(state):
        path = disk["image"]["path"]
        raise UsageError(f"disk {path} was saved as another kind of disk; use {path}{_options(state)}")


def _options(state: DiskState) -> str:
    """Spell out how a disk was opened."""
    return ",snapshot" if state["changed"] is not None else ",readonly" if state["image"]["read_only"] else ""


def chunks(size: int) -> Iterator[tuple[int, int]]:
    """Cut ``size`` bytes into pieces of at most CHUNK: (position, length)."""
    return ((position, min(CHUNK, size - position)) for position in range(0, size, CHUNK))
