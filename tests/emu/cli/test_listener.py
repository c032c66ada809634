"""The thread that listens to the outside."""

import os
import threading
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from emu.cli.listener import Listener


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


class Machine:
    def __init__(self):
        self.posted = SimpleQueue()
        self.post = self.posted.put


def test_it_posts_a_reminder_when_its_time_has_come():
    machine, reminded = Machine(), threading.Event()
    with Listener(None) as listener:
        listener.attach(machine)
        listener.remind(3600, lambda: pytest.fail("which another one has replaced"))
        listener.remind(0.05, reminded.set)
        while not reminded.is_set():
            machine.posted.get()()


def test_a_reminder_that_comes_while_the_one_before_is_due_is_not_lost(monkeypatch):
    machine, reminded, then = Machine(), threading.Event(), threading.Event()

    def monotonic():
        if threading.current_thread() is listener._thread and not reminded.is_set():
            reminded.set()
            listener.remind(100, then.set)
        return now

    now = 1000.0
    monkeypatch.setattr("emu.cli.listener.time", SimpleNamespace(monotonic=monotonic))
    with Listener(None) as listener:
        listener.attach(machine)
        listener.remind(0, lambda: None)
        reminded.wait()
        while not machine.posted.empty():
            machine.posted.get()()
        assert not then.is_set(), "it is not due"
        now = 2000.0
        os.write(listener._waker, b"\0")
        while not then.is_set():
            machine.posted.get()()
