"""What came of a case."""

import re
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

__all__ = ["TAIL_BYTES", "Failure", "Outcome", "Report", "tail"]

_TAIL_LINES = 50
#: Of what was printed, at most so much is in a report.
TAIL_BYTES = 16 << 10
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Failure(NamedTuple):
    """Why there is no value, as text: what was raised need not exist outside its process."""

    #: The exception's name; or ``Timeout``, ``Crash``, ``OutOfMemory``, ``NotRepeated``, for which nothing was raised.
    type: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Describe an exception, whatever its own methods do."""
        try:
            message, trace = str(error), "".join(traceback.format_exception(error))
        except Exception as worse:  # noqa: BLE001 - an exception's __str__ is anybody's code
            message, trace = f"(its text cannot be had: {type(worse).__name__})", ""
        if not message and (frames := traceback.extract_tb(error.__traceback__)):
            message = frames[-1].line or ""  # an assert's
        return cls(type(error).__name__, message[:TAIL_BYTES], trace[-TAIL_BYTES:])

    @classmethod
    def crash(cls, status: int) -> "Failure":
        """Describe the end of a process that should have gone on; ``status`` is as subprocess has it."""
        try:
            how = f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            how = f"exited with status {status}"
        return cls("Crash", f"its process {how}")

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class Report(NamedTuple):
    """What a process tells of the case that it has run."""

    #: Pickled: only those who wait for it need to know its type.
    value: bytes | None = None
    failure: Failure | None = None
    #: The last lines of what the guest printed; of what the test and its process printed.
    console: str = ""
    output: str = ""
    guest_ns: int = 0
    host_ns: int = 0
    #: SHA-256 of all that the guest has printed, and of all that it has played.
    printed: str = ""
    played: str = ""
    #: What was played in a case that failed, as a WAV file, unless it is long.
    sound: bytes = b""
    #: The process should run no further case: this one has left too much behind.
    worn: bool = False
    #: The case was not run: its worker's computer lacks a file.
    lacks: bool = False

    def differs(self, other: Self) -> str:
        """Name what isn't the same in ``other``, a run of the same case; "" if all is that should be."""
        pairs: Mapping[str, tuple[object, object]] = {
            "failure": (self.failure and self.failure[:2], other.failure and other.failure[:2]),
            "value": (self.value, other.value),
            "guest time": (self.guest_ns, other.guest_ns),
            "console": (self.printed, other.printed),
            "sound": (self.played, other.played),
        }
        return ", ".join(name for name, (one, another) in pairs.items() if one != another)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: a value, or an ``error``; and what its machine has printed and played."""

    case: dict[str, Any]
    seed: int
    value: Any
    error: Failure | None
    #: The last lines of what the guest printed; and of what the test printed.
    console: str
    output: str
    #: How long it took: in the guest, and on the computer that ran it.
    guest_ns: int
    host_ns: int
    #: SHA-256 of all that the guest has printed, and of all that it has played; "" if the process did not live to tell.
    printed: str
    played: str
    #: What was played in a case that failed, as a WAV file, unless it is long.
    sound: bytes
    #: The command line that repeats this case alone; "" where there is none.
    repeat: str

    @property
    def passed(self) -> bool:
        """Whether the test returned."""
        return self.error is None


def tail(data: bytes) -> str:
    """Return the last lines of what was printed, without what only a terminal understands."""
    lines = _TERMINAL.sub("", data[-TAIL_BYTES:].decode(errors="replace")).splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
