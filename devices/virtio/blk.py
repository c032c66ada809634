"""The virtio block device (virtio 1.2 section 5.2).

A request is a 16-byte header, data in one direction, and a status byte, which is the last writable byte. It is
parsed, checked as a whole, and only then executed; every request with room for a status gets one.

Requests are carried out in order, one at a time and piece by piece: after some pieces the guest has a turn. Only those
that need the disk flushed finish later, once it is, without delaying those behind them.
"""

import logging
import struct
from collections.abc import Callable, Generator, Sequence

from devices.virtio.aside import Aside, at_once
from devices.virtio.device import VirtioDevice
from devices.virtio.disk import CHUNK, SECTOR, Disk, chunks
from devices.virtio.queue import Chain, Queue

__all__ = ["BlockDevice"]

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
#: cache. Every request counts as at least a page.
AT_ONCE, LEAST = CHUNK, 4 << 10
DISCARD_ALIGNMENT_SECTORS = 8  # host file systems free space in blocks of 4 KiB

# The configuration space (section 5.2.4) up to write_zeroes_may_unmap; fields of features not offered are zero.
_CONFIG = struct.Struct("<QII4xI8x4xIIIIIB3x")

#: A request being carried out: each ``next`` is a step, and yields how many bytes it has moved.
_Steps = Generator[int, None, int]

