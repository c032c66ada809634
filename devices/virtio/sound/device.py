"""The sound device (virtio 1.3 section 5.14): its queues and its control protocol.

Nothing here blocks: a control request is answered within its notification, or a few turns of the guest later if many
messages have to be returned first. An I/O message is never answered within its notification, not even a refused one: a
driver may queue it again from its interrupt handler and would never return (see prepared.py).
"""

from collections import deque
from collections.abc import Callable, Sequence

from devices.audio import AudioBackend, PcmParams
from devices.contracts import Clock, Event, Events
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import wire
from devices.virtio.sound.chmaps import channel_maps
from devices.virtio.sound.controls import Controls
from devices.virtio.sound.events import EventQueue
from devices.virtio.sound.input import PreparedInput
from devices.virtio.sound.jacks import Jacks
from devices.virtio.sound.output import PreparedOutput
from devices.virtio.sound.prepared import StreamParams, StreamStats, Surroundings, complete
from devices.virtio.sound.requests import BAD_MSG, NOT_SUPP, Handler, query
from devices.virtio.sound.steps import AT_ONCE, RETURN, Steps
from devices.virtio.sound.stream import Stream

__all__ = ["SoundDevice"]

#: Bytes of a request that are looked at: the length of the longest.
_MAX_REQUEST = wire.CTL_HDR.size + wire.CTL_VALUE_SIZE
#: A buffer of more than 2.7 s of the widest stream is a mistake.
_MAX_BUFFER_BYTES = 64 << 20


class SoundDevice(VirtioDevice):
    """Streams that play to ``backend`` and record from it, paced by ``clock``.

    ``outputs`` of them play and ``inputs`` record; the first of each kind is hw:0,0 in the guest, the second hw:0,1 and
    so on. The driver numbers the outputs first, then the inputs; ``stats`` has a record for each, in that order.
    """

    device_id = 25
    features = wire.F_CTLS
    # Linux needs a descriptor for each page of a period, so 528 for the largest buffer (8 channels of 384 kHz).
    queue_sizes = (64, 64, 1024, 1024)

    def __init__(
        self, clock: Clock, events: Events, backend: AudioBackend, *, outputs: int = 1, inputs: int = 1
    ) -> None:
        # Each stream's hda_fn_nid, which is its number in the guest, and direction.
        self._groups = [(nid, wire.D_OUTPUT) for nid in range(outputs)] + [(nid, wire.D_INPUT) for nid in range(inputs)]
        self.stats = [StreamStats() for _ in self._groups]
        self._clock = clock
        self._events = events
        self._backend = backend
        self._queues: Sequence[Queue] = ()
        self._streams: list[Stream] = []
        self._work: Steps[None] | None = None  # in progress, on the control queue
        self._refused: deque[tuple[Queue, Chain]] = deque()
        self._refusal: Event | None = None
        #: For the host to plug, set and inspect, on the machine's thread.
        self.jacks = Jacks(self._tell)
        self.controls = Controls(changed=self._set_gains, news=self._tell)
        self._set_gains()
        self._event_queue = EventQueue([self.jacks, self.controls], self.queue_sizes[wire.EVENTQ])
        self._control_requests: dict[int, Handler] = {}  # empty unless the driver has accepted F_CTLS
        self._requests: dict[int, Handler] = {
            **self.jacks.requests,
            wire.R_PCM_INFO: lambda request, room: query(request, room, [_pcm_info(s) for s in self._streams]),
            wire.R_CHMAP_INFO: lambda request, room: query(request, room, self._channel_maps()),
        }
        self._commands: dict[int, Callable[[Stream, bytes], int | Steps[int]]] = {
            wire.R_PCM_SET_PARAMS: _set_params,
            wire.R_PCM_PREPARE: lambda stream, _: stream.prepare(),
            wire.R_PCM_START: lambda stream, _: stream.start(),
            wire.R_PCM_STOP: lambda stream, _: stream.stop(),
            wire.R_PCM_RELEASE: lambda stream, _: self._release(stream),
        }

    def config(self) -> bytes:
        """How many there are of each thing that the driver can ask about."""
        return wire.CONFIG.pack(len(self.jacks), len(self.stats), len(self._channel_maps()), len(self.controls))

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:  # noqa: ARG002
        """Make new streams, which keep nothing of the last driver's."""
        self.reset()
        self._queues = queues
        self._control_requests = self.controls.negotiate(features)
        self._event_queue.attach(queues[wire.EVENTQ])
        self._streams = [
            self._make_stream(*group, stats) for group, stats in zip(self._groups, self.stats, strict=True)
        ]

    def _make_stream(self, nid: int, direction: int, stats: StreamStats) -> Stream:
        prepared, queue = (PreparedOutput, wire.TXQ) if direction == wire.D_OUTPUT else (PreparedInput, wire.RXQ)
        around = Surroundings(nid, self._queues[queue], self._clock, self._events, self._backend, stats)
        return Stream(direction, prepared, around)

    def reset(self) -> None:
        """Stop all streams and forget their messages."""
        if self._work is not None:
            self._work.close()
            self._work = None
        for stream in self._streams:
            stream.close()
        self._streams = []
        self._queues = ()
        self._event_queue.detach()
        self._refused.clear()
        self._cancel_refusal()

    def notify(self, index: int) -> None:
        """Serve the driver. Buffers for events stay in their queue until there is something to report."""
        if index == wire.CONTROLQ:
            self._serve_control()
        elif index == wire.EVENTQ:
            self._tell()
        elif index == wire.TXQ:
            self._take_messages(self._queues[wire.TXQ], wire.D_OUTPUT)
        elif index == wire.RXQ:
            self._take_messages(self._queues[wire.RXQ], wire.D_INPUT)

    def _tell(self) -> None:
        self._event_queue.deliver()

    def _set_gains(self) -> None:
        self._backend.set_gains(self.controls.gains(wire.D_OUTPUT, 2), self.controls.gains(wire.D_INPUT, 2))

    # I/O messages.

    def _take_messages(self, queue: Queue, direction: int) -> None:
        """Move all messages to their streams, so that no stream waits behind another."""
        for chain in queue.pop_all():
            stream = self._stream_of(chain)
            if stream is None or stream.direction != direction or not stream.submit(chain):
                self._refuse(queue, chain)

    def _stream_of(self, chain: Chain) -> Stream | None:
        """Find the stream that an I/O message is for; None if it is malformed."""
        if len(chain.readable) < wire.PCM_XFER.size or len(chain.writable) < wire.PCM_STATUS.size:
            return None
        (number,) = wire.PCM_XFER.unpack(chain.readable.read(0, wire.PCM_XFER.size))
        return self._streams[number] if number < len(self._streams) else None

    def _refuse(self, queue: Queue, chain: Chain) -> None:
        """Schedule a message to be returned with an error."""
        self._refused.append((queue, chain))
        if self._refusal is None:
            self._refusal = self._events.at(self._clock.now(), self._return_refused)

    def _return_refused(self) -> None:
        self._refusal = None
        if not _do_some(self._give_back_refused()):
            self._refusal = self._events.at(self._clock.now(), self._return_refused)
        self._queues[wire.TXQ].signal()
        self._queues[wire.RXQ].signal()

    def _cancel_refusal(self) -> None:
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None

    def _give_back_refused(self) -> Steps[None]:
        while self._refused:
            complete(*self._refused.popleft(), wire.S_IO_ERR)
            yield RETURN

    # Control requests.

    def _serve_control(self) -> None:
        queue = self._queues[wire.CONTROLQ]
        if self._work is None:
            self._work = self._serve(queue)
        if _do_some(self._work):
            self._work = None
        else:
            queue.later()
        queue.signal()

    def _serve(self, queue: Queue) -> Steps[None]:
        for chain in queue.pop_all():
            queue.push(chain, (yield from self._answer(chain)))

    def _answer(self, chain: Chain) -> Steps[int]:
        """Carry out a request, unless there is no room for a reply; return the number of bytes written."""
        room = len(chain.writable)
        if room < wire.HDR.size:
            return 0
        request = chain.readable.read(0, min(len(chain.readable), _MAX_REQUEST))
        reply = yield from self._reply_to(request, room)
        chain.writable.write(0, reply)
        return len(reply)

    def _reply_to(self, request: bytes, room: int) -> Steps[bytes]:
        if len(request) < wire.HDR.size:
            return BAD_MSG
        (code,) = wire.HDR.unpack_from(request)
        self._event_queue.heed(code)
        if code in self._commands:
            return wire.HDR.pack((yield from self._command(code, request)))
        handler = self._requests.get(code) or self._control_requests.get(code)
        return handler(request, room) if handler is not None else NOT_SUPP

    def _channel_maps(self) -> list[bytes]:
        return channel_maps(self._groups)

    def _command(self, code: int, request: bytes) -> Steps[int]:
        """Carry out a request about a stream; return its status."""
        if len(request) < wire.PCM_HDR.size:
            return wire.S_BAD_MSG
        _, number = wire.PCM_HDR.unpack_from(request)
        if number >= len(self._streams):
            return wire.S_BAD_MSG
        status = self._commands[code](self._streams[number], request)
        return status if isinstance(status, int) else (yield from status)

    def _release(self, stream: Stream) -> Steps[int]:
        """RELEASE; refused messages, too, must be returned before it is answered (5.14.6.6.5.1)."""
        yield from self._give_back_refused()
        self._cancel_refusal()
        self._queues[wire.TXQ].signal()
        self._queues[wire.RXQ].signal()
        return (yield from stream.release())


