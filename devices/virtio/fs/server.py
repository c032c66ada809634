"""FUSE's requests, and the answers to them: what each means for the directory.

Those that take long, reading, writing and whatever waits for the host's disk, are the device's; see device.py.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import NamedTuple

from devices.virtio.fs import wire
from devices.virtio.fs.export import NOW, Changes, Entry, Export, Owner
from devices.virtio.fs.files import OpenFile
from devices.virtio.fs.tree import Node

__all__ = ["MAX_WRITE", "Header", "MalformedError", "Server", "Transfer"]

#: The most that one request reads or writes.
MAX_WRITE = 1 << 20
_PAGE = 4096
#: How long the guest may take names and attributes for granted, ns of guest time.
VALID_NS = 20_000_000
_MAX_BACKGROUND = 64
_TIME_GRANULARITY_NS = 1

# Flags of INIT.
_ASYNC_READ = 1 << 0
_ATOMIC_O_TRUNC = 1 << 3
_BIG_WRITES = 1 << 5
_AUTO_INVAL_DATA = 1 << 12
_DO_READDIRPLUS = 1 << 13
_READDIRPLUS_AUTO = 1 << 14
_ASYNC_DIO = 1 << 15
_PARALLEL_DIROPS = 1 << 18
_MAX_PAGES = 1 << 22
_FLAGS = (
    _ASYNC_READ | _ATOMIC_O_TRUNC | _BIG_WRITES | _AUTO_INVAL_DATA | _DO_READDIRPLUS | _READDIRPLUS_AUTO | _ASYNC_DIO
    | _PARALLEL_DIROPS | _MAX_PAGES
)  # fmt: skip

#: Directories are read so many entries at once, and so many that are looked up, too (READDIRPLUS): less than
#: fits into the page that Linux has for them, so that the guest is not delayed for long.
_MOST_ENTRIES, _MOST_LOOKED_UP = 40, 8
#: The type of a directory's entry is that of its mode, shifted.
_TYPE_SHIFT = 12
_MOST_OFFSET = 1 << 63
_LONGEST_LINK = 4095
_ALL_ONES = 0xFFFF_FFFF


class MalformedError(Exception):
    """A request is not what its kind requires."""


class Header(NamedTuple):
    """What every request begins with."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int


class Transfer(NamedTuple):
    """What is to be read or written: so much of an open file; with ``append``, at its end, and ``sync`` afterwards."""

    file: OpenFile
    offset: int
    size: int
    append: bool = False
    sync: bool = False


