"""What the guest has open: files and directories, each by a number, and each with a descriptor."""

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypedDict

from devices.state import U32, U64, check
from devices.virtio.fs.calls import getdents
from devices.virtio.fs.tree import Node, stale

__all__ = ["Entry", "Files", "FilesState", "OpenFile"]

#: A guest has as many files open as the host allows any of its processes, roughly.
MOST_FILES = 256

_DIRENT = struct.Struct("=QQHB")  # ino, offset of the next one, length, type; then the name, and a zero
_AT_ONCE = 2 << 10


class Entry(NamedTuple):
    """An entry of a directory; ``next`` is where the one behind it is."""

    inode: int
    next: int
    kind: int
    name: bytes


class FileState(TypedDict):
    """An open file: the number of its node, and how it was opened."""

    id: U64
    node: U64
    flags: U32


class FilesState(TypedDict):
    """The open files, and the number of the next one."""

    next_id: U64
    files: list[FileState]


class OpenFile:
    """An open file or directory; it has no descriptor if it could not be opened again in a machine that is restored."""

    def __init__(self, number: int, node: Node, descriptor: int, flags: int) -> None:
        self.id = number
        self.node = node
        self.descriptor = descriptor
        self.flags = flags
        self._users = 0
        self._closed = False
        self._entries = b""  # of a directory, read and not all asked for
        self._position = 0  # in them
        self._next = 0  # the offset of the one there

    def fileno(self) -> int:
        """Return the descriptor; raises OSError if there is none."""
        if self.descriptor < 0:
            raise stale()
        return self.descriptor

    def entries(self, offset: int) -> Iterator[Entry]:
        """Read the entries of a directory from ``offset`` on, 0 or what one had as ``next``; raises OSError.

        The last one that was taken is read again by whoever asks for that offset.
        """
        if offset != self._next or not offset:
            os.lseek(self.fileno(), offset, os.SEEK_SET)
            self._entries, self._position, self._next = b"", 0, offset
        while True:
            if self._position == len(self._entries):
                self._entries, self._position = getdents(self.fileno(), _AT_ONCE), 0
                if not self._entries:
                    return
            inode, following, length, kind = _DIRENT.unpack_from(self._entries, self._position)
            end = self._position + length
            yield Entry(inode, following, kind, self._entries[self._position + _DIRENT.size : end].partition(b"\0")[0])
            self._position, self._next = end, following

    def hold(self) -> None:
        """Keep the descriptor open until ``let_go``, even if the guest closes the file."""
        self._users += 1

    def let_go(self) -> None:
        """Whoever held it needs it no longer."""
        self._users -= 1
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close the descriptor, as soon as nobody holds it."""
        self._closed = True
        if self._users <= 0 <= self.descriptor:
            os.close(self.descriptor)
            self.descriptor = -1


class Files:
    """All that is open; ``closed`` is called with the node of a file that was closed."""

    def __init__(self, closed: Callable[[Node], None]) -> None:
        self._closed = closed
        self._files: dict[int, OpenFile] = {}
        self._held: list[OpenFile] = []  # closed, but for whoever holds them
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._files)

    def check_room(self) -> None:
        """Raise OSError if the guest can have no more files open."""
        if len(self._files) + len(self._held) >= MOST_FILES:
            self._held = [file for file in self._held if file.descriptor >= 0]
            if len(self._files) + len(self._held) >= MOST_FILES:
                raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    def add(self, node: Node, descriptor: int, flags: int) -> OpenFile:
        """Number an open file."""
        file = OpenFile(self._next_id, node, descriptor, flags)
        self._next_id += 1
        self._put(file)
        return file

    def _put(self, file: OpenFile) -> None:
        self._files[file.id] = file
        file.node.opened.append(file)

    def file(self, number: int) -> OpenFile:
        """Return the open file of this number; raises OSError if there is none."""
        file = self._files.get(number)
        if file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def close_file(self, number: int) -> None:
        """Close the open file of this number, if there is one."""
        file = self._files.pop(number, None)
        if file is None:
            return
        file.close()
        if file.descriptor >= 0:
            self._held.append(file)
        file.node.opened.remove(file)
        self._closed(file.node)

    def close(self) -> None:
        """Close everything."""
        for number in list(self._files):
            self.close_file(number)

    def close_held(self) -> None:
        """Close even what somebody holds: nobody will let it go any longer."""
        for file in self._held:
            while file.descriptor >= 0:
                file.let_go()

    def state(self) -> FilesState:
        """Return what is open."""
        files: list[FileState] = [
            {"id": file.id, "node": file.node.id, "flags": file.flags} for file in self._files.values()
        ]
        return {"next_id": self._next_id, "files": files}

    def restore(self, state: FilesState, node_of: Callable[[int], Node], reopen: Callable[[Node, int], int]) -> None:
        """Have the same open and nothing else; ``reopen(node, flags)`` returns a descriptor, or raises OSError."""
        self.close()
        check(len(state["files"]) <= MOST_FILES, "the open files of a share")
        self._next_id = state["next_id"]
        for one in state["files"]:
            check(0 < one["id"] < self._next_id and one["id"] not in self._files, "an open file")
            try:
                node = node_of(one["node"])
            except OSError:
                check(False, "an open file")
                raise
            check(node.kind in {stat.S_IFREG, stat.S_IFDIR}, "an open file")
            try:
                descriptor = reopen(node, one["flags"])
            except OSError:
                descriptor = -1
            self._put(OpenFile(one["id"], node, descriptor, one["flags"]))
