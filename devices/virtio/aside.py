"""What takes long and needs nothing of the machine, like waiting for a disk: done on a thread beside the machine's."""

import threading
from collections.abc import Callable
from typing import Protocol

__all__ = ["Aside", "AsideThreads", "at_once"]


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


class AsideThreads:
    """Does each piece of work on a thread of its own; ``post`` has a message called on the machine's thread."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._threads: set[threading.Thread] = set()

    def __call__(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Return at once."""

        def run() -> None:
            at_once(work, lambda error: self._post(lambda: finish(error)))

        def finish(error: OSError | None) -> None:
            self._threads.discard(thread)
            done(error)

        thread = threading.Thread(target=run, name="aside")
        self._threads.add(thread)
        thread.start()

    def close(self) -> None:
        """Wait for what has been begun; nobody is told of it any more."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()
