"""The debugger's connection: a thread that listens, takes packets apart, and posts each to the machine.

One debugger at a time; another one waits, for the first to leave, in the queue of the system. One that vanishes, or
sends nonsense without end, or does not read its answers, has left: the guest goes on. What it may have here is bounded.
"""

import contextlib
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from devices.errors import UsageError
from emu.debug.packets import Framer, frame

if TYPE_CHECKING:
    from emu.debug.stub import Stub

__all__ = ["Server"]

_CHUNK = 16 << 10
#: How long a client may leave its last answers unread (seconds).
_FAREWELL_S = 0.5
#: A client whose computer has gone is missed after a minute (seconds, seconds, times).
_KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
#: Answers that wait to be sent (bytes), and packets that wait for the machine, at most.
_MOST_UNSENT, _MOST_UNREAD = 1 << 20, 64


class Server:
    """Listens at ``host`` and ``port`` (0: any that is free), and has ``meet(send, leave)`` make a Stub of each client.

    ``post`` has something done on the machine's thread, where ``meet`` and the stub are called, and ``part()`` when
    the client has gone. Raises UsageError if the port cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        post: Callable[[Callable[[], None]], None],
        meet: "Callable[[Callable[[bytes], None], Callable[[], None]], Stub]",
        part: Callable[[], None],
    ) -> None:
        self._post, self._meet, self._part = post, meet, part
        try:
            self._listener = socket.create_server((host, port), backlog=1)
        except (OSError, OverflowError) as error:
            raise UsageError(f"a debugger cannot connect to {host}:{port}: {_reason(error)}") from error
        self._listener.setblocking(False)
        #: Where to connect to.
        self.host, self.port = self._listener.getsockname()[:2]
        self._wake, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pyemu gdb", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, once what it has to send is sent."""
        self._closed = True
        self._ring()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2)
        self._listener.close()
        bell, self._bell = self._bell, -1  # who rings now does so in vain
        for descriptor in (self._wake, bell):
            os.close(descriptor)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it has been rung, or all is closed
            os.write(self._bell, b"x")

    def _run(self) -> None:
        while not self._closed:
            _wait([self._listener.fileno(), self._wake], [], None)
            self._answer_bell()
            with contextlib.suppress(OSError):
                client = None if self._closed else self._listener.accept()[0]
                if client is not None:
                    with client:
                        self._serve(client)

    def _answer_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, _CHUNK)

    def _serve(self, client: socket.socket) -> None:
        client.setblocking(False)
        with contextlib.suppress(OSError, AttributeError):  # the latter: other systems lack some
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                client.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        visit = _Visit(self._post, self._meet, self._part, self._ring)
        try:
            while not visit.over or visit.unsent:
                writing = [client.fileno()] if visit.unsent else []
                reading = [client.fileno()] if visit.listens else []
                patience = _FAREWELL_S if self._closed else None
                readable, writable = _wait([*reading, self._wake], writing, patience)
                if self._closed and not (readable or writable):
                    return
                self._answer_bell()
                if client.fileno() in readable and not self._take(client, visit):
                    return
                sent = visit.unsent[:_CHUNK]
                if sent:
                    with contextlib.suppress(BlockingIOError):
                        del visit.unsent[: client.send(sent)]
                if self._closed:
                    visit.over = True
        except OSError:
            return
        finally:
            visit.end()

    def _take(self, client: socket.socket, visit: "_Visit") -> bool:
        """Take what has come; False if the client has gone."""
        try:
            piece = client.recv(_CHUNK)
        except BlockingIOError:
            return True
        visit.take(piece)
        return bool(piece)


class _Visit:
    """One client: from its first packet to its last."""

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        meet: "Callable[[Callable[[bytes], None], Callable[[], None]], Stub]",
        part: Callable[[], None],
        ring: Callable[[], None],
    ) -> None:
        self.unsent = bytearray()
        self.over = False
        self._post, self._part, self._ring = post, part, ring
        self._framer = Framer()
        self._answers: deque[bytes] = deque()
        self._posted = self._handled = 0
        self._stub: Stub | None = None
        self._do(partial(self._begin, meet))

    @property
    def listens(self) -> bool:
        """Whether more may come."""
        few = self._posted - self._handled < _MOST_UNREAD and len(self.unsent) <= _MOST_UNSENT
        return few and not self.over

    def take(self, piece: bytes) -> None:
        """Take bytes from the client."""
        for packet in self._framer.feed(piece):
            self._do(partial(self._hand_over, packet))
        self.unsent += self._framer.answer
        self._framer.answer.clear()

    def end(self) -> None:
        """The client has gone."""
        self.over = True
        self._do(self._finish)

    def _do(self, message: Callable[[], None]) -> None:
        self._posted += 1

        def handle() -> None:
            try:
                message()
            finally:
                self._handled += 1
                self._ring()

        self._post(handle)

    # ---------------------------------------------------------------- on the machine's thread

    def _begin(self, meet: "Callable[[Callable[[bytes], None], Callable[[], None]], Stub]") -> None:
        self._stub = meet(self._send, self._leave)
        self._stub.no_acks = self._stop_acks

    def _hand_over(self, packet: bytes | None) -> None:
        if self._stub is None or self.over:
            return
        if packet is None:
            self._stub.interrupt()
        else:
            self._stub.packet(packet)

    def _send(self, data: bytes) -> None:
        if len(self.unsent) > _MOST_UNSENT:
            self.over = True
            self.unsent.clear()
        elif not self.over:
            self.unsent += frame(data)
        self._ring()

    def _stop_acks(self) -> None:
        self._framer.acks = False

    def _leave(self) -> None:
        self.over = True
        self._ring()

    def _finish(self) -> None:
        if self._stub is not None:
            self._stub = None
            self._part()


def _wait(reading: Sequence[int], writing: Sequence[int], seconds: float | None) -> tuple[list[int], list[int]]:
    """Return which descriptors are ready. A process with many machines has more than select() can tell apart."""
    poll = select.poll()
    for descriptor in {*reading, *writing}:
        poll.register(descriptor, select.POLLIN * (descriptor in reading) | select.POLLOUT * (descriptor in writing))
    found = poll.poll(None if seconds is None else seconds * 1000)  # what has gone wrong is found out by using it
    readable = [descriptor for descriptor, event in found if descriptor in reading and event & ~select.POLLOUT]
    return readable, [descriptor for descriptor, event in found if descriptor in writing and event & ~select.POLLIN]


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
