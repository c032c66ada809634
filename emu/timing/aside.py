"""A thread beside the machine's, for slow work of its devices."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from devices.virtio.aside import at_once

__all__ = ["AsideThread"]

_Work = Callable[[], None]


class AsideThread:
    """Does one piece of work after another on a thread; ``post`` gets a callback to run on the machine's thread."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._given: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work_off, args=(self._given,), name="pyemu aside", daemon=True)
        self._thread.start()  # here, because start() waits until the thread runs

    def __call__(self, work: _Work, done: Callable[[OSError | None], None]) -> None:
        """Return at once."""
        self._given.put(lambda: at_once(work, lambda error: self._post(lambda: done(error))))

    def close(self) -> None:
        """Return when all work given is done; its outcome may no longer be reported."""
        self._given.put(None)
        self._thread.join()


def _work_off(given: "SimpleQueue[_Work | None]") -> None:
    """Do what is given. With nothing to do, the thread keeps nobody's machine alive."""
    while (work := given.get()) is not None:
        work()
        del work
