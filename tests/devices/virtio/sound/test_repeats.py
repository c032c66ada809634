"""Periods that repeat what was played a buffer ago: stale sound is never heard unreported."""

import json

import pytest

from devices.audio import NullSink, PeriodLog
from tests.devices.virtio.sound.guest import RELEASE, S16_STEREO, START, STOP, TXQ, Done, Guest, Recorder, noise
from tests.emu.trace.watched import WatchedGuest

MS = 1_000_000
#: 2 ms.
PERIOD = 96 * S16_STEREO.frame_size


class Linux61:
    """A program that fills each of two periods as soon as it learns that it is free, on Linux 6.1.

    The driver queues a period again in its interrupt handler. ALSA looks at the position in the buffer later, and does
    not notice whole turns; while the kernel is ``busy``, it does not look.
    """

    def __init__(self, guest: Guest, sound=lambda number: noise(number, PERIOD)) -> None:
        self.guest, self.sound = guest, sound
        self.busy = False
        self.slots = [sound(0), sound(1)]
        self.written, self.position, self.seen = 2, 0, 0
        guest.open(S16_STEREO, PERIOD * 2, PERIOD)
        self.tokens = [guest.submit(data) for data in self.slots]
        guest.driver.kick(TXQ)
        guest.on_done = self.interrupt
        guest.command(START)

    def interrupt(self, _done: Done) -> None:
        self.tokens[self.position] = self.guest.submit(self.slots[self.position])
        self.guest.driver.kick(TXQ)
        self.position = 1 - self.position
        while not self.busy and self.seen != self.position:
            self.slots[self.seen] = self.sound(self.written)
            self.guest.refill(self.tokens[self.seen], self.slots[self.seen])
            self.written += 1
            self.seen = 1 - self.seen


def be_late(guest: Guest) -> None:
    """Play for 5 ms, then keep the program from filling periods for 8 ms: four of them are played again."""
    linux = Linux61(guest)
    guest.run(5 * MS)
    linux.busy = True
    guest.run(8 * MS)


def test_a_program_that_is_late_without_an_xrun_is_seen_in_the_counters() -> None:
    guest = Guest()
    be_late(guest)
    assert len(guest.done) == 6
    assert (guest.stats.underruns, guest.stats.repeats) == (0, 2)


@pytest.mark.parametrize(("data", "repeats"), [(bytes(PERIOD), 0), (noise(7, PERIOD), 1)], ids=["silence", "sound"])
def test_silence_is_no_repeat_and_a_sound_that_repeats_itself_is_one(data: bytes, repeats: int) -> None:
    guest = Guest()
    Linux61(guest, lambda _number: data)
    guest.run(21 * MS)
    assert guest.stats.repeats == (len(guest.done) - 2) * repeats


def test_a_period_that_ends_in_silence_is_a_repeat_for_a_live_backend_too() -> None:
    guest = Guest(Recorder(part_ns=MS))
    Linux61(guest, lambda _number: noise(7, PERIOD // 2) + bytes(PERIOD // 2))
    guest.run(21 * MS)
    assert guest.stats.repeats == len(guest.done) - 2


def test_a_new_sound_repeats_nothing_of_the_last_one() -> None:
    guest = Guest()
    for _ in range(2):
        Linux61(guest)
        guest.run(3 * MS)
        guest.on_done = lambda _done: None
        guest.command(STOP)
        guest.command(RELEASE)
        guest.run(0)
    assert guest.stats.repeats == 0


def test_the_log_has_it(tmp_path) -> None:
    log = PeriodLog(NullSink(), tmp_path / "log.jsonl")
    be_late(Guest(log))
    log.close()
    records = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [record["again"] for record in records] == [False] * 4 + [True] * 2


def test_the_trace_has_it() -> None:
    guest = WatchedGuest()
    be_late(guest)
    names = [record.name for record in guest.records if record.name.endswith("period")]
    assert names == ["period"] * 4 + ["repeated period"] * 2
