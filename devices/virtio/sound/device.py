"""The sound device (virtio 1.3 section 5.14): its queues and its control protocol.

Nothing here blocks: a control request is answered within its notification, or a few turns of the guest later if many
messages have to be returned first. An I/O message is never answered within its notification, not even a refused one: a
driver may queue it again from its interrupt handler and would never return (see prepared.py).
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from devices.audio import AudioBackend, PcmParams
from devices.audio.base import AudioState
from devices.contracts import Clock, Event, Events
from devices.errors import UsageError
from devices.state import U8, U32, Moment, check, resume, saved
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Chain, ChainState, Queue
from devices.virtio.sound import wire
from devices.virtio.sound.chmaps import channel_maps
from devices.virtio.sound.controls import Controls, ControlsState
from devices.virtio.sound.events import EventQueue
from devices.virtio.sound.input import PreparedInput
from devices.virtio.sound.jacks import Jacks, JackState
from devices.virtio.sound.output import PreparedOutput
from devices.virtio.sound.prepared import (
    MAX_BUFFER_BYTES,
    StatsState,
    StreamParams,
    StreamStats,
    Surroundings,
    complete,
)
from devices.virtio.sound.requests import BAD_MSG, NOT_SUPP, OK, Handler, query
from devices.virtio.sound.steps import AT_ONCE, RETURN, Steps
from devices.virtio.sound.stream import Stream, StreamState

__all__ = ["SoundDevice", "SoundState"]

#: Bytes of a request that are looked at: the length of the longest.
_MAX_REQUEST = wire.CTL_HDR.size + wire.CTL_VALUE_SIZE


class _Accepted(NamedTuple):
    """A command that a stream has accepted, and that is not answered yet."""

    chain: Chain
    code: int
    number: int  # of the stream


class AcceptedState(TypedDict):
    """Such a command."""

    chain: ChainState
    code: U32
    number: U8


class SoundState(TypedDict):
    """A sound device: what it offers (output and input streams), what the driver has done, what is shown to people.

    Without a driver there are no ``streams``, and nothing is in flight. Refused messages are those of the TXQ and of
    the RXQ, as (queue, chain).
    """

    offered: tuple[U8, U8]
    streams: list[StreamState]
    stats: list[StatsState]
    accepted: AcceptedState | None
    refused: list[tuple[U8, ChainState]]
    refusal: Moment | None
    silent: bool
    jacks: list[JackState]
    controls: ControlsState
    audio: AudioState


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
        self._offered = (outputs, inputs)
        self.stats = [StreamStats() for _ in self._groups]
        self._clock = clock
        self._events = events
        self._backend = backend
        self._queues: Sequence[Queue] = ()
        self._streams: list[Stream] = []
        self._accepted: _Accepted | None = None
        self._refused: deque[tuple[int, Chain]] = deque()  # number of the queue, message
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
        self._commands: dict[int, Callable[[Stream, bytes], int]] = {
            wire.R_PCM_SET_PARAMS: _set_params,
            wire.R_PCM_PREPARE: lambda stream, _: stream.prepare(),
            wire.R_PCM_START: lambda stream, _: stream.start(),
            wire.R_PCM_STOP: lambda stream, _: stream.stop(),
            wire.R_PCM_RELEASE: lambda stream, _: stream.release(),
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
        self._accepted = None
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
            self._take_messages(wire.TXQ, wire.D_OUTPUT)
        elif index == wire.RXQ:
            self._take_messages(wire.RXQ, wire.D_INPUT)

    def _tell(self) -> None:
        self._event_queue.deliver()

    def _set_gains(self) -> None:
        self._backend.set_gains(self.controls.gains(wire.D_OUTPUT, 2), self.controls.gains(wire.D_INPUT, 2))

    # I/O messages.

    def _take_messages(self, index: int, direction: int) -> None:
        """Move all messages to their streams, so that no stream waits behind another."""
        for chain in self._queues[index].pop_all():
            stream = self._stream_of(chain)
            if stream is None or stream.direction != direction or not stream.submit(chain):
                self._refuse(index, chain)

    def _stream_of(self, chain: Chain) -> Stream | None:
        """Find the stream that an I/O message is for; None if it is malformed."""
        if len(chain.readable) < wire.PCM_XFER.size or len(chain.writable) < wire.PCM_STATUS.size:
            return None
        (number,) = wire.PCM_XFER.unpack(chain.readable.read(0, wire.PCM_XFER.size))
        return self._streams[number] if number < len(self._streams) else None

    def _refuse(self, index: int, chain: Chain) -> None:
        """Schedule a message to be returned with an error."""
        self._refused.append((index, chain))
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

    def _give_back_refused(self) -> Steps:
        while self._refused:
            index, chain = self._refused.popleft()
            complete(self._queues[index], chain, wire.S_IO_ERR)
            yield RETURN

    # Control requests.

    def _serve_control(self) -> None:
        queue = self._queues[wire.CONTROLQ]
        if not _do_some(self._serve(queue)):
            queue.later()
        queue.signal()

    def _serve(self, queue: Queue) -> Steps:
        """Finish the command in progress, and then answer whatever else there is."""
        yield from self._finish(queue)
        for chain in queue.pop_all():
            reply = self._reply_to(chain)
            if reply is not None:
                _answer(queue, chain, reply)
            yield from self._finish(queue)

    def _reply_to(self, chain: Chain) -> bytes | None:
        """Carry out a request, unless there is no room for a reply; return that, or None for an accepted command."""
        room = len(chain.writable)
        if room < wire.HDR.size:
            return b""
        request = chain.readable.read(0, min(len(chain.readable), _MAX_REQUEST))
        if len(request) < wire.HDR.size:
            return BAD_MSG
        (code,) = wire.HDR.unpack_from(request)
        self._event_queue.heed(code)
        if code in self._commands:
            return self._command(chain, code, request)
        handler = self._requests.get(code) or self._control_requests.get(code)
        return handler(request, room) if handler is not None else NOT_SUPP

    def _channel_maps(self) -> list[bytes]:
        return channel_maps(self._groups)

    def _command(self, chain: Chain, code: int, request: bytes) -> bytes | None:
        """Begin to carry out a request about a stream; return the reply if it is refused."""
        if len(request) < wire.PCM_HDR.size:
            return BAD_MSG
        _, number = wire.PCM_HDR.unpack_from(request)
        if number >= len(self._streams):
            return BAD_MSG
        status = self._commands[code](self._streams[number], request)
        if status != wire.S_OK:
            return wire.HDR.pack(status)
        self._accepted = _Accepted(chain, code, number)
        return None

    def _finish(self, queue: Queue) -> Steps:
        """Do the rest of an accepted command, if there is one, and answer it."""
        if self._accepted is None:
            return
        chain, code, number = self._accepted
        if code == wire.R_PCM_RELEASE:  # refused messages, too, must be returned before it is answered (5.14.6.6.5.1)
            yield from self._give_back_refused()
            self._cancel_refusal()
            self._queues[wire.TXQ].signal()
            self._queues[wire.RXQ].signal()
        yield from self._streams[number].finish()
        self._accepted = None
        _answer(queue, chain, OK)

    # State.

    def state(self) -> SoundState:
        """Return what ``restore`` makes the same device from; what the backend has kept or played is not in it."""
        accepted = self._accepted
        return {
            "offered": self._offered,
            "streams": [stream.state() for stream in self._streams],
            "stats": [stats.state() for stats in self.stats],
            "accepted": None
            if accepted is None
            else {"chain": accepted.chain.state(), "code": accepted.code, "number": accepted.number},
            "refused": [(index, chain.state()) for index, chain in self._refused],
            "refusal": saved(self._refusal),
            "silent": self._event_queue.silent,
            "jacks": self.jacks.state(),
            "controls": self.controls.state(),
            "audio": self._backend.state(),
        }

    def restore(self, state: SoundState) -> None:
        """Go on as another device, on queues just attached if that had any.

        Streams that are prepared get new ports from the backend, and go on there with the next frame. Raises UsageError
        if the number of streams is another.
        """
        (outputs, inputs), here = state["offered"], self._offered
        if (outputs, inputs) != here:
            wanted = f"{outputs}+{inputs}"
            raise UsageError(
                f"the snapshot has {wanted} streams of sound, this machine {here[0]}+{here[1]}: use streams={wanted}"
            )
        check(
            len(state["streams"]) == len(self._streams)
            and len(state["stats"]) == len(self.stats)
            and (bool(self._queues) or not (state["accepted"] or state["refused"] or state["refusal"])),
            "the sound device",
        )
        for stats, one in zip(self.stats, state["stats"], strict=True):
            stats.restore(one)
        for stream, its in zip(self._streams, state["streams"], strict=True):
            stream.restore(its)
        self._restore_requests(state)
        self.jacks.restore(state["jacks"])
        self.controls.restore(state["controls"])
        self._event_queue.silent = state["silent"]
        self._backend.restore(state["audio"])
        self._set_gains()

    def _restore_requests(self, state: SoundState) -> None:
        self._accepted = None
        accepted = state["accepted"]
        if accepted is not None:
            chain = self._queues[wire.CONTROLQ].resume_chain(accepted["chain"])
            check(
                len(chain.writable) >= len(OK)
                and accepted["code"] in self._commands
                and accepted["number"] < len(self._streams),
                "a command",
            )
            self._accepted = _Accepted(chain, accepted["code"], accepted["number"])
        for number, stream in enumerate(self._streams):
            check(not stream.is_busy or (accepted is not None and accepted["number"] == number), "a stream")
        self._refused.clear()
        for index, message in state["refused"]:
            check(index in {wire.TXQ, wire.RXQ}, "a refused message")
            self._refused.append((index, self._queues[index].resume_chain(message)))
        self._refusal = resume(self._events, state["refusal"], self._return_refused)


def _answer(queue: Queue, chain: Chain, reply: bytes) -> None:
    chain.writable.write(0, reply)
    queue.push(chain, len(reply))


def _do_some(work: Steps) -> bool:
    """Continue ``work``; return whether it is finished."""
    cost = 0
    while cost < AT_ONCE:
        step = next(work, None)
        if step is None:
            return True
        cost += step
    return False


def _set_params(stream: Stream, request: bytes) -> int:
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
    params = StreamParams(pcm, buffer_bytes, period_bytes)
    if not params.is_whole:
        return wire.S_BAD_MSG
    return params if buffer_bytes <= MAX_BUFFER_BYTES else wire.S_NOT_SUPP


def _pcm_info(stream: Stream) -> bytes:
    formats = sum(1 << code for code in wire.PCM_FORMATS)
    rates = (1 << len(wire.PCM_RATES)) - 1
    return wire.PCM_INFO.pack(stream.number, 0, formats, rates, stream.direction, 1, wire.CHANNELS_MAX)
