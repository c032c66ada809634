"""A guest with a sound card, for tests: commands, messages, and when each of them came back.

    guest = Guest()
    guest.open(S16_STEREO, buffer=64, period=16)
    guest.send(b"a period of it..")
    guest.command(START)
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(4)]

The specification's codes are repeated here.
"""

import math
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from devices.audio import AudioBackend, Capture, NullSink, PcmParams, Period, Playback
from devices.audio.pcm import FORMATS
from devices.virtio.sound import SoundDevice
from emu.joints import Joints
from emu.trace import Trace
from tests.devices.virtio.fake_driver import Driver, Token
from tests.fakes import FakeClock, FakeEvents

CONTROLQ, EVENTQ, TXQ, RXQ = range(4)
JACK_INFO, JACK_REMAP, PCM_INFO, CHMAP_INFO = 1, 2, 0x100, 0x200
SET_PARAMS, PREPARE, RELEASE, START, STOP = 0x101, 0x102, 0x103, 0x104, 0x105
CTL_INFO, CTL_ENUM_ITEMS, CTL_READ, CTL_WRITE, CTL_TLV_READ, CTL_TLV_WRITE, CTL_TLV_COMMAND = range(0x300, 0x307)
JACK_CONNECTED, JACK_DISCONNECTED, CTL_NOTIFY = 0x1000, 0x1001, 0x1200
OK, BAD_MSG, NOT_SUPP, IO_ERR = 0x8000, 0x8001, 0x8002, 0x8003

FORMAT_CODES = {
    "S8": 3, "U8": 4, "S16": 5, "U16": 6, "S24_3": 11, "S24": 15, "S32": 17, "U32": 18, "FLOAT": 19, "FLOAT64": 20,
}  # fmt: skip
RATES = [
    5512,
    8000,
    11025,
    16000,
    22050,
    32000,
    44100,
    48000,
    64000,
    88200,
    96000,
    176400,
    192000,
    384000,
    12000,
    24000,
]

SECOND = 1_000_000_000
S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)


#: What there is to record: no two sections are alike.
SOURCE = random.Random(1).randbytes(1 << 20)


@dataclass
class Source:
    """What a stream records: SOURCE, repeated. Checks that callers keep the contract."""

    params: PcmParams
    latency_bytes: int = 0
    state: str = "stopped"
    position: int = 0

    def start(self) -> None:
        assert self.state == "stopped"
        self.state = "started"

    def read(self, size: int) -> bytes:
        assert self.state == "started"
        self.skip(size)
        return source(self.position - size, size)

    def skip(self, size: int) -> None:
        assert self.state in {"started", "stopped"}
        assert size > 0
        assert size % self.params.frame_size == 0
        self.position += size

    def stop(self) -> None:
        assert self.state == "started"
        self.state = "stopped"

    def close(self) -> None:
        assert self.state == "stopped"
        self.state = "closed"


def source(offset: int, size: int) -> bytes:
    """Return the ``size`` bytes that are recorded from ``offset`` on."""
    begin = offset % len(SOURCE)
    data = SOURCE[begin : begin + size]
    while len(data) < size:
        data += SOURCE[: size - len(data)]
    return data


