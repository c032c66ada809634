"""Writing to a file that may be slow."""

import os
import select
import threading
from collections.abc import Iterator

import pytest

from emu.terminal.writer import Writer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def read(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return bytes(data)


def test_all_is_written_in_order_however_slow_the_reader_is(pipe):
    reading, writing = pipe
    pieces = [bytes((number % 256,)) * number for number in range(1000)]
    with Writer(writing) as writer:
        for piece in pieces:
            writer(piece)
        assert writer.pending > 1 << 18  # nobody has read yet, and nobody had to
        assert read(reading, sum(map(len, pieces))) == b"".join(pieces)
        assert writer.finish()
        assert writer.pending == 0


def test_a_pipe_that_somebody_made_non_blocking(pipe):
    reading, writing = pipe
    os.set_blocking(writing, False)
    with Writer(writing) as writer:
        writer(bytes(1 << 20))
        assert read(reading, 1 << 20) == bytes(1 << 20)
        assert writer.finish()


def test_it_gives_up_on_a_reader_that_has_stopped(pipe):
    reading, writing = pipe
    with Writer(writing) as writer:
        writer(bytes(1 << 20))
        assert not writer.finish(0.05)
        read(reading, 1 << 20)


def test_it_waits_for_its_thread_however_busy_the_host_is(pipe, monkeypatch):
    reading, writing = pipe
    go_on, asked, write, poll = threading.Event(), [], os.write, select.select

    def write_late(fd: int, data: bytes) -> int:
        go_on.wait()
        return write(fd, data)

    def ask(*what: object) -> tuple[list[int], ...]:
        asked.append(what)
        if len(asked) == 3:
            go_on.set()
        return poll(*what)

    monkeypatch.setattr(os, "write", write_late)
    monkeypatch.setattr(select, "select", ask)
    with Writer(writing) as writer:
        writer(b"last words")
        assert writer.finish(0.01)
        assert os.read(reading, 100) == b"last words"


def test_the_first_error_is_kept_and_what_follows_is_dropped():
    reading, writing = os.pipe()
    os.close(reading)
    moved = threading.Event()
    with Writer(writing, moved.set) as writer:
        writer(b"x")
        moved.wait()
        writer(b"y")
        assert writer.finish()
        assert writer.pending == 0
        assert isinstance(writer.error, BrokenPipeError)
    os.close(writing)
