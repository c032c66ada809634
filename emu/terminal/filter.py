"""Removes escape sequences that must not reach the user's terminal: clipboard access, and queries nobody answers.

Everything else passes, as over a serial line: colours, cursor movement, the title. But the clipboard belongs to the
host: with OSC 52 (xterm's ctlseqs) a guest could read it, or put a command there for the user to paste into a shell.
"""

import re

__all__ = ["Filter"]

#: Control characters that do not end a sequence, wherever they occur in it (Williams, "A parser for DEC's
#: ANSI-compatible video terminals"): all but BEL, CAN, SUB and ESC.
_IGNORED = rb"\x00-\x06\x08-\x17\x19\x1c-\x1f\x7f"
#: ESC ] or U+009D. Inside tmux's passthrough each ESC is doubled; the extra one must go, too.
_OSC = rb"(?:\x1b{1,2}[%b]*\]|\xc2\x9d)" % _IGNORED
#: The clipboard commands of xterm, kitty and iTerm2.
_COMMANDS = (b"52;", b"5522;", b"1337;Copy", b"50;Copy")
#: An unfinished command longer than this is an attempt to hide one behind padding.
_LONGEST = 256


def _spread(text: bytes) -> bytes:
    """Match ``text`` with ignored characters before each of its own."""
    return b"".join(b"[%b]*%c" % (_IGNORED, byte) for byte in text)


_CLIPBOARD = rb"(?P<clipboard>%b(?:[%b]*0)*(?:%b))" % (_OSC, _IGNORED, b"|".join(map(_spread, _COMMANDS)))
_CURSOR = rb"\x1b\[6n"
#: What could be, at the end of the data, the beginning of one of these sequences.
_UNFINISHED = re.compile(
    rb"(?:(?:\x1b{1,2}[%b]*|\xc2)|%b[0-9%b]*(?:;[Copy%b]*)?|\x1b\[6?)\Z" % (_IGNORED, _OSC, _IGNORED, _IGNORED)
)
_END = re.compile(rb"[\x07\x18\x1a]|\x1b\\|(?=\x1b[^\\])")


class Filter:
    """Removes access to the ``clipboard``, and queries for the position of the ``cursor`` (ESC [6n), if wanted."""

    def __init__(self, *, clipboard: bool = False, cursor: bool = False) -> None:
        wanted = [_CLIPBOARD] * clipboard + [_CURSOR] * cursor
        self._pattern = re.compile(b"|".join(wanted)) if wanted else None
        self._unfinished = b""
        self._inside = False  # inside a clipboard sequence, whose contents may be long

    def __call__(self, data: bytes) -> bytes:
        """Return what remains of ``data``, any piece of the output; sequences may be split between pieces."""
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
        """Return what was held back because it might have been the beginning of a sequence."""
        rest, self._unfinished = self._unfinished, b""
        return b"" if self._inside else rest
