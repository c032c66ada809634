"""What a guest prints that must not reach the user's terminal: sequences for its clipboard, and questions to it.

Everything else passes, as through a serial line: colours, the cursor, the title. The clipboard is the host's: with
OSC 52 (xterm, ctlseqs) a guest could put a command there that the user pastes into a shell, or ask what is in it.
"""

import re

__all__ = ["Filter"]

#: Control characters that a terminal does not take for the end of a sequence, wherever they are in it (ECMA-48, 5.2;
#: Williams, "A parser for DEC's ANSI-compatible video terminals"): all but BEL, CAN, SUB and ESC.
_IGNORED = rb"\x00-\x06\x08-\x17\x19\x1c-\x1f\x7f"
#: The ESC that tmux wants before each ESC that it is to pass on goes as well; U+009D is the same in one character.
_OSC = rb"(?:\x1b{1,2}[%b]*\]|\xc2\x9d)" % _IGNORED
#: xterm's and kitty's commands, and iTerm2's, of which only some are for the clipboard.
_COMMANDS = (b"52;", b"5522;", b"1337;Copy", b"50;Copy")
#: No command is longer, but for a guest that wants to hide one.
_LONGEST = 256


def _spread(text: bytes) -> bytes:
    """Match ``text`` with ignored characters before each of its own."""
    return b"".join(b"[%b]*%c" % (_IGNORED, byte) for byte in text)


_CLIPBOARD = rb"(?P<clipboard>%b(?:[%b]*0)*(?:%b))" % (_OSC, _IGNORED, b"|".join(map(_spread, _COMMANDS)))
_CURSOR = rb"\x1b\[6n"
#: What can be the beginning of one of them, at the end of what there is.
_UNFINISHED = re.compile(
    rb"(?:(?:\x1b{1,2}[%b]*|\xc2)|%b[0-9%b]*(?:;[Copy%b]*)?|\x1b\[6?)\Z" % (_IGNORED, _OSC, _IGNORED, _IGNORED)
)
_END = re.compile(rb"[\x07\x18\x1a]|\x1b\\|(?=\x1b[^\\])")


class Filter:
    """Takes out of what a guest prints what is for the ``clipboard``, and where the ``cursor`` is asked for."""

    def __init__(self, *, clipboard: bool = False, cursor: bool = False) -> None:
        wanted = [_CLIPBOARD] * clipboard + [_CURSOR] * cursor
        self._pattern = re.compile(b"|".join(wanted)) if wanted else None
        self._unfinished = b""
        self._inside = False  # of something for the clipboard, which may be long

    def __call__(self, data: bytes) -> bytes:
        """Return what remains of ``data``, any piece of what is printed; a sequence may go on in the next."""
        if self._pattern is None:
            return data
        data = self._unfinished + data
        kept, position = bytearray(), 0
        while True:
            if self._inside:
                end = _END.search(data, position)
                if end is None:
                    self._unfinished = data[-1:] if data.endswith(b"\x1b") else b""
                    return bytes(kept)
                self._inside = False
                position = end.end()
            found = self._pattern.search(data, position)
            if found is None:
                break
            kept += data[position : found.start()]
            position = found.end()
            self._inside = found.lastgroup == "clipboard"
        unfinished = _UNFINISHED.search(data, position)
        end_of_rest = len(data) if unfinished is None else unfinished.start()
        self._unfinished = data[end_of_rest:] if len(data) - end_of_rest <= _LONGEST else b""
        return bytes(kept + data[position:end_of_rest])

    def rest(self) -> bytes:
        """Return what was kept back for a sequence that has not come to its end."""
        rest, self._unfinished = self._unfinished, b""
        return b"" if self._inside else rest
