"""What takes long and needs nothing of the machine, like waiting for a disk: done on a thread beside the machine's."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

__all__ = ["Aside", "AsideThread", "at_once"]


class Aside(Protocol):
    """Does ``work``, which may raise OSError, and tells ``done`` on the machine's thread how that went."""

    def __call__(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Return at once, or when all of it is done."""
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
    """Does one piece of work after the other on a thread; ``post`` has a message called on the machine's thread."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._given: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="aside")
        self._thread.start()  # now, as it waits for the thread to run

    def __call__(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Return at once."""
        self._given.put(lambda: at_once(work, lambda error: self._post(lambda: done(error))))

    def close(self) -> None:
        """Return when all that was given is done; nobody may be told of it any more."""
        self._given.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (work := self._given.get()) is not None:
            work()
