"""The virtio-fs device (virtio 1.2 section 5.11): its queues, and the requests that take long.

A request is answered at once, unless it reads or writes: that is done piece by piece, one request at a time, with the
guest having a turn after some pieces, and while the host's disk is asked for one. What waits for the host's disk alone
(FSYNC, SYNCFS, FALLOCATE) is done aside, one at a time, without delaying the others.

Files are forgotten by the thousands, and no program waits for that: once there is a request to forget one, more are
collected for a while, without a notification and an interrupt for each.
"""

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypedDict

from devices.state import U32, U64, check
from devices.virtio.aside import Aside, at_once
from devices.virtio.device import VirtioDevice
from devices.virtio.fs import calls, wire
from devices.virtio.fs.export import Export, ExportState
from devices.virtio.fs.files import OpenFile
from devices.virtio.fs.server import Header, MalformedError, Server, Transfer
from devices.virtio.pagecache import read_ahead, read_cached
from devices.virtio.queue import Chain, ChainState, Queue

__all__ = ["FsDevice", "FsState"]

HIPRIO, REQUESTS = 0, 1
HIPRIO_SIZE, REQUESTS_SIZE = 128, 1024

#: Bytes moved before the guest has a turn, and in one piece; every other request counts as so many.
AT_ONCE, PIECE, LEAST = 128 << 10, 64 << 10, 16 << 10
#: The most that is read of a request beside the data of a WRITE: it has room for two names.
_LONGEST_BODY = 16 << 10
#: Requests that are no longer than this are read at once.
_SHORT = 512

#: For how long, ns of guest time, requests to forget files are collected, and how many at most.
_FORGET_NS, _FORGET_COUNT = 10_000_000, 64
#: So many of those requests, and of the files in them, are dealt with before the guest has a turn.
_FORGOTTEN_AT_ONCE = 16

#: What nobody waits for, and what takes longer.
_FORGET = frozenset({wire.FORGET, wire.BATCH_FORGET})
_LONG = frozenset({wire.READ, wire.WRITE, wire.FSYNC, wire.FSYNCDIR, wire.SYNCFS, wire.FALLOCATE})

_CONFIG_TAG = 36
_DATA = wire.IN_HEADER.size + wire.WRITE_IN.size  # where that of a WRITE begins

_log = logging.getLogger(__name__)


class RequestState(TypedDict):
    """A request that has begun, and how many bytes it has read or written."""

    chain: ChainState
    position: U32


class FsState(TypedDict):
    """The requests that have begun, those that wait for the host's disk first; and what the guest knows.

    ``forgotten`` are nodes that it will soon have forgotten, each with how many lookups of it.
    """

    requests: list[RequestState]
    forgotten: list[tuple[U64, U64]]
    export: ExportState


class _Request:
    """A READ or a WRITE, ``position`` bytes of which are done."""

    __slots__ = ("chain", "fetched", "header", "position", "transfer")

    def __init__(self, chain: Chain, header: Header, transfer: Transfer, position: int = 0) -> None:
        self.chain = chain
        self.header = header
        self.transfer = transfer
        self.position = position
        self.fetched: bytes | bytearray | OSError | None = None  # the next piece of a READ

    @property
    def piece(self) -> int:
        """How many bytes the next piece has."""
        return min(self.transfer.size - self.position, PIECE)


class _Waiting(NamedTuple):
    """A request that waits for the host's disk: its answer, if all goes well, and the file that it needs."""

    queue: Queue
    chain: Chain
    header: Header
    work: Callable[[], None]
    answer: bytes = b""
    position: int = 0
    file: OpenFile | None = None


