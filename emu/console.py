"""The machine's console from outside: what the guest printed, and what it is to read."""

from collections.abc import Callable

__all__ = ["Console"]

#: Output kept for ``expect`` and ``log``; a guest may print for ever.
_KEPT = 1 << 20


class Console:
    """The other end of the serial line.

    ``output`` is called with what the guest prints, in the order in which it prints. ``receive(data)`` offers input to
    the line and says how much it took.
    """

    def __init__(self, output: Callable[[bytes], None] | None = None) -> None:
        self.output = output
        self.receive: Callable[[bytes], int] = lambda _data: 0
        self.log = bytearray()
        self.printed = 0
        self._watched: list[Callable[[bytes], None]] = []
        self._unsent = bytearray()
        self._input = bytearray()

    def print(self, data: bytes) -> None:
        """The guest printed ``data``."""
        self._unsent += data
        if data == b"\n" or len(self._unsent) > 4096:
            self.flush()

    def flush(self) -> None:
        """Hand out what was printed since the last time."""
        if not self._unsent:
            return
        data = bytes(self._unsent)
        self._unsent.clear()
        self.printed += len(data)
        self.log += data
        if len(self.log) > 2 * _KEPT:
            del self.log[:-_KEPT]
        if self.output is not None:
            self.output(data)

    def send(self, data: bytes) -> None:
        """Type ``data``: the guest gets it as fast as it reads."""
        self._input += data
        self.feed()

    def feed(self) -> None:
        """Offer the line what is still to be typed; it calls for more when the guest has read."""
        if self._input:
            del self._input[: self.receive(bytes(self._input[:4096]))]
