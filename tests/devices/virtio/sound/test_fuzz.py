"""Whatever a driver sends, in any order: each chain is answered once, nothing raises, and a reset cures everything."""

import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.devices.virtio.sound.guest import (
    CONTROLQ,
    EVENTQ,
    PREPARE,
    RELEASE,
    RXQ,
    S16_STEREO,
    SECOND,
    SET_PARAMS,
    SOURCE,
    START,
    STOP,
    TXQ,
    Card,
    Guest,
    noise,
    source,
)

U32 = st.integers(0, 0xFFFF_FFFF)
CODES = st.sampled_from([0, 1, 2, 0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x200, 0x300, 0xFFFF_FFFF])
STATUSES = {0x8000, 0x8001, 0x8002}
# Streams 0 and 1 play, 2 and 3 record, 4 does not exist.
STREAMS = (2, 2)

good_command = st.tuples(
    st.just("command"),
    st.sampled_from([SET_PARAMS, PREPARE, START, STOP, RELEASE]),
    st.sampled_from([0, 0, 2, 2, 1, 3]),
)
any_request = st.tuples(
    st.just("request"),
    st.one_of(
        st.binary(max_size=40),
        st.tuples(CODES, U32 | st.just(0)).map(lambda f: struct.pack("<II", *f)),
        st.tuples(CODES, U32, U32, U32).map(lambda f: struct.pack("<IIII", *f)),
        st.tuples(
            st.just(SET_PARAMS),
            st.integers(0, 4),
            U32,
            U32,
            st.integers(0, 2),
            *[st.integers(0, 30)] * 3,
            st.integers(0, 1),
        ).map(lambda f: struct.pack("<IIIIIBBBB", *f)),
    ),
    st.sampled_from([0, 3, 4, 8, 36, 4096]),
)
HEADERS = st.one_of(
    st.integers(0, 4).map(lambda stream: struct.pack("<I", stream)), st.sampled_from([b"", b"\0\0", b"\xff" * 4])
)
ROOMS = [[], [3], [7], [8], [4, 4], [9], [100]]
output = st.tuples(st.just("message"), st.just(TXQ), HEADERS, st.integers(0, 600), st.sampled_from([[8]] * 7 + ROOMS))
input_ = st.tuples(
    st.just("message"),
    st.just(RXQ),
    HEADERS,
    st.sampled_from([0, 0, 0, 5]),
    st.integers(0, 600).map(lambda size: [size, 8]) | st.sampled_from(ROOMS),
)
time = st.tuples(st.just("run"), st.integers(0, 20_000_000))
late = st.tuples(st.just("late"), st.integers(0, SECOND))
reset = st.just(("reset",))
operations = st.lists(
    st.one_of(good_command, good_command, any_request, output, input_, time, late, reset), max_size=60
)


class Fuzzed:
    """A guest on which operations are carried out, and the chains that it has in each queue."""

    def __init__(self) -> None:
        self.guest = Guest(Card(STREAMS), streams=STREAMS)
        self.pending = {TXQ: 0, RXQ: 0}

    def command(self, code: int, stream: int) -> None:
        if code == SET_PARAMS:
            self.guest.set_params(stream=stream)
        else:
            self.guest.command(code, stream)

    def request(self, data: bytes, room: int) -> None:
        reply = self.guest.request(data, room)
        assert len(reply) <= room
        if room >= 4:
            assert struct.unpack_from("<I", reply)[0] in STATUSES
        else:
            assert not reply

    def message(self, queue: int, header: bytes, size: int, writable: list[int]) -> None:
        if self.pending[queue] < 100:
            self.guest.driver.submit(queue, [header, noise(size, size)], writable, indirect=True)
            self.guest.driver.kick(queue)
            self.pending[queue] += 1

    def run(self, ns: int) -> None:
        self.guest.events.advance(ns)

    def late(self, ns: int) -> None:
        self.guest.clock.advance(ns)
        self.guest.events.run_due()

    def reset(self) -> None:
        self.guest.driver.reset()
        assert not self.guest.events.pending
        self.pending = {TXQ: 0, RXQ: 0}
        self.guest.driver.start()

    def collect(self) -> None:
        for queue in (TXQ, RXQ):
            for done in self.guest.driver.completed(queue):
                self.pending[queue] -= 1
                room = len(done.data)
                if room < 8:
                    assert done.used_len == 0
                    continue
                status, latency = struct.unpack("<II", done.data[-8:])
                assert status in {0x8000, 0x8003}
                if queue == TXQ or status == 0x8003:
                    assert (done.used_len, latency) == (8, 0)
                else:
                    assert 8 <= done.used_len <= room
                    assert latency <= 64 << 20
        assert not self.guest.driver.completed(CONTROLQ)
        assert not self.guest.driver.completed(EVENTQ)