#: A request carried out except for the flush: its queue and chain, and how much was written to its data.
_Unflushed = tuple[Queue, Chain, int]

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """A request is refused with this status. Never leaves this module."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class BlockDevice(VirtioDevice):
    """A virtio disk; ``serial`` is what GET_ID returns, at most 20 ASCII characters; ``aside`` flushes the disk."""

    device_id = 2
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, disk: Disk, serial: str = "pyemu", aside: Aside = at_once) -> None:
        self._disk = disk
        self._aside = aside
        self._serial = serial.encode("ascii", "replace")[:_ID_BYTES].ljust(_ID_BYTES, b"\0")
        self._queue: Queue | None = None
        self._request: Generator[int, None, None] | None = None  # in progress
        self._flushing = False
        self._unflushed: list[_Unflushed] = []  # came after the flush in progress began, and need another
        self._negotiated = 0
        self.features = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH
        self.features |= F_RO if disk.read_only else F_DISCARD | F_WRITE_ZEROES
        self._handlers: dict[int, Callable[[Chain, int, int], _Steps]] = {
            T_IN: self._read,
            T_OUT: self._write,
            T_FLUSH: self._nothing,
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
        self._queue = queues[0]
        self._negotiated = features

    def notify(self, index: int) -> None:  # noqa: ARG002 (there is only one queue)
        """Carry out what is queued, in order; whatever takes long continues later."""
        queue = self._queue
        if queue is None:
            return
        left = AT_ONCE
        while left > 0:
            if self._request is None:
                chain = queue.pop()
                if chain is None:
                    break
                self._request = self._serve(queue, chain)
                left -= LEAST
            moved = next(self._request, None)
            if moved is None:
                self._request = None
            else:
                left -= moved
        else:
            queue.later()
        queue.signal()

    def reset(self) -> None:
        """Stop; the rest of the request in progress is not carried out."""
        self._queue = self._request = None
        self._unflushed.clear()

    def _serve(self, queue: Queue, chain: Chain) -> Generator[int, None, None]:
        """Carry out one request and return it, at once or when the disk has been flushed."""
        room = len(chain.writable) - 1  # for data, before the status
        if room < 0:  # the driver does not want to know
            queue.push(chain, 0)
            return
        kind, status, written = yield from self._execute(chain, room)
        if status == S_OK and self._wants_flush(kind):
            self._unflushed.append((queue, chain, written))
            if not self._flushing:
                self._flush()
            yield AT_ONCE
        else:
            _answer(queue, chain, status, written)

    def _execute(self, chain: Chain, room: int) -> Generator[int, None, tuple[int, int, int]]:
        """Execute one request; return its type, its status, and how many of its ``room`` data bytes were written."""
        if len(chain.readable) < _HEADER.size:
            return T_IN, S_IOERR, 0
        kind, _, sector = _HEADER.unpack(chain.readable.read(0, _HEADER.size))
        handler = self._handlers.get(kind)
        if handler is None:
            return kind, S_UNSUPP, 0
        try:
            return kind, S_OK, (yield from handler(chain, sector, room))
        except _RefusedError as refusal:
            return kind, refusal.status, 0
        except OSError as error:
            _log.warning("disk request %d at sector %d failed: %s", kind, sector, error)
            return kind, S_IOERR, 0

    # Flushing: one at a time, on behalf of all requests carried out before it began, so no driver can pile flushes up.

    def _wants_flush(self, kind: int) -> bool:
        """Whether a request is complete only once the disk is flushed (sections 5.2.6.2 and 5.2.5.2)."""
        return kind == T_FLUSH or (kind in (T_OUT, T_WRITE_ZEROES) and not self._negotiated & F_FLUSH)

    def _flush(self) -> None:
        requests, self._unflushed = self._unflushed, []
        self._flushing = True
        self._aside(self._disk.flush, lambda error: self._flushed(requests, error))

    def _flushed(self, requests: list[_Unflushed], error: OSError | None) -> None:
        self._flushing = False
        if error is not None:
            _log.warning("flushing the disk failed: %s", error)
        for queue, chain, written in requests:  # if the queue has been reset, nothing reaches the guest
            _answer(queue, chain, S_OK if error is None else S_IOERR, written)
            queue.signal()
        if self._unflushed:
            self._flush()

    # The requests: each checks, executes piece by piece, and returns how many data bytes it has written for the guest.

    def _read(self, chain: Chain, sector: int, room: int) -> _Steps:
        start = self._checked_offset(sector, room)
        for position, size in chunks(room):
            chain.writable.write(position, self._disk.read(start + position, size))
            yield size
        return room

    def _write(self, chain: Chain, sector: int, room: int) -> _Steps:  # noqa: ARG002 (all handlers alike)
        self._check_writable()
        size = len(chain.readable) - _HEADER.size
        start = self._checked_offset(sector, size)
        for position, length in chunks(size):
            self._disk.write(start + position, chain.readable.read(_HEADER.size + position, length))
            yield length
        return 0

    def _nothing(self, chain: Chain, sector: int, room: int) -> _Steps:  # noqa: ARG002
        yield 0  # the flush follows
        return 0

    def _get_id(self, chain: Chain, sector: int, room: int) -> _Steps:  # noqa: ARG002
        answer = self._serial[:room]
        chain.writable.write(0, answer)
        yield 0
        return len(answer)

    def _discard(self, chain: Chain, sector: int, room: int) -> _Steps:  # noqa: ARG002
        self._check_negotiated(F_DISCARD)
        for start, size, _ in self._checked_segments(chain, MAX_DISCARD_SEGMENTS, MAX_DISCARD_SECTORS, flags=0):
            self._disk.discard(start, size)
            yield AT_ONCE
        return 0

    def _write_zeroes(self, chain: Chain, sector: int, room: int) -> _Steps:  # noqa: ARG002
        self._check_negotiated(F_WRITE_ZEROES)
        segments = self._checked_segments(
            chain, MAX_WRITE_ZEROES_SEGMENTS, MAX_WRITE_ZEROES_SECTORS, flags=_SEGMENT_UNMAP
        )
        for start, size, flags in segments:
            for position, length in chunks(size):
                self._disk.write_zeroes(start + position, length, may_unmap=bool(flags & _SEGMENT_UNMAP))
                yield length
        return 0

    # The checks: a refused request never reaches the disk.

    def _check_writable(self) -> None:
        if self._disk.read_only:
            raise _RefusedError(S_IOERR)

    def _check_negotiated(self, feature: int) -> None:
        self._check_writable()
        if not self._negotiated & feature:
            raise _RefusedError(S_UNSUPP)

    def _checked_offset(self, sector: int, size: int) -> int:
        """Check the start and the length of a transfer; return its offset in bytes."""
        start = sector * SECTOR
        if size % SECTOR or size > MAX_DATA_BYTES or start + size > self._disk.size:
            raise _RefusedError(S_IOERR)
        return start

    def _checked_segments(
        self, chain: Chain, max_segments: int, max_sectors: int, *, flags: int
    ) -> list[tuple[int, int, int]]:
        """Read and check all ranges of a DISCARD or WRITE_ZEROES: (offset and size in bytes, flags)."""
        size = len(chain.readable) - _HEADER.size
        count, rest = divmod(size, _SEGMENT.size)
        if rest or not 0 < count <= max_segments:
            raise _RefusedError(S_IOERR)
        segments = []
        for sector, sectors, segment_flags in _SEGMENT.iter_unpack(chain.readable.read(_HEADER.size, size)):
            if segment_flags & ~flags:
                raise _RefusedError(S_UNSUPP)
            if sectors > max_sectors or (sector + sectors) * SECTOR > self._disk.size:
                raise _RefusedError(S_IOERR)
            segments.append((sector * SECTOR, sectors * SECTOR, segment_flags))
        return segments


def _answer(queue: Queue, chain: Chain, status: int, written: int) -> None:
    """Write the status of a request and return it, with the number of bytes written without a gap from the first."""
    room = len(chain.writable) - 1
    chain.writable.write(room, bytes((status,)))
    # If data is missing before it, the status is not part of what was written without a gap (section 2.7.8.2).
    queue.push(chain, written + (written == room))
