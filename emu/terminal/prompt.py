"""A prompt at the user's terminal, which is in raw mode: editing a line, and its echo."""

import re
from collections.abc import Callable

__all__ = ["Prompt"]

_BACKSPACE, _KILL_LINE, _INTERRUPT, _END = b"\x7f\x08", b"\x15", b"\x03", b"\x04"
_CURSOR_KEY = re.compile(rb"\x1b(?:O.|\[[0-9;]*[@-~])")
_LONGEST = 1000


class Prompt:
    """Hands each line typed to ``enter``; C-d calls ``leave``. ``show`` writes to the terminal.

    Backspace deletes a character, C-u the line, C-c drops it and starts a new one; cursor keys do nothing. If others
    print meanwhile, that stays in between; the next key shows the line again, wherever the cursor is then.
    """

    def __init__(
        self, text: str, show: Callable[[str], None], enter: Callable[[str], None], leave: Callable[[], None]
    ) -> None:
        self._text = text
        self._show = show
        self._enter = enter
        self._leave = leave
        self._line = bytearray()
        self._shown = ""
        self._open = True
        show(text)

    def __call__(self, data: bytes) -> None:
        """Handle ``data``, any piece of what is typed; anything after the key that leaves is dropped."""
        for key in _CURSOR_KEY.sub(b"", data):
            if self._open:
                self._handle(key)
        if self._open:
            self._redraw()

    def _handle(self, key: int) -> None:
        if key in b"\r\n":
            self._finish()
        elif key in _BACKSPACE:
            self._erase(1)
        elif key in _KILL_LINE:
            self._erase(len(self._line))
        elif key in _INTERRUPT:
            self._line.clear()
            self._shown = ""
            self._show(f"\n{self._text}")
        elif key in _END:
            if not self._line:
                self._leave()
        elif key >= 0x20 and len(self._line) < _LONGEST:
            self._line.append(key)

    def _finish(self) -> None:
        self._redraw()
        line = self._line.decode(errors="replace")
        self._line.clear()
        self._shown = ""
        self._show("\n")
        self._enter(line)
        if self._open:
            self._show(self._text)

    def close(self) -> None:
        """Take no more keys; the cursor goes to the next line."""
        self._open = False
        self._show("\n")

    def _erase(self, characters: int) -> None:
        line = self._line.decode(errors="ignore")
        self._line[:] = line[: max(0, len(line) - characters)].encode()

    def _redraw(self) -> None:
        """Show the line anew if it has changed: the guest may have printed into it."""
        line = self._line.decode(errors="ignore")
        if line != self._shown:
            self._shown = line
            self._show(f"\r\x1b[K{self._text}{line}")
