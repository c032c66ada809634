"""System calls of the host that Python does not have."""

import ctypes
import os
from typing import Any

from devices.errors import UsageError

__all__ = [
    "FALLOCATE_MODES",
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "fallocate",
    "getdents",
    "renameat2",
    "require",
    "syncfs",
]

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
#: Keeping the size (1), punching a hole (2), zeros (16): what does no harm when it is done twice.
FALLOCATE_MODES = frozenset({0, 1, 1 | 2, 16, 16 | 1})

_libc = ctypes.CDLL(None, use_errno=True)
_int, _long, _text = ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_WANTED: dict[str, tuple[Any, ...]] = {
    "getdents64": (_int, ctypes.c_void_p, ctypes.c_size_t),
    "renameat2": (_int, _text, _int, _text, ctypes.c_uint),
    "fallocate64": (_int, _int, _long, _long),
    "syncfs": (_int,),
}
_functions = {name: function for name in _WANTED if (function := getattr(_libc, name, None)) is not None}
for _name, _function in _functions.items():
    _function.argtypes = _WANTED[_name]
if "getdents64" in _functions:
    _functions["getdents64"].restype = ctypes.c_ssize_t


def require() -> None:
    """Raise UsageError where the C library lacks any of them."""
    missing = sorted(_WANTED.keys() - _functions.keys())
    if missing:
        raise UsageError(f"this system cannot share a directory: its C library has no {missing[0]}; use glibc 2.30")


def getdents(descriptor: int, size: int) -> bytes:
    """Return the next entries of a directory, at most ``size`` bytes, as struct linux_dirent64; nothing at its end."""
    buffer = ctypes.create_string_buffer(size)
    length = _call("getdents64", descriptor, buffer, size)
    return buffer.raw[:length]


def renameat2(old: int, name: bytes, new: int, new_name: bytes, flags: int) -> None:
    """Rename, with RENAME_NOREPLACE or RENAME_EXCHANGE."""
    _call("renameat2", old, name, new, new_name, flags)


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Allocate a range of a file, or do with it what ``mode`` says."""
    _call("fallocate64", descriptor, mode, offset, length)


def syncfs(descriptor: int) -> None:
    """Return when all that is on the file system of ``descriptor`` is on stable storage."""
    _call("syncfs", descriptor)


def _call(name: str, *arguments: Any) -> int:
    result: int = _functions[name](*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
