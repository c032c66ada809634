"""A sound device that is saved and rebuilt at any instant, in the middle of a command or a message, is as if it had
not been: what is played and recorded, what comes back to the driver and when, and what is counted.
"""

import struct
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from devices.audio import AudioBackend, Capture, Loopback, NullSink, PcmParams, Period, Playback, WavSink
from devices.audio.patchbay import Patchbay
from devices.audio.pcm import FORMATS
from devices.errors import UsageError
from devices.state import Stateful
from devices.virtio.sound import SoundDevice
from devices.virtio.sound.steps import AT_ONCE
from devices.virtio.sound.turn import Turn
from emu.snapshot.plain import decode, encode, type_of
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
PARAMS = ((S16_STEREO, 64), (S16_STEREO, 1024), (WIDE, 8000), (WIDE, LARGE))


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
            (6, self.begin),
            (1, self.stop_amid_a_large_message),
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
        back = [self.collect(queue) for queue in self.driver.queues if chance.random() < 0.7]
        acknowledged = self.driver.ack() if chance.random() < 0.7 else None
        line = self.driver.irq.level, self.driver.irq.edges
        return do.__name__, self.clock.now(), back, acknowledged, line, self.seen()

    def collect(self, queue: int) -> list[tuple[list[int], int, bytes]]:
        """Take what has come back: its descriptors, and what the device has written."""
        return [(done.token.descriptors, done.used_len, done.data) for done in self.driver.completed(queue)]

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

    def set_params(self, stream: int, pcm: PcmParams, period: int, periods: int) -> None:
        code, rate = FORMAT_CODES[pcm.format.name], RATES.index(pcm.rate)
        fields = stream, period * periods, period, 0, pcm.channels, code, rate, 0
        self.request(struct.pack("<IIIIIBBBB", SET_PARAMS, *fields))

    def command(self, chance: Random) -> None:
        stream = chance.choice([0, 0, 1, 2, 2, 3, 4])
        code = chance.choice([SET_PARAMS, PREPARE, START, START, STOP, STOP, RELEASE])
        if code == SET_PARAMS:
            self.set_params(stream, *chance.choice(PARAMS), chance.choice([1, 2, 4]))
        else:
            self.request(struct.pack("<II", code, stream), room=chance.choice([4] * 20 + [3]))

    def begin(self, chance: Random) -> None:
        """Begin to play, to record, or to do both alike."""
        pcm, period = chance.choice(PARAMS)
        streams = chance.choice([(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 2)])
        for stream in streams:
            for code in (STOP, RELEASE):
                self.request(struct.pack("<II", code, stream))
            self.set_params(stream, pcm, period, chance.choice([1, 2, 4]))
            self.request(struct.pack("<II", PREPARE, stream))
            for _ in range(1 if period == LARGE else chance.randrange(10)):
                self.send(stream, period, chance)
        for stream in streams:
            self.request(struct.pack("<II", START, stream))

    def stop_amid_a_large_message(self, chance: Random) -> None:
        self.large_message(chance)
        self.clock.advance(200_000_000)
        for _ in range(chance.randrange(1, 8)):
            self.have_a_turn(chance)
        for stream in range(4):
            self.request(struct.pack("<II", STOP, stream))

    def send(self, stream: int, size: int, chance: Random, queue: int | None = None) -> None:
        queue = queue if queue is not None else TXQ if stream < STREAMS[0] else RXQ
        if not self.room_in(queue):
            return
        header = struct.pack("<I", stream)
        if queue == TXQ:
            sound = Random(chance.choice([1, 1, 2, chance.random()])).randbytes(size)
            self.driver.submit(queue, [header, sound], [8], indirect=chance.random() < 0.5)
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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [Life, LoopbackLife])
def test_as_if_nothing_had_been(make: Callable[[], Life], seed: int) -> None:
    live_through_snapshots(make, seed, steps=200)


class WrongLife(Life):
    """One whose state may be wrong: its guest's memory may suffer, but nothing else."""

    def collect(self, queue: int) -> list[tuple[list[int], int, bytes]]:
        with suppress(AssertionError, KeyError):
            return super().collect(queue)
        return []