class FsDevice(VirtioDevice):
    """A shared directory, ``export``.

    ``aside`` waits for the host's disk, and ``fetch`` reads what is not in the host's cache; without it that is read at
    once, however long it takes.
    """

    device_id = 26
    queue_sizes = (HIPRIO_SIZE, REQUESTS_SIZE)

    def __init__(self, export: Export, aside: Aside = at_once, fetch: Aside | None = None) -> None:
        self.export = export
        self._aside, self._fetch = aside, fetch
        self._server = Server(export)
        self._queues: Sequence[Queue] = ()
        self._request: _Request | None = None
        self._fetching = False
        self._waiting: deque[_Waiting] = deque()  # the first one is being done
        #: Of a machine that was restored: to begin with, each at a position.
        self._resumed: deque[tuple[Chain, int]] = deque()
        #: Nodes, each with how many lookups of it: of one request at most.
        self._forgotten: deque[tuple[int, int]] = deque()
        self._config = export.tag.encode().ljust(_CONFIG_TAG, b"\0") + (1).to_bytes(4, "little")

    def config(self) -> bytes:
        """Return struct virtio_fs_config: the tag, and the number of request queues."""
        return self._config

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:  # noqa: ARG002
        """Serve requests from now on."""
        self.reset()
        self._queues = queues

    def notify(self, index: int) -> None:
        """Answer what is queued; whatever takes long continues later."""
        if not self._queues:
            return
        if index == HIPRIO:
            self._take_forgotten(self._queues[HIPRIO])
        else:
            self._serve(self._queues[REQUESTS])

    def reset(self) -> None:
        """Stop; the rest of the request in progress is not carried out, and nothing is open or known any longer."""
        self._queues = ()
        self._drop_requests()
        self.export.forget()

    # ---------------------------------------------------------------- requests

    def _take_forgotten(self, queue: Queue) -> None:
        left = _FORGOTTEN_AT_ONCE
        while left:
            if self._forgotten:
                self._forget_next()
            elif (chain := queue.pop()) is None:
                break
            else:
                header, body = _read(chain)
                if header is not None:
                    self._forgotten.extend(self._server.forgotten(header.opcode, header.node, body))
                queue.push(chain, 0)
            left -= 1
        if not left:
            queue.later()
        elif left < _FORGOTTEN_AT_ONCE:  # more will come
            queue.kick_after(_FORGET_COUNT)
            queue.later(_FORGET_NS)
        queue.signal()

    def _forget_next(self) -> None:
        self.export.tree.forget(*self._forgotten.popleft())

    def _serve(self, queue: Queue) -> None:
        left = AT_ONCE
        while left > 0:
            if self._forgotten:
                left -= AT_ONCE // _FORGOTTEN_AT_ONCE
                self._forget_next()
                continue
            if self._request is not None:
                if self._fetch is not None and not self._is_there(self._request, self._fetch):
                    break
                left -= self._go_on(queue, self._request)
                continue
            if self._resumed:
                self._begin(queue, *self._resumed.popleft())
                continue
            chain = queue.pop()
            if chain is None:
                break
            left -= LEAST
            self._begin(queue, chain)
        else:
            queue.later()
        queue.signal()

    def _begin(self, queue: Queue, chain: Chain, position: int = 0) -> None:
        header, body = _read(chain)
        if header is None:
            queue.push(chain, 0)
        elif header.opcode in _FORGET:
            self._forgotten.extend(self._server.forgotten(header.opcode, header.node, body))
            queue.push(chain, 0)
        else:
            try:
                answer = self._start(queue, chain, header, body, position)
            except OSError as error:
                _refuse(queue, chain, header, error)
            except (MalformedError, ValueError, OverflowError):  # the latter: no system call takes such a number
                _refuse(queue, chain, header, OSError(errno.EINVAL, ""))
            else:
                if answer is not None:
                    _answer(queue, chain, header, answer)

    def _start(self, queue: Queue, chain: Chain, header: Header, body: bytes, position: int) -> bytes | None:
        """Return the answer to a request, or None where that takes longer."""
        opcode, server = header.opcode, self._server
        if opcode not in _LONG:
            return server.answer(header, body)
        if opcode == wire.READ:
            transfer = server.reading(body)
            room = max(0, len(chain.writable) - wire.OUT_HEADER.size)
            if room < transfer.size:
                transfer = transfer._replace(size=room)
            self._request = _Request(chain, header, transfer, min(position, transfer.size))
        elif opcode == wire.WRITE:
            transfer = server.writing(body)
            if len(chain.readable) < _DATA + transfer.size:
                raise MalformedError
            self._request = _Request(chain, header, transfer, min(position, transfer.size))
        elif opcode in {wire.FSYNC, wire.FSYNCDIR}:
            file, data_only = server.syncing(body)
            self._wait(_Waiting(queue, chain, header, partial(_sync, file, data_only), file=file))
        elif opcode == wire.SYNCFS:
            if not self.export.changed:
                return b""
            self.export.changed = False
            self._wait(_Waiting(queue, chain, header, partial(calls.syncfs, self.export.tree.root_descriptor)))
        else:
            file, *what = server.allocating(body)
            self._wait(_Waiting(queue, chain, header, partial(self.export.allocate, file, *what), file=file))
        return None

    def _go_on(self, queue: Queue, request: _Request) -> int:
        """Carry out the next piece of a request; return how many bytes' worth of work that was."""
        chain, transfer = request.chain, request.transfer
        piece, done = request.piece, 0
        try:
            if piece:
                done = (_read_piece if request.header.opcode == wire.READ else _write_piece)(request, piece)
        except OSError as error:
            if not request.position:  # otherwise the guest learns how much was done
                self._request = None
                _refuse(queue, chain, request.header, error)
                return LEAST
        request.position += done
        if done < piece or request.position == transfer.size:  # at the end of the file or of a full disk, or all of it
            self._request = None
            self._finish(queue, request)
        return max(done, LEAST)

    def _is_there(self, request: _Request, fetch: Aside) -> bool:
        """Whether the next piece is there, if it is to be read; else it is fetched, and that goes on when it has come.

        Only one is fetched at a time, whatever was reset meanwhile, so no driver can pile them up.
        """
        size = request.piece
        if request.header.opcode != wire.READ or not size or request.fetched is not None:
            return True
        if self._fetching:
            return False
        file, offset = request.transfer.file, request.transfer.offset + request.position
        try:
            descriptor = file.fileno()
            request.fetched = read_cached(descriptor, offset, size)
        except OSError as error:
            request.fetched = error
        if request.fetched is None:
            self._fetching = True
            file.hold()
            piece: list[bytes] = []
            fetch(lambda: piece.append(read_ahead(descriptor, offset, size)), partial(self._fetched, request, piece))
        return request.fetched is not None

    def _fetched(self, request: _Request, piece: list[bytes], error: OSError | None) -> None:
        request.transfer.file.let_go()
        self._fetching, request.fetched = False, error or piece[0]
        if self._queues:
            self._queues[REQUESTS].later()

    def _finish(self, queue: Queue, request: _Request) -> None:
        chain, header, transfer = request.chain, request.header, request.transfer
        if header.opcode == wire.READ:
            length = wire.OUT_HEADER.size + request.position
            chain.writable.write(0, wire.OUT_HEADER.pack(length, 0, header.unique))
            queue.push(chain, length)
            return
        answer = wire.WRITE_OUT.pack(request.position)
        if transfer.sync:
            work = partial(_sync, transfer.file, True)
            self._wait(_Waiting(queue, chain, header, work, answer, request.position, transfer.file))
        else:
            _answer(queue, chain, header, answer)

    # ---------------------------------------------------------------- what waits for the host's disk

    def _wait(self, waiting: _Waiting) -> None:
        if waiting.file is not None:
            waiting.file.fileno()
            waiting.file.hold()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._do_next()

    def _do_next(self) -> None:
        waiting = self._waiting[0]
        self._aside(waiting.work, lambda error: self._done(waiting, error))

    def _done(self, waiting: _Waiting, error: OSError | None) -> None:
        if waiting.file is not None:
            waiting.file.let_go()
        if not self._waiting or self._waiting[0] is not waiting:
            return  # the device was reset, or restored
        self._waiting.popleft()
        if error is None:
            _answer(waiting.queue, waiting.chain, waiting.header, waiting.answer)
        else:
            _refuse(waiting.queue, waiting.chain, waiting.header, error)
        waiting.queue.signal()
        if self._waiting:
            self._do_next()

    def _drop_requests(self) -> None:
        """Forget them; the file that is being synchronised is let go when that is done."""
        dropped = list(self._waiting)[1:]
        self._request = None
        self._waiting.clear()
        self._resumed.clear()
        self._forgotten.clear()
        for waiting in dropped:
            if waiting.file is not None:
                waiting.file.let_go()

    # ---------------------------------------------------------------- state

    def state(self) -> FsState:
        """Return the state. What is being synchronised counts as waiting for that."""
        begun = [(one.chain, one.position) for one in self._waiting] + list(self._resumed)
        if self._request is not None:
            begun.append((self._request.chain, self._request.position))
        return {
            "requests": [{"chain": chain.state(), "position": position} for chain, position in begun],
            "forgotten": list(self._forgotten),
            "export": self.export.state(),
        }

    def restore(self, state: FsState) -> None:
        """Go on with the requests that are in ``state``: they are checked anew, after the guest has had a turn."""
        self._drop_requests()
        self.export.restore(state["export"])
        requests, forgotten = state["requests"], state["forgotten"]
        check(bool(self._queues) or not (requests or forgotten), "a request of a share that nobody uses")
        self._forgotten.extend(forgotten)
        for one in requests:
            self._resumed.append((self._queues[REQUESTS].resume_chain(one["chain"]), one["position"]))
        if requests:
            self._queues[REQUESTS].later()


