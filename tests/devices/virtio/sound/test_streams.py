"""Several streams at once, of any kinds: each is exact by itself, and none delays another."""

import math
import random
from dataclasses import dataclass, field
from fractions import Fraction

import pytest

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from tests.devices.virtio.fake_driver import Token
from tests.devices.virtio.sound.guest import (
    OK,
    PREPARE,
    RATES,
    RELEASE,
    RXQ,
    S16_STEREO,
    SECOND,
    START,
    STOP,
    TXQ,
    Card,
    Done,
    Guest,
    noise,
    source,
)

STREAMS = (3, 3)
KINDS = [
    PcmParams(FORMATS["S16"], 48000, 2),
    PcmParams(FORMATS["S32"], 384000, 8),
    PcmParams(FORMATS["U8"], 5512, 1),
    PcmParams(FORMATS["S24_3"], 44100, 6),
    PcmParams(FORMATS["FLOAT64"], 12000, 1),
    PcmParams(FORMATS["S24"], 24000, 3),
]


@dataclass
class Application:
    """One that plays to, or records from, stream ``number`` all the time, each message being queued again at once."""

    guest: Guest
    number: int
    pcm: PcmParams
    period: int  # frames
    done: list[Done] = field(default_factory=list)
    sent: bytearray = field(default_factory=bytearray)
    tokens: list[Token] = field(default_factory=list)
    running_ns: int = 0

    def __post_init__(self) -> None:
        self.size = self.period * self.pcm.frame_size
        self.guest.open(self.pcm, 4 * self.size, self.size, stream=self.number)
        for _ in range(4):
            self.queue()

    @property
    def plays(self) -> bool:
        return self.number < STREAMS[0]

    def queue(self) -> None:
        if self.plays:
            data = noise(self.number + 1000 * len(self.sent), self.size)
            self.sent += data
            self.tokens.append(self.guest.submit(data, self.number))
            self.guest.driver.kick(TXQ)
        else:
            self.tokens.append(self.guest.offer(self.size, stream=self.number))

    def start(self) -> None:
        assert self.guest.command(START, self.number) == OK
        self.zero = self.guest.clock.now() - self.running_ns

    def stop(self) -> None:
        assert self.guest.command(STOP, self.number) == OK
        self.running_ns = self.guest.clock.now() - self.zero

    def interrupt(self, done: Done) -> None:
        end = Fraction((len(self.done) + 1) * self.period * SECOND, self.pcm.rate)
        assert done.time == self.zero + math.ceil(end)
        assert done.status == OK
        assert done.token is self.tokens.pop(0), "out of order"
        self.done.append(done)
        self.queue()

    def check(self, card: Card) -> None:
        frames = len(self.done) * self.size
        if self.plays:
            assert card.outputs[self.number].finished == self.sent[:frames]
        else:
            assert b"".join(done.data for done in self.done) == source(0, frames)


def applications(guest: Guest, kinds: list[PcmParams], periods: list[int]) -> list[Application]:
    each = [Application(guest, number, *kind) for number, kind in enumerate(zip(kinds, periods, strict=True))]

    def interrupt(done: Done) -> None:
        next(application for application in each if done.token in application.tokens).interrupt(done)

    guest.on_done = interrupt
    return each


