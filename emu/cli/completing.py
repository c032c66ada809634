"""What click's completion lacks: words that contain ``:`` and ``=``, like ``--audio=wav:out.wav``."""

import re

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

__all__ = ["register"]


class _Bash(BashComplete):
    """Bash splits a word at each ``:`` and ``=``, and wants only what follows the last one."""

    _kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Join the words again."""
        arguments, incomplete = super().get_completion_args()
        words: list[str] = []
        glued = False
        for word in (*arguments, incomplete):
            mark = word in {":", "="}
            if words and (mark or glued):
                words[-1] += word
            else:
                words.append(word)
            glued = mark
        self._kept = re.sub(r"[^:=]*$", "", words[-1])
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Leave out what bash already has."""
        kept = self._kept if item.value.startswith(self._kept) else self._kept.partition("=")[2]
        return f"{item.type},{item.value.removeprefix(kept)}"


class _WholeWord(ShellComplete):
    """Zsh and fish replace the whole word, and with it the ``--option=`` before what was completed."""

    _option = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Remember the option."""
        arguments, incomplete = super().get_completion_args()
        self._option = incomplete[: incomplete.find("=") + 1] if incomplete.startswith("--") else ""
        return arguments, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Put it back."""
        item.value = self._option + item.value
        return super().format_completion(item)


class _Zsh(_WholeWord, ZshComplete):
    pass


class _Fish(_WholeWord, FishComplete):
    pass


def register() -> None:
    """Make click answer the shells with these classes."""
    for shell in (_Bash, _Zsh, _Fish):
        add_completion_class(shell)
