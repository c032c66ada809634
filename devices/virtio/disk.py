"""Where a block device keeps its sectors: in an image file or a host block device, with or without a snapshot.

    open_disk --> FileDisk                             the file itself, locked
              --> SnapshotDisk(FileDisk, FileDisk)     the file, read-only, beneath a temporary one

All offsets and sizes are in bytes, within the disk; an operation that fails raises OSError.
"""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from devices.errors import UsageError
from devices.virtio.foreign import how_to_convert
from devices.virtio.image import SECTOR, DiskState, FileDisk
from devices.virtio.overlay import SnapshotDisk, temporary_disk

__all__ = ["Disk", "DiskState", "FileDisk", "SnapshotDisk", "open_disk", "reopen_disk"]


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

    def read(self, offset: int, size: int) -> bytes | bytearray:
        """Read exactly ``size`` bytes.

        By the host's clock the machine runs on meanwhile, as it does for ``flush``; no call changes what is read.
        """
        ...

    def read_cached(self, offset: int, size: int) -> bytes | bytearray | None:
        """Read as ``read`` does, if that is quick; None if the host's disk has to be asked."""
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

    def state(self) -> DiskState:
        """Return the state: what an image contains is not in it, nor what a snapshot has changed."""
        ...

    def digest(self) -> bytes:
        """Return the SHA-256 of the image, for the state. This reads all of it that is not a hole."""
        ...

    def copy_changes(self, write: Callable[[int, bytes], None]) -> None:
        """Pass what a snapshot has changed to ``write(offset, data)``, in pieces, upwards; of an image, nothing."""
        ...

    def restore(self, state: DiskState, read: Callable[[int, int], bytes]) -> None:
        """Become what ``state`` says; ``read(offset, size)`` reads what ``copy_changes`` has written, as if sparse.

        It is called whenever the guest wants any of that, as long as the disk is in use. Raises UsageError if the image
        is not what it was.
        """
        ...


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
        disk = _file_disk(descriptor, path, read_only=read_file_only, raw=raw)
        return SnapshotDisk(disk, temporary_disk(disk.size)) if snapshot and not read_only else disk
    except BaseException:
        os.close(descriptor)
        raise


def reopen_disk(state: DiskState, read: Callable[[int, int], bytes]) -> Disk:
    """Open the image of a saved disk as it was opened then, and restore the disk; for ``read`` see ``Disk.restore``.

    Raises UsageError if the image is not what it was, or cannot be used. Whoever wrote the state decides which file
    that is, and whether the guest may write to it.
    """
    image, changed = state["image"], state["changed"]
    path = image["path"]
    if not os.path.exists(path):  # noqa: PTH110 - or it has a name that no file can have
        raise UsageError(f"disk {path!r}, which the saved machine uses, does not exist; put it back")
    disk = open_disk(
        path, read_only=image["read_only"] and changed is None, snapshot=changed is not None, raw=image["raw"]
    )
    try:
        disk.restore(state, read)
    except BaseException:
        disk.close()
        raise
    return disk


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


def _file_disk(descriptor: int, path: Path, *, read_only: bool, raw: bool) -> FileDisk:
    disk = FileDisk(descriptor, str(path), read_only=read_only, raw=raw)
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