@pytest.mark.parametrize("seed", range(8))
def test_streams_of_all_kinds_start_pause_and_go_on_at_any_time(seed):
    rng = random.Random(seed)
    card = Card(STREAMS)
    guest = Guest(card, streams=STREAMS)
    kinds = rng.sample(KINDS, 6)
    each = applications(guest, kinds, [rng.randint(1, pcm.rate // 40) + pcm.rate // 200 for pcm in kinds])
    running: set[int] = set()
    for _ in range(60):
        number = rng.randrange(6)
        if number in running:
            each[number].stop()
        else:
            each[number].start()
        running ^= {number}
        guest.run(rng.randint(0, 30_000_000))
    for application in each:
        application.check(card)
    assert sum(len(application.done) for application in each) > 100
    for stats in guest.device.stats:
        assert (stats.underruns, stats.overruns, stats.lateness_max_ns) == (0, 0, 0)


@pytest.mark.parametrize("rate", RATES)
def test_a_paused_stream_never_delays_another(rate):
    """Its messages precede theirs in both queues."""
    card = Card(STREAMS)
    guest = Guest(card, streams=STREAMS)
    each = applications(guest, [PcmParams(FORMATS["S16"], r, 1) for r in (rate, 48000, 8000) * 2], [50] * 6)
    for application in each:
        application.start()
    guest.run(3_000_000)
    each[0].stop()
    each[3].stop()
    before = len(each[0].done), len(each[3].done)
    guest.run(SECOND // 10)
    assert (len(each[0].done), len(each[3].done)) == before
    assert [len(application.done) for application in each[1:3]] == [98, 16]
    for application in each:
        application.check(card)


def test_a_stream_is_released_alone():
    card = Card(STREAMS)
    guest = Guest(card, streams=STREAMS)
    guest.open(stream=0)
    guest.open(stream=1)
    guest.submit(noise(0, 16), 0)
    guest.submit(noise(1, 16), 1)
    guest.driver.kick(TXQ)
    guest.command(START, 1)
    assert guest.command(RELEASE, 0) == OK
    guest.collect()
    assert len(guest.done) == 1
    guest.run(SECOND)
    assert [done.time for done in guest.done[1:]] == [guest.end_of(4)]
    assert (card.outputs[0].data, card.outputs[1].data) == (b"", noise(1, 16))


def test_statistics_are_each_streams_own():
    guest = Guest(Card(STREAMS), streams=STREAMS)
    for stream in (1, 4):
        guest.open(stream=stream)
    guest.submit(noise(1, 16), 1)
    guest.driver.kick(TXQ)
    guest.offer(16, 16, stream=4)
    guest.command(START, 1)
    guest.command(START, 4)
    guest.run(SECOND)
    assert [stats.frames for stats in guest.device.stats] == [0, 4, 0, 0, 8, 0]
    assert [stats.messages for stats in guest.device.stats] == [0, 1, 0, 0, 2, 0]


def test_linux_opens_and_closes_one_direction_while_the_other_runs():
    guest = Guest()
    guest.open(stream=0)
    guest.send(*(noise(i, 16) for i in range(4)))
    guest.command(START, 0)
    began = guest.started
    for _ in range(3):
        guest.open(S16_STEREO, stream=1)
        guest.offer(16, 16)
        guest.command(START, 1)
        guest.run(20_000)
        guest.close(1)
    guest.command(PREPARE, 1)
    guest.run(SECOND)
    guest.started = began
    assert guest.backend.data == b"".join(noise(i, 16) for i in range(4))
    played = [done for done in guest.done if len(done.token.readable) == 2]
    assert [done.time for done in played] == [guest.end_of(4 * n) for n in range(1, 5)]
    assert not guest.driver.completed(RXQ)


@pytest.mark.parametrize(("gone", "stream"), [(TXQ, 0), (RXQ, 1)])
def test_a_queue_that_is_taken_away_is_never_touched_again(gone, stream):
    """QueueReady 0 (virtio 1.3, 4.2.2.2), with messages in flight: the other queues and all commands go on."""
    guest = Guest()
    for number in (0, 1):
        guest.open(stream=number)
    guest.send(noise(1, 16), noise(2, 16))
    guest.offer(16, 16)
    guest.driver.write("QueueSel", gone)
    guest.driver.write("QueueReady", 0)
    guest.driver.check_writes()  # until now it might
    ring = guest.driver.queues.pop(gone)
    guest.command(START, stream)
    guest.command(START, 1 - stream)
    guest.run(SECOND)
    guest.driver.kick(gone)
    assert [done.time for done in guest.done] == [guest.end_of(4), guest.end_of(8)]
    assert guest.backend.data == (b"" if gone == TXQ else noise(1, 16) + noise(2, 16))
    for number in (0, 1):
        guest.close(number)
    assert ring.used_idx == 0
    assert not guest.events.pending
