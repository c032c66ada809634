"""The existing drivers, replayed: what each of them sends when, and that the sound is right with each."""

import random
from collections.abc import Sequence

import pytest

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from tests.devices.virtio.fake_driver import Token
from tests.devices.virtio.sound.guest import (
    OK,
    PREPARE,
    RELEASE,
    S16_STEREO,
    SECOND,
    START,
    STOP,
    TXQ,
    Done,
    Guest,
    Recorder,
    noise,
)

STALE = b"\xee"

#: For backends that keep sound and those that play live: none may keep a stale period or lose a frame.
either = pytest.mark.parametrize("part_ns", [None, 3_000_000], ids=["kept", "live"])


class Alsa:
    """An application that plays ``sound``, a list of periods, through a ring of ``periods``, and drains it.

    Each completion wakes up a worker after ``latency`` ns, which refills the ring, or stops the stream when everything
    has been played. A subclass is a driver: it decides what is in the queue.
    """

    def __init__(self, guest: Guest, pcm: PcmParams, periods: int, frames: int, latency: int) -> None:
        self.guest = guest
        self.pcm = pcm
        self.period = frames * pcm.frame_size
        self.latency = latency
        self.slots = [STALE * self.period] * periods
        self.tokens: list[Token | None] = [None] * periods
        guest.on_done = self.interrupt
        guest.open(pcm, self.period * periods, self.period)

    def play(self, sound: Sequence[bytes]) -> None:
        self.sound = sound
        self.written = self.played = 0
        self.enabled = False
        self.finished = False
        self.refill()
        self.trigger_start()

    def trigger_start(self) -> None:
        self.enabled = True
        assert self.guest.command(START) == OK

    def pause(self) -> None:
        self.enabled = False
        assert self.guest.command(STOP) == OK

    def interrupt(self, done: Done) -> None:
        slot = self.tokens.index(done.token)
        assert slot == self.played % len(self.slots), "out of order"
        self.tokens[slot] = None
        self.played += 1
        self.guest.events.at(self.guest.clock.now() + self.latency, self.work)

    def work(self) -> None:
        if self.finished or not self.enabled:
            return
        if self.played >= self.written == len(self.sound):
            self.finished = True
            self.pause()
            assert self.guest.command(RELEASE) == OK
            # Pending messages were returned before RELEASE was answered, and wake no one up.
            self.guest.on_done = lambda done: None
            self.guest.collect()
            self.guest.on_done = self.interrupt
            self.tokens = [None] * len(self.slots)
            return
        assert self.played < self.written, "an underrun"
        self.refill()

    def refill(self) -> None:
        while self.written < len(self.sound) and self.written < self.played + len(self.slots):
            self.write(self.written % len(self.slots), self.sound[self.written])
            self.written += 1

    def write(self, slot: int, data: bytes) -> None:
        self.slots[slot] = data

    def queue(self, slot: int) -> None:
        self.tokens[slot] = self.guest.submit(self.slots[slot])
        if self.guest.driver.wants_kick(TXQ):
            self.guest.driver.kick(TXQ)


class Linux61(Alsa):
    """Queues the whole ring before START, and each period again from its interrupt, before it has been refilled."""

    def trigger_start(self) -> None:
        first = self.played % len(self.slots)
        for slot in [*range(first, len(self.slots)), *range(first)]:
            if self.tokens[slot] is None:
                self.queue(slot)
        super().trigger_start()

    def interrupt(self, done: Done) -> None:
        slot = self.tokens.index(done.token)
        super().interrupt(done)
        if self.enabled:
            self.queue(slot)

    def write(self, slot: int, data: bytes) -> None:
        super().write(slot, data)
        if self.tokens[slot] is not None:
            self.guest.refill(self.tokens[slot], data)


class Linux67(Alsa):
    """Queues a period when the application has written it; at the end of a sound the queue is empty."""

    def write(self, slot: int, data: bytes) -> None:
        super().write(slot, data)
        self.queue(slot)


@pytest.mark.parametrize("linux", [Linux61, Linux67])
@pytest.mark.parametrize("periods", [2, 3, 4, 16])
@pytest.mark.parametrize("length", [1, 2, 5, 40])
@pytest.mark.parametrize("latency", [0.0, 0.01, 0.99])
@either
def test_a_sound_is_played_once_and_on_time(linux, periods, length, latency, part_ns):
    guest = Guest(Recorder(part_ns=part_ns))
    frames = 480
    player = linux(guest, S16_STEREO, periods, frames, int(latency * frames * SECOND / 48000))
    sound = [noise(i, player.period) for i in range(length)]
    player.play(sound)
    guest.run(2 * SECOND)
    assert player.finished
    assert guest.backend.data == b"".join(sound)
    assert [done.time for done in guest.done[:length]] == [guest.end_of(frames * n) for n in range(1, length + 1)]
    assert guest.stats.underruns == guest.stats.lateness_max_ns == 0
    assert guest.backend.state == "closed"


