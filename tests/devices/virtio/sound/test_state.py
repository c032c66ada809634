"""A sound device that is saved and rebuilt at any instant, in the middle of a command or a message, is as if it had
not been: what is played and recorded, what comes back to the driver and when, and what is counted.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest

from devices.audio import AudioBackend, Capture, Loopback, NullSink, PcmParams, Period, Playback
from devices.audio.patchbay import Patchbay
from devices.audio.pcm import FORMATS
from devices.state import Stateful
from devices.virtio.sound import SoundDevice
from devices.virtio.sound.steps import AT_ONCE
from tests.devices.virtio.fake_driver import Driver, FakeMemory
from tests.devices.virtio.sound.guest import (
    CONTROLQ,
    CTL_READ,
    CTL_WRITE,
    EVENTQ,
    FORMAT_CODES,
    JACK_INFO,
    PREPARE,
    RATES,
    RELEASE,
    RXQ,
    S16_STEREO,
    SET_PARAMS,
    START,
    STOP,
    TXQ,
    Source,
)
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states

#: Streams 0 and 1 play, the second of them live, 2 and 3 record; there is no stream 4.
STREAMS = (2, 2)
#: A large message takes four steps; more bytes of them than this are not queued at once.
LARGE, MOST = 3 * AT_ONCE + 8, 1 << 20
RAM = 4 << 20
WIDE = PcmParams(FORMATS["U32"], 384000, 2)


@dataclass
class Speaker(Playback):
    """An output stream's port: it notes what is done, and fails if that cannot be."""

    number: int
    log: list[Any]
    part_ns: int | None
    state: str = "stopped"

    def start(self) -> None:
        self._become("started", "stopped")

    def stop(self) -> None:
        self._become("stopped", "started")

    def close(self) -> None:
        self._become("closed", "stopped")

    def _become(self, state: str, before: str) -> None:
        assert self.state == before
        self.state = state
        self.log.append((self.number, state))

    def write(self, data: bytes) -> None:
        assert self.state == "started"
        self.log.append((self.number, "whole", data))

    def write_part(self, data: bytes) -> None:
        assert self.state == "started"
        self.log.append((self.number, "part", data))


class Room(NullSink):
    """A backend that notes all that it gets, and supplies other frames all the time."""

    def __init__(self) -> None:
        super().__init__(streams=STREAMS)
        self.log: list[Any] = []

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        return Speaker(stream, self.log, 300_000 if stream else None)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        return Source(params)

    def observe(self, period: Period) -> None:
        self.log.append(period)

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        self.log.append((playback, capture))


