"""A record of every period, one line of JSON each, for analysing the timing of a sound.

    {"stream": 0, "direction": "playback", "due_ns": 1000, "done_ns": 1002, "host_ns": 5, "bytes": 16, "fill": 48,
     "again": false}

``due_ns`` is the guest time at which the last frame of the period was played or recorded; ``done_ns`` that at which the
driver was told, the same unless the machine was late; ``host_ns`` the host's monotonic clock then. ``bytes`` counts the
period's frames, ``fill`` those that the driver still had queued behind it. ``again`` is true if the period has exactly
the bytes played a buffer ago, and they are not silence: either the guest was too late to fill it, perhaps without
knowing, and old sound was heard; or the sound happens to repeat itself.
"""

import contextlib
import logging
import os
import time
from pathlib import Path

from devices.audio.base import AudioBackend, Period
from devices.audio.forwarding import ForwardingBackend
from devices.errors import UsageError

__all__ = ["PeriodLog"]

logger = logging.getLogger(__name__)


class PeriodLog(ForwardingBackend):
    """``backend``, with a record of its periods in the file ``path`` (``--audio ...,log=PATH``).

    The file is created at once; raises UsageError if that fails. If writing fails later, a warning says so once.
    """

    def __init__(self, backend: AudioBackend, path: str | os.PathLike[str]) -> None:
        super().__init__(backend)
        self.path = Path(path)
        self._file = _Lines(self.path)

    def observe(self, period: Period) -> None:
        """Write a line."""
        self._file.add(period)
        super().observe(period)

    def flush(self) -> None:
        """Write everything recorded so far to the file, so that it can be read now."""
        self._file.flush()

    def close(self) -> None:
        """Close the file and the backend."""
        self._file.close()
        super().close()


class _Lines:
    """The file of the record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("w", encoding="ascii")
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot write the record of periods to {path}: {reason}") from error

    def add(self, period: Period) -> None:
        """Write a line."""
        if self._file.closed:
            return
        direction, stream, due, done, size, fill, again = period
        try:
            self._file.write(
                f'{{"stream": {stream}, "direction": "{direction}", "due_ns": {due}, "done_ns": {done}, '
                f'"host_ns": {time.monotonic_ns()}, "bytes": {size}, "fill": {fill}, '
                f'"again": {"true" if again else "false"}}}\n'
            )
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            if not self._file.closed:
                self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("%s: %s; the record of periods ends here", self._path, error.strerror or error)
        with contextlib.suppress(OSError):  # writing the rest of its buffer fails again
            self._file.close()

    def close(self) -> None:
        """Write what is left."""
        try:
            self._file.close()
        except OSError as error:
            logger.warning("%s: %s; the end of the record of periods is lost", self._path, error.strerror or error)