@settings(deadline=None, max_examples=150)
@given(operations)
def test_any_sequence_is_survived(sequence):
    fuzzed = Fuzzed()
    for name, *arguments in sequence:
        getattr(fuzzed, name)(*arguments)
        fuzzed.collect()
    # Stopped and released, nothing is pending: every chain has come back, exactly once.
    for stream in range(sum(STREAMS)):
        fuzzed.command(STOP, stream)
        fuzzed.command(RELEASE, stream)
    fuzzed.run(0)
    fuzzed.collect()
    assert fuzzed.pending == {TXQ: 0, RXQ: 0}
    # And the next driver finds a device like new.
    fuzzed.reset()
    guest = fuzzed.guest
    before = len(guest.backend.outputs[0].data)
    guest.open(stream=2)
    guest.open()
    guest.offer(16, stream=2)
    guest.send(noise(1, 16))
    guest.command(START, 2)
    guest.command(START)
    guest.run(SECOND)
    assert guest.backend.outputs[0].data[before:] == noise(1, 16)
    assert [(done.time, done.data) for done in guest.done] == [
        (guest.end_of(4), b""),
        (guest.end_of(4), SOURCE[:16]),
    ]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, SECOND)), max_size=30))
def test_stops_and_starts_at_any_time_add_up(pauses):
    guest = Guest()
    guest.open()
    sound = [noise(i, size) for i, size in enumerate((4, 400, 16, 8, 4000, 12))]
    guest.send(*sound)
    guest.command(START)
    begin = guest.started
    for played, silent in pauses:
        guest.run(played)
        guest.command(STOP)
        guest.run(silent)
        guest.command(START)
        if len(guest.done) < len(sound):
            begin += silent
    guest.run(SECOND)
    guest.started = begin
    assert guest.backend.data == b"".join(sound)
    assert guest.done[-1].time == guest.end_of(1110)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, SECOND)), max_size=30),
    st.lists(st.integers(0, 60), min_size=1, max_size=5),
)
@example(pauses=[], frames=[49, 0])  # nothing to record takes no time, and is not late
def test_recording_is_exact_whatever_stops_it_and_whatever_the_messages(pauses, frames):
    guest = Guest()
    guest.open(S16_STEREO, 1 << 20, 16, stream=1)
    guest.on_done = lambda done: guest.offer(4 * frames[len(guest.done) % len(frames)] or 4)
    guest.offer(*(4 * n for n in frames))
    guest.command(START, 1)
    begin = guest.started
    for recorded, silent in pauses:
        guest.run(recorded)
        guest.command(STOP, 1)
        guest.run(silent)
        guest.command(START, 1)
        begin += silent
    guest.run(10_000_000)
    guest.started = begin
    data = b"".join(done.data for done in guest.done)
    assert data == source(0, len(data))
    assert guest.done[-1].time == guest.end_of(len(data) // 4)
    assert guest.clock.now() < guest.end_of(len(data) // 4 + max(frames) + 1)
    assert {done.latency for done in guest.done} == {0}
