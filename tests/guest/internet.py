"""What a guest finds on the host's loopback: servers, and networks that lose frames. Nothing leaves this host."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

from devices.net.base import NetBackend, Plug

__all__ = ["Lossy", "digest", "noise", "serving"]

_CHUNK = 1 << 20


def noise(size: int, seed: int = 1) -> Iterator[bytes]:
    """Random bytes, in pieces."""
    chance = Random(seed)
    for start in range(0, size, _CHUNK):
        yield chance.randbytes(min(_CHUNK, size - start))


def digest(size: int) -> str:
    """The hash of the noise."""
    md5 = hashlib.md5()
    for piece in noise(size):
        md5.update(piece)
    return md5.hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    """/SIZE is so much noise; after /SIZE/PART the server dies with that much sent."""

    def do_GET(self) -> None:
        size, _, part = self.path.strip("/").partition("/")
        self.send_response(200)
        self.send_header("Content-Length", size)
        self.end_headers()
        left = int(part or size)
        for piece in noise(int(size)):
            self.wfile.write(piece[:left])
            left -= len(piece)
            if left <= 0:
                break

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[int]:
    """Serve noise over HTTP, on the port that is returned."""
    with _Server((address, 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Lossy(NetBackend):
    """``backend``, on the way to and from which each 20th frame is lost."""

    def __init__(self, backend: NetBackend) -> None:
        self._backend = backend
        self.mtu, self.verified, self.real_time = backend.mtu, backend.verified, backend.real_time
        self._frames = 0

    @property
    def dropped(self) -> int:
        """How many were lost."""
        return self._frames // 20

    def _drops(self) -> bool:
        self._frames += 1
        return self._frames % 20 == 0

    def transmit(self, frame: bytes) -> None:
        if not self._drops():
            self._backend.transmit(frame)

    def fetch(self) -> bytes | None:
        while (frame := self._backend.fetch()) is not None and self._drops():
            pass
        return frame

    def plug(self, plug: Plug) -> None:
        self._backend.plug(plug)

    def unplug(self) -> None:
        self._backend.unplug()

    def ready(self) -> bool:
        return self._backend.ready()

    def describe(self) -> str:
        return f"{self._backend.describe()}, 5 % lost"

    def close(self) -> None:
        self._backend.close()