class WrongLoopbackLife(WrongLife, LoopbackLife):
    """The same with a loopback."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [WrongLife, WrongLoopbackLife])
def test_wrong_states_are_refused_or_harmless(make: Callable[[], Life], seed: int) -> None:
    live_with_wrong_states(make, seed, states=60)


def successor(old: Life, room: AudioBackend | None = None) -> Life:
    """Return what goes on from there on a new machine."""
    new = type(old)() if room is None else Life(room)
    new.events.follow(old.events)
    new.take_over(old)
    for old_part, new_part in zip(old.parts, new.parts, strict=True):
        new_part.restore(decode(encode(old_part.state()), type_of(old_part)))
    return new


def prepare(life: Life, stream: int, pcm: PcmParams = S16_STEREO, period: int = 64) -> None:
    life.set_params(stream, pcm, period, periods=4)
    life.request(struct.pack("<II", PREPARE, stream))


def start(life: Life, *streams: int) -> None:
    for stream in streams:
        life.request(struct.pack("<II", START, stream))


def recorded(life: Life) -> bytes:
    return b"".join(data[: length - 8] for _, length, data in life.collect(RXQ))


def large_messages(life: Life, stream: int) -> None:
    """Have a large message that is over, and of which a part has been moved."""
    prepare(life, stream, WIDE, LARGE)
    for _ in range(2):
        life.send(stream, LARGE, Random(1))
    start(life, stream)
    life.clock.advance(WIDE.duration_ns(LARGE // 8))
    life.events.run_one()


def small_messages(life: Life, stream: int) -> None:
    """Have many messages, and as many that have been refused."""
    prepare(life, stream)
    for _ in range(100):
        life.send(stream, 4, Random(1))
        life.send(4, 4, Random(1), TXQ)


@pytest.mark.parametrize("stream", [0, 1, 2])
@pytest.mark.parametrize(
    ("messages", "code"), [(large_messages, STOP), (small_messages, RELEASE), (small_messages, SET_PARAMS)]
)
def test_a_command_of_which_some_is_left(messages: Callable[[Life, int], None], code: int, stream: int) -> None:
    straight, saved = Life(), Life()
    for life in (straight, saved):
        messages(life, stream)
        if code == SET_PARAMS:
            life.set_params(stream, WIDE, 64, periods=2)
        else:
            life.request(struct.pack("<II", code, stream))
    assert straight.device.state()["accepted"] is not None
    for _ in range(20):
        saved = successor(saved)
        for life in (straight, saved):
            life.log.clear()
            life.have_a_turn(Random(1))
        assert saved.log == straight.log
        for queue in (CONTROLQ, TXQ, RXQ):
            assert saved.collect(queue) == straight.collect(queue)
    assert saved.device.state() == straight.device.state()
    assert saved.device.state()["accepted"] is None


def test_a_large_message_that_is_played_piece_by_piece_to_a_loopback() -> None:
    straight, saved = LoopbackLife(), LoopbackLife()
    for life in (straight, saved):
        for stream in (0, 2):
            prepare(life, stream, WIDE, LARGE)
            for _ in range(3):
                life.send(stream, LARGE, Random(1))
        start(life, 0, 2)
    for _ in range(9):
        saved = successor(saved)
        for life in (straight, saved):
            pending = life.events.pending[0]
            life.clock.advance(max(0, pending - life.clock.now()))
            life.have_a_turn(Random(1))
        assert saved.device.state() == straight.device.state()


def test_a_turn_that_begins_with_sound_and_ends_in_silence() -> None:
    """The period that is playing is known by parts."""
    first = Turn(1, S16_STEREO)
    for _ in range(2):
        first.play(b"\1\0\0\0")
        second = Turn(1, S16_STEREO)
        second.restore(first.state())
        second.play(bytes(4))
        again = second.end_period()
        first = second
    assert again


# ---------------------------------------------------------------- backends


def sounding(room: AudioBackend) -> tuple[Life, bytes]:
    """Return a life that plays a sound of 40 periods and records as many, and that sound."""
    life = Life(room)
    sound = [Random(number).randbytes(64) for number in range(40)]
    for stream in (0, 2):
        prepare(life, stream)
    for period in sound:
        life.driver.submit(TXQ, [struct.pack("<I", 0), period], [8], indirect=True)
        life.driver.submit(RXQ, [struct.pack("<I", 2)], [64, 8], indirect=True)
    life.driver.write("QueueNotify", TXQ)
    life.driver.write("QueueNotify", RXQ)
    start(life, 0, 2)
    return life, b"".join(sound)


#: 15 of those periods, and a bit.
A_WHILE = 5_100_000


def test_wav_files_go_on_with_the_very_next_frame(tmp_path: Path) -> None:
    sung = Random(5).randbytes(40 * 64)
    with closing(WavSink(tmp_path / "sung.wav")) as song:
        song.record(0, S16_STEREO, sung)
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    rooms = [WavSink(path, source=tmp_path / "sung.wav", streams=STREAMS) for path in paths]
    life, sound = sounding(rooms[0])
    life.events.advance(A_WHILE)
    for room in rooms[1:]:
        life = successor(life, room)
        life.events.advance(A_WHILE)
    assert [room.played for room in rooms] == [15 * 16, 15 * 16, 10 * 16]
    assert b"".join(room.frames.tobytes() for room in rooms) == sound
    assert recorded(life) == sung
    assert life.device.stats[0].frames == 40 * 16
    for room in rooms:
        room.close()


def test_the_same_machine_goes_back_and_its_wav_file_goes_on(tmp_path: Path) -> None:
    with closing(WavSink(tmp_path / "out.wav", streams=STREAMS)) as room:
        life, sound = sounding(room)
        life.events.advance(A_WHILE)
        then = FakeEvents(FakeClock())
        then.follow(life.events)
        states = [part.state() for part in life.parts]
        for _ in range(2):
            life.events.advance(A_WHILE)
            life.events.follow(then)
            for part, state in zip(life.parts, states, strict=True):
                part.restore(state)
        life.events.advance(10 * A_WHILE)
        half = 15 * 64
        assert room.frames.tobytes() == sound[: 2 * half] + sound[half : 2 * half] + sound[half:]


def test_the_same_machine_goes_back_and_its_wav_file_with_it(tmp_path: Path) -> None:
    with closing(WavSink(tmp_path / "out.wav", streams=STREAMS, resume=True)) as room:
        life, sound = sounding(room)
        life.events.advance(A_WHILE)
        then = FakeEvents(FakeClock())
        then.follow(life.events)
        states = [part.state() for part in life.parts]
        for _ in range(2):
            life.events.advance(A_WHILE)
            life.events.follow(then)
            for part, state in zip(life.parts, states, strict=True):
                part.restore(state)
        assert (room.played, life.device.stats[0].frames) == (15 * 16, 15 * 16)
        life.events.advance(10 * A_WHILE)
        assert room.frames.tobytes() == sound


def test_a_wav_file_goes_on_with_the_very_next_frame_on_every_next_machine(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with closing(WavSink(path, streams=STREAMS)) as room:
        life, sound = sounding(room)
        life.events.advance(A_WHILE)
    for _ in range(2):
        with closing(WavSink(path, streams=STREAMS, resume=True)) as room:
            life = successor(life, room)
            life.events.advance(A_WHILE)
    assert (room.played, room.frames.tobytes()) == (40 * 16, sound)


def test_the_same_machine_goes_back_and_closes_its_ports() -> None:
    life, _ = sounding(Room())
    states = [part.state() for part in life.parts]
    life.log.clear()
    life.events.follow(life.events)
    for part, state in zip(life.parts, states, strict=True):
        part.restore(state)
    assert [entry for entry in life.log if entry[0] == 0] == [(0, "stopped"), (0, "closed"), (0, "started")]


@pytest.mark.parametrize(
    ("before", "after"), [(Room, NullSink), (NullSink, Room), (Loopback, NullSink), (NullSink, Loopback)]
)
def test_the_backend_may_be_of_another_kind(
    before: Callable[..., AudioBackend], after: Callable[..., AudioBackend]
) -> None:
    """Streams go on at the same times, also one that plays live before or after, in the middle of a message."""

    def room(make: Callable[..., AudioBackend]) -> AudioBackend:
        return make() if make is Room else make(streams=STREAMS)

    lives = [Life(room(before)), Life(room(before))]
    for life in lives:
        for stream in (0, 1, 2):
            prepare(life, stream, period=4800)
            for _ in range(3):
                life.send(stream, 4800, Random(1))
        start(life, 0, 1, 2)
        life.events.advance(10_000_000)
    lives[1] = successor(lives[1], room(after))
    for life in lives:
        life.log.clear()
    for _ in range(8):
        for life in lives:
            life.events.advance(10_000_000)
        straight, saved = [(life.collect(TXQ), [d[:2] for d in life.collect(RXQ)]) for life in lives]
        assert saved == straight
    first, second = ([stats.state() for stats in life.device.stats] for life in lives)
    assert first == second


def test_the_volume_is_that_of_the_saved_machine() -> None:
    life = Life()
    life.device.controls.set("Master Playback Switch", 0)
    new = successor(life)
    assert new.log[-1] == ([0.0, 0.0], [1.0, 1.0])


def test_another_number_of_streams_is_refused_and_says_what_to_do() -> None:
    state = Life().device.state()
    with pytest.raises(UsageError, match=r"has 2\+2 streams of sound, this machine 1\+1: use streams=2\+2"):
        SoundDevice(FakeClock(), FakeEvents(FakeClock()), NullSink()).restore(state)
