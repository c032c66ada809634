"""The thread that listens to the outside."""

import os
import threading
from queue import SimpleQueue

import pytest

from emu.cli.listener import Listener


@pytest.mark.timeout(10)
def test_it_ends_even_if_the_wake_up_is_read_together_with_a_signal(monkeypatch):
    read, reading, ending = os.read, threading.Event(), threading.Event()

    def late_read(fd: int, size: int) -> bytes:
        reading.set()
        ending.wait()
        return read(fd, size)

    with Listener(None) as listener:
        monkeypatch.setattr(os, "read", late_read)
        os.write(listener._waker, b"\2")
        reading.wait()
        write = os.write

        def write_and_let_read(fd: int, data: bytes) -> int:
            written = write(fd, data)
            ending.set()
            return written

        monkeypatch.setattr(os, "write", write_and_let_read)
    assert not listener._thread.is_alive()


@pytest.mark.timeout(10)
def test_it_posts_a_reminder_when_its_time_has_come():
    posted, reminded = SimpleQueue(), threading.Event()

    class Machine:
        post = posted.put

    with Listener(None) as listener:
        listener.attach(Machine())
        listener.remind(3600, lambda: pytest.fail("which another one has replaced"))
        listener.remind(0.05, reminded.set)
        while not reminded.is_set():
            posted.get(timeout=60)()
