"""Work beside the machine's thread: what it reports, and on which thread."""

import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from emu.timing.aside import AsideThread


def failing() -> None:
    raise OSError("no")


class Rig:
    """A worker thread with an inbox that the test reads."""

    def __init__(self) -> None:
        self.inbox: deque[Callable[[], None]] = deque()
        self.posted = threading.Semaphore(0)
        self.aside = AsideThread(self._post)

    def _post(self, message: Callable[[], None]) -> None:
        self.inbox.append(message)
        self.posted.release()

    def take(self) -> None:
        self.posted.acquire()
        self.inbox.popleft()()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.aside.close()


def test_a_thread_works_and_this_one_is_told(rig: Rig) -> None:
    go = threading.Event()
    workers: list[int] = []
    told: list[tuple[OSError | None, int]] = []

    def work() -> None:
        go.wait()
        workers.append(threading.get_ident())

    rig.aside(work, lambda error: told.append((error, threading.get_ident())))
    assert (workers, told) == ([], [])
    go.set()
    rig.take()
    assert told == [(None, threading.get_ident())]
    assert threading.get_ident() not in workers


def test_a_failure_is_told_too(rig: Rig) -> None:
    told: list[OSError | None] = []
    rig.aside(failing, told.append)
    rig.take()
    assert [str(error) for error in told] == ["no"]


def test_close_waits_for_what_was_given() -> None:
    rig = Rig()
    go = threading.Event()
    done: list[int] = []

    def work() -> None:
        go.wait()
        done.append(len(done))

    for _ in range(3):
        rig.aside(work, lambda _error: None)
    threading.Timer(0.05, go.set).start()
    rig.aside.close()
    assert done == [0, 1, 2]