def _read(chain: Chain) -> tuple[Header | None, bytes]:
    """Read a request, but for what a WRITE is to write: its header, and what follows; no header if there is none."""
    size = len(chain.readable)
    if size < wire.IN_HEADER.size:
        return None, b""
    data = chain.readable.read(0, size if size <= _SHORT else _DATA)
    header = Header._make(wire.IN_HEADER.unpack_from(data))
    if header.opcode != wire.WRITE and size > _SHORT:
        data += chain.readable.read(_DATA, min(size, _LONGEST_BODY) - _DATA)
    return header, data[wire.IN_HEADER.size :]


def _answer(queue: Queue, chain: Chain, header: Header, answer: bytes) -> None:
    """Return a request with its answer."""
    length = wire.OUT_HEADER.size + len(answer)
    if length > len(chain.writable):
        _refuse(queue, chain, header, OSError(errno.EIO, "no room for the answer"))
        return
    chain.writable.write(0, wire.OUT_HEADER.pack(length, 0, header.unique) + answer)
    queue.push(chain, length)


def _refuse(queue: Queue, chain: Chain, header: Header, error: OSError) -> None:
    """Return a request with the number of an error."""
    _log.debug("%s of file %d: %s", wire.OPCODES.get(header.opcode, header.opcode), header.node, error)
    number = error.errno or errno.EIO
    if number == errno.EMFILE:  # which would be the guest's program's own fault
        number = errno.ENFILE
    length = wire.OUT_HEADER.size
    if length > len(chain.writable):
        queue.push(chain, 0)
        return
    chain.writable.write(0, wire.OUT_HEADER.pack(length, -number, header.unique))
    queue.push(chain, length)


def _read_piece(request: _Request, size: int) -> int:
    transfer, position = request.transfer, request.position
    data, request.fetched = request.fetched, None
    if data is None:
        data = os.pread(transfer.file.fileno(), size, transfer.offset + position)
    elif isinstance(data, OSError):
        raise data
    request.chain.writable.write(wire.OUT_HEADER.size + position, data)
    return len(data)


def _write_piece(request: _Request, size: int) -> int:
    transfer, position = request.transfer, request.position
    data = request.chain.readable.read(_DATA + position, size)
    descriptor = transfer.file.fileno()
    if transfer.append:
        return os.pwritev(descriptor, [data], 0, os.RWF_APPEND)
    return os.pwrite(descriptor, data, transfer.offset + position)


def _sync(file: OpenFile, data_only: bool) -> None:
    (os.fdatasync if data_only else os.fsync)(file.fileno())
