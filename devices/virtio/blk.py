"""The virtio block device (virtio 1.2 section 5.2).

A request is a 16-byte header, data in one direction, and a status byte, which is the last writable byte. It is
parsed, checked as a whole, and only then executed; every request with room for a status gets one.

Requests are carried out in order, one at a time and piece by piece: after some pieces the guest has a turn, and while
the host's disk is asked for one. Only those that need the disk flushed finish later, once it is, without delaying those
behind them.
"""

import logging
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

from devices.state import U8, U32, U64, check
from devices.virtio.aside import Aside, at_once
from devices.virtio.device import VirtioDevice
from devices.virtio.disk import Disk
from devices.virtio.image import CHUNK, SECTOR
from devices.virtio.queue import Chain, ChainState, Queue

__all__ = ["BlockDevice", "BlockState"]

# Feature bits (section 5.2.3).
F_SIZE_MAX = 1 << 1
F_SEG_MAX = 1 << 2
F_RO = 1 << 5
F_BLK_SIZE = 1 << 6
F_FLUSH = 1 << 9
F_DISCARD = 1 << 13
F_WRITE_ZEROES = 1 << 14

# Request types (section 5.2.6).
T_IN = 0
T_OUT = 1
T_FLUSH = 4
T_GET_ID = 8
T_DISCARD = 11
T_WRITE_ZEROES = 13

_ANSWERING = frozenset({T_IN, T_GET_ID})  # whose data the device writes

S_OK = 0
S_IOERR = 1
S_UNSUPP = 2

_HEADER = struct.Struct("<IIQ")  # type, reserved, sector
_SEGMENT = struct.Struct("<QII")  # sector, number of sectors, flags; of DISCARD and WRITE_ZEROES
_SEGMENT_UNMAP = 0x1
_ID_BYTES = 20

QUEUE_SIZE = 256
# Limits of one request. The driver is told them, and larger requests are refused.
MAX_SEGMENTS = QUEUE_SIZE - 2  # header and status take a descriptor each
MAX_SEGMENT_BYTES = 256 << 10
MAX_DATA_BYTES = MAX_SEGMENTS * MAX_SEGMENT_BYTES
MAX_DISCARD_SEGMENTS = 32
MAX_DISCARD_SECTORS = (1 << 30) // SECTOR
MAX_WRITE_ZEROES_SEGMENTS = 1
MAX_WRITE_ZEROES_SECTORS = (16 << 20) // SECTOR
#: Bytes moved before the guest has a turn, which is also the most in one piece: 0.05 ms if they are in the host's
#: cache. Every request counts for so many more.
AT_ONCE, LEAST = CHUNK, 16 << 10
DISCARD_ALIGNMENT_SECTORS = 8  # host file systems free space in blocks of 4 KiB

# The configuration space (section 5.2.4) up to write_zeroes_may_unmap; fields of features not offered are zero.
_CONFIG = struct.Struct("<QII4xI8x4xIIIIIB3x")

#: A part of the disk, or of its serial: its offset and size in bytes, and flags.
_Range = tuple[int, int, int]

