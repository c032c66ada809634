"""Writes to a file that may block, such as a pipe whose reader has stopped, on a thread of its own."""

import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Self

__all__ = ["Writer"]

#: Bytes per system call: small pieces are joined, and large ones split so that a slow reader's progress shows.
_CHUNK = 4 << 10


class Writer:
    """While entered, call it with bytes: they are written to the file descriptor ``fd`` soon, and in order.

    Only ``finish`` waits. The queue is not bounded; callers watch ``pending``. ``moved`` is called on the writer's
    thread whenever something was written, or when writing failed: then ``error`` is set, and everything later is
    dropped.
    """

    def __init__(self, fd: int, moved: Callable[[], None] = lambda: None) -> None:
        self.error: OSError | None = None
        self._fd = fd
        self._moved = moved
        self._given = self._done = 0  # bytes: by the callers, and by this thread
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()  # safe in signal handlers
        self._thread = threading.Thread(target=self._run, name="pyemu writer", daemon=True)

    def __call__(self, data: bytes) -> None:
        """Queue ``data``."""
        self._given += len(data)
        self._queue.put(data)

    @property
    def pending(self) -> int:
        """How many bytes are still to be written."""
        return self._given - self._done

    def finish(self, patience: float | None = None) -> bool:
        """Wait until everything is written or dropped; return False if there was no room for ``patience`` seconds.

        Where there is some, this thread has not come to writing yet: the host is busy.
        On the main thread, a signal handler may end the wait by raising an exception.
        """
        finished = threading.Event()
        self._queue.put(finished)
        done = self._done
        while not finished.wait(patience):
            if self._done == done and not select.select([], [self._fd], [], 0)[1]:
                return False
            done = self._done
        return True

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            data = bytearray()
            while isinstance(item, bytes):
                data += item
                if len(data) >= _CHUNK or self._queue.empty():  # only this thread takes items out
                    break
                item = self._queue.get()
            self._write(data)
            if isinstance(item, threading.Event):
                item.set()
            elif item is None:
                return

    def _write(self, data: bytearray) -> None:
        view = memoryview(data)
        while view:
            try:
                written = len(view) if self.error else os.write(self._fd, view[:_CHUNK])
            except BlockingIOError:  # another process made our common pipe or terminal non-blocking
                select.select([], [self._fd], [])
                continue
            except OSError as error:
                self.error, written = error, len(view)
            view = view[written:]
            self._done += written
            self._moved()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.put(None)  # a thread stuck in a write ends with the process
