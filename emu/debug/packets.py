"""The framing of gdb's remote serial protocol (gdb's manual, appendix E.1).

    $data#xx    a packet; xx is the sum of its bytes, in hexadecimal digits
    + -         it has arrived, or has not
    0x03        C-c

In data, 0x7d escapes: the byte behind it is meant with bit 5 changed. What comes in is a stranger's: a packet that is
too long or damaged is dropped, and everything else between packets is ignored.
"""

__all__ = ["INTERRUPT", "LONGEST", "Framer", "frame", "unescape"]

#: Bytes in a packet, at most.
LONGEST = 16 << 10
#: What ``Framer.feed`` returns for C-c.
INTERRUPT = None

_START, _END, _ESCAPE, _C_C = b"$"[0], b"#"[0], 0x7D, 0x03
_SPECIAL = frozenset(b"$#}*")
_FLIPPED = 0x20


class Framer:
    """Takes the stream apart. With ``acks``, ``answer`` is what has to be sent back at once."""

    def __init__(self) -> None:
        self.acks = True
        self.answer = bytearray()
        self._data: bytearray | None = None  # of the packet that is being received
        self._sum: bytearray | None = None  # its last two digits

    def feed(self, piece: bytes) -> list[bytes | None]:
        """Take what has arrived; return the packets that are whole, and INTERRUPT."""
        found: list[bytes | None] = []
        for byte in piece:
            if self._sum is not None:
                self._sum.append(byte)
                if len(self._sum) == 2:
                    self._end(found)
            elif byte == _START:
                self._data = bytearray()
            elif self._data is None:
                if byte == _C_C:
                    found.append(INTERRUPT)
            elif byte == _END:
                self._sum = bytearray()
            elif len(self._data) <= LONGEST:  # one more than fits, so that _end knows
                self._data.append(byte)
        return found

    def _end(self, found: list[bytes | None]) -> None:
        data, digits = self._data, self._sum
        self._data = self._sum = None
        assert data is not None
        assert digits is not None
        try:
            right = int(digits, 16) == sum(data) & 0xFF and digits.isalnum()
        except ValueError:
            right = False
        right = right and len(data) <= LONGEST
        if self.acks:
            self.answer += b"+" if right else b"-"
        if right:
            found.append(bytes(data))


def unescape(data: bytes) -> bytes:
    """Return what ``data`` of a packet means."""
    found, escaped = bytearray(), False
    for byte in data:
        if escaped:
            found.append(byte ^ _FLIPPED)
        elif byte != _ESCAPE:
            found.append(byte)
        escaped = byte == _ESCAPE and not escaped
    return bytes(found)


def frame(data: bytes) -> bytes:
    """Make a packet of ``data``."""
    escaped = bytearray()
    for byte in data:
        if byte in _SPECIAL:
            escaped += bytes((_ESCAPE, byte ^ _FLIPPED))
        else:
            escaped.append(byte)
    return b"$%b#%02x" % (bytes(escaped), sum(escaped) & 0xFF)
