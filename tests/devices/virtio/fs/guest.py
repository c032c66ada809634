"""A guest's side of virtio-fs: FUSE requests as Linux makes them.

    guest = FsGuest(folder)
    node = guest.lookup("file")
    assert guest.read_file(node) == b"..."

Numbers and layouts are repeated here from Linux's header, so that an error in the code under test cannot cancel out.
"""

import errno
import os
import struct
from pathlib import Path
from typing import NamedTuple

from devices.virtio.aside import Aside, at_once
from devices.virtio.fs import FsDevice, open_export
from tests.devices.virtio.fake_driver import Driver, FakeMemory

__all__ = ["FORGET_NS", "Attr", "Dirent", "Entry", "FsGuest", "FuseError", "request"]

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE = (
    1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16,
)  # fmt: skip
STATFS, RELEASE, FSYNC, SETXATTR, GETXATTR, LISTXATTR, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = (
    17, 18, 20, 21, 22, 23, 25, 26, 27, 28, 29, 30,
)  # fmt: skip
ACCESS, CREATE, DESTROY, BATCH_FORGET, FALLOCATE, READDIRPLUS, RENAME2, LSEEK, COPY_FILE_RANGE, SYNCFS = (
    34, 35, 38, 42, 43, 44, 45, 46, 47, 50,
)  # fmt: skip

HIPRIO, REQUESTS = 0, 1
ROOT = 1
HEADER, ANSWER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
MODE, UID, GID, SIZE, ATIME, MTIME, BY_FILE, ATIME_NOW, MTIME_NOW = (1 << bit for bit in range(9))

#: How long it takes, at most, until the device has forgotten a file (guest time).
FORGET_NS = 10_000_000
#: Any number will do; it must come back.
UNIQUE = 0x1234_5678_9ABC_DEF0


