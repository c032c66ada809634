"""Where a block device keeps its sectors: in an image file or a host block device, with or without a snapshot.

    open_disk --> FileDisk                             the file itself, locked
              --> SnapshotDisk(FileDisk, FileDisk)     the file, read-only, beneath a temporary one

All offsets and sizes are in bytes, within the disk; an operation that fails raises OSError.
"""

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from devices.errors import PyemuError, UsageError
from devices.virtio.foreign import how_to_convert

__all__ = ["SECTOR", "Disk", "FileDisk", "SnapshotDisk", "open_disk"]

SECTOR = 512
# Copies are cut into pieces of this size, so that the guest cannot decide how much of the host's memory they take.
CHUNK = 64 << 10


class Disk(Protocol):
    """Persistent sectors."""

    @property
    def size(self) -> int:
        """Bytes on offer, a multiple of SECTOR."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        ...

    @property
    def warning(self) -> str | None:
        """What the user should know about this disk, in one line."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; it is durable only after the next flush."""
        ...

    def flush(self) -> None:
        """Return when everything written is on stable storage. Once this has failed, it always fails.

        By the host's clock the machine runs on meanwhile: this may be called on another thread, one call at a time,
        alongside everything but ``close``.
        """
        ...

    def discard(self, offset: int, size: int) -> None:
        """Forget the contents of a range, if that helps; what it reads as later is undefined."""
        ...

    def write_zeroes(self, offset: int, size: int, *, may_unmap: bool) -> None:
        """Make a range read as zeros; if ``may_unmap``, its space may be given back."""
        ...

    def close(self) -> None:
        """Flush and close; raises PyemuError if that loses data."""
        ...


class FileDisk:
    """A disk in the file or block device open as ``descriptor``, which ``close`` closes.

    A ``temporary`` disk is never synchronised, because it is never read again.
    """

    def __init__(self, descriptor: int, name: str, *, read_only: bool = False, temporary: bool = False) -> None:
        self._descriptor = descriptor
        self._name = name
        self._flush_failed = False
        self._flushable = not read_only and not temporary
        end = os.lseek(descriptor, 0, os.SEEK_END)
        self.read_only = read_only
        self.size = end - end % SECTOR
        self.warning = (
            f"{name}: the last {end % SECTOR} bytes are not part of the disk, which consists of {SECTOR}-byte sectors"
            if end % SECTOR
            else None
        )

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes; raises OSError if the file has been truncated."""
        parts = []
        while size:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                raise OSError(errno.EIO, f"{self._name} ends at {offset}")
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` to the host's cache."""
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
        _punch_hole(self._descriptor, offset, size)

    def write_zeroes(self, offset: int, size: int, *, may_unmap: bool) -> None:
        """Make a range read as zeros; if ``may_unmap``, by giving its space back if the host can take it."""
        if may_unmap and _punch_hole(self._descriptor, offset, size):
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


class SnapshotDisk:
    """A disk whose changes go to ``overlay``, a sparse disk of the same size, and vanish with it."""

    BLOCK = 64 << 10  # copied up at the first write to a part of it

    def __init__(self, base: FileDisk, overlay: FileDisk) -> None:
        self._base = base
        self._overlay = overlay
        self._changed: set[int] = set()  # the blocks that are in the overlay
        self.size = base.size
        self.read_only = False
        self.warning = base.warning

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes, each block from where it was last written."""
        end = offset + size
        parts = []
        while offset < end:
            block = offset // self.BLOCK
            stop = min(end, (block + 1) * self.BLOCK)
            disk = self._overlay if block in self._changed else self._base
            parts.append(disk.read(offset, stop - offset))
            offset = stop
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Write to the overlay; the base stays as it is."""
        if not data:
            return
        end = offset + len(data)
        first, last = offset // self.BLOCK, (end - 1) // self.BLOCK
        if offset % self.BLOCK:
            self._copy_up(first)
        if end % self.BLOCK:
            self._copy_up(last)
        self._overlay.write(offset, data)
        self._changed.update(range(first, last + 1))

    def _copy_up(self, block: int) -> None:
        """Copy a block that is about to be changed in part into the overlay."""
        if block not in self._changed:
            start = block * self.BLOCK
            self._overlay.write(start, self._base.read(start, min(self.BLOCK, self.size - start)))
            self._changed.add(block)

    def flush(self) -> None:
        """Do nothing: the changes are not meant to last."""

    def discard(self, offset: int, size: int) -> None:
        """Do nothing, which a driver must expect of a discard."""

    def write_zeroes(self, offset: int, size: int, *, may_unmap: bool) -> None:  # noqa: ARG002 (a hint)
        """Make a range read as zeros."""
        for position, length in chunks(size):
            self.write(offset + position, bytes(length))

    def close(self) -> None:
        """Forget the changes; close and unlock the base."""
        self._overlay.close()
        self._base.close()