@pytest.mark.parametrize("linux", [Linux61, Linux67])
@either
def test_an_application_may_be_almost_a_buffer_late(linux, part_ns):
    """Of the periods that 6.1 has queued, all but the one being played may be stale."""
    guest = Guest(Recorder(part_ns=part_ns))
    player = linux(guest, S16_STEREO, 8, 480, 7 * 10_000_000 - 1)
    sound = [noise(i, player.period) for i in range(50)]
    player.play(sound)
    while player.written < len(sound):
        guest.run(1_000_000)
    player.latency = 0  # otherwise 6.1's stale periods would be played at the end
    guest.run(SECOND)
    assert guest.backend.data == b"".join(sound)
    assert guest.stats.underruns == 0


@pytest.mark.parametrize("linux", [Linux61, Linux67])
@pytest.mark.parametrize("part_ns", [None, 500_000])
def test_sounds_back_to_back_with_stale_periods_of_the_last_one(linux, part_ns):
    guest = Guest(Recorder(part_ns=part_ns))
    player = linux(guest, S16_STEREO, 4, 100, 1_000_000)
    played = b""
    for length in (9, 1, 2, 7, 4, 3, 1, 1):
        sound = [noise(1000 * length + i, player.period) for i in range(length)]
        player.play(sound)
        guest.run(SECOND)
        assert player.finished
        played += b"".join(sound)
        assert guest.backend.data == played
        assert guest.command(PREPARE) == OK


@pytest.mark.parametrize("linux", [Linux61, Linux67])
@pytest.mark.parametrize("frames", [1, 2, 99, 100, 101, 399, 401, 1234])
def test_sounds_of_any_length_back_to_back(linux, frames):
    """aplay pads them to whole periods with silence; nothing of an older sound that the ring still holds is played.

    It continues with its stream, or opens it anew.
    """
    guest = Guest()
    player = linux(guest, S16_STEREO, 4, 100, 1000)
    played = b""
    for seed in range(4):
        sound = noise(seed, 4 * frames)
        padded = sound.ljust(-(-len(sound) // player.period) * player.period, b"\0")
        player.play([padded[at : at + player.period] for at in range(0, len(padded), player.period)])
        guest.run(SECOND)
        assert player.finished
        played += padded
        assert guest.backend.data == played
        if seed % 2:
            guest.open(S16_STEREO, 4 * player.period, player.period)
        else:
            assert guest.command(PREPARE) == OK


@pytest.mark.parametrize("linux", [Linux61, Linux67])
@pytest.mark.parametrize("seed", range(10))
@either
def test_pausing_changes_nothing(linux, seed, part_ns):
    rng = random.Random(seed)
    guest = Guest(Recorder(part_ns=part_ns))
    player = linux(guest, PcmParams(FORMATS["S16"], 44100, 2), rng.randint(2, 6), rng.randint(1, 700), 0)
    sound = [noise(i, player.period) for i in range(60)]
    player.play(sound)
    begin, paused = guest.clock.now(), 0
    while True:
        guest.run(rng.randint(0, 20_000_000))
        if player.finished:
            break
        player.pause()
        silence = rng.randint(0, SECOND)
        guest.run(silence)
        paused += silence
        player.trigger_start()
    assert guest.backend.data == b"".join(sound)
    guest.started = begin + paused
    assert guest.done[59].time == guest.end_of(60 * len(sound[0]) // 4)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("part_ns", [None, 500_000])
def test_a_killed_application_leaves_nothing_behind(seed, part_ns):
    rng = random.Random(seed)
    guest = Guest(Recorder(part_ns=part_ns))
    player = Linux61(guest, S16_STEREO, 4, 100, 0)
    for _ in range(10):
        player.play([noise(rng.randrange(1 << 30), player.period) for _ in range(20)])
        guest.run(rng.randint(0, 41_000_000))
        if not player.finished:
            player.sound = player.sound[: player.written]
            player.played = player.written
            player.work()
        before = len(guest.backend.data)
        assert guest.command(PREPARE) == OK
        sound = [noise(i, player.period) for i in range(7)]
        player.play(sound)
        guest.run(SECOND)
        assert guest.backend.data[before:] == b"".join(sound)
        assert guest.command(PREPARE) == OK


def test_a_driver_that_promises_everything_at_once():
    """All 1024 entries of the queue at once, far more than the buffer it announced."""
    guest = Guest()
    guest.open(S16_STEREO, buffer=32, period=16)
    sound = [noise(i, 16) for i in range(1024)]
    guest.send(*sound)
    guest.command(START)
    guest.run(SECOND)
    assert guest.backend.data == b"".join(sound)
    assert [done.time for done in guest.done] == [guest.end_of(4 * n) for n in range(1, 1025)]


def test_the_fattest_stream_in_pages():
    """384 kHz, 8 channels of 64 bits, the largest buffer that Linux takes, with a descriptor for each of its pages."""
    guest = Guest()
    pcm = PcmParams(FORMATS["FLOAT64"], 384000, 8)
    pages = 120
    size = pages * 4096
    guest.open(pcm, buffer=8 * size, period=size)
    sound = [noise(i, size) for i in range(8)]
    for data in sound:
        pieces = [data[i : i + 4096] for i in range(0, size, 4096)]
        guest.driver.submit(TXQ, [bytes(4), *pieces], [8])
    guest.driver.kick(TXQ)
    guest.command(START)
    guest.run(SECOND)
    assert guest.backend.data == b"".join(sound)
    assert guest.done[-1].time == guest.end_of(8 * size // 64)
