"""The debugger's connection: a thread that listens, takes packets apart, and posts each to the machine.

One debugger at a time; another one waits, for the first to leave, in the queue of the system. One that vanishes, or
sends nonsense without end, or does not read its answers, has left: the guest goes on. What it may have here is bounded.

The machine's thread has one packet at a time, however many have come; and while the guest runs, none but C-c: gdb sends
no others then. Who does not begin as a debugger does (a browser, a scanner of ports) never stops the guest.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from devices.errors import UsageError
from emu.debug.packets import INTERRUPT, Framer, frame

if TYPE_CHECKING:
    from emu.debug.stub import Stub

__all__ = ["Server"]

_CHUNK = 4 << 10
#: How long a client may take for its first byte (seconds), and what that can be.
_FIRST_S, _FIRST = 5.0, b"+-$\3"
#: How long a client may leave its last answers unread (seconds).
_FAREWELL_S = 0.5
#: A client whose computer has gone is missed after a minute (seconds, seconds, times).
_KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
#: Answers that wait to be sent (bytes), and packets that wait for the machine, beyond which no more is read.
_MOST_UNSENT, _MOST_UNREAD = 1 << 20, 64
#: What poll says of a client that has gone; not all systems do.
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
#: How long to leave it alone when the system has nothing left for a connection (seconds).
_NO_ROOM_S = 0.2


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
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family, backlog=1)
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
        """End the thread, once what it has to send is sent. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._ring()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._listener.close()
        bell, self._bell = self._bell, -1  # who rings now does so in vain
        for descriptor in (self._wake, bell):
            os.close(descriptor)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it has been rung, or all is closed
            os.write(self._bell, b"x")

    def _run(self) -> None:
        while not self._closed:
            _wait({self._listener.fileno(): select.POLLIN, self._wake: select.POLLIN}, None)
            self._answer_bell()
            try:
                client = None if self._closed else self._listener.accept()[0]
            except BlockingIOError:
                continue
            except OSError:
                time.sleep(_NO_ROOM_S)
                continue
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
            self._talk(client, visit)
        except OSError:
            visit.gone = True
        finally:
            while visit.gone and visit.works:  # what it has said last counts: kill, for example
                visit.go_on()
                _wait({self._wake: select.POLLIN}, _FAREWELL_S)
                self._answer_bell()
                visit.gone = not self._closed
            visit.end()

    def _talk(self, client: socket.socket, visit: "_Visit") -> None:
        """Move bytes between the client and its visit, until either is over."""
        while not visit.gone and (not visit.over or visit.unsent):
            visit.go_on()
            wanted = select.POLLIN * visit.listens | select.POLLOUT * bool(visit.unsent)
            patience = _FAREWELL_S if self._closed else None if visit.began else _FIRST_S
            found = _wait({client.fileno(): wanted | _GONE, self._wake: select.POLLIN}, patience)
            if not found and (self._closed or not visit.began):
                return
            self._answer_bell()
            events = found.get(client.fileno(), 0)
            if events & select.POLLIN and visit.listens:
                self._take(client, visit)
            elif events & _GONE:
                visit.gone = True
            sent = visit.unsent[:_CHUNK]
            if sent:
                with contextlib.suppress(BlockingIOError):
                    del visit.unsent[: client.send(sent)]
            if self._closed:
                visit.over = True

    def _take(self, client: socket.socket, visit: "_Visit") -> None:
        with contextlib.suppress(BlockingIOError):
            piece = client.recv(_CHUNK)
            visit.take(piece)
            visit.gone = not piece


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
        #: Whether it has begun, as a debugger; whether nothing more is to be read; whether nobody is there.
        self.began = self.over = self.gone = False
        self._post, self._meet, self._part, self._ring = post, meet, part, ring
        self._framer = Framer()
        self._packets: deque[bytes | None] = deque()
        self._posted = self._handled = 0
        self._stub: Stub | None = None

    @property
    def listens(self) -> bool:
        """Whether more may come."""
        return len(self._packets) < _MOST_UNREAD and len(self.unsent) <= _MOST_UNSENT and not self.over

    @property
    def works(self) -> bool:
        """Whether there is something to be done before it is over."""
        return self._posted != self._handled or (bool(self._packets) and not self._waits and not self.over)

    def take(self, piece: bytes) -> None:
        """Take bytes from the client."""
        if piece and not self.began:
            if piece[:1] not in _FIRST:
                self.over = True
                return
            self.began = True
            self._do(self._begin)
        self._packets += self._framer.feed(piece)
        self.unsent += self._framer.answer
        self._framer.answer.clear()

    def go_on(self) -> None:
        """Have the next packet handled, if the machine's thread has none; while the guest runs, C-c comes first."""
        if self.over or not self._packets or self._posted != self._handled:
            return
        if not self._waits:
            self._do(partial(self._hand_over, self._packets.popleft()))
        elif INTERRUPT in self._packets:
            self._packets.remove(INTERRUPT)
            self._do(partial(self._hand_over, INTERRUPT))

    @property
    def _waits(self) -> bool:
        return self._stub is not None and self._stub.waits

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

    def _begin(self) -> None:
        self._stub = self._meet(self._send, self._leave)
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


def _wait(wanted: dict[int, int], seconds: float | None) -> dict[int, int]:
    """Return what is there of the events of each descriptor; a process may have more of them than select() can tell."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return dict(poll.poll(None if seconds is None else seconds * 1000))


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
