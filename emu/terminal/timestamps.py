"""Guest time before each line that the guest prints."""

from collections.abc import Callable

__all__ = ["TimeStamps"]


class TimeStamps:
    """Puts the time returned by ``now`` (ns) before each line printed, while ``on``."""

    def __init__(self) -> None:
        self.on = False
        self.now: Callable[[], int] = lambda: 0
        self._line_begun = False

    def __call__(self, data: bytes) -> bytes:
        """Return ``data``, any piece of the output, with its stamps."""
        begun, self._line_begun = self._line_begun, not data.endswith(b"\n")
        if not self.on:
            return data
        stamp = _stamp(self.now())
        stamped = data[:-1].replace(b"\n", b"\n" + stamp) + data[-1:]  # what follows a final newline is still to come
        return stamped if begun else stamp + stamped


def _stamp(ns: int) -> bytes:
    seconds, milliseconds = divmod(ns // 1_000_000, 1000)
    minutes, seconds = divmod(seconds, 60)
    return b"[%02d:%02d:%02d.%03d] " % (*divmod(minutes, 60), seconds, milliseconds)
