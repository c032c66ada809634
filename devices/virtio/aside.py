"""Slow work that needs nothing from the machine, such as flushing a disk: done wherever the machine chooses."""

from collections.abc import Callable
from typing import Protocol

__all__ = ["Aside", "at_once"]


class Aside(Protocol):
    """Does ``work``, which may raise OSError, and reports the outcome to ``done`` on the machine's thread."""

    def __call__(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Return at once, or when everything is done."""
        ...


def at_once(work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
    """Do it here and now, for a guest whose time must not depend on how long the host takes."""
    try:
        work()
    except OSError as error:
        done(error)
    else:
        done(None)