class Server:
    """Answers requests about ``export``."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._devices: dict[int, int] = {}
        self._handlers: dict[int, Callable[[Header, bytes], bytes]] = {
            wire.LOOKUP: self._lookup,
            wire.GETATTR: self._getattr,
            wire.SETATTR: self._setattr,
            wire.READLINK: self._readlink,
            wire.SYMLINK: self._symlink,
            wire.MKNOD: self._mknod,
            wire.MKDIR: self._mkdir,
            wire.UNLINK: self._unlink,
            wire.RMDIR: self._rmdir,
            wire.RENAME: self._rename,
            wire.RENAME2: self._rename2,
            wire.LINK: self._link,
            wire.OPEN: self._open,
            wire.OPENDIR: self._opendir,
            wire.CREATE: self._create,
            wire.RELEASE: self._release,
            wire.RELEASEDIR: self._release,
            wire.READDIR: self._readdir,
            wire.READDIRPLUS: self._readdirplus,
            wire.STATFS: self._statfs,
            wire.LSEEK: self._lseek,
            wire.COPY_FILE_RANGE: self._copy_file_range,
            wire.INIT: self._init,
            wire.DESTROY: self._destroy,
        }

    def answer(self, header: Header, body: bytes) -> bytes:
        """Do what a request asks for, and return what follows the header of the answer.

        Raises OSError, or MalformedError.
        """
        handler = self._handlers.get(header.opcode)
        if handler is None:  # Linux then does without, or refuses it by itself
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return handler(header, body)

    # ---------------------------------------------------------------- what is the device's to do

    def reading(self, body: bytes) -> Transfer:
        """Check a READ; raises OSError, or MalformedError."""
        number, offset, size = _fields(wire.READ_IN, body)
        file = self._export.files.file(number)
        return _checked(Transfer(file, offset, min(size, MAX_WRITE)))

    def writing(self, body: bytes) -> Transfer:
        """Check a WRITE, but for its data; raises OSError, or MalformedError."""
        number, offset, size, flags, open_flags = _fields(wire.WRITE_IN, body)
        file = self._export.files.file(number)
        if size > MAX_WRITE:
            raise MalformedError
        # What comes from the guest's cache has its place, even where the file is open for appending.
        append = bool(open_flags & wire.O_APPEND) and not flags & wire.WRITE_CACHE
        self._export.changed = True
        return _checked(Transfer(file, offset, size, append, bool(open_flags & (wire.O_SYNC | wire.O_DSYNC))))

    def syncing(self, body: bytes) -> tuple[OpenFile, bool]:
        """Check a FSYNC; return what is to be synchronised, and whether only its data."""
        number, flags = _fields(wire.FSYNC_IN, body)
        return self._export.files.file(number), bool(flags & wire.FSYNC_FDATASYNC)

    def allocating(self, body: bytes) -> tuple[OpenFile, int, int, int]:
        """Check a FALLOCATE; return file, mode, offset and length."""
        number, offset, length, mode = _fields(wire.FALLOCATE_IN, body)
        file = self._export.files.file(number)
        if offset + length >= _MOST_OFFSET:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return file, mode, offset, length

    def forgotten(self, opcode: int, node: int, body: bytes) -> list[tuple[int, int]]:
        """Return the nodes that a request has forgotten, each with how many lookups of it.

        Whatever is wrong with a request that has no answer is ignored.
        """
        if opcode == wire.FORGET and len(body) >= wire.FORGET_IN.size:
            return [(node, *wire.FORGET_IN.unpack_from(body))]
        if opcode == wire.BATCH_FORGET and len(body) >= wire.BATCH_FORGET_IN.size:
            (count,) = wire.BATCH_FORGET_IN.unpack_from(body)
            ones = body[wire.BATCH_FORGET_IN.size :]
            return list(wire.FORGET_ONE.iter_unpack(ones[: len(ones) // 16 * 16][: 16 * count]))
        return []

    # ---------------------------------------------------------------- the session

    def _init(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002 (all handlers are alike)
        major, minor, readahead, flags = _fields(wire.INIT_IN, body)
        if major > wire.MAJOR:  # the guest asks again, as section 5.11 of FUSE's protocol has it
            return wire.INIT_OUT.pack(wire.MAJOR, wire.MINOR, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        if major < wire.MAJOR or minor < wire.OLDEST_MINOR:
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        self._export.forget()
        return wire.INIT_OUT.pack(
            wire.MAJOR,
            wire.MINOR,
            readahead,
            flags & _FLAGS,
            _MAX_BACKGROUND,
            _MAX_BACKGROUND * 3 // 4,
            MAX_WRITE,
            _TIME_GRANULARITY_NS,
            MAX_WRITE // _PAGE,
            0,
            0,
        )

    def _destroy(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        self._export.forget()
        return b""

    # ---------------------------------------------------------------- names

    def _lookup(self, header: Header, body: bytes) -> bytes:
        return self._entry(self._export.look_up(self._directory(header.node), _name(body)))

    def _symlink(self, header: Header, body: bytes) -> bytes:
        name, target = _names(body, 2)
        if not 0 < len(target) <= _LONGEST_LINK:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return self._entry(self._export.make_link(self._directory(header.node), name, target, _owner(header)))

    def _mknod(self, header: Header, body: bytes) -> bytes:
        mode, _ = _fields(wire.MKNOD_IN, body)
        name = _name(body[wire.MKNOD_IN.size :])
        return self._entry(self._export.make_node(self._directory(header.node), name, mode, _owner(header)))

    def _mkdir(self, header: Header, body: bytes) -> bytes:
        (mode,) = _fields(wire.MKDIR_IN, body)
        name = _name(body[wire.MKDIR_IN.size :])
        return self._entry(self._export.make_directory(self._directory(header.node), name, mode, _owner(header)))

    def _unlink(self, header: Header, body: bytes) -> bytes:
        self._export.remove(self._directory(header.node), _name(body), directory=False)
        return b""

    def _rmdir(self, header: Header, body: bytes) -> bytes:
        self._export.remove(self._directory(header.node), _name(body), directory=True)
        return b""

    def _rename(self, header: Header, body: bytes) -> bytes:
        (directory,) = _fields(wire.RENAME_IN, body)
        return self._do_rename(header, body[wire.RENAME_IN.size :], directory, 0)

    def _rename2(self, header: Header, body: bytes) -> bytes:
        directory, flags = _fields(wire.RENAME2_IN, body)
        return self._do_rename(header, body[wire.RENAME2_IN.size :], directory, flags)

    def _do_rename(self, header: Header, body: bytes, directory: int, flags: int) -> bytes:
        name, new_name = _names(body, 2)
        self._export.rename(self._directory(header.node), name, self._directory(directory), new_name, flags)
        return b""

    def _link(self, header: Header, body: bytes) -> bytes:
        (node,) = _fields(wire.LINK_IN, body)
        name = _name(body[wire.LINK_IN.size :])
        return self._entry(self._export.link(self._export.tree.node(node), self._directory(header.node), name))

    def _readlink(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        return self._export.read_link(self._export.tree.node(header.node))

    # ---------------------------------------------------------------- attributes

    def _getattr(self, header: Header, body: bytes) -> bytes:
        flags, number = _fields(wire.GETATTR_IN, body)
        node = self._export.tree.node(header.node)
        file = self._export.files.file(number) if flags & wire.GETATTR_FH else None
        return self._attributes(self._export.status(node, file))

    def _setattr(self, header: Header, body: bytes) -> bytes:
        valid, number, size, atime, mtime, atime_ns, mtime_ns, mode, uid, gid = _fields(wire.SETATTR_IN, body)
        if size >= _MOST_OFFSET:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if _ALL_ONES in {valid & wire.FATTR_UID and uid, valid & wire.FATTR_GID and gid}:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        changes = Changes(
            mode if valid & wire.FATTR_MODE else None,
            uid if valid & wire.FATTR_UID else None,
            gid if valid & wire.FATTR_GID else None,
            size if valid & wire.FATTR_SIZE else None,
            _time(valid, wire.FATTR_ATIME, wire.FATTR_ATIME_NOW, atime, atime_ns),
            _time(valid, wire.FATTR_MTIME, wire.FATTR_MTIME_NOW, mtime, mtime_ns),
        )
        node = self._export.tree.node(header.node)
        file = self._export.files.file(number) if valid & wire.FATTR_FH else None
        return self._attributes(self._export.change(node, changes, file))

    def _statfs(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        room = self._export.statistics()
        return wire.STATFS_OUT.pack(
            room.f_blocks, room.f_bfree, room.f_bavail, room.f_files, room.f_ffree, room.f_bsize, room.f_namemax,
            room.f_frsize,
        )  # fmt: skip

    # ---------------------------------------------------------------- open files

    def _open(self, header: Header, body: bytes) -> bytes:
        (flags,) = _fields(wire.OPEN_IN, body)
        return _opened(self._export.open(self._export.tree.node(header.node), flags))

    def _opendir(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        return _opened(self._export.open_directory(self._directory(header.node)))

    def _create(self, header: Header, body: bytes) -> bytes:
        flags, mode = _fields(wire.CREATE_IN, body)
        name = _name(body[wire.CREATE_IN.size :])
        entry, file = self._export.create(self._directory(header.node), name, flags, mode, _owner(header))
        return self._entry(entry) + _opened(file)

    def _release(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        (number,) = _fields(wire.RELEASE_IN, body)
        self._export.files.close_file(number)
        return b""

    def _lseek(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        number, offset, whence = _fields(wire.LSEEK_IN, body)
        if whence not in {os.SEEK_DATA, os.SEEK_HOLE} or offset >= _MOST_OFFSET:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return wire.LSEEK_OUT.pack(os.lseek(self._export.files.file(number).fileno(), offset, whence))

    def _copy_file_range(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        number, start, _, target, to, length, flags = _fields(wire.COPY_FILE_RANGE_IN, body)
        if flags or max(start, to) + length >= _MOST_OFFSET:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        files = self._export.files
        return wire.WRITE_OUT.pack(self._export.copy(files.file(number), start, files.file(target), to, length))

    # ---------------------------------------------------------------- directories

    def _readdir(self, header: Header, body: bytes) -> bytes:  # noqa: ARG002
        file, offset, room = self._reading_directory(body)
        parts: list[bytes] = []
        for inode, following, kind, name in file.entries(offset):
            part = _dirent(inode, following, name, kind)
            room -= len(part)
            if room < 0 or len(parts) == _MOST_ENTRIES:
                break
            parts.append(part)
        return b"".join(parts)

    def _readdirplus(self, header: Header, body: bytes) -> bytes:
        file, offset, room = self._reading_directory(body)
        node = self._directory(header.node)
        parts: list[bytes] = []
        for inode, following, kind, name in file.entries(offset):
            part = _dirent(inode, following, name, kind)
            room -= wire.ENTRY_OUT.size + len(part)
            if room < 0 or len(parts) == _MOST_LOOKED_UP:
                break
            parts.append(self._entry_if_there(node, name) + part)
        return b"".join(parts)

    def _reading_directory(self, body: bytes) -> tuple[OpenFile, int, int]:
        number, offset, size = _fields(wire.READ_IN, body)
        file = self._export.files.file(number)
        if not stat.S_ISDIR(file.node.kind) or offset >= _MOST_OFFSET:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return file, offset, size

    def _entry_if_there(self, parent: Node, name: bytes) -> bytes:
        """Look up what a directory has; the guest is told of no node where that cannot be done, or is not wanted."""
        if name not in {b".", b".."}:
            try:
                return self._entry(self._export.look_up(parent, name))
            except OSError:
                pass
        return bytes(wire.ENTRY_OUT.size)

    # ---------------------------------------------------------------- what answers are made of

    def _directory(self, number: int) -> Node:
        node = self._export.tree.node(number)
        if node.kind != stat.S_IFDIR:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return node

    def _entry(self, entry: Entry) -> bytes:
        return wire.ENTRY_OUT.pack(entry.node.id, 0, 0, 0, VALID_NS, VALID_NS, *self._attr(entry.status))

    def _attributes(self, status: os.stat_result) -> bytes:
        return wire.ATTR_OUT.pack(0, VALID_NS, *self._attr(status))

    def _attr(self, status: os.stat_result) -> tuple[int, ...]:
        atime, atime_ns = divmod(status.st_atime_ns, 1_000_000_000)
        mtime, mtime_ns = divmod(status.st_mtime_ns, 1_000_000_000)
        ctime, ctime_ns = divmod(status.st_ctime_ns, 1_000_000_000)
        export = self._export
        return (
            self._inode(status),
            status.st_size,
            status.st_blocks,
            atime,
            mtime,
            ctime,
            atime_ns,
            mtime_ns,
            ctime_ns,
            status.st_mode,
            status.st_nlink & _ALL_ONES,
            export.shown_user(status.st_uid),
            export.shown_group(status.st_gid),
            status.st_rdev & _ALL_ONES,
            _PAGE,
            0,
        )

    def _inode(self, status: os.stat_result) -> int:
        """Return a number that no other file of the share has, even if there are several file systems in it."""
        device = status.st_dev
        if device == self._export.tree.root.key[0]:
            return status.st_ino
        number = self._devices.setdefault(device, len(self._devices) + 1)
        return status.st_ino ^ (number & 0x7FFF) << 48


def _fields(kind: struct.Struct, body: bytes) -> tuple[int, ...]:
    """Return the fields with which a request begins, after its header."""
    if len(body) < kind.size:
        raise MalformedError
    return kind.unpack_from(body)


def _name(body: bytes) -> bytes:
    return _names(body, 1)[0]


def _names(body: bytes, count: int) -> list[bytes]:
    """Return so many names, each ended by a zero."""
    parts = body.split(b"\0", count)
    if len(parts) <= count:
        raise MalformedError
    return parts[:count]


def _owner(header: Header) -> Owner:
    return Owner(header.uid, header.gid)


def _opened(file: OpenFile) -> bytes:
    return wire.OPEN_OUT.pack(file.id, 0)


def _checked(transfer: Transfer) -> Transfer:
    if transfer.offset + transfer.size >= _MOST_OFFSET:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if transfer.file.node.kind != stat.S_IFREG:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    return transfer


def _dirent(inode: int, following: int, name: bytes, kind: int) -> bytes:
    entry = wire.DIRENT.pack(inode, following, len(name), kind) + name
    return entry.ljust(-(-len(entry) // wire.DIRENT_ALIGN) * wire.DIRENT_ALIGN, b"\0")


def _time(valid: int, given: int, now: int, seconds: int, ns: int) -> int | None:
    """Return the time that is to be set, if any."""
    if valid & now:
        return NOW
    if not valid & given:
        return None
    if ns >= 1_000_000_000:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return (seconds - (seconds >> 63 << 64)) * 1_000_000_000 + ns