@dataclass
class Recorder:
    """A backend that keeps what it gets, and checks that callers keep the contract.

    ``parts`` are those of unfinished messages; with ``part_ns`` it plays live, and if a message is never finished, its
    parts are removed from ``data``.
    """

    played: int = 0
    data: bytearray = field(default_factory=bytearray)
    latency_bytes: int = 0
    part_ns: int | None = None
    state: str = "closed"
    opened: list[PcmParams] = field(default_factory=list)
    streams: tuple[int, int] = (1, 1)
    captures: list[Source] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    unfinished: int = 0
    periods: list[Period] = field(default_factory=list)
    gains: list[tuple[Sequence[float], Sequence[float]]] = field(default_factory=list)

    def observe(self, period: Period) -> None:
        self.periods.append(period)

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        self.gains.append((playback, capture))

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        assert self.state == "closed"
        self.state = "stopped"
        self.opened.append(params)
        return self

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        assert all(capture.state == "closed" for capture in self.captures)
        self.captures.append(Source(params))
        return self.captures[-1]

    def start(self) -> None:
        assert self.state == "stopped"
        self.state = "started"

    def write(self, data: bytes) -> None:
        assert self.state == "started"
        assert data
        assert len(data) % self.opened[-1].frame_size == 0
        self.data += data
        self.unfinished = 0

    def write_part(self, data: bytes) -> None:
        before = self.unfinished + len(data)
        self.write(data)
        self.parts.append(data)
        self.unfinished = before

    def stop(self) -> None:
        assert self.state == "started"
        assert not self.unfinished or self.part_ns is not None
        self.state = "stopped"

    def close(self) -> None:
        assert self.state == "stopped"
        self.state = "closed"
        self.data = self.finished
        self.unfinished = 0

    @property
    def finished(self) -> bytearray:
        """What was played in whole messages."""
        return self.data[: len(self.data) - self.unfinished]

    def summary(self) -> list[str]:
        return []


class Card(NullSink):
    """A backend with a Recorder or a Source for each stream; every second one plays live."""

    def __init__(self, streams: tuple[int, int]) -> None:
        super().__init__(streams=streams)
        self.outputs = [Recorder(part_ns=300_000 if number % 2 else None) for number in range(streams[0])]
        self.inputs: dict[int, Source] = {}

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        return self.outputs[stream].open_playback(stream, params)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        assert stream not in self.inputs or self.inputs[stream].state == "closed"
        self.inputs[stream] = Source(params)
        return self.inputs[stream]


@dataclass(frozen=True)
class Done:
    """An I/O message that came back; ``data`` is what it has recorded."""

    time: int
    token: Token
    status: int
    latency: int
    data: bytes = b""


