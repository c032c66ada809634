from collections.abc import Callable

import pytest

from devices.errors import UsageError
from emu.timing.clock import (
    MOST_BEHIND_NS,
    UNLIMITED_NS,
    UNLIMITED_PS,
    Clock,
    HostClock,
    ManualClock,
    make_clock,
)
from emu.timing.warp import WarpClock

MS = 1_000_000
#: How many blocks a CPU executes at least in 1 ms, for guest time to keep real time: a round number.
BLOCKS_PER_MS = 25_000


def make_host_clock(monotonic: Callable[[], int]) -> HostClock:
    return HostClock(monotonic, slowest_ps=MS * 1_000 // BLOCKS_PER_MS)


class Host:
    """The host's monotonic clock under the test's control, and a CPU that executes blocks of code."""

    def __init__(self, make: Callable[..., HostClock] = make_host_clock) -> None:
        self.ns = 5_000 * MS
        self.blocks = 123
        self.clock = make(lambda: self.ns)
        self.clock.follow(self, native=False)

    def work(self, ms: float, *, speed: float = 1) -> None:
        """Execute as many blocks in ``ms`` as keeps real time, times ``speed``."""
        self.ns += round(ms * MS)
        self.blocks += round(ms * speed * BLOCKS_PER_MS)

    def stop(self, ms: float) -> None:
        """Do nothing at all."""
        self.ns += round(ms * MS)

    def sleep(self, seconds: float) -> None:
        """Sleep for exactly that long."""
        self.ns += round(seconds * 1e9)


def no_sleep(_seconds: float) -> None:
    raise AssertionError("slept")


def test_without_a_cpu_it_begins_at_0_and_follows_the_host() -> None:
    ns = 7
    clock = HostClock(lambda: ns)
    assert clock.now() == 0
    ns += 7 * MS
    assert clock.now() == 7 * MS


@pytest.mark.parametrize("speed", [1, 3, 100])
def test_while_the_cpu_is_fast_enough_time_is_real(speed: float) -> None:
    host = Host()
    host.work(70, speed=speed)
    assert host.clock.now() == 70 * MS
    host.clock.settle()
    assert (host.clock.now(), host.clock.given_up) == (70 * MS, 0)


def test_a_slow_cpu_gets_the_time_that_it_could_have_worked_in() -> None:
    host = Host()
    for _ in range(200):
        host.work(1, speed=0.25)
        host.clock.settle()
    assert host.clock.now() == 200 * MS // 4
    assert host.clock.given_up == 200 * MS * 3 // 4 - MOST_BEHIND_NS


def test_what_it_is_behind_is_caught_up_with_while_the_cpu_waits() -> None:
    host = Host()
    host.work(8, speed=0.25)
    host.clock.settle()
    assert host.clock.now() == 2 * MS
    host.clock.wait(5 * MS, no_sleep)
    assert host.clock.now() == 5 * MS  # its event, exactly when it is due
    slept: list[float] = []
    host.clock.wait(10 * MS, lambda seconds: (slept.append(seconds), host.sleep(seconds))[0])
    assert (slept, host.clock.now(), host.clock.given_up) == ([0.002], 10 * MS, 0)


def test_what_it_is_behind_is_caught_up_with_by_a_fast_cpu() -> None:
    host = Host()
    host.stop(5)
    host.clock.settle()
    for _ in range(10):
        host.work(1, speed=1.5)
        host.clock.settle()
    assert (host.clock.now(), host.clock.given_up) == (15 * MS, 0)


@pytest.mark.parametrize("stop_ms", [51, 60, 300, 60_000, 86_400_000])
def test_a_stop_while_the_cpu_works_is_no_time_and_most_of_it_is_given_up(stop_ms: int) -> None:
    host = Host()
    host.work(10)
    host.clock.settle()
    host.stop(stop_ms)
    host.clock.settle()
    assert (host.clock.now(), host.clock.given_up) == (10 * MS, stop_ms * MS - MOST_BEHIND_NS)


@pytest.mark.parametrize(("late_ms", "given_up_ms"), [(0, 0), (49, 0), (51, 1), (200, 150), (86_400_000, 86_399_950)])
def test_a_wake_up_that_is_late_is_not_seen_by_the_guest(late_ms: int, given_up_ms: int) -> None:
    host = Host()

    def sleep(seconds: float) -> None:
        host.ns += round(seconds * 1e9) + late_ms * MS

    host.clock.wait(70 * MS, sleep)
    assert (host.clock.now(), host.clock.given_up) == (70 * MS, given_up_ms * MS)


def test_a_sleep_that_a_message_ends() -> None:
    host = Host()
    host.clock.wait(70 * MS, lambda _seconds: host.stop(30))
    assert host.clock.now() == 30 * MS


def test_it_sleeps_until_the_deadline_but_not_too_long() -> None:
    host = Host()
    slept: list[float] = []
    host.clock.wait(30 * MS, slept.append)
    host.clock.wait(10_000 * MS, slept.append)
    host.clock.wait(None, slept.append)
    host.clock.wait(0, no_sleep)
    assert slept == [0.03, 5, 5]


def test_a_pause_is_no_time() -> None:
    host = Host()
    host.work(10)
    host.clock.settle()
    host.clock.pause()
    host.stop(5_000)
    assert host.clock.now() == 10 * MS
    host.clock.resume()
    host.clock.resume()  # once is enough
    host.work(10)
    host.clock.settle()
    assert (host.clock.now(), host.clock.given_up) == (20 * MS, 0)


def test_real_time_is_real_whatever_the_guest_makes_of_it() -> None:
    host = Host(lambda monotonic: HostClock(monotonic, slowest_ps=UNLIMITED_PS, most_behind=UNLIMITED_NS))
    host.work(8, speed=0.01)
    host.clock.settle()
    assert host.clock.now() == 8 * MS
    host.clock.wait(None, lambda _seconds: host.stop(60_000))
    assert (host.clock.now(), host.clock.given_up) == (60_008 * MS, 0)


def test_the_manual_clock_moves_when_told() -> None:
    clock = ManualClock()
    clock.advance(5)
    clock.wait(3, no_sleep)
    assert clock.now() == 5
    clock.wait(9, no_sleep)
    assert clock.now() == 9


def test_a_host_clock_goes_on_from_its_own_time() -> None:
    host, other = Host(), Host()
    host.work(10)
    host.clock.settle()
    host.stop(60)
    host.clock.settle()
    state = host.clock.state()
    assert state == {"now": 10 * MS, "given_up": 10 * MS}
    other.work(500)
    other.clock.settle()
    other.stop(86_400_000)
    other.blocks = host.blocks  # as its CPU is restored
    other.clock.restore(state)
    assert (other.clock.now(), other.clock.given_up) == (10 * MS, 10 * MS)
    other.work(7)
    assert other.clock.now() == 17 * MS  # it is not behind
    other.clock.settle()
    assert (other.clock.now(), other.clock.given_up) == (17 * MS, 10 * MS)


def test_a_paused_host_clock_goes_on_when_it_is_resumed() -> None:
    host = Host()
    host.clock.pause()
    host.stop(100)
    host.clock.restore({"now": 10 * MS, "given_up": 0})
    host.stop(100)
    assert host.clock.now() == 10 * MS
    host.clock.resume()
    host.work(1)
    assert host.clock.now() == 11 * MS


@pytest.mark.parametrize("name", ["host", "warp", "real", "manual"])
def test_every_clock_goes_on_where_another_was(name: str) -> None:
    clock: Clock = ManualClock() if name == "manual" else make_clock(name)
    clock.restore({"now": 10**15, "given_up": 5})
    assert 0 <= clock.now() - 10**15 < 10**12
    assert clock.state()["now"] >= 10**15
    with pytest.raises(UsageError, match="the snapshot is damaged: the guest's time cannot be so"):
        clock.restore({"now": 1 << 62, "given_up": 0})


def test_clocks_by_name() -> None:
    assert type(make_clock("host")) is HostClock
    assert type(make_clock("real")) is HostClock
    assert type(make_clock("warp")) is WarpClock
    with pytest.raises(UsageError, match="no clock 'sun'; use host, warp or real"):
        make_clock("sun")
