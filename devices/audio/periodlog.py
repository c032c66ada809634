"""A record of every period, a line of JSON each, for whoever analyses the timing of a sound.

    {"stream": 0, "direction": "playback", "due_ns": 1000, "done_ns": 1002, "host_ns": 5, "bytes": 16, "fill": 48,
     "again": false}

``due_ns`` is the guest time at which the last frame of the period was played, or recorded; ``done_ns`` when the
driver was told of it, the same unless the machine was late; ``host_ns`` the host's monotonic clock then. ``bytes`` are
those of the period's frames, ``fill`` those that the driver still had in the queue behind it. A period
``again`` has the very bytes that were played a buffer ago, and not silence: the guest was too late to fill it, without
knowing that perhaps, and old sound was heard; or the sound repeats itself just so.
"""

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from devices.audio.base import AudioBackend, Capture, Period, Playback
from devices.audio.pcm import PcmParams
from devices.errors import UsageError

__all__ = ["PeriodLog"]

logger = logging.getLogger(__name__)


class PeriodLog(AudioBackend):
    """``backend``, with a record of its periods in the file ``path`` (``--audio ...,log=PATH``).

    The file is made at once; UsageError if it cannot be. When writing fails later, a warning says so once.
    """

    def __init__(self, backend: AudioBackend, path: str | os.PathLike[str]) -> None:
        self.backend = backend
        self.path = Path(path)
        self.streams = backend.streams
        self._file = _Lines(self.path)
        self.observer = self._file.add

    @property
    def played(self) -> int:
        """Frames played since the machine was switched on."""
        return self.backend.played

    @property
    def lost(self) -> int:
        """Frames that the backend could not keep."""
        return self.backend.lost

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Play to the backend."""
        return self.backend.open_playback(stream, params)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        """Record from the backend."""
        return self.backend.open_capture(stream, params)

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        """Hand the volume on."""
        self.backend.set_gains(playback, capture)

    def summary(self) -> list[str]:
        """Say what the backend says."""
        return self.backend.summary()

    def flush(self) -> None:
        """Have all that was recorded in the file, for whoever reads it now."""
        self._file.flush()

    def close(self) -> None:
        """Close the file and the backend."""
        self._file.close()
        self.backend.close()


class _Lines:
    """The file."""

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
        """Write what is waiting."""
        try:
            if not self._file.closed:
                self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("%s: %s; the record of periods ends here", self._path, error.strerror or error)
        with contextlib.suppress(OSError):  # what it still has to write fails again
            self._file.close()

    def close(self) -> None:
        """Write what is left."""
        try:
            self._file.close()
        except OSError as error:
            logger.warning("%s: %s; the end of the record of periods is lost", self._path, error.strerror or error)
