"""Slow work that needs nothing from the machine, such as flushing a disk: done on a thread beside the machine's."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

__all__ = ["Aside", "AsideThread", "at_once"]


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


class AsideThread:
    """Does one piece of work after another on a thread; ``post`` gets a callback to run on the machine's thread."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._given: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="aside")
        self._thread.start()  # here, because start() waits until the thread runs

    def __call__(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Return at once."""
        self._given.put(lambda: at_once(work, lambda error: self._post(lambda: done(error))))

    def close(self) -> None:
        """Return when all work given is done; its outcome may no longer be reported."""
        self._given.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (work := self._given.get()) is not None:
            work()