#: A request carried out except for the flush.
_Unflushed = tuple[Queue, Chain]

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """A request is refused with this status. Never leaves this module."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class RequestState(TypedDict):
    """A request being carried out; see _Request."""

    chain: ChainState
    kind: U32
    status: U8
    position: U64
    ranges: list[tuple[U64, U32, U32]]


class BlockState(TypedDict):
    """The request in progress, and those for which the disk has yet to be flushed."""

    request: RequestState | None
    unflushed: list[ChainState]


class _Request:
    """A request that was checked and is being carried out: ``ranges`` are still to be dealt with, in order."""

    __slots__ = ("chain", "fetched", "kind", "position", "ranges", "status")

    def __init__(self, chain: Chain, kind: int, ranges: list[_Range], status: int = S_OK, position: int = 0) -> None:
        self.chain = chain
        self.kind = kind
        self.ranges = ranges
        self.status = status
        self.position = position  # in its data
        self.fetched: bytes | bytearray | OSError | None = None  # the next piece of a read

    @property
    def written(self) -> int:
        """How much of its data has been written for the guest."""
        return self.position if self.status == S_OK and self.kind in _ANSWERING else 0

    def state(self) -> RequestState:
        return {
            "chain": self.chain.state(),
            "kind": self.kind,
            "status": self.status,
            "position": self.position,
            "ranges": self.ranges.copy(),
        }


class BlockDevice(VirtioDevice):
    """A virtio disk; ``serial`` is what GET_ID returns, at most 20 ASCII characters.

    ``aside`` flushes the disk, and ``fetch`` reads what is not in the host's cache; without it that is read at once,
    however long it takes.
    """

    device_id = 2
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, disk: Disk, serial: str = "pyemu", aside: Aside = at_once, fetch: Aside | None = None) -> None:
        self._disk = disk
        self._aside, self._fetch = aside, fetch
        self._serial = serial.encode("ascii", "replace")[:_ID_BYTES].ljust(_ID_BYTES, b"\0")
        self._queue: Queue | None = None
        self._request: _Request | None = None  # in progress
        self._fetching = False
        self._being_flushed: list[_Unflushed] | None = None
        self._unflushed: list[_Unflushed] = []  # came after the flush in progress began, and need another
        self._negotiated = 0
        self.features = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH
        self.features |= F_RO if disk.read_only else F_DISCARD | F_WRITE_ZEROES
        self._ranges_of: dict[int, Callable[[Chain, int], list[_Range]]] = {
            T_IN: self._check_read,
            T_OUT: self._check_write,
            T_FLUSH: lambda _chain, _sector: [],
            T_GET_ID: self._check_get_id,
            T_DISCARD: self._check_discard,
            T_WRITE_ZEROES: self._check_write_zeroes,
        }
        self._pieces: dict[int, Callable[[_Request, int, int, int], None]] = {
            T_IN: self._read,
            T_OUT: self._write,
            T_GET_ID: self._get_id,
            T_DISCARD: self._discard,
            T_WRITE_ZEROES: self._write_zeroes,
        }

    def config(self) -> bytes:
        """Return struct virtio_blk_config."""
        return _CONFIG.pack(
            self._disk.size // SECTOR,
            MAX_SEGMENT_BYTES,
            MAX_SEGMENTS,
            SECTOR,
            MAX_DISCARD_SECTORS,
            MAX_DISCARD_SEGMENTS,
            DISCARD_ALIGNMENT_SECTORS,
            MAX_WRITE_ZEROES_SECTORS,
            MAX_WRITE_ZEROES_SEGMENTS,
            1,  # write_zeroes_may_unmap
        )

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:  # noqa: ARG002
        """Serve requests from now on; without F_FLUSH every write is flushed at once (section 5.2.6.2)."""
        self.reset()
        self._queue = queues[0]
        self._negotiated = features

    def notify(self, index: int) -> None:  # noqa: ARG002 (there is only one queue)
        """Carry out what is queued, in order; whatever takes long continues later."""
        queue = self._queue
        if queue is None:
            return
        if self._unflushed and self._being_flushed is None:  # only in a machine that has just been restored
            self._flush()
        left = AT_ONCE
        while left > 0:
            request = self._request
            if request is None:
                chain = queue.pop()
                if chain is None:
                    break
                self._request = request = self._begin(chain)
                left -= LEAST
            if request.ranges:
                if request.kind == T_IN and self._fetch is not None and not self._is_there(request, self._fetch):
                    break
                left -= self._go_on(request)
            else:
                self._request = None
                left -= self._finish(queue, request)
        else:
            queue.later()
        queue.signal()

    def reset(self) -> None:
        """Stop; the rest of the request in progress is not carried out."""
        self._queue = self._request = None
        self._unflushed.clear()

    def state(self) -> BlockState:
        """Return the state, without the disk's. What is being flushed counts as not yet flushed."""
        waiting = [*(self._being_flushed or ()), *self._unflushed]
        return {
            "request": None if self._request is None else self._request.state(),
            "unflushed": [chain.state() for queue, chain in waiting if queue is self._queue],
        }

    def restore(self, state: BlockState) -> None:
        """Go on with the requests that are in ``state``; those to be flushed are, after the guest has had a turn."""
        queue, request, unflushed = self._queue, state["request"], state["unflushed"]
        self._request, self._unflushed, self._being_flushed = None, [], None
        if queue is None:
            check(request is None and not unflushed, "a request of a disk that nobody uses")
            return
        self._unflushed = [(queue, queue.resume_chain(chain)) for chain in unflushed]
        if request is not None:
            self._request = self._resumed(queue, request)
        if unflushed or request is not None:  # which may have waited for the host's disk
            queue.later()

    def _resumed(self, queue: Queue, state: RequestState) -> _Request:
        chain, kind, ranges = queue.resume_chain(state["chain"]), state["kind"], state["ranges"].copy()
        request = _Request(chain, kind, ranges, state["status"], state["position"])
        room = len(chain.writable) - 1
        if not ranges:
            check(request.written <= max(room, 0), "the answer to a request of a disk")
            return request
        size = sum(size for _, size, _ in ranges)
        data = {T_OUT: len(chain.readable) - _HEADER.size, T_IN: room, T_GET_ID: room}
        check(
            kind in self._pieces
            and (kind not in data or request.position + size <= data[kind])
            and len(ranges) <= MAX_DISCARD_SEGMENTS
            and all(size and offset + size <= self._disk.size for offset, size, _ in ranges),
            "a request of a disk",
        )
        return request

    # A request from its arrival to its answer.

    def _begin(self, chain: Chain) -> _Request:
        """Check a request as a whole; one that is refused has nothing left to be done."""
        room = len(chain.writable) - 1  # for data, before the status
        if room < 0 or len(chain.readable) < _HEADER.size:
            return _Request(chain, T_IN, [], S_IOERR)
        kind, _, sector = _HEADER.unpack(chain.readable.read(0, _HEADER.size))
        ranges_of = self._ranges_of.get(kind)
        if ranges_of is None:
            return _Request(chain, kind, [], S_UNSUPP)
        try:
            return _Request(chain, kind, ranges_of(chain, sector))
        except _RefusedError as refusal:
            return _Request(chain, kind, [], refusal.status)

    def _go_on(self, request: _Request) -> int:
        """Carry out the next piece of a request; return how many bytes' worth of work that was."""
        offset, size, flags = request.ranges[0]
        whole = request.kind == T_DISCARD
        piece = size if whole else min(size, CHUNK)
        try:
            self._pieces[request.kind](request, offset, piece, flags)
        except OSError as error:
            _log.warning("disk request %d at sector %d failed: %s", request.kind, offset // SECTOR, error)
            request.status = S_IOERR
            request.ranges.clear()
            return 0
        request.position += piece
        if piece == size:
            del request.ranges[0]
        else:
            request.ranges[0] = (offset + piece, size - piece, flags)
        return AT_ONCE if whole else piece

    def _is_there(self, request: _Request, fetch: Aside) -> bool:
        """Whether the next piece of a read is there; else it is fetched, and the request goes on when it has come.

        Only one is fetched at a time, whatever was reset meanwhile, so no driver can pile them up.
        """
        if request.fetched is None and not self._fetching:
            offset, size, _ = request.ranges[0]
            size = min(size, CHUNK)
            try:
                request.fetched = self._disk.read_cached(offset, size)
            except OSError as error:
                request.fetched = error
            if request.fetched is None:
                self._fetching = True
                piece: list[bytes | bytearray] = []
                fetch(lambda: piece.append(self._disk.read(offset, size)), partial(self._fetched, request, piece))
        return request.fetched is not None

    def _fetched(self, request: _Request, piece: list[bytes | bytearray], error: OSError | None) -> None:
        self._fetching, request.fetched = False, error or piece[0]
        if self._queue is not None:
            self._queue.later()

    def _finish(self, queue: Queue, request: _Request) -> int:
        """Return a request, now or when the disk has been flushed; return how many bytes' worth of work that was."""
        chain = request.chain
        if request.status != S_OK or not self._wants_flush(request.kind):
            _answer(queue, chain, request.status, request.written)
            return 0
        self._unflushed.append((queue, chain))
        if self._being_flushed is None:
            self._flush()
        return AT_ONCE

    # Flushing: one at a time, on behalf of all requests carried out before it began, so no driver can pile flushes up.

    def _wants_flush(self, kind: int) -> bool:
        """Whether a request is complete only once the disk is flushed (sections 5.2.6.2 and 5.2.5.2)."""
        return kind == T_FLUSH or (kind in (T_OUT, T_WRITE_ZEROES) and not self._negotiated & F_FLUSH)

    def _flush(self) -> None:
        requests = self._being_flushed = self._unflushed
        self._unflushed = []
        self._aside(self._disk.flush, lambda error: self._flushed(requests, error))

    def _flushed(self, requests: list[_Unflushed], error: OSError | None) -> None:
        if error is not None:
            _log.warning("flushing the disk failed: %s", error)
        for queue, chain in requests:  # if the queue has been reset, nothing reaches the guest
            _answer(queue, chain, S_OK if error is None else S_IOERR, 0)
            queue.signal()
        if self._being_flushed is requests:
            self._being_flushed = None
            if self._unflushed:
                self._flush()

    # The pieces: each moves ``size`` bytes of a request, or deals with as many of the disk.

    def _read(self, request: _Request, offset: int, size: int, flags: int) -> None:  # noqa: ARG002 (all pieces alike)
        data, request.fetched = request.fetched, None
        if isinstance(data, OSError):
            raise data
        request.chain.writable.write(request.position, self._disk.read(offset, size) if data is None else data)

    def _write(self, request: _Request, offset: int, size: int, flags: int) -> None:  # noqa: ARG002
        self._disk.write(offset, request.chain.readable.read(_HEADER.size + request.position, size))

    def _get_id(self, request: _Request, offset: int, size: int, flags: int) -> None:  # noqa: ARG002
        request.chain.writable.write(request.position, self._serial[offset : offset + size])

    def _discard(self, request: _Request, offset: int, size: int, flags: int) -> None:  # noqa: ARG002
        self._disk.discard(offset, size)

    def _write_zeroes(self, request: _Request, offset: int, size: int, flags: int) -> None:  # noqa: ARG002
        self._disk.write_zeroes(offset, size, may_unmap=bool(flags & _SEGMENT_UNMAP))

    # The checks: each returns what a request is about. A refused one never reaches the disk.

    def _check_read(self, chain: Chain, sector: int) -> list[_Range]:
        return self._checked_transfer(sector, len(chain.writable) - 1)

    def _check_write(self, chain: Chain, sector: int) -> list[_Range]:
        self._check_writable()
        return self._checked_transfer(sector, len(chain.readable) - _HEADER.size)

    def _check_get_id(self, chain: Chain, sector: int) -> list[_Range]:  # noqa: ARG002
        return _unless_empty(0, min(len(chain.writable) - 1, _ID_BYTES))

    def _check_discard(self, chain: Chain, sector: int) -> list[_Range]:  # noqa: ARG002
        self._check_negotiated(F_DISCARD)
        return self._checked_segments(chain, MAX_DISCARD_SEGMENTS, MAX_DISCARD_SECTORS, flags=0)

    def _check_write_zeroes(self, chain: Chain, sector: int) -> list[_Range]:  # noqa: ARG002
        self._check_negotiated(F_WRITE_ZEROES)
        return self._checked_segments(chain, MAX_WRITE_ZEROES_SEGMENTS, MAX_WRITE_ZEROES_SECTORS, flags=_SEGMENT_UNMAP)

    def _check_writable(self) -> None:
        if self._disk.read_only:
            raise _RefusedError(S_IOERR)

    def _check_negotiated(self, feature: int) -> None:
        self._check_writable()
        if not self._negotiated & feature:
            raise _RefusedError(S_UNSUPP)

    def _checked_transfer(self, sector: int, size: int) -> list[_Range]:
        """Check the start and the length of a transfer."""
        start = sector * SECTOR
        if size % SECTOR or size > MAX_DATA_BYTES or start + size > self._disk.size:
            raise _RefusedError(S_IOERR)
        return _unless_empty(start, size)

    def _checked_segments(self, chain: Chain, max_segments: int, max_sectors: int, *, flags: int) -> list[_Range]:
        """Read and check all ranges of a DISCARD or WRITE_ZEROES."""
        size = len(chain.readable) - _HEADER.size
        count, rest = divmod(size, _SEGMENT.size)
        if rest or not 0 < count <= max_segments:
            raise _RefusedError(S_IOERR)
        segments: list[_Range] = []
        for sector, sectors, segment_flags in _SEGMENT.iter_unpack(chain.readable.read(_HEADER.size, size)):
            if segment_flags & ~flags:
                raise _RefusedError(S_UNSUPP)
            if sectors > max_sectors or (sector + sectors) * SECTOR > self._disk.size:
                raise _RefusedError(S_IOERR)
            segments += _unless_empty(sector * SECTOR, sectors * SECTOR, segment_flags)
        return segments


def _unless_empty(offset: int, size: int, flags: int = 0) -> list[_Range]:
    return [(offset, size, flags)] if size else []


def _answer(queue: Queue, chain: Chain, status: int, written: int) -> None:
    """Write the status of a request and return it, with the number of bytes written without a gap from the first."""
    room = len(chain.writable) - 1
    if room < 0:  # the driver does not want to know
        queue.push(chain, 0)
        return
    chain.writable.write(room, bytes((status,)))
    # If data is missing before it, the status is not part of what was written without a gap (section 2.7.8.2).
    queue.push(chain, written + (written == room))
