import threading
from collections.abc import Callable

import pytest

from devices.errors import UsageError
from emu.timing.clock import HostClock, ManualClock, make_clock
from emu.timing.warp import WarpClock

MS = 1_000_000


class Host:
    """The host's monotonic clock under the test's control."""

    def __init__(self) -> None:
        self.ns = 5_000 * MS

    def __call__(self) -> int:
        return self.ns


def no_sleep(_seconds: float) -> None:
    raise AssertionError("slept")


def test_it_begins_at_0_and_follows_the_host() -> None:
    host = Host()
    clock = HostClock(host)
    assert clock.now() == 0
    host.ns += 7 * MS
    assert clock.now() == 7 * MS


@pytest.mark.parametrize("stop_ms", [60, 300, 60_000, 86_400_000])
def test_it_stands_still_while_the_process_is_stopped(stop_ms: int) -> None:
    host = Host()
    clock = HostClock(host)
    host.ns += 10 * MS
    before = clock.now()
    host.ns += stop_ms * MS
    assert before <= clock.now() <= before + 2 * MS
    host.ns += 3 * MS
    assert before + 3 * MS <= clock.now() <= before + 5 * MS


def test_a_late_heartbeat_is_no_stop() -> None:
    host = Host()
    clock = HostClock(host)
    host.ns += 49 * MS
    assert clock.now() == 49 * MS


@pytest.mark.parametrize(("late_ms", "counts_ms"), [(0, 0), (49, 49), (51, 1), (200, 1)])
def test_a_sleep_that_is_planned_is_no_stop_but_one_that_ends_far_too_late_is(late_ms: int, counts_ms: int) -> None:
    host = Host()
    clock = HostClock(host)

    def sleep(seconds: float) -> None:
        host.ns += round(seconds * 1e9) + late_ms * MS

    clock.wait(None, sleep)
    assert clock.now() == (200 + counts_ms) * MS
    clock.wait(clock.now() + 70 * MS, sleep)
    assert clock.now() == (270 + 2 * counts_ms) * MS


class Interrupted(Host):
    """A host on which a thread that has just read the clock is stopped, with all others; another goes on first."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], object]] = []

    def __call__(self) -> int:
        read = self.ns
        if self.others:
            self.ns += 10_000 * MS
            self.others.pop()()
        return read


def test_a_thread_that_is_stopped_between_two_instructions_reads_no_other_time() -> None:
    host = Interrupted()
    clock = HostClock(host)
    host.ns += 5 * MS
    assert clock.now() == 5 * MS
    host.ns += 5 * MS
    host.others.append(clock.now)
    first = clock.now()
    assert 5 * MS <= first <= 11 * MS
    assert clock.now() == first


def test_many_stops_in_a_row() -> None:
    host = Host()
    clock = HostClock(host)
    for _ in range(10):
        host.ns += 1000 * MS
        clock.now()
    assert clock.now() <= 20 * MS


def test_it_never_goes_back_in_two_threads() -> None:
    stop, failures = threading.Event(), []
    clock = HostClock()

    def read() -> None:
        last = 0
        while not stop.is_set():
            now = clock.now()
            if now < last:
                failures.append((last, now))
            last = now

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    stop.wait(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_host_clock_sleeps_until_the_deadline_but_not_too_long() -> None:
    host, slept = Host(), []
    clock = HostClock(host)
    clock.wait(30 * MS, slept.append)
    clock.wait(10_000 * MS, slept.append)
    clock.wait(None, slept.append)
    clock.wait(0, no_sleep)
    assert slept == [0.03, 0.2, 0.2]


def test_the_manual_clock_moves_when_told() -> None:
    clock = ManualClock()
    clock.advance(5)
    clock.wait(3, no_sleep)
    assert clock.now() == 5
    clock.wait(9, no_sleep)
    assert clock.now() == 9


def test_clocks_by_name() -> None:
    assert type(make_clock("host")) is HostClock
    assert type(make_clock("warp")) is WarpClock
    with pytest.raises(UsageError, match="no clock 'sun'; use host or warp"):
        make_clock("sun")