def _do_some(work: Steps[None]) -> bool:
    """Continue ``work``; return whether it is finished."""
    cost = 0
    while cost < AT_ONCE:
        step = next(work, None)
        if step is None:
            return True
        cost += step
    return False


def _set_params(stream: Stream, request: bytes) -> int | Steps[int]:
    params = _parse_params(request)
    return params if isinstance(params, int) else stream.set_params(params)


def _parse_params(request: bytes) -> StreamParams | int:
    """Check a SET_PARAMS request; return its parameters, or the status that refuses them."""
    if len(request) < wire.PCM_SET_PARAMS.size:
        return wire.S_BAD_MSG
    _, _, buffer_bytes, period_bytes, features, channels, fmt, rate, padding = wire.PCM_SET_PARAMS.unpack_from(request)
    if features or padding or not channels or fmt >= wire.PCM_FORMATS_DEFINED or rate >= len(wire.PCM_RATES):
        return wire.S_BAD_MSG  # no feature is offered
    if fmt not in wire.PCM_FORMATS or channels > wire.CHANNELS_MAX:
        return wire.S_NOT_SUPP
    pcm = PcmParams(wire.PCM_FORMATS[fmt], wire.PCM_RATES[rate], channels)
    if not period_bytes or not buffer_bytes or buffer_bytes % period_bytes or period_bytes % pcm.frame_size:
        return wire.S_BAD_MSG
    if buffer_bytes > _MAX_BUFFER_BYTES:
        return wire.S_NOT_SUPP
    return StreamParams(pcm, buffer_bytes, period_bytes)


def _pcm_info(stream: Stream) -> bytes:
    formats = sum(1 << code for code in wire.PCM_FORMATS)
    rates = (1 << len(wire.PCM_RATES)) - 1
    return wire.PCM_INFO.pack(stream.number, 0, formats, rates, stream.direction, 1, wire.CHANNELS_MAX)
