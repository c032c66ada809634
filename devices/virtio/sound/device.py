"""The sound device (virtio 1.3 section 5.14): its queues and its control protocol.

Nothing here waits: a control request is answered within its notification. An I/O message never is, not even one that
is refused: a driver may queue it again from its interrupt handler, and would not get out of that (see stream.py).
"""

from collections.abc import Callable, Sequence

from devices.audio import AudioBackend, PcmParams
from devices.contracts import Clock, Event, Events
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import wire
from devices.virtio.sound.stream import OutputStream, StreamParams, StreamStats, complete

__all__ = ["SoundDevice"]

#: Bytes of a request that are looked at, and the most that a reply may hold: neither is the driver's to choose.
_MAX_REQUEST = wire.PCM_SET_PARAMS.size
_MAX_REPLY = 1 << 16
#: A buffer of more than 2.7 s of the fattest stream is a mistake.
_MAX_BUFFER_BYTES = 64 << 20

_OK = wire.HDR.pack(wire.S_OK)
_BAD_MSG = wire.HDR.pack(wire.S_BAD_MSG)
_NOT_SUPP = wire.HDR.pack(wire.S_NOT_SUPP)


class SoundDevice(VirtioDevice):
    """One output stream, played by ``backend`` and paced by ``clock``; ``stats`` has a record for each stream."""

    device_id = 25
    # Linux needs a descriptor for each page of a period, so 528 for the largest buffer (8 channels of 384 kHz).
    queue_sizes = (64, 64, 1024, 1024)

    def __init__(self, clock: Clock, events: Events, backend: AudioBackend) -> None:
        self.stats = [StreamStats()]
        self._clock = clock
        self._events = events
        self._backend = backend
        self._queues: Sequence[Queue] = ()
        self._streams: list[OutputStream] = []
        self._refused: list[tuple[Queue, Chain]] = []
        self._refusal: Event | None = None
        self._requests: dict[int, Callable[[bytes, int], bytes]] = {
            wire.R_JACK_INFO: lambda request, room: _query(request, room, []),
            wire.R_PCM_INFO: lambda request, room: _query(request, room, [_pcm_info(s) for s in self._streams]),
            wire.R_CHMAP_INFO: lambda request, room: _query(request, room, []),
            wire.R_PCM_SET_PARAMS: self._set_params,
            wire.R_PCM_PREPARE: self._on_stream(OutputStream.prepare),
            wire.R_PCM_START: self._on_stream(OutputStream.start),
            wire.R_PCM_STOP: self._on_stream(OutputStream.stop),
            wire.R_PCM_RELEASE: self._on_stream(self._release),
        }

    def config(self) -> bytes:
        """No jacks, one stream, no channel maps."""
        return wire.CONFIG.pack(0, len(self.stats), 0)

    def activate(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:  # noqa: ARG002
        """Make new streams: nothing of the last driver's is left."""
        self.reset()
        self._queues = queues
        self._streams = [
            OutputStream(
                number, queues[wire.TXQ], clock=self._clock, events=self._events, backend=self._backend, stats=stats
            )
            for number, stats in enumerate(self.stats)
        ]

    def reset(self) -> None:
        """Stop all streams and forget their messages."""
        for stream in self._streams:
            stream.close()
        self._streams = []
        self._queues = ()
        self._refused.clear()
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None

    def notify(self, index: int) -> None:
        """Serve the driver. Buffers for events stay in their queue: there are none to tell of."""
        if index == wire.CONTROLQ:
            self._serve_control()
        elif index == wire.TXQ:
            self._take_messages(self._queues[wire.TXQ], wire.D_OUTPUT)
        elif index == wire.RXQ:
            self._take_messages(self._queues[wire.RXQ], wire.D_INPUT)

    # I/O messages.

    def _take_messages(self, queue: Queue, direction: int) -> None:
        """Move all messages to their streams, so that no stream waits behind another. Ends: a queue is only so long."""
        while (chain := queue.pop()) is not None:
            stream = self._stream_of(chain)
            if stream is None or stream.direction != direction or not stream.submit(chain):
                self._refuse(queue, chain)

    def _stream_of(self, chain: Chain) -> OutputStream | None:
        """Find the stream that an I/O message is for; None if it is malformed."""
        if len(chain.readable) < wire.PCM_XFER.size or len(chain.writable) < wire.PCM_STATUS.size:
            return None
        (number,) = wire.PCM_XFER.unpack(chain.readable.read(0, wire.PCM_XFER.size))
        return self._streams[number] if number < len(self._streams) else None

    def _refuse(self, queue: Queue, chain: Chain) -> None:
        """Have a message returned with an error, soon."""
        self._refused.append((queue, chain))
        if self._refusal is None:
            self._refusal = self._events.at(self._clock.now(), self._return_refused)

    def _return_refused(self) -> None:
        self._refusal = None
        for queue, chain in self._refused:
            complete(queue, chain, wire.S_IO_ERR)
        self._refused.clear()
        self._queues[wire.TXQ].signal()
        self._queues[wire.RXQ].signal()

    # Control requests.

    def _serve_control(self) -> None:
        queue = self._queues[wire.CONTROLQ]
        # No more than an honest driver can have queued (and one, to find it empty): replies are written to guest
        # memory, and a hostile one may have them refill the queue.
        for _ in range(self.queue_sizes[wire.CONTROLQ] + 1):
            chain = queue.pop()
            if chain is None:
                break
            queue.push(chain, self._answer(chain))
        queue.signal()

    def _answer(self, chain: Chain) -> int:
        """Carry out a request, unless there is no room for a reply; the number of bytes written."""
        room = len(chain.writable)
        if room < wire.HDR.size:
            return 0
        request = chain.readable.read(0, min(len(chain.readable), _MAX_REQUEST))
        reply = self._reply_to(request, room)
        chain.writable.write(0, reply)
        return len(reply)

    def _reply_to(self, request: bytes, room: int) -> bytes:
        if len(request) < wire.HDR.size:
            return _BAD_MSG
        (code,) = wire.HDR.unpack_from(request)
        handler = self._requests.get(code)
        return handler(request, room) if handler is not None else _NOT_SUPP

    def _on_stream(self, command: Callable[[OutputStream], int]) -> Callable[[bytes, int], bytes]:
        """Handle requests that name a stream and say no more."""

        def handler(request: bytes, room: int) -> bytes:  # noqa: ARG001 - a status always fits
            if len(request) < wire.PCM_HDR.size:
                return _BAD_MSG
            _, number = wire.PCM_HDR.unpack_from(request)
            if number >= len(self._streams):
                return _BAD_MSG
            return wire.HDR.pack(command(self._streams[number]))

        return handler

    def _release(self, stream: OutputStream) -> int:
        """RELEASE; refused messages too are to be returned before it is answered (5.14.6.6.5.1)."""
        if self._refusal is not None:
            self._refusal.cancel()
            self._return_refused()
        return stream.release()

    def _set_params(self, request: bytes, room: int) -> bytes:  # noqa: ARG002 - a status always fits
        if len(request) < wire.PCM_SET_PARAMS.size:
            return _BAD_MSG
        _, number = wire.PCM_HDR.unpack_from(request)
        if number >= len(self._streams):
            return _BAD_MSG
        params = _parse_params(request)
        return params if isinstance(params, bytes) else wire.HDR.pack(self._streams[number].set_params(params))


def _parse_params(request: bytes) -> StreamParams | bytes:
    """Check a SET_PARAMS request; its parameters, or the reply that refuses them."""
    _, _, buffer_bytes, period_bytes, features, channels, fmt, rate, padding = wire.PCM_SET_PARAMS.unpack(request)
    if features or padding or not channels or fmt >= wire.PCM_FORMATS_DEFINED or rate >= len(wire.PCM_RATES):
        return _BAD_MSG  # no feature is offered
    if fmt not in wire.PCM_FORMATS or channels > wire.CHANNELS_MAX:
        return _NOT_SUPP
    pcm = PcmParams(wire.PCM_FORMATS[fmt], wire.PCM_RATES[rate], channels)
    if not period_bytes or not buffer_bytes or buffer_bytes % period_bytes or period_bytes % pcm.frame_size:
        return _BAD_MSG
    if buffer_bytes > _MAX_BUFFER_BYTES:
        return _NOT_SUPP
    return StreamParams(pcm, buffer_bytes, period_bytes)


def _query(request: bytes, room: int, items: list[bytes]) -> bytes:
    """Reply to a request for information: as many items as asked for, each of the size that the driver wants."""
    if len(request) < wire.QUERY_INFO.size:
        return _BAD_MSG
    _, first, count, size = wire.QUERY_INFO.unpack_from(request)
    # Python's integers do not wrap (CVE-2026-3196).
    if first + count > len(items) or size < wire.INFO_HDR_SIZE or wire.HDR.size + count * size > min(room, _MAX_REPLY):
        return _BAD_MSG
    return _OK + b"".join(item[:size].ljust(size, b"\0") for item in items[first : first + count])


def _pcm_info(stream: OutputStream) -> bytes:
    formats = sum(1 << code for code in wire.PCM_FORMATS)
    rates = (1 << len(wire.PCM_RATES)) - 1
    return wire.PCM_INFO.pack(0, 0, formats, rates, stream.direction, 1, wire.CHANNELS_MAX)