class FuseError(Exception):
    """A request was refused with this error."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, number))
        self.errno = number


class Attr(NamedTuple):
    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int


class Entry(NamedTuple):
    node: int
    attr: Attr


class Dirent(NamedTuple):
    ino: int
    next: int
    kind: int
    name: bytes
    entry: Entry | None = None


def request(opcode: int, node: int, body: bytes = b"", *, uid: int = 0, gid: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), opcode, UNIQUE, node, uid, gid, 1, 0, 0) + body


def _path(name: str | bytes) -> bytes:
    return os.fsencode(name)


class FsGuest:
    """The driver of a device that shares ``folder``."""

    def __init__(
        self,
        folder: Path,
        *,
        read_only: bool = False,
        aside: Aside = at_once,
        fetch: Aside | None = None,
        memory: FakeMemory | None = None,
        start: bool = True,
    ) -> None:
        self.folder = folder
        self.device = FsDevice(open_export(folder, read_only=read_only), aside, fetch)
        self.driver = Driver(self.device, memory)
        self.uid = self.gid = 0
        if start:
            self.driver.start()
            self.init()

    def close(self) -> None:
        self.device.export.close()

    # Requests.

    def call(self, opcode: int, node: int, body: bytes = b"", room: int = 256) -> bytes:
        """Make a request and return what follows the header of the answer; raises FuseError."""
        readable = request(opcode, node, body, uid=self.uid, gid=self.gid)
        done = self.driver.request(REQUESTS, [readable[:40], readable[40:]], [ANSWER.size, room])
        return self.answered(done.data[: done.used_len])

    @staticmethod
    def answered(data: bytes) -> bytes:
        length, error, unique = ANSWER.unpack_from(data)
        assert (length, unique) == (len(data), UNIQUE)
        if error:
            assert -4096 < error < 0
            assert length == ANSWER.size
            raise FuseError(-error)
        return data[ANSWER.size :]

    def error(self, opcode: int, node: int, body: bytes = b"", room: int = 256) -> int:
        """Make a request that is to be refused, and return the error."""
        try:
            self.call(opcode, node, body, room)
        except FuseError as error:
            return error.errno
        raise AssertionError("it was not refused")

    def init(self, major: int = 7, minor: int = 37, flags: int = 0xFFFF_FFFF) -> bytes:
        return self.call(INIT, 0, struct.pack("<IIII48x", major, minor, 128 << 10, flags))

    def forget(self, node: int, lookups: int = 1) -> None:
        """Forget a node, by the queue that is for that, and wait until that is done."""
        self.driver.submit(HIPRIO, [request(FORGET, node, struct.pack("<Q", lookups))])
        if self.driver.wants_kick(HIPRIO):
            self.driver.write("QueueNotify", HIPRIO)
        self.driver.events.advance(FORGET_NS)
        [done] = self.driver.completed(HIPRIO)
        assert done.used_len == 0

    # Names.

    def lookup(self, path: str | bytes, node: int = ROOT) -> Entry:
        """Look up a path, one name after the other."""
        entry = Entry(node, Attr(*[0] * 16))
        for name in _path(path).split(b"/"):
            entry = self._entry(self.call(LOOKUP, entry.node, name + b"\0"))
        return entry

    def mkdir(self, name: str | bytes, node: int = ROOT, mode: int = 0o755) -> Entry:
        return self._entry(self.call(MKDIR, node, struct.pack("<II", mode, 0) + _path(name) + b"\0"))

    def mknod(self, name: str | bytes, mode: int, node: int = ROOT, device: int = 0) -> Entry:
        return self._entry(self.call(MKNOD, node, struct.pack("<IIII", mode, device, 0, 0) + _path(name) + b"\0"))

    def symlink(self, name: str | bytes, target: str | bytes, node: int = ROOT) -> Entry:
        return self._entry(self.call(SYMLINK, node, _path(name) + b"\0" + _path(target) + b"\0"))

    def link(self, old: int, name: str | bytes, node: int = ROOT) -> Entry:
        return self._entry(self.call(LINK, node, struct.pack("<Q", old) + _path(name) + b"\0"))

    def unlink(self, name: str | bytes, node: int = ROOT) -> None:
        assert self.call(UNLINK, node, _path(name) + b"\0") == b""

    def rmdir(self, name: str | bytes, node: int = ROOT) -> None:
        assert self.call(RMDIR, node, _path(name) + b"\0") == b""

    def rename(self, name: str | bytes, new: str | bytes, node: int = ROOT, to: int = ROOT, flags: int = 0) -> None:
        names = _path(name) + b"\0" + _path(new) + b"\0"
        if flags:
            assert self.call(RENAME2, node, struct.pack("<QII", to, flags, 0) + names) == b""
        else:
            assert self.call(RENAME, node, struct.pack("<Q", to) + names) == b""

    def readlink(self, node: int) -> bytes:
        return self.call(READLINK, node, room=4096)

    def _entry(self, data: bytes) -> Entry:
        assert len(data) == 128
        node, generation, entry_s, attr_s, entry_ns, attr_ns = ENTRY.unpack_from(data)
        assert (generation, entry_s, attr_s) == (0, 0, 0)
        assert 0 < entry_ns == attr_ns <= 100_000_000, "what the host changes is to be seen soon"
        return Entry(node, Attr(*ATTR.unpack_from(data, ENTRY.size)))

    # Attributes.

    def getattr(self, node: int = ROOT, file: int | None = None) -> Attr:
        body = struct.pack("<IIQ", 0 if file is None else 1, 0, file or 0)
        return self._attr(self.call(GETATTR, node, body))

    def setattr(
        self, node: int, valid: int, *, file: int = 0, size: int = 0, times: tuple[int, int] = (0, 0), mode: int = 0,
        owner: tuple[int, int] = (0, 0),
    ) -> Attr:  # fmt: skip
        (atime, atime_ns), (mtime, mtime_ns) = (divmod(time, 10**9) for time in times)
        body = struct.pack(
            "<IIQQQqqQIIIIIIII",
            valid, 0, file, size, 0, atime, mtime, 0, atime_ns, mtime_ns, 0, mode, 0, *owner, 0,
        )  # fmt: skip
        assert len(body) == 88
        return self._attr(self.call(SETATTR, node, body))

    @staticmethod
    def _attr(data: bytes) -> Attr:
        assert len(data) == 104
        assert data[:8] == bytes(8)
        return Attr(*ATTR.unpack_from(data, 16))

    # Open files.

    def open(self, node: int, flags: int = 0) -> int:
        return self._file(self.call(OPEN, node, struct.pack("<II", flags, 0)))

    def opendir(self, node: int = ROOT) -> int:
        return self._file(self.call(OPENDIR, node, bytes(8)))

    def create(self, name: str | bytes, node: int = ROOT, flags: int = 2, mode: int = 0o644) -> tuple[Entry, int]:
        data = self.call(CREATE, node, struct.pack("<IIII", flags, mode, 0, 0) + _path(name) + b"\0")
        return self._entry(data[:128]), self._file(data[128:])

    def release(self, file: int) -> None:
        assert self.call(RELEASE, ROOT, struct.pack("<QIIQ", file, 0, 0, 0)) == b""

    @staticmethod
    def _file(data: bytes) -> int:
        assert len(data) == 16
        return int(struct.unpack("<QII", data)[0])

    def read(self, file: int, offset: int, size: int) -> bytes:
        return self.call(READ, ROOT, struct.pack("<QQIIQII", file, offset, size, 0, 0, 0, 0), room=size)

    def write(self, file: int, offset: int, data: bytes, open_flags: int = 0, flags: int = 0) -> int:
        body = struct.pack("<QQIIQII", file, offset, len(data), flags, 0, open_flags, 0) + data
        size, padding = struct.unpack("<II", self.call(WRITE, ROOT, body))
        assert padding == 0
        return int(size)

    def fsync(self, file: int, data_only: bool = False) -> None:
        assert self.call(FSYNC, ROOT, struct.pack("<QII", file, data_only, 0)) == b""

    def fallocate(self, file: int, mode: int, offset: int, length: int) -> None:
        assert self.call(FALLOCATE, ROOT, struct.pack("<QQQII", file, offset, length, mode, 0)) == b""

    def lseek(self, file: int, offset: int, whence: int) -> int:
        return int.from_bytes(self.call(LSEEK, ROOT, struct.pack("<QQII", file, offset, whence, 0)), "little")

    def copy(self, file: int, start: int, target: int, to: int, length: int) -> int:
        body = struct.pack("<QQQQQQQ", file, start, ROOT, target, to, length, 0)
        return int(struct.unpack("<II", self.call(COPY_FILE_RANGE, ROOT, body))[0])

    def readdir(
        self, file: int, offset: int = 0, size: int = 4096, *, plus: bool = False, node: int = ROOT
    ) -> list[Dirent]:
        """Read some entries of a directory."""
        opcode = READDIRPLUS if plus else READDIR
        data = self.call(opcode, node, struct.pack("<QQIIQII", file, offset, size, 0, 0, 0, 0), room=size)
        entries: list[Dirent] = []
        while data:
            entry = None
            if plus:
                number = ENTRY.unpack_from(data)[0]
                entry, data = self._entry(data[:128]) if number else None, data[128:]
            ino, following, length, kind = struct.unpack_from("<QQII", data)
            entries.append(Dirent(ino, following, kind, data[24 : 24 + length], entry))
            data = data[24 + -(-length // 8) * 8 :]
        return entries

    def listdir(self, node: int = ROOT, *, plus: bool = False, size: int = 4096) -> list[Dirent]:
        """Read a directory, as Linux does: with the offset of the last entry."""
        file, offset, found = self.opendir(node), 0, list[Dirent]()
        while entries := self.readdir(file, offset, size, plus=plus, node=node):
            found += entries
            offset = entries[-1].next
        self.release(file)
        return found

    def read_file(self, node: int) -> bytes:
        """Read all of a file."""
        file, data = self.open(node), b""
        while piece := self.read(file, len(data), 1 << 20):
            data += piece
        self.release(file)
        return data

    def write_file(self, name: str | bytes, data: bytes, node: int = ROOT) -> Entry:
        """Make a file."""
        entry, file = self.create(name, node)
        assert self.write(file, 0, data) == len(data)
        self.release(file)
        return entry