class Guest:
    """A driver of a SoundDevice that records every message that comes back, with the time of its interrupt."""

    def __init__(
        self,
        backend: AudioBackend | None = None,
        *,
        indirect: bool = True,
        streams: tuple[int, int] = (1, 1),
        trace: Trace | None = None,
    ) -> None:
        self.clock = FakeClock(123_456_789)
        self.events = FakeEvents(self.clock)
        self.backend = backend if backend is not None else Recorder()
        outputs, inputs = streams
        joints = Joints() if trace is None else trace.joints(self.clock)
        self.device = SoundDevice(self.clock, self.events, joints.audio(self.backend), outputs=outputs, inputs=inputs)
        self.driver = Driver(joints.virtio(0, self.device))
        self.driver.start()
        self.indirect = indirect
        self.done: list[Done] = []
        self.on_done: Callable[[Done], None] = lambda done: None
        self.started = 0
        self.pcm = S16_STEREO

    @property
    def stats(self):
        return self.device.stats[0]

    # Control.

    def request(self, request: bytes, room: int = 4) -> bytes:
        """Send any request; return as many bytes as the reply is said to have."""
        done = self.driver.request(CONTROLQ, [request], [room])
        if not self.messages_are_back:  # else the interrupt is also for collect()
            self.driver.ack()
        return done.data[: done.used_len]

    def command(self, code: int, stream: int = 0) -> int:
        """Send a request about a stream that has no further fields; return its status."""
        if code == START:
            self.started = self.clock.now()
        return status_of(self.request(struct.pack("<II", code, stream)))

    def set_params(self, pcm: PcmParams = S16_STEREO, buffer: int = 64, period: int = 16, **changes: int) -> int:
        """Send SET_PARAMS, with ``changes`` to any field."""
        fields = {
            "stream": 0,
            "buffer": buffer,
            "period": period,
            "features": 0,
            "channels": pcm.channels,
            "format": FORMAT_CODES[pcm.format.name],
            "rate": RATES.index(pcm.rate),
            "padding": 0,
        } | changes
        self.pcm = pcm
        return status_of(self.request(struct.pack("<IIIIIBBBB", SET_PARAMS, *fields.values())))

    def open(self, pcm: PcmParams = S16_STEREO, buffer: int = 64, period: int = 16, stream: int = 0) -> None:
        """SET_PARAMS and PREPARE."""
        assert self.set_params(pcm, buffer, period, stream=stream) == OK
        assert self.command(PREPARE, stream) == OK

    def close(self, stream: int = 0) -> None:
        """STOP and RELEASE."""
        assert self.command(STOP, stream) == OK
        assert self.command(RELEASE, stream) == OK

    def query(self, code: int, first: int, count: int, size: int, room: int = 4096) -> bytes:
        """Ask for items of information; return the reply."""
        return self.request(struct.pack("<IIII", code, first, count, size), room)

    # Events.

    def listen(self, buffers: int = 1, size: int = 8) -> None:
        """Put buffers into the event queue, and kick."""
        for _ in range(buffers):
            self.driver.submit(EVENTQ, [], [size])
        self.driver.kick(EVENTQ)

    def heard(self) -> list[tuple[int, int]]:
        """Return code and data of the events that have arrived since the last call."""
        events = self.driver.completed(EVENTQ)
        assert bool(self.driver.ack()) == bool(events), "an interrupt is for an event, and an event interrupts"
        assert all(done.used_len == 8 for done in events)
        return [struct.unpack_from("<II", done.data) for done in events]

    # Messages.

    @property
    def messages_are_back(self) -> bool:
        """Whether a used ring has something new."""
        rings = [self.driver.queues[queue] for queue in (TXQ, RXQ) if queue in self.driver.queues]
        return any(ring.last_used != ring.used_idx for ring in rings)

    def submit(self, data: bytes, stream: int = 0) -> Token:
        """Queue a message as Linux lays it out, without a kick."""
        return self.driver.submit(TXQ, [struct.pack("<I", stream), data], [8], indirect=self.indirect)

    def send(self, *messages: bytes) -> None:
        """Queue messages and kick once."""
        for data in messages:
            self.submit(data)
        self.driver.kick(TXQ)

    def offer(self, *sizes: int, stream: int = 1) -> Token:
        """Queue messages that record these sizes, as Linux lays them out, and kick once; return the last one."""
        for size in sizes:
            token = self.driver.submit(RXQ, [struct.pack("<I", stream)], [size, 8], indirect=self.indirect)
        self.driver.kick(RXQ)
        return token

    def refill(self, token: Token, data: bytes) -> None:
        """Change the contents of a queued message."""
        address, size = token.readable[1]
        assert size == len(data)
        self.driver.memory.store(address, data)

    def end_of(self, frames: int) -> int:
        """When frame number ``frames`` since START has been played."""
        return self.started + math.ceil(Fraction(frames * SECOND, self.pcm.rate))

    # Time.

    def run(self, ns: int) -> None:
        """Let time pass; messages that come back are recorded, then given to ``on_done``."""
        end = self.clock.now() + ns
        while True:
            self.collect()
            pending = self.events.pending
            if not pending or pending[0] > end:
                break
            self.clock.advance(max(0, pending[0] - self.clock.now()))
            self.events.run_due()
        self.clock.advance(end - self.clock.now())

    def collect(self) -> None:
        """Be the interrupt handler, if there is an interrupt."""
        if not self.driver.irq.level:
            assert not self.messages_are_back, "no interrupt"
            return
        self.driver.ack()
        for queue in (TXQ, RXQ):
            for done in self.driver.completed(queue) if queue in self.driver.queues else ():
                assert 8 <= done.used_len <= len(done.data) if queue == RXQ else done.used_len == 8
                status, latency = struct.unpack("<II", done.data[-8:])
                record = Done(self.clock.now(), done.token, status, latency, done.data[: done.used_len - 8])
                self.done.append(record)
                self.on_done(record)


def status_of(reply: bytes) -> int:
    assert len(reply) == 4
    return int.from_bytes(reply, "little")


def noise(seed: int, size: int) -> bytes:
    """Return bytes that are the same each time, and different for each seed."""
    out = bytearray()
    state = seed * 2654435761 + 12345
    while len(out) < size:
        state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        out += (state >> 24).to_bytes(5, "little")
    return bytes(out[:size])
