"""The existing drivers, recording: what each of them queues when, and that no frame is lost or repeated."""

import random

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
    Done,
    Guest,
    source,
)


class Alsa:
    """An application that reads the periods of a ring ``latency`` ns after each has been recorded.

    A subclass is a driver: it decides when a period that came back is queued again.
    """

    def __init__(self, guest: Guest, pcm: PcmParams, periods: int, frames: int, latency: int = 0) -> None:
        self.guest = guest
        self.period = frames * pcm.frame_size
        self.latency = latency
        self.ring = [b""] * periods
        self.queued: list[Token] = []
        self.data = b""
        self.recorded = self.read = 0
        self.enabled = False
        guest.on_done = self.interrupt
        guest.open(pcm, periods * self.period, self.period, stream=1)

    def start(self) -> None:
        """Trigger START: everything that is free is queued before."""
        while len(self.queued) < len(self.ring) - self.reserved():
            self.queue()
        self.enabled = True
        assert self.guest.command(START, 1) == OK

    def reserved(self) -> int:
        """Return how many periods the driver does not queue because the application has not read them."""
        return 0

    def pause(self) -> None:
        self.enabled = False
        assert self.guest.command(STOP, 1) == OK

    def close(self) -> None:
        """Read what there is, then STOP and RELEASE."""
        self.enabled = False
        assert self.guest.command(STOP, 1) == OK
        assert self.guest.command(RELEASE, 1) == OK
        self.guest.on_done = lambda done: None
        self.guest.collect()
        self.guest.on_done = self.interrupt
        self.queued.clear()
        while self.read < self.recorded:
            self.read_one()

    def queue(self) -> None:
        self.queued.append(self.guest.offer(self.period))

    def interrupt(self, done: Done) -> None:
        assert done.token is self.queued.pop(0), "out of order"
        assert (done.status, len(done.data)) == (OK, self.period)
        self.ring[self.recorded % len(self.ring)] = done.data
        self.recorded += 1
        self.guest.events.at(self.guest.clock.now() + self.latency, self.work)

    def work(self) -> None:
        assert self.recorded - self.read < len(self.ring), "ALSA would have stopped it"
        if self.read < self.recorded:
            self.read_one()

    def read_one(self) -> None:
        self.data += self.ring[self.read % len(self.ring)]
        self.read += 1


class Linux61(Alsa):
    """Queues each period again from its interrupt, whether it has been read or not."""

    def interrupt(self, done: Done) -> None:
        super().interrupt(done)
        if self.enabled:
            self.queue()


class Linux67(Alsa):
    """Queues a period again when the application has read it."""

    def reserved(self) -> int:
        return self.recorded - self.read

    def read_one(self) -> None:
        super().read_one()
        if self.enabled:
            self.queue()


class Haiku(Alsa):
    """Has one message in flight, and queues the next some time after that has come back."""

    def reserved(self) -> int:
        return len(self.ring) - 1

    def work(self) -> None:
        super().work()
        if self.enabled and not self.queued:
            self.queue()


LINUX = [Linux61, Linux67]


@pytest.mark.parametrize("linux", LINUX)
@pytest.mark.parametrize("periods", [2, 3, 4, 16])
@pytest.mark.parametrize("latency", [0.0, 0.01, 0.99])
def test_every_frame_is_recorded_once_and_on_time(linux, periods, latency):
    guest = Guest()
    alsa = linux(guest, S16_STEREO, periods, 480, int(latency * 10_000_000))
    alsa.start()
    guest.run(SECOND)
    assert [done.time for done in guest.done] == [guest.end_of(480 * n) for n in range(1, 101)]
    assert {done.latency for done in guest.done} == {0}
    alsa.close()
    assert alsa.data == source(0, 100 * alsa.period)
    stats = guest.device.stats[1]
    assert (stats.overruns, stats.lateness_max_ns) == (0, 0)
    assert guest.backend.captures[-1].state == "closed"


@pytest.mark.parametrize("linux", LINUX)
def test_an_application_may_be_almost_a_buffer_late(linux):
    guest = Guest()
    alsa = linux(guest, S16_STEREO, 8, 480, 7 * 10_000_000 - 1)
    alsa.start()
    guest.run(SECOND)
    alsa.close()
    assert alsa.data == source(0, 100 * alsa.period)


@pytest.mark.parametrize("latency", [0, 1, 3_000_000, 9_999_999, 19_999_999])
def test_haiku_with_two_buffers_and_one_in_flight(latency):
    """If later than a period, it could never keep up."""
    guest = Guest()
    alsa = Haiku(guest, S16_STEREO, 2, 960, latency)
    alsa.start()
    guest.run(SECOND)
    alsa.close()
    assert len(alsa.data) >= 45 * alsa.period
    assert alsa.data == source(0, len(alsa.data))
    assert guest.device.stats[1].overruns == 0


@pytest.mark.parametrize("driver", [*LINUX, Haiku])
@pytest.mark.parametrize("seed", range(10))
def test_pausing_changes_nothing(driver, seed):
    rng = random.Random(seed)
    guest = Guest()
    pcm = PcmParams(FORMATS["S16"], 44100, 2)
    frames = rng.randint(1, 700)
    alsa = driver(guest, pcm, rng.randint(2, 6), frames, rng.choice([0, 1000]))
    alsa.start()
    begin, paused = guest.started, 0
    for _ in range(40):
        guest.run(rng.randint(0, 20_000_000))
        alsa.pause()
        silence = rng.randint(0, SECOND)
        guest.run(silence)
        paused += silence
        alsa.start()
    guest.run(SECOND)
    last = guest.done[-1].time
    alsa.close()
    assert alsa.data == source(0, len(alsa.data))
    guest.started = begin + paused
    if driver is not Haiku:
        assert last == guest.end_of(frames * alsa.recorded)


@pytest.mark.parametrize("linux", LINUX)
@pytest.mark.parametrize("seed", range(10))
def test_recordings_that_are_killed_leave_nothing_behind(linux, seed):
    rng = random.Random(seed)
    guest = Guest()
    alsa = linux(guest, S16_STEREO, 4, 100)
    for _ in range(10):
        alsa.start()
        guest.run(rng.randint(0, 41_000_000))
        alsa.close()
        assert alsa.data == source(0, len(alsa.data))
        assert guest.command(PREPARE, 1) == OK
        alsa.data, alsa.recorded, alsa.read = b"", 0, 0
