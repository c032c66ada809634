"""The warp clock: what it makes of blocks, and where it has the CPU stop."""

import random

import pytest

from devices.errors import UsageError
from emu.timing.warp import PS_PER_BLOCK, WarpClock

MS = 1_000_000


class Worker:
    """A CPU that executes as many blocks as it may, and no others."""

    def __init__(self) -> None:
        self.blocks = self.left = 0
        self.shared = memoryview(b"")

    def count_blocks(self) -> None:
        self.blocks = 0

    def stop_after(self, blocks: int) -> None:
        self.left = blocks

    def share_work(self, shared: memoryview) -> None:
        self.shared = shared

    def run(self) -> None:
        self.blocks += self.left
        self.left = 0


def no_sleep(_seconds: float) -> None:
    pytest.fail("it should not sleep")


def working(ps_per_block: int = PS_PER_BLOCK) -> tuple[WarpClock, Worker]:
    clock, worker = WarpClock(ps_per_block), Worker()
    clock.follow(worker)
    return clock, worker


def test_time_is_work() -> None:
    clock, worker = working(2_500)
    assert clock.now() == 0
    worker.blocks = 3
    assert clock.now() == 7
    worker.blocks = 4_000_000
    assert clock.now() == 10 * MS


def test_it_jumps_to_the_deadline_and_no_further() -> None:
    clock, worker = working(1_000)
    worker.blocks = 5
    clock.wait(3_000 * MS, no_sleep)
    assert clock.now() == 3_000 * MS
    clock.wait(1_000 * MS, no_sleep)  # gone by already
    assert clock.now() == 3_000 * MS
    worker.blocks += 1
    assert clock.now() == 3_000 * MS + 1


def test_it_sleeps_with_nothing_to_wait_for() -> None:
    clock, _ = working()
    slept: list[float] = []
    clock.wait(None, slept.append)
    assert (slept, clock.now()) == ([0.2], 0)


@pytest.mark.parametrize("ps_per_block", [1, 999, 1_000, 2_500, 4_000, 1_000_000])
def test_the_cpu_stops_at_the_first_block_that_is_late_enough(ps_per_block: int) -> None:
    clock, worker = working(ps_per_block)
    choose = random.Random(ps_per_block)
    for _ in range(200):
        before = clock.now()
        deadline = before + 251 * ps_per_block // 1_000 + choose.randrange(1, 10_000)
        clock.stop_at(deadline)
        worker.run()
        assert clock.now() >= deadline
        worker.blocks -= 1
        assert before <= clock.now() < deadline
        worker.blocks += 1
        clock.wait(clock.now() + choose.randrange(100), no_sleep)


def test_the_guest_gets_on_in_any_case() -> None:
    clock, worker = working(4_000)
    worker.blocks = 1_000
    for deadline in (0, 4_000, 4_999):
        clock.stop_at(deadline)
        assert worker.left == 250


def test_a_deadline_that_never_comes() -> None:
    clock, worker = working(1)
    clock.stop_at((1 << 63) - 1)
    assert 1 << 59 < worker.left < 1 << 62


def test_what_is_shared_tells_the_same_time() -> None:
    clock, worker = working(2_500)
    worker.blocks = 1_001
    clock.wait(5_000, no_sleep)
    worker.blocks += 3
    jumped, ps = worker.shared
    assert jumped + worker.blocks * ps // 1_000 == clock.now()


def test_another_cpu_goes_on_where_the_first_one_was() -> None:
    clock, worker = working(1_000)
    worker.blocks = 7
    clock.follow(other := Worker())
    other.blocks = 2
    assert clock.now() == 9


def test_pauses_are_no_time() -> None:
    clock, _ = working(1_000)
    clock.pause()
    clock.resume()
    assert clock.now() == 0


@pytest.mark.parametrize("ps_per_block", [1, 999, 3_457, 4_000])
def test_it_goes_on_with_the_same_rounding(ps_per_block: int) -> None:
    clock, worker = working(ps_per_block)
    choose = random.Random(ps_per_block)
    for _ in range(100):
        worker.blocks += choose.randrange(1_000)
        clock.wait(clock.now() + choose.randrange(100), no_sleep)
        other, same = working(ps_per_block)
        same.blocks = worker.blocks
        other.restore(clock.state())
        for _ in range(10):
            assert other.now() == clock.now()
            same.blocks += 1
            worker.blocks += 1
        clock.stop_at(deadline := clock.now() + 10_000)
        other.stop_at(deadline)
        assert same.left == worker.left
        clock, worker = other, same


def test_at_another_speed_it_goes_on_from_now() -> None:
    clock, worker = working(4_000)
    worker.blocks = 1_000_000
    other, same = working(3_000)
    same.blocks = 1_000_000
    other.restore(clock.state())
    assert other.now() == 4 * MS
    same.blocks += 1_000
    assert other.now() == 4 * MS + 3_000


def test_a_slow_one_goes_on_where_a_fast_one_was() -> None:
    clock, worker = working(1)
    worker.blocks = 1_000_000
    other, same = working(1_000_000)
    same.blocks = 1_000_000
    other.restore(clock.state())
    assert other.now() == 1_000


@pytest.mark.parametrize(("now", "blocks"), [(1 << 62, 0), (0, 1 << 59)])
def test_no_machine_runs_for_so_long(now: int, blocks: int) -> None:
    clock, worker = working()
    worker.blocks = blocks
    with pytest.raises(UsageError, match="the snapshot is damaged"):
        clock.restore({"now": now, "given_up": 0})
