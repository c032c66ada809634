"""Where a block device keeps its sectors: in an image file or a host block device, with or without a snapshot.

    open_disk --> FileDisk                             the file itself, locked
              --> SnapshotDisk(FileDisk, FileDisk)     the file, read-only, beneath a temporary one

All offsets and sizes are in bytes, within the disk; an operation that fails raises OSError.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypedDict

from devices.errors import PyemuError, UsageError
from devices.state import I64, U64, check
from devices.virtio.foreign import how_to_convert
from devices.virtio.sparse import data_in, punch_hole

__all__ = ["SECTOR", "Disk", "DiskState", "FileDisk", "ImageState", "SnapshotDisk", "open_disk", "reopen_disk"]

SECTOR = 512
# Copies are cut into pieces of this size, so that the guest cannot decide how much of the host's memory they take.
CHUNK = 64 << 10


#: A file is as it was if it was last written at the same time, unless that was only so long (ns) before its state was
#: taken: file systems tell no times that are closer to each other.
_SETTLED_NS = 2_000_000_000

#: Reads exactly so many bytes from an offset, or raises OSError.
_Read = Callable[[int, int], bytes]


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

    def restore(self, state: DiskState, read: _Read) -> None:  # noqa: ARG002
        """Make sure that the image is as it was."""
        _check_kind(self.state(), state)
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


class _SavedChanges:
    """The changes of a saved snapshot, on top of its image. No ``read`` goes beyond a block."""

    def __init__(self, base: FileDisk, blocks: frozenset[int], read: _Read) -> None:
        self._base, self.blocks, self._read = base, blocks, read

    def read(self, offset: int, size: int) -> bytes:
        saved = offset // SnapshotDisk.BLOCK in self.blocks
        return self._read(offset, size) if saved else self._base.read(offset, size)


class SnapshotDisk:
    """A disk whose changes go to ``overlay``, a sparse disk of the same size, and vanish with it."""

    BLOCK = 64 << 10  # copied up at the first write to a part of it

    def __init__(self, base: FileDisk, overlay: FileDisk) -> None:
        self._base = base
        self._overlay = overlay
        self._changed: set[int] = set()  # the blocks that are in the overlay
        self._below: FileDisk | _SavedChanges = base  # where the others are
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
            disk = self._overlay if block in self._changed else self._below
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
            self._overlay.write(start, self._below.read(start, min(self.BLOCK, self.size - start)))
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

    def state(self) -> DiskState:
        """Return the state."""
        return {"image": self._base.state()["image"], "changed": sorted(self._all_changed())}

    def digest(self) -> bytes:
        """Return the SHA-256 of the image beneath."""
        return self._base.digest()

    def copy_changes(self, write: Callable[[int, bytes], None]) -> None:
        """Write all blocks that have changed, each at its place."""
        for block in sorted(self._all_changed()):
            start = block * self.BLOCK
            write(start, self.read(start, min(self.BLOCK, self.size - start)))

    def restore(self, state: DiskState, read: _Read) -> None:
        """Forget all changes but those of ``state``, which are read where they are and stay as they are."""
        _check_kind(self.state(), state)
        self._base.check_unchanged(state["image"])
        blocks = frozenset(state["changed"] or ())
        check(all(block * self.BLOCK < self.size for block in blocks), "the changes of a disk")
        self._below = _SavedChanges(self._base, blocks, read) if blocks else self._base
        self._changed.clear()
        self._overlay.clear()

    def _all_changed(self) -> set[int]:
        return self._changed | self._below.blocks if isinstance(self._below, _SavedChanges) else self._changed


def _stamp(image: ImageState) -> tuple[int, ...]:
    """Return what tells whether a file is the same one, last written at the same time."""
    return image["device"], image["inode"], image["size"], image["modified"]


def _check_kind(disk: DiskState, state: DiskState) -> None:
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
        return SnapshotDisk(disk, _temporary_disk(disk.size)) if snapshot and not read_only else disk
    except BaseException:
        os.close(descriptor)
        raise


def reopen_disk(state: DiskState, read: Callable[[int, int], bytes]) -> Disk:
    """Open the image of a saved disk as it was opened then, and restore the disk; for ``read`` see ``Disk.restore``.

    Raises UsageError if the image is not what it was, or cannot be used. Whoever wrote the state decides which file
    that is, and whether the guest may write to it.
    """
    image, changed = state["image"], state["changed"]
    path = Path(image["path"])
    if not path.exists():
        raise UsageError(f"disk {image['path']!r}, which the saved machine uses, does not exist; put it back")
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
