"""A debugger of a few lines: gdb's remote protocol over a socket, and a machine that runs beside it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emu import Machine
from emu.debug.packets import frame, unescape

__all__ = ["Client", "debugged", "pc", "running"]


class Client:
    """A connection; ``ask`` sends a packet and returns the answer. It wants no acknowledgements."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        assert self.ask(b"QStartNoAckMode") == b"OK"

    def send(self, data: bytes) -> None:
        self.socket.sendall(frame(data))

    def interrupt(self) -> None:
        self.socket.sendall(b"\3")

    def receive(self) -> bytes:
        """Return the next packet's data."""
        while True:
            start = self._received.find(b"$")
            end = self._received.find(b"#", start)
            if 0 <= start < end and len(self._received) >= end + 3:
                data, self._received = self._received[start + 1 : end], self._received[end + 3 :]
                return unescape(data)
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise EOFError
            self._received += piece

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.receive()

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(b"p%x" % number).decode()), "little")

    def close(self) -> None:
        self.socket.close()


def pc(client: Client) -> int:
    return client.register(32)


@contextmanager
def running(machine: Machine) -> Iterator[None]:
    """Run ``machine`` in a thread of its own, until it is switched off or this is left."""
    over = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            machine.run_until(over.is_set)
        except BaseException as failure:  # noqa: BLE001 - for the test's own thread
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        machine.post(lambda: None)
        thread.join()
        if failures:
            raise failures[0]


@contextmanager
def debugged(image: Path, *, clock: str = "warp", **options: Any) -> Iterator[tuple[Machine, Client]]:
    """Switch on a machine that has a debugger from the start, and stands."""
    with Machine(image, clock=clock, memory="16M", **options) as machine:
        port = machine.gdb(wait=True)
        with running(machine):
            client = Client(port)
            try:
                yield machine, client
            finally:
                client.close()
