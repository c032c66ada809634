"""Reading files of the host without waiting for its disk, and with it.

Whoever must not wait asks ``read_cached`` first, and has ``read_ahead`` done aside if that returns None.
"""

import contextlib
import os

__all__ = ["expect_leaps", "read_ahead", "read_cached"]

#: Whoever waits for the host's disk has it bring so many times as much: 1 MiB for 64 KiB, little for a guest that reads
#: here and there.
_AHEAD = 16
#: Of preadv: fail instead of waiting for the host's disk. Where no system call can, every read may wait.
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


def read_cached(descriptor: int, offset: int, size: int) -> bytes | bytearray | None:
    """Read ``size`` bytes of a file, or up to its end; return None if the host's disk has to be asked for any of them.

    Raises OSError.
    """
    data = bytearray(size)
    try:
        done = os.preadv(descriptor, [data], offset, _NOWAIT)
    except BlockingIOError:
        return None
    except OSError:  # most likely EOPNOTSUPP, a file system's that does not tell
        there = os.pread(descriptor, size, offset)
        if len(there) == size:
            _advise(descriptor, offset + size, _AHEAD * size, "POSIX_FADV_WILLNEED")
        return there
    if done < size:
        if offset + done < os.fstat(descriptor).st_size:
            return None
        del data[done:]
    return data


def read_ahead(descriptor: int, offset: int, size: int) -> bytes:
    """Read up to ``size`` bytes, at least one before the end of the file, and have the host bring more.

    Raises OSError.
    """
    expect_leaps(descriptor)
    _advise(descriptor, offset, _AHEAD * size, "POSIX_FADV_WILLNEED")
    return os.pread(descriptor, size, offset)


def expect_leaps(descriptor: int) -> None:
    """Keep the host from reading ahead by itself.

    It does that when something in the cache is read, which would be within a callback: 3 to 17 ms where it takes 8 MiB.
    """
    _advise(descriptor, 0, 0, "POSIX_FADV_RANDOM")


def _advise(descriptor: int, offset: int, size: int, advice: str) -> None:
    """Tell the host how a file will be read, if it can be told."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset, size, getattr(os, advice))
