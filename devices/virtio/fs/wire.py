"""FUSE's messages, as virtio-fs carries them (Linux, include/uapi/linux/fuse.h, protocol 7.31 to 7.38).

Names are the header's. Everything is little-endian, and the numbers of errors and of flags are Linux's on RISC-V.
"""

import struct

__all__ = [
    "ACCESS_MODE", "ATTR_OUT", "BATCH_FORGET", "BATCH_FORGET_IN", "COPY_FILE_RANGE", "COPY_FILE_RANGE_IN", "CREATE",
    "CREATE_IN", "DESTROY", "DIRENT", "DIRENT_ALIGN", "ENTRY_OUT", "FALLOCATE", "FALLOCATE_IN", "FATTR_ATIME",
    "FATTR_ATIME_NOW", "FATTR_FH", "FATTR_GID", "FATTR_MODE", "FATTR_MTIME", "FATTR_MTIME_NOW", "FATTR_SIZE",
    "FATTR_UID", "FORGET", "FORGET_IN", "FORGET_ONE", "FSYNC", "FSYNCDIR", "FSYNC_FDATASYNC", "FSYNC_IN", "GETATTR",
    "GETATTR_FH", "GETATTR_IN", "INIT", "INIT_IN", "INIT_OUT", "IN_HEADER", "LINK", "LINK_IN", "LOOKUP", "LSEEK",
    "LSEEK_IN", "LSEEK_OUT", "MAJOR", "MINOR", "MKDIR", "MKDIR_IN", "MKNOD", "MKNOD_IN", "OLDEST_MINOR", "OPCODES",
    "OPEN", "OPENDIR", "OPEN_IN", "OPEN_OUT", "OUT_HEADER", "O_APPEND", "O_DSYNC", "O_EXCL", "O_NOATIME", "O_RDWR",
    "O_SYNC", "O_TRUNC", "O_WRONLY", "READ", "READDIR", "READDIRPLUS", "READLINK", "READ_IN", "RELEASE", "RELEASEDIR",
    "RELEASE_IN", "RENAME", "RENAME2", "RENAME2_IN", "RENAME_IN", "RMDIR", "ROOT_ID", "SETATTR", "SETATTR_IN",
    "STATFS", "STATFS_OUT", "SYMLINK", "SYNCFS", "UNLINK", "WRITE", "WRITE_CACHE", "WRITE_IN", "WRITE_OUT",
]  # fmt: skip

MAJOR, MINOR = 7, 38
#: Linux 5.4's, the first with virtio-fs.
OLDEST_MINOR = 31

ROOT_ID = 1

# Requests (enum fuse_opcode).
LOOKUP = 1
FORGET = 2
GETATTR = 3
SETATTR = 4
READLINK = 5
SYMLINK = 6
MKNOD = 8
MKDIR = 9
UNLINK = 10
RMDIR = 11
RENAME = 12
LINK = 13
OPEN = 14
READ = 15
WRITE = 16
STATFS = 17
RELEASE = 18
FSYNC = 20
SETXATTR = 21
GETXATTR = 22
LISTXATTR = 23
REMOVEXATTR = 24
FLUSH = 25
INIT = 26
OPENDIR = 27
READDIR = 28
RELEASEDIR = 29
FSYNCDIR = 30
GETLK = 31
SETLK = 32
SETLKW = 33
ACCESS = 34
CREATE = 35
INTERRUPT = 36
BMAP = 37
DESTROY = 38
IOCTL = 39
POLL = 40
BATCH_FORGET = 42
FALLOCATE = 43
READDIRPLUS = 44
RENAME2 = 45
LSEEK = 46
COPY_FILE_RANGE = 47
SETUPMAPPING = 48
REMOVEMAPPING = 49
SYNCFS = 50
TMPFILE = 51
STATX = 52

#: What each request is called.
OPCODES = {code: name for name, code in list(globals().items()) if name.isupper() and isinstance(code, int)
           and name not in {"MAJOR", "MINOR", "OLDEST_MINOR", "ROOT_ID"}}  # fmt: skip

# Every request begins with IN_HEADER: opcode, unique, node, uid, gid; every answer with OUT_HEADER: length, error (0 or
# negative), unique. "x" stands for what is of no interest.
IN_HEADER = struct.Struct("<4xIQQII8x")
OUT_HEADER = struct.Struct("<IiQ")

# What follows the header of a request, before any names.
FORGET_IN = struct.Struct("<Q")  # lookups
BATCH_FORGET_IN = struct.Struct("<I4x")  # how many of the next
FORGET_ONE = struct.Struct("<QQ")  # node, lookups
GETATTR_IN = struct.Struct("<I4xQ")  # flags, file
SETATTR_IN = struct.Struct("<I4xQQ8xQQ8xII4xI4xII4x")  # valid, file, size, atime, mtime, their ns, mode, uid, gid
MKNOD_IN = struct.Struct("<II8x")  # mode, device
MKDIR_IN = struct.Struct("<I4x")  # mode
RENAME_IN = struct.Struct("<Q")  # new directory
RENAME2_IN = struct.Struct("<QI4x")  # new directory, flags
LINK_IN = struct.Struct("<Q")  # node
OPEN_IN = struct.Struct("<I4x")  # flags
CREATE_IN = struct.Struct("<II8x")  # flags, mode
RELEASE_IN = struct.Struct("<Q16x")  # file
READ_IN = struct.Struct("<QQI20x")  # file, offset, size
WRITE_IN = struct.Struct("<QQII8xI4x")  # file, offset, size, flags, flags of the open file
FSYNC_IN = struct.Struct("<QI4x")  # file, flags
FALLOCATE_IN = struct.Struct("<QQQI4x")  # file, offset, length, mode
LSEEK_IN = struct.Struct("<QQI4x")  # file, offset, whence
COPY_FILE_RANGE_IN = struct.Struct("<QQQQQQQ")  # file, offset, node, file, offset, length, flags
INIT_IN = struct.Struct("<IIII")  # major, minor, read-ahead, flags; newer ones are longer

# Answers.
_ATTR = (
    "QQQqqqIIIIIIIIII"  # ino, size, blocks, atime, mtime, ctime, their ns, mode, nlink, uid, gid, rdev, block, flags
)
ATTR_OUT = struct.Struct("<QI4x" + _ATTR)  # how long it is valid (s, ns)
ENTRY_OUT = struct.Struct("<QQQQII" + _ATTR)  # node, generation; how long name and attributes are valid (s, s, ns, ns)
OPEN_OUT = struct.Struct("<QI4x")  # file, flags
WRITE_OUT = struct.Struct("<I4x")  # size
STATFS_OUT = struct.Struct("<QQQQQIII4x24x")  # blocks, free, available, files, free; block, longest name, fragment
LSEEK_OUT = struct.Struct("<Q")  # offset
# major, minor, read-ahead, flags, background requests, when they are many; largest write, granularity of time, most
# pages, alignment, more flags
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
DIRENT = struct.Struct("<QQII")  # ino, offset of the next one, length of the name, type; then the name
DIRENT_ALIGN = 8

# Flags of single requests.
GETATTR_FH = 1 << 0
FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8
WRITE_CACHE = 1 << 0
FSYNC_FDATASYNC = 1 << 0

# Flags of open files, as Linux has them on RISC-V: the host's may differ.
ACCESS_MODE = 3
O_WRONLY = 1
O_RDWR = 2
O_EXCL = 0o200
O_TRUNC = 0o1000
O_APPEND = 0o2000
O_DSYNC = 0o10000
O_SYNC = 0o4010000
O_NOATIME = 0o1000000
