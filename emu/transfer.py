"""Files to and from the guest by its console: they are typed and printed in base 64, in pieces, and checksummed.

That needs a shell with base64, dd, sha256sum and stty, which busybox and coreutils have.
"""

import binascii
import hashlib
import os
import re
import shlex
from base64 import b64decode, b64encode
from pathlib import Path

from devices.errors import UsageError
from emu.console import Console
from emu.shell import ShellError

__all__ = ["get", "put"]

#: More than this takes minutes.
_MOST = 64 << 20
#: What is typed at once fits into what Linux keeps for a slow reader; what is printed at once, into what is kept here.
_TYPED, _PRINTED = 36 << 10, 192 << 10
_LINE = 1000
#: The kernel may print in between.
_TRIES = 3
_UNLESS_DIRECTORY = "if [ -d {0} ]; then echo it is a directory; false; else {1}; fi"
_BASE_64 = re.compile(r"[A-Za-z0-9+/]{1,100}={0,2}")


def put(console: Console, source: str | os.PathLike[str] | bytes, path: str, timeout: float) -> None:
    """See Machine.put."""
    data, mode = _contents(source)
    _check_size(len(data), "it")
    target = _quoted(path)
    unfinished = _quoted(f"{path}.pyemu")
    _run(console, _UNLESS_DIRECTORY.format(target, f": >{unfinished}"), path, timeout)
    try:
        _send(console, data, unfinished, path, timeout)
        permit = f"chmod {mode:o} {unfinished} && " if mode else ""
        _run(console, f"{permit}mv -f {unfinished} {target}", path, timeout)
    except BaseException:
        console.run(f"rm -f {unfinished}", timeout)
        raise


def _send(console: Console, data: bytes, target: str, path: str, timeout: float) -> None:
    """Append ``data`` to the file ``target``, written for the shell, which is empty."""
    for start in range(0, len(data), _TYPED):
        text = b64encode(data[start : start + _TYPED])
        lines = b"".join(text[at : at + _LINE] + b"\n" for at in range(0, len(text), _LINE))
        if console.give(f"base64 -d >>{target}", lines, timeout):
            raise ShellError(f"{path} cannot be written in the guest; is there room, and has it base64?")
    if _checksum(console, target, path, timeout) != _sha256(data):
        raise ShellError(f"{path}: the guest has got something else; does another program read its console?")


def get(console: Console, path: str, timeout: float) -> bytes:
    """See Machine.get."""
    source = _quoted(path)
    size = int(_run(console, _UNLESS_DIRECTORY.format(source, f"wc -c <{source}"), path, timeout).split()[0])
    _check_size(size, path)
    expected = _checksum(console, source, path, timeout)
    data = b"".join(_piece(console, source, number, path, timeout) for number in range(-(-size // _PRINTED)))
    if _sha256(data) != expected:
        raise ShellError(f"{path} has changed in the guest while it was read")
    return data


def _piece(console: Console, source: str, number: int, path: str, timeout: float) -> bytes:
    command = f"dd if={source} bs={_PRINTED} skip={number} count=1 2>/dev/null | base64"
    for _ in range(_TRIES):
        lines = _run(console, command, path, timeout).split("\n")
        text = "".join(line for line in lines if _BASE_64.fullmatch(line))
        try:
            piece = b64decode(text, validate=True)
        except binascii.Error:
            continue
        if _run(console, f"{command.partition('|')[0]} | sha256sum", path, timeout).split()[0] == _sha256(piece):
            return piece
    raise ShellError(f"{path} cannot be read from the guest: something else prints on its console all the time")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum(console: Console, quoted: str, path: str, timeout: float) -> str:
    return _run(console, f"sha256sum <{quoted}", path, timeout).split()[0]


def _run(console: Console, command: str, path: str, timeout: float) -> str:
    """Run a command about ``path`` that must succeed, and return what it prints."""
    status, output = console.run(command, timeout)
    if status:
        raise ShellError(f"{path}, in the guest: {output.strip() or f'status {status} of {command}'}")
    return output


def _quoted(path: str) -> str:
    """Return the name of a file for the shell, which must not take it for an option."""
    if not path or "\0" in path:
        raise UsageError(f"{path!r} is no name of a file in the guest")
    return shlex.quote(path if path.startswith("/") else f"./{path}")


def _contents(source: str | os.PathLike[str] | bytes) -> tuple[bytes, int]:
    """Return what is to be written, and the mode of the file; 0 is the guest's choice."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), 0
    path = Path(source)
    try:
        _check_size(path.stat().st_size, str(path))
        return path.read_bytes(), path.stat().st_mode & 0o777
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _check_size(size: int, what: str) -> None:
    if size > _MOST:
        raise UsageError(f"{what} has {size >> 20} MiB, which takes too long by the console; share a directory")
