"""Haiku's driver (as of 2024), call by call: what it sends when, in which pieces, and what it treats as an error.

It takes the best format and the highest rate, makes a buffer of a single period, starts both streams before it has
queued anything, and then has one message in flight in each direction: it polls the used ring until that is back,
sleeps almost a period, and sends the next. Any status but OK ends it. It never takes an event.
"""

import struct
from collections.abc import Generator, Iterator

import pytest

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from tests.devices.virtio.fake_driver import EVENT_IDX, INDIRECT_DESC, VERSION_1
from tests.devices.virtio.sound.guest import (
    CHMAP_INFO,
    CONTROLQ,
    EVENTQ,
    FORMAT_CODES,
    OK,
    PCM_INFO,
    PREPARE,
    RATES,
    RELEASE,
    RXQ,
    SET_PARAMS,
    START,
    STOP,
    TXQ,
    Guest,
    noise,
    source,
)

FRAMES, BUFFERS = 16384, 2
PLAYBACK, RECORD = 0, 1


class Haiku:
    """The driver, with an application that exchanges buffers with it."""

    def __init__(self, guest: Guest, features: int) -> None:
        self.guest = guest
        self.played: list[bytes] = []
        self.recorded = b""
        guest.driver.start(features)
        _, streams, chmaps, _ = struct.unpack("<IIII", guest.driver.config(0, 16))
        infos = list(struct.iter_unpack("<IIQQBBB5x", self.query(PCM_INFO, streams, 32)))
        self.query(CHMAP_INFO, chmaps, 24)
        guest.driver.submit(EVENTQ, [], [8, 8])  # both buffers in one chain
        guest.driver.kick(EVENTQ)
        assert [info[4] for info in infos] == [PLAYBACK, RECORD]
        _, _, formats, rates, *_ = infos[PLAYBACK]
        best = max(code for code in FORMAT_CODES.values() if formats >> code & 1)
        name = next(name for name, code in FORMAT_CODES.items() if code == best)
        highest = max(n for n, _ in enumerate(RATES[:14]) if rates >> n & 1)  # it knows 14
        self.pcm = PcmParams(FORMATS[name], RATES[highest], 2)
        self.state = [0, 0]

    def query(self, code: int, count: int, size: int) -> bytes:
        """Ask, with the reply in two pieces."""
        done = self.guest.driver.request(
            CONTROLQ, [struct.pack("<IIII", code, 0, count, size)], [4, count * size], indirect=False
        )
        assert struct.unpack_from("<I", done.data) == (OK,)
        return done.data[4:]

    def command(self, code: int, stream: int) -> None:
        assert self.guest.command(code, stream) == OK
        self.state[stream] = code

    def set_format(self, pcm: PcmParams) -> None:
        """Set both streams up; their queues are empty."""
        self.pcm = pcm
        self.size = FRAMES * pcm.frame_size
        for stream in (PLAYBACK, RECORD):
            if self.state[stream] == STOP:
                self.command(RELEASE, stream)
            assert self.guest.set_params(pcm, self.size, self.size, stream=stream) == OK
            self.state[stream] = SET_PARAMS
        for stream in (PLAYBACK, RECORD):
            self.command(PREPARE, stream)

    def run(self, buffers: int) -> None:
        """Exchange this many buffers each way, then force a stop."""
        for stream in (PLAYBACK, RECORD):
            self.command(START, stream)
        threads = [self._playback(buffers), self._record(buffers)]
        while threads:
            threads = [thread for thread in threads if next(thread, None) is not None]
            self.guest.events.advance(100_000)  # each of them gets to run every 0.1 ms
        for stream in (PLAYBACK, RECORD):
            self.command(STOP, stream)

    def _playback(self, buffers: int) -> Iterator[str]:
        for _ in range(buffers):
            self.played.append(noise(len(self.played), self.size))
            yield from self._transfer(TXQ, [struct.pack("<I", PLAYBACK), self.played[-1]], [8])

    def _record(self, buffers: int) -> Iterator[str]:
        for _ in range(buffers):
            data = yield from self._transfer(RXQ, [struct.pack("<I", RECORD)], [self.size, 8])
            self.recorded += data

    def _transfer(self, queue: int, readable: list[bytes], writable: list[int]) -> Generator[str, None, bytes]:
        driver, clock = self.guest.driver, self.guest.clock
        sent = clock.now()
        driver.submit(queue, readable, writable)
        if driver.wants_kick(queue):
            driver.kick(queue)
        while not (done := driver.completed(queue)):
            yield "looks again"
        assert struct.unpack_from("<II", done[0].data, len(done[0].data) - 8)[0] == OK
        assert clock.now() - sent <= self.pcm.duration_ns(FRAMES) + 100_000
        wake = clock.now() + 1_000_000 // self.pcm.rate * FRAMES * 1000
        while clock.now() < wake:
            yield "sleeps"
        return done[0].data[:-8]


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | INDIRECT_DESC | EVENT_IDX])
def test_haiku_plays_and_records_every_frame(features):
    guest = Guest()
    haiku = Haiku(guest, features)
    assert (haiku.pcm.format.name, haiku.pcm.rate) == ("FLOAT64", 384000)
    before = 0
    for pcm in (haiku.pcm, PcmParams(FORMATS["S32"], 192000, 2)):
        haiku.set_format(pcm)
        haiku.recorded = b""
        haiku.run(4)
        assert guest.backend.data[before:] == b"".join(haiku.played[-4:])
        before = len(guest.backend.data)
        assert haiku.recorded == source(0, 4 * haiku.size)
    guest.device.jacks.plug("mic", connected=False)
    assert not guest.driver.completed(EVENTQ)  # it has not asked for the jacks
