"""The file of a sweep's outcomes: a line of JSON for each case, written as it ends, so that a sweep can go on there."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devices.errors import UsageError
from emu.fleet.job import canonical
from emu.fleet.outcome import Outcome

__all__ = ["Results"]


class Results:
    """The file ``path`` with the outcomes of one sweep; use it as a context manager.

    ``identity`` tells what it is a sweep of: results of another are not added to. A line that a killed process has
    left unfinished is removed. Raises UsageError if the file is in use, or another one's.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path, self._identity = path, identity
        self._done: set[int] = set()
        #: Outcomes in the file.
        self.passed = self.failed = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        try:
            self._go_on()
        except BaseException:
            os.close(self._fd)
            raise

    def _go_on(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{self._path} is being written by another sweep") from None
        whole = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    whole += len(line)
                    self._take(line, number)
        if os.fstat(self._fd).st_size != whole:
            os.ftruncate(self._fd, whole)

    def _take(self, line: bytes, number: int) -> None:
        try:
            record = _checked(json.loads(line))
        except (ValueError, RecursionError):
            message = f"{self._path}:{number} is no outcome of a sweep; it is left alone: give another name with -o"
            raise UsageError(message) from None
        if record["sweep"] != self._identity:
            raise UsageError(
                f"{self._path} is of another sweep, of another test or machine; remove it, or use another -o"
            )
        self._done.add(int(record["id"], 16))
        self._count(record["passed"])

    def _count(self, passed: bool) -> None:
        if passed:
            self.passed += 1
        else:
            self.failed += 1

    def is_new(self, case: Mapping[str, Any], seed: int) -> bool:
        """Say, once for each case, that it is not in the file."""
        number = int(_id(case, seed), 16)
        new = number not in self._done
        self._done.add(number)
        return new

    def add(self, outcome: Outcome) -> None:
        """Write a line; raises UsageError if that cannot be done."""
        line = f"{json.dumps(self._record(outcome), ensure_ascii=False, default=repr)}\n".encode(errors="replace")
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}") from error
        self._count(outcome.passed)

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        record: dict[str, Any] = {
            "id": _id(outcome.case, outcome.seed),
            "sweep": self._identity,
            "case": outcome.case,
            "seed": outcome.seed,
            "passed": outcome.passed,
            "value": outcome.value,
            "guest_ns": outcome.guest_ns,
            "host_ns": outcome.host_ns,
            "printed_sha256": outcome.printed,
            "played_sha256": outcome.played,
            "repeat": outcome.repeat,
        }
        try:
            json.dumps(record)
        except (TypeError, ValueError, RecursionError):  # only the value can be anything
            record["value"] = repr(outcome.value)
        if outcome.error is not None:
            record |= {"error": outcome.error._asdict(), "console": outcome.console, "output": outcome.output}
            record["sound"] = self._keep_sound(record["id"], outcome.sound)
        return record

    def _keep_sound(self, id_: str, sound: bytes) -> str | None:
        """Write what was played into a file beside this one, and return its name."""
        if not sound:
            return None
        path = self._path.with_suffix(".sounds") / f"{id_}.wav"
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(sound)
        except OSError:
            return None
        return str(path.relative_to(self._path.parent))

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each outcome as it is in the file."""
        with self._path.open("rb") as file:
            yield from map(json.loads, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)


#: What a line has, beside what the test has returned; those of a failure; and what an error is.
_FIELDS = {"id": str, "sweep": str, "case": dict, "passed": bool, "host_ns": int, "repeat": str}
_OF_A_FAILURE = {"error": dict, "console": str, "output": str, "sound": str | None}
_OF_AN_ERROR = {"type": str, "message": str, "traceback": str}


def _checked(record: Any) -> dict[str, Any]:
    """Return a line if the reports can be made of it; raises ValueError. What it says is still anybody's."""
    _check_fields(record, _FIELDS)
    canonical(record["case"])
    plausible = int(record["id"], 16) >= 0 and 0 <= record["host_ns"] < 1 << 63
    if not record["passed"]:
        _check_fields(record, _OF_A_FAILURE)
        _check_fields(record["error"], _OF_AN_ERROR)
        plausible = plausible and (record["sound"] is None or _is_own_sound(record["sound"], record["id"]))
    if not plausible:
        raise ValueError
    checked: dict[str, Any] = record
    return checked


def _is_own_sound(sound: str, id_: str) -> bool:
    """Whether it is where ``Results`` keeps them: a page's picture is made beside it."""
    folder, _, name = sound.partition("/")
    return folder.endswith(".sounds") and name == f"{id_}.wav"


def _check_fields(record: Any, types: Mapping[str, Any]) -> None:
    if not isinstance(record, dict) or not all(isinstance(record.get(name, ...), kind) for name, kind in types.items()):
        raise ValueError


def _id(case: Mapping[str, Any], seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{canonical(case)}".encode(errors="replace")).hexdigest()[:16]
