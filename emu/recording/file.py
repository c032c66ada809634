"""The file of a recording: lines of JSON, written as they happen, and checked before any of them is believed."""

import json
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from devices.errors import MachineError, UsageError

__all__ = ["FORMAT", "LONGEST_SOUND", "LONGEST_TEXT", "MAGIC", "Entry", "Header", "Reader", "Writer"]

#: The first key of a header; its value is the version of the format.
MAGIC = "pyemu recording"
FORMAT = 2
#: What a line holds at most: bytes typed, bytes of sound.
LONGEST_TEXT, LONGEST_SOUND = 16 << 10, 256 << 10
_LONGEST_LINE = 1 << 20
_DIGITS = 64  # of a SHA-256

#: What a machine was made of, see emu/recording/header.py.
Header = dict[str, Any]


class Entry(NamedTuple):
    """What came from outside after so many turns, or the end."""

    turn: int
    guest_ns: int
    kind: str
    arguments: list[Any]


_SWITCHED_ON = Entry(0, 0, "", [])


class _Recording:
    """An open file; ``close`` it, or use it as a context manager."""

    _file: IO[bytes]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Writer(_Recording):
    """Writes the recording ``path``, which may hold an older one; raises UsageError if it cannot, or holds other data.

    A line is with the operating system when ``write`` returns. ``close`` it in the end; for one run after the other
    in one file, as after a reset, give it to each Machine.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        descriptor = _open(self.path, os.O_RDWR | os.O_CREAT, "written")
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        start = f'{{"{MAGIC}"'.encode()
        if self._file.read(len(start)) not in {b"", start}:
            self._file.close()
            raise UsageError(f"{self.path} is there already, and is not a recording; remove it, or use another name")
        self._file.seek(0)
        self._file.truncate()

    def write(self, line: Header | Entry) -> None:
        """Write a line; raises MachineError if that fails."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise MachineError(f"the recording {self.path} cannot be written: {error.strerror}") from error


class Reader(_Recording):
    """Reads the recording ``path``, line by line, however long it is; raises UsageError if any of it is damaged.

    ``first`` is its first header, and ``ahead`` the line that comes next: a Header, an Entry, or None at the end. A
    last line that was not finished is none. ``same`` says whether a machine has come to the end that it should have.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.same = False
        self._file = os.fdopen(_open(self.path, os.O_RDONLY, "read"), "rb")
        try:
            for _ in self._lines():  # all of it, before any of it has an effect
                pass
            self._file.seek(0)
            self._rest = self._lines()
            self.ahead: Header | Entry | None = next(self._rest, None)
            if not isinstance(self.ahead, dict):
                raise UsageError(f"{self.path} is empty: nothing was recorded")  # noqa: TRY301
        except BaseException:
            self._file.close()
            raise
        self.first: Header = self.ahead

    def take(self) -> Header | Entry | None:
        """Return the next line, and go on to the one after it."""
        line, self.ahead = self.ahead, next(self._rest, None)
        return line

    def _lines(self) -> Iterator[Header | Entry]:
        before: Entry | None = None
        number = 0
        while (text := self._file.readline(_LONGEST_LINE)).endswith(b"\n"):
            number += 1
            try:
                line = _check(self._of_this_format(json.loads(text)), before)
            except (ValueError, RecursionError):
                raise self._damage(number, "makes no sense") from None
            before = line if isinstance(line, Entry) else _SWITCHED_ON
            yield line
        if len(text) == _LONGEST_LINE:
            raise self._damage(number + 1, "is too long")

    def _damage(self, number: int, what: str) -> UsageError:
        if number == 1:
            return UsageError(f"{self.path} is not a recording of pyemu's")
        return UsageError(f"{self.path} is damaged: line {number} {what}")

    def _of_this_format(self, line: object) -> object:
        if isinstance(line, dict) and _is_whole(line.get(MAGIC)) and line[MAGIC] != FORMAT:
            other = str(line[MAGIC])[:20]
            raise UsageError(f"{self.path} has format {other}, and this pyemu knows {FORMAT}; use the pyemu it is of")
        return line


def _open(path: Path, flags: int, use: str) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)  # opening a FIFO may wait for ever
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"the recording {path} cannot be {use}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"the recording {path} cannot be {use}: it is not a regular file")
    return descriptor


# ---------------------------------------------------------------- checks


def _check(line: object, before: Entry | None) -> Header | Entry:
    """Return ``line`` if it may follow ``before``, None being the file's beginning; raises ValueError."""
    after_a_run = before is None or before.kind in _ENDS
    if isinstance(line, dict):
        values = [line.get(name) for name in _HEADER]
        if after_a_run and line.keys() == _HEADER.keys() and _all_fit(_HEADER.values(), values):
            return line
    elif isinstance(line, list) and len(line) == len(Entry._fields) and before is not None and not after_a_run:
        entry = Entry(*line)
        if (
            _is_count(entry.turn) and _is_count(entry.guest_ns)
            and before.turn <= entry.turn and before.guest_ns <= entry.guest_ns
            and isinstance(entry.kind, str) and entry.kind in _KINDS
            and isinstance(entry.arguments, list) and _all_fit(_KINDS[entry.kind], entry.arguments)
        ):  # fmt: skip
            return entry
    raise ValueError


def _all_fit(checks: Collection[Callable[[Any], bool]], values: Collection[Any]) -> bool:
    return len(checks) == len(values) and all(fits(value) for fits, value in zip(checks, values, strict=True))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_flag(value: object) -> bool:
    return type(value) is bool


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == _DIGITS


def _is_digest_or_none(value: object) -> bool:
    return value is None or _is_digest(value)


def _is_typed(value: object) -> bool:
    """Bytes, each of them a character."""
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and all(ord(character) < 256 for character in value)


def _is_size_of_sound(value: object) -> bool:
    return _is_count(value) and 0 < value <= LONGEST_SOUND  # type: ignore[operator]


def _are_streams(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _are_disks(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(disk, list) and _all_fit((_is_count, _is_flag, _is_digest), disk) for disk in value
    )


_HEADER: dict[str, Callable[[Any], bool]] = {
    MAGIC: _is_whole,
    "version": _is_string,
    "seed": _is_whole,
    "memory": _is_count,
    "append": _is_string,
    "ps_per_block": _is_count,
    "streams": _are_streams,
    "kernel": _is_digest_or_none,
    "initrd": _is_digest_or_none,
    "bios": _is_digest_or_none,
    "snapshot": _is_digest_or_none,
    "disks": _are_disks,
}

#: The arguments of each kind of entry.
_KINDS: dict[str, tuple[Callable[[Any], bool], ...]] = {
    "type": (_is_typed,),
    "hold": (_is_flag,),
    "resize": (_is_count, _is_count),
    "jack": (_is_string, _is_flag),
    "control": (_is_string, _is_count, _is_count),
    "off": (),
    "at": (_is_count,),
    "cancel": (_is_count,),
    "sound": (_is_count, _is_size_of_sound, _is_string),
    "end": (_is_count, _is_digest, _is_string),
    "cut": (),
}
_ENDS = {"end", "cut"}