@dataclass
class Life:
    """A guest that does anything, and its sound device."""

    room: AudioBackend = field(default_factory=Room)

    def __post_init__(self) -> None:
        self.log: list[Any] = self.room.log if isinstance(self.room, Room) else []
        self.clock = FakeClock(123_456_789)
        self.events = FakeEvents(self.clock)
        self.device = SoundDevice(self.clock, self.events, self.room, outputs=STREAMS[0], inputs=STREAMS[1])
        self.driver = Driver(self.device, FakeMemory(RAM), self.events)
        self.driver.start()
        self.doings: list[tuple[int, Callable[[Random], None]]] = [
            (12, self.command),
            (4, self.use_stream),
            (14, self.message),
            (2, self.many_messages),
            (1, self.large_message),
            (14, self.let_time_pass),
            (4, self.be_late),
            (10, self.have_a_turn),
            (2, self.plug),
            (2, self.turn_the_volume),
            (3, self.ask),
            (2, self.listen),
        ]
        self.rarely: list[Callable[[Random], None]] = [self.begin_anew, self.stop_a_queue]

    @property
    def parts(self) -> Sequence[Stateful]:
        return [self.driver.transport, self.device]

    def take_over(self, old: "Life") -> None:
        self.driver.take_over(old.driver)

    def step(self, chance: Random) -> object:
        self.log.clear()
        weights, doings = zip(*self.doings, strict=True)
        do = chance.choice(self.rarely) if chance.random() < 0.01 else chance.choices(doings, weights)[0]
        do(chance)
        back = [
            (index, done.token.descriptors, done.used_len, done.data)
            for index in self.driver.queues
            for done in (self.driver.completed(index) if chance.random() < 0.7 else ())
        ]
        acknowledged = self.driver.ack() if chance.random() < 0.7 else None
        line = self.driver.irq.level, self.driver.irq.edges
        return do.__name__, self.clock.now(), back, acknowledged, line, self.seen()

    def seen(self) -> object:
        device = self.device
        controls = [control.values for control in device.controls]
        jacks = [jack.info() for jack in device.jacks]
        return self.events.pending, [stats.state() for stats in device.stats], controls, jacks, [*self.log]

    # What the guest does.

    def room_in(self, queue: int, descriptors: int = 4) -> bool:
        return queue in self.driver.queues and len(self.driver.queues[queue].free) >= descriptors

    def request(self, data: bytes, room: int = 4) -> None:
        if self.room_in(CONTROLQ):
            self.driver.submit(CONTROLQ, [data], [room])
            self.driver.write("QueueNotify", CONTROLQ)

    def set_params(self, stream: int, chance: Random) -> None:
        pcm, period = chance.choice([(S16_STEREO, 64), (S16_STEREO, 1024), (WIDE, 8000), (WIDE, LARGE)])
        buffer = period * chance.choice([1, 2, 4])
        code, rate = FORMAT_CODES[pcm.format.name], RATES.index(pcm.rate)
        self.request(struct.pack("<IIIIIBBBB", SET_PARAMS, stream, buffer, period, 0, pcm.channels, code, rate, 0))

    def command(self, chance: Random) -> None:
        stream = chance.choice([0, 0, 1, 2, 2, 3, 4])
        code = chance.choice([SET_PARAMS, PREPARE, START, START, STOP, STOP, RELEASE])
        if code == SET_PARAMS:
            self.set_params(stream, chance)
        else:
            self.request(struct.pack("<II", code, stream), room=chance.choice([4] * 20 + [3]))

    def use_stream(self, chance: Random) -> None:
        stream = chance.randrange(4)
        self.request(struct.pack("<II", STOP, stream))
        self.set_params(stream, chance)
        self.request(struct.pack("<II", PREPARE, stream))
        for _ in range(chance.randrange(5)):
            self.send(stream, chance.choice([64, 1024, 8000]), chance)
        self.request(struct.pack("<II", START, stream))

    def send(self, stream: int, size: int, chance: Random, queue: int | None = None) -> None:
        queue = queue if queue is not None else TXQ if stream < STREAMS[0] else RXQ
        if not self.room_in(queue):
            return
        header = struct.pack("<I", stream)
        if queue == TXQ:
            self.driver.submit(queue, [header, chance.randbytes(size)], [8], indirect=chance.random() < 0.5)
        else:
            self.driver.submit(queue, [header], [size, 8], indirect=chance.random() < 0.5)
        self.driver.write("QueueNotify", queue)

    def message(self, chance: Random) -> None:
        stream = chance.choice([0, 0, 1, 2, 2, 3, 4])
        queue = chance.choice([None] * 20 + [TXQ, RXQ])
        self.send(stream, chance.choice([64, 64, 1024, 8000, 0, 30]), chance, queue)

    def many_messages(self, chance: Random) -> None:
        stream = chance.choice([0, 1, 2, 3, 4])
        for _ in range(100):
            self.send(stream, chance.choice([4, 8]), chance)

    def large_message(self, chance: Random) -> None:
        tokens = [token for queue in self.driver.queues.values() for token in queue.tokens.values()]
        if sum(size for token in tokens for _, size in (*token.readable, *token.writable)) < MOST:
            self.send(chance.choice([0, 1, 2, 3]), LARGE, chance)

    def plug(self, chance: Random) -> None:
        self.device.jacks.plug(chance.choice(["line", "mic"]), connected=chance.random() < 0.5)

    def turn_the_volume(self, chance: Random) -> None:
        self.device.controls.set("Capture Volume", (chance.randrange(101), 7))

    def ask(self, chance: Random) -> None:
        number = chance.randrange(5)
        self.request(
            chance.choice(
                [
                    struct.pack("<IIII", JACK_INFO, 0, 2, 24),
                    struct.pack("<II", CTL_READ, number),
                    struct.pack("<IIII", CTL_WRITE, number, 1, chance.randrange(2)),
                ]
            ),
            room=600,
        )

    def listen(self, chance: Random) -> None:
        if self.room_in(EVENTQ):
            self.driver.submit(EVENTQ, [], [chance.choice([8, 8, 8, 7])])
            self.driver.write("QueueNotify", EVENTQ)

    def begin_anew(self, chance: Random) -> None:
        self.driver.check_writes()
        self.driver.reset()
        if chance.random() < 0.8:
            self.driver.memory.free_all()
            self.driver.start()

    def stop_a_queue(self, chance: Random) -> None:
        self.driver.write("QueueSel", chance.choice([TXQ, RXQ]))
        self.driver.write("QueueReady", 0)

    # Time.

    def let_time_pass(self, chance: Random) -> None:
        self.events.advance(chance.choice([1_000, 100_000, 1_000_000, 10_000_000]))

    def be_late(self, chance: Random) -> None:
        self.clock.advance(chance.choice([0, 100_000, 1_000_000, 50_000_000]))
        self.have_a_turn(chance)

    def have_a_turn(self, chance: Random) -> None:
        """Let one event happen, if it is due."""
        if self.events.pending and self.events.pending[0] <= self.clock.now():
            self.events.run_one()


class LoopbackLife(Life):
    """What the guest plays, and what Python plays to it, is what it records."""

    def __init__(self) -> None:
        self.bay = Patchbay(Loopback(100, streams=STREAMS))
        super().__init__(self.bay)
        self.doings.append((2, self.play))

    def play(self, chance: Random) -> None:
        kind = chance.choice(["uint8", "int16", "int32", "float32", "float64"])
        samples = np.frombuffer(chance.randbytes(800), np.uint8).astype(kind)
        self.bay.play(samples.reshape(-1, chance.choice([1, 2, 8])))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [Life, LoopbackLife])
def test_as_if_nothing_had_been(make: Callable[[], Life], seed: int) -> None:
    live_through_snapshots(make, seed, steps=250)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [Life, LoopbackLife])
def test_wrong_states_are_refused_or_harmless(make: Callable[[], Life], seed: int) -> None:
    live_with_wrong_states(make, seed, states=60)
