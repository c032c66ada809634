"""The framing of gdb's remote serial protocol (gdb's manual, appendix E.1).

    $data#xx    a packet; xx is the sum of its bytes, in hexadecimal digits
    + -         it has arrived, or has not
    0x03        C-c

In data, 0x7d escapes: the byte behind it is meant with bit 5 changed. What comes in is a stranger's: a packet that is
too long or damaged is dropped, and everything else between packets is ignored.
"""

import re

__all__ = ["INTERRUPT", "LONGEST", "Framer", "frame", "unescape"]

#: Bytes in a packet, at most.
LONGEST = 16 << 10
#: What ``Framer.feed`` returns for C-c.
INTERRUPT = None

_START, _C_C = b"$", b"\x03"
#: What ends a packet, or begins another.
_MARK = re.compile(rb"[$#]")
_ESCAPED, _SPECIAL = re.compile(rb"}(.?)", re.DOTALL), re.compile(rb"[$#}*]")
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
        at = 0
        while at < len(piece):
            if self._sum is not None:
                digits = piece[at : at + 2 - len(self._sum)]
                self._sum += digits
                at += len(digits)
                if len(self._sum) == 2:
                    self._end(found)
            elif self._data is None:
                at = self._find_start(piece, at, found)
            else:
                at = self._take_data(piece, at, self._data)
        return found

    def _find_start(self, piece: bytes, at: int, found: list[bytes | None]) -> int:
        start = piece.find(_START, at)
        if start >= 0:
            self._data = bytearray()
        else:
            start = len(piece)
        found += [INTERRUPT] * piece.count(_C_C, at, start)
        return start + 1

    def _take_data(self, piece: bytes, at: int, data: bytearray) -> int:
        mark = _MARK.search(piece, at)
        end = len(piece) if mark is None else mark.start()
        data += piece[at : min(end, at + LONGEST + 1 - len(data))]  # one more than fits, so that _end knows
        if mark is not None:
            self._data, self._sum = (bytearray(), None) if mark[0] == _START else (data, bytearray())
        return end + 1

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
    return _ESCAPED.sub(lambda match: bytes(byte ^ _FLIPPED for byte in match[1]), data)


def frame(data: bytes) -> bytes:
    """Make a packet of ``data``."""
    escaped = _SPECIAL.sub(lambda match: bytes((0x7D, match[0][0] ^ _FLIPPED)), data)
    return b"$%b#%02x" % (escaped, sum(escaped) & 0xFF)