def chunks(size: int) -> Iterator[tuple[int, int]]:
    """Cut ``size`` bytes into pieces of at most CHUNK: (position, length)."""
    return ((position, min(CHUNK, size - position)) for position in range(0, size, CHUNK))


def open_disk(path: str | Path, *, read_only: bool = False, snapshot: bool = False, raw: bool = False) -> Disk:
    """Open the raw image or block device at ``path`` and lock it: exclusively, or shared with other readers.

    With ``snapshot`` the disk is writable, and changes are discarded at the end. Raises UsageError, one line, if
    ``path`` cannot be a disk, or looks like another kind of image and ``raw`` is not set.
    """
    path = Path(path)
    read_file_only = read_only or snapshot
    descriptor = _open(path, read_only=read_file_only)
    try:
        if not raw:
            _refuse_foreign(descriptor, path)
        _lock(descriptor, path, exclusive=not read_file_only)
        disk = _file_disk(descriptor, path, read_only=read_file_only)
        return SnapshotDisk(disk, _temporary_disk(disk.size)) if snapshot and not read_only else disk
    except BaseException:
        os.close(descriptor)
        raise


def _open(path: Path, *, read_only: bool) -> int:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return os.open(path, os.O_RDONLY if read_only else os.O_RDWR)
    except OSError as error:
        hint = "" if read_only or not os.access(path, os.R_OK) else "; it can be used as a read-only disk or a snapshot"
        if isinstance(error, FileNotFoundError):
            hint = f"; to make one: truncate -s 64M {path}"
        raise UsageError(f"disk {path} cannot be opened: {error.strerror}{hint}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"disk {path} is a directory, not an image file")
    raise UsageError(f"disk {path} is neither a file nor a block device")


def _refuse_foreign(descriptor: int, path: Path) -> None:
    foreign = how_to_convert(descriptor, path)
    if foreign is not None:
        raise UsageError(f"disk {path} is {foreign}; if it is a raw disk that only looks like one, use {path},raw")


def _file_disk(descriptor: int, path: Path, *, read_only: bool) -> FileDisk:
    disk = FileDisk(descriptor, str(path), read_only=read_only)
    if not disk.size:
        raise UsageError(f"disk {path} is empty, or smaller than one sector of {SECTOR} bytes; "
                         f"to make it larger: truncate -s 64M {path}")  # fmt: skip
    return disk


def _lock(descriptor: int, path: Path, *, exclusive: bool) -> None:
    """Lock the image against other machines, whose writes would destroy the file system on it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"disk {path} is in use by another machine (or given twice)") from error
    except OSError as error:
        raise UsageError(f"disk {path} cannot be locked: {error.strerror}") from error


def _temporary_disk(size: int) -> FileDisk:
    """Make a sparse disk that nobody else can see and that vanishes with the process."""
    import tempfile  # noqa: PLC0415 - takes 4 ms, and only a snapshot needs it

    descriptor = -1
    try:
        with tempfile.TemporaryFile(prefix="pyemu-snapshot-") as file:
            descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, size)
        return FileDisk(descriptor, "snapshot", temporary=True)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise UsageError(f"cannot put a {size}-byte snapshot in {tempfile.gettempdir()}: {error.strerror}") from error


# Python has no call for this: fallocate(2) with these flags frees the space of a range, which then reads as zeros.
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_CANNOT_PUNCH = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM})

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _punch_hole(descriptor: int, offset: int, size: int) -> bool:
    """Free the space of a range, which reads as zeros from then on; False if the host cannot do that."""
    if _fallocate is None or not size:
        return not size
    while _fallocate(descriptor, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, size):
        error = ctypes.get_errno()
        if error in _CANNOT_PUNCH:
            return False
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))
    return True
