"""Whatever a driver sends, in whatever order: each chain is answered once, nothing raises, and a reset cures all."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices.virtio.sound.guest import (
    CONTROLQ,
    EVENTQ,
    PREPARE,
    RELEASE,
    RXQ,
    SECOND,
    SET_PARAMS,
    START,
    STOP,
    TXQ,
    Guest,
    noise,
)

U32 = st.integers(0, 0xFFFF_FFFF)
CODES = st.sampled_from([0, 1, 2, 0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x200, 0x300, 0xFFFF_FFFF])
STATUSES = {0x8000, 0x8001, 0x8002}

good_command = st.sampled_from([SET_PARAMS, PREPARE, START, STOP, RELEASE]).map(lambda code: ("command", code))
any_request = st.tuples(
    st.just("request"),
    st.one_of(
        st.binary(max_size=40),
        st.tuples(CODES, U32 | st.just(0)).map(lambda f: struct.pack("<II", *f)),
        st.tuples(CODES, U32, U32, U32).map(lambda f: struct.pack("<IIII", *f)),
        st.tuples(
            st.just(SET_PARAMS), st.just(0), U32, U32, st.integers(0, 2), *[st.integers(0, 30)] * 3, st.integers(0, 1)
        ).map(lambda f: struct.pack("<IIIIIBBBB", *f)),
    ),
    st.sampled_from([0, 3, 4, 8, 36, 4096]),
)
message = st.tuples(
    st.just("message"),
    st.sampled_from([TXQ, TXQ, TXQ, RXQ]),
    st.sampled_from([b"", b"\0\0", struct.pack("<I", 0), struct.pack("<I", 0), struct.pack("<I", 1), b"\xff" * 4]),
    st.integers(0, 600),
    st.sampled_from([[8], [8], [8], [], [3], [4, 4], [7], [100]]),
)
time = st.tuples(st.just("run"), st.integers(0, 20_000_000))
late = st.tuples(st.just("late"), st.integers(0, SECOND))
reset = st.just(("reset",))
operations = st.lists(
    st.one_of(good_command, good_command, any_request, message, message, time, late, reset), max_size=60
)


class Fuzzed:
    """A guest on which operations are carried out, and the chains that it has in each queue."""

    def __init__(self) -> None:
        self.guest = Guest()
        self.pending = {TXQ: 0, RXQ: 0}

    def command(self, code: int) -> None:
        if code == SET_PARAMS:
            self.guest.set_params()
        else:
            self.guest.command(code)

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
                assert done.used_len == (8 if len(done.data) >= 8 else 0)
                if done.used_len:
                    status, latency = struct.unpack("<II", done.data[-8:])
                    assert (status in {0x8000, 0x8003}, latency) == (True, 0)
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
    fuzzed.command(STOP)
    fuzzed.command(RELEASE)
    fuzzed.run(0)
    fuzzed.collect()
    assert fuzzed.pending == {TXQ: 0, RXQ: 0}
    # And the next driver finds a device like new.
    fuzzed.reset()
    guest = fuzzed.guest
    before = len(guest.backend.data)
    guest.open()
    guest.send(noise(1, 16))
    guest.command(START)
    guest.run(SECOND)
    assert guest.backend.data[before:] == noise(1, 16)
    assert guest.done[-1].time == guest.end_of(4)


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
