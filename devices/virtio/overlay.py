"""A disk whose changes are not meant to last: a snapshot of an image."""

import os
from collections.abc import Callable, Iterator

from devices.errors import UsageError
from devices.state import check
from devices.virtio.image import DiskState, FileDisk, Read, check_kind, chunks

__all__ = ["SnapshotDisk", "temporary_disk"]


class _SavedChanges:
    """The changes of a saved snapshot, on top of its image. No ``read`` goes beyond a block."""

    def __init__(self, base: FileDisk, blocks: frozenset[int], read: Read) -> None:
        self._base, self.blocks, self._read = base, blocks, read

    def read(self, offset: int, size: int) -> bytes | bytearray:
        saved = offset // SnapshotDisk.BLOCK in self.blocks
        return self._read(offset, size) if saved else self._base.read(offset, size)

    def read_cached(self, offset: int, size: int) -> bytes | bytearray | None:
        saved = offset // SnapshotDisk.BLOCK in self.blocks
        return self._read(offset, size) if saved else self._base.read_cached(offset, size)


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
        return b"".join([disk.read(start, length) for disk, start, length in self._parts(offset, size)])

    def read_cached(self, offset: int, size: int) -> bytes | bytearray | None:
        """Read as ``read`` does, if the host's disk need not be asked for any of it; else return None."""
        parts = []
        for disk, start, length in self._parts(offset, size):
            part = disk.read_cached(start, length)
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)

    def _parts(self, offset: int, size: int) -> "Iterator[tuple[FileDisk | _SavedChanges, int, int]]":
        """Where a range is: a disk, and the offset and size there of what it has. None is larger than a block."""
        end = offset + size
        while offset < end:
            block = offset // self.BLOCK
            stop = min(end, (block + 1) * self.BLOCK)
            yield self._overlay if block in self._changed else self._below, offset, stop - offset
            offset = stop

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

    def restore(self, state: DiskState, read: Read) -> None:
        """Forget all changes but those of ``state``, which are read where they are and stay as they are."""
        check_kind(self.state(), state)
        self._base.check_unchanged(state["image"])
        blocks = frozenset(state["changed"] or ())
        check(all(block * self.BLOCK < self.size for block in blocks), "the changes of a disk")
        self._below = _SavedChanges(self._base, blocks, read) if blocks else self._base
        self._changed.clear()
        self._overlay.clear()

    def _all_changed(self) -> set[int]:
        return self._changed | self._below.blocks if isinstance(self._below, _SavedChanges) else self._changed


def temporary_disk(size: int) -> FileDisk:
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
