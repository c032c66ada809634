"""Sparse files: ranges that were given back to the host take no space, and read as zeros."""

import ctypes
import errno
import os
from collections.abc import Iterator

__all__ = ["data_in", "punch_hole"]

# Python has no call for this: fallocate(2) with these flags frees the space of a range, which then reads as zeros.
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_CANNOT_PUNCH = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM})

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(descriptor: int, offset: int, size: int) -> bool:
    """Free the space of a range, which reads as zeros from then on; False if the host cannot do that.

    Raises OSError if it could, but failed.
    """
    if _fallocate is None or not size:
        return not size
    while _fallocate(descriptor, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, size):
        error = ctypes.get_errno()
        if error in _CANNOT_PUNCH:
            return False
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))
    return True


def data_in(descriptor: int, size: int, step: int) -> Iterator[int]:
    """Find the pieces of a file, ``step`` bytes long, that may be anything but zeros: their offsets below ``size``."""
    position = 0
    while position < size:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is nothing but a hole
                return
            data = position  # the host cannot tell
        position = max(position, data - data % step)
        if position < size:
            yield position
        position += step
