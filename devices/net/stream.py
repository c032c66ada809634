"""``--net socket:PATH``: a cable between two machines, over a Unix stream socket.

Whoever comes first listens, the other connects, and either may go and come back. A frame is preceded by its length, 4
bytes, big-endian, so that the other machine may be QEMU (``-netdev stream,id=n,addr.type=unix,addr.path=PATH``), with
``server=on`` or not, or the other end passt (``passt -s PATH``). Without anybody there, what the guest sends is lost.
"""

import errno
import fcntl
import logging
import os
import select
import socket
import stat
from contextlib import suppress
from pathlib import Path

from devices.errors import UsageError
from devices.net.base import HEADER, MOST_FRAME
from devices.net.threaded import Threaded

__all__ = ["Frames", "Stream"]

_log = logging.getLogger(__name__)

_LENGTH = 4
#: Bytes read at once, and frames written at once.
_CHUNK, _MOST_WRITTEN = 64 << 10, 16
#: How long (ms) to wait before looking for somebody again.
_AGAIN_MS = 250


class Frames:
    """Takes frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def split(self, data: memoryview) -> list[bytes]:
        """Return the frames that ``data`` completes; raises ValueError for a length that no frame has."""
        pending = self._data
        pending += data
        frames, start = [], 0
        while len(pending) - start >= _LENGTH:
            length = int.from_bytes(pending[start : start + _LENGTH], "big")
            if not 0 < length <= MOST_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            end = start + _LENGTH + length
            if end > len(pending):
                break
            frames.append(bytes(pending[start + _LENGTH : end]))
            start = end
        del pending[:start]
        return frames


class Stream(Threaded):
    """One end of the cable. Raises UsageError for a path that cannot be such a socket's."""

    def __init__(self, path: str | os.PathLike[str], *, mtu: int = 1500, mac: bytes | None = None) -> None:
        self._path = Path(path)
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self._buffer = memoryview(bytearray(_CHUNK))
        self._meet()
        if mac is None and self._peer is not None:  # two cards at one cable need two addresses
            mac = bytes((0x52, 0x54, 0x00, 0x70, 0x79, 0x80))
        super().__init__(mtu=mtu, mac=mac)
        self._start()

    def describe(self) -> str:
        """Say what it is."""
        return f"socket {self._path}, {'nobody there' if self._peer is None else 'connected'}"

    # Finding each other.

    def _meet(self) -> None:
        """Connect to whoever listens, or else listen; raises UsageError if neither can be."""
        try:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"--net socket:{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)  # of two that come at once, one is first
            self._connect_or_listen()
        except OSError as error:
            raise UsageError(f"--net socket:{self._path}: {error.strerror or error}") from error
        finally:
            os.close(directory)

    def _connect_or_listen(self) -> None:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.setblocking(False)
            peer.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            peer.close()
            self._listen()
        except BaseException:
            peer.close()
            raise
        else:
            self._peer = peer

    def _listen(self) -> None:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise OSError(errno.EEXIST, "this is something else than a socket")
            self._path.unlink()  # whoever has left it there is gone
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(str(self._path))
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        self._listener = listener

    # The thread.

    def _run(self) -> None:
        try:
            while not self._closed:
                if self._peer is None:
                    self._wait_for_peer()
                else:
                    self._serve(self._peer)
        finally:
            if self._listener is not None:
                with suppress(OSError):
                    self._path.unlink()  # while it is ours: the other end takes it over from who listens no more
                self._listener.close()
            self._hang_up()

    def _hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def _wait_for_peer(self) -> None:
        """Lose what the guest sends until somebody is there."""
        exchange = self._exchange
        while exchange.take() is not None:
            self._lost += 1
        poll = select.poll()
        poll.register(exchange.bell, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
        if exchange.may_sleep(for_room=False, for_frame=True):
            poll.poll(_AGAIN_MS if self._listener is None else None)
        exchange.awake()
        with suppress(OSError, UsageError):
            if self._listener is None:
                self._meet()
            else:
                self._peer, _ = self._listener.accept()
                self._peer.setblocking(False)

    def _serve(self, peer: socket.socket) -> None:
        """Move frames until the other end hangs up, or says what makes no sense."""
        exchange, frames, pending = self._exchange, Frames(), b""
        try:
            while not self._closed:
                pending = self._send(peer, pending)
                full = exchange.full
                poll = select.poll()
                poll.register(exchange.bell, select.POLLIN)
                if pending or not full:  # else a peer that has hung up would be found again and again
                    poll.register(peer, (0 if full else select.POLLIN) | (select.POLLOUT if pending else 0))
                quiet = exchange.may_sleep(for_room=full, for_frame=not pending)
                found = poll.poll(None if quiet else 0)
                exchange.awake()
                if not full and any(descriptor == peer.fileno() for descriptor, _ in found):
                    self._receive(peer, frames)
        except ValueError as error:
            _log.warning("--net socket:%s: the other end has sent %s, and is cut off", self._path, error)
        except OSError:
            pass  # it is gone
        self._hang_up()

    def _send(self, peer: socket.socket, pending: bytes) -> bytes:
        """Write what is ``pending``, and then the guest's frames; return what the other end has no room for."""
        take = self._exchange.take
        while True:
            if not pending:
                frames: list[bytes] = []
                for _ in range(_MOST_WRITTEN):
                    frame = take()
                    if frame is None:
                        break
                    frames += [len(frame).to_bytes(_LENGTH, "big"), frame]
                if not frames:
                    return b""
                pending = b"".join(frames)
            try:
                pending = pending[peer.send(pending) :]
            except BlockingIOError:
                return pending

    def _receive(self, peer: socket.socket, frames: Frames) -> None:
        try:
            size = peer.recv_into(self._buffer)
        except BlockingIOError:  # there is only room
            return
        if not size:
            raise ConnectionResetError
        for frame in frames.split(self._buffer[:size]):
            if len(frame) < HEADER:
                self._lost += 1
            else:
                self._exchange.give(frame)
        self._exchange.flush()
