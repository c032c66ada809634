"""Another seed is another timing: legal, and always the same."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Self

import pytest

from devices.errors import UsageError
from devices.state import Stateful
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Queue
from devices.virtio.rng import EntropyDevice
from emu.chance import Chance
from emu.jitter import LATEST_NS, Jitter, draw_ps_per_block
from emu.timing.warp import PS_PER_BLOCK
from tests.devices.virtio.fake_driver import Driver
from tests.devices.virtio.life import VirtioLife
from tests.fakes import FakeClock, FakeEvents, FakeIrq
from tests.twins import live_through_snapshots, live_with_wrong_states


class Recorder(VirtioDevice):
    """A device of two queues that notes down which it is told of, and when."""

    device_id = 63
    queue_sizes = (8, 8)

    def __init__(self, clock: FakeClock) -> None:
        self.notified: list[tuple[int, int]] = []
        self._clock = clock

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        pass

    def notify(self, index: int) -> None:
        self.notified.append((self._clock.now(), index))

    def reset(self) -> None:
        pass


class Bench:
    """Jitter by ``seed``, and the time that it happens in."""

    def __init__(self, seed: int) -> None:
        self.clock = FakeClock()
        self.events = FakeEvents(self.clock)
        self.chance = Chance(seed)
        self.jitter = Jitter(self.chance, self.clock, self.events)

    def next_event(self) -> None:
        """Let time pass until something arrives."""
        self.events.advance(self.events.pending[0] - self.clock.now())

    def driver(self, device: VirtioDevice) -> Driver:
        driver = Driver(self.jitter.virtio(0, device))
        driver.start()
        self.events.advance(LATEST_NS)  # it is notified of each queue at first
        return driver


def answers(seed: int) -> list[int]:
    """When each of 20 requests for entropy is answered, after its kick."""
    bench, times = Bench(seed), []
    driver = bench.driver(EntropyDevice(bytes))
    for _ in range(20):
        driver.submit(0, [], [8])
        driver.kick(0)
        begun = bench.clock.now()
        while not (done := driver.completed(0)):
            bench.next_event()
        assert [one.data for one in done] == [bytes(8)]
        times.append(bench.clock.now() - begun)
    return times


def test_answers_are_as_late_as_the_seed_says() -> None:
    assert answers(1) == answers(1)
    assert answers(1) != answers(2)
    assert len(set(answers(1))) > 10
    assert max(answers(1)) <= LATEST_NS


def test_requests_are_answered_in_their_order() -> None:
    """Kicked one by one, at any time between two answers."""
    for seed in range(20):
        bench = Bench(seed)
        driver = bench.driver(EntropyDevice(bytes))
        submitted, done = [], []
        for _ in range(60):
            submitted.append(driver.submit(0, [], [4]))
            driver.kick(0)
            bench.events.advance(LATEST_NS // 8)
            done += driver.completed(0)
        bench.events.advance(LATEST_NS)
        assert [one.token for one in [*done, *driver.completed(0)]] == submitted


def test_the_queues_of_a_device_stay_in_order() -> None:
    """A driver fills a stream's queue, then starts the stream."""
    for seed in range(50):
        bench = Bench(seed)
        device = Recorder(bench.clock)
        driver = bench.driver(device)
        device.notified.clear()
        for index in (1, 0):
            driver.kick(index)
        bench.events.advance(LATEST_NS)
        assert [index for _, index in device.notified] == [1, 0]


def test_many_kicks_are_one_notification() -> None:
    """A guest cannot fill the heap with them."""
    bench = Bench(1)
    device = Recorder(bench.clock)
    driver = bench.driver(device)
    device.notified.clear()
    for _ in range(1000):
        driver.kick(0)
    assert len(bench.events.pending) == 1
    bench.events.advance(LATEST_NS)
    assert len(device.notified) == 1


def test_a_reset_forgets_what_was_to_come() -> None:
    bench = Bench(1)
    device = Recorder(bench.clock)
    driver = bench.driver(device)
    device.notified.clear()
    driver.kick(0)
    driver.reset()
    assert bench.events.pending == []
    driver.start()
    bench.events.advance(LATEST_NS)
    assert sorted(index for _, index in device.notified) == [0, 1]


def test_an_interrupt_arrives_late_and_ends_at_once() -> None:
    bench, irq, rises = Bench(1), FakeIrq(), set()
    line = bench.jitter.irq(1, "virtio-blk", irq)
    for edges in range(1, 21):
        line(True)
        line(True)  # it rises once
        assert not irq.level
        begun = bench.clock.now()
        while not irq.level:
            bench.next_event()
        rises.add(bench.clock.now() - begun)
        assert irq.edges == edges
        line(False)
        assert not irq.level
    assert len(rises) > 10
    assert max(rises) <= LATEST_NS


def test_an_interrupt_that_is_over_does_not_arrive() -> None:
    bench, irq = Bench(1), FakeIrq()
    line = bench.jitter.irq(1, "virtio-blk", irq)
    line(True)
    line(True)
    line(False)
    bench.events.advance(LATEST_NS)
    assert irq.edges == 0
    line(True)
    bench.events.advance(LATEST_NS)
    assert irq.level


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_cpu_is_up_to_a_quarter_faster_or_slower(seed: int) -> None:
    assert 3 * PS_PER_BLOCK // 4 <= draw_ps_per_block(Chance(seed)) <= 5 * PS_PER_BLOCK // 4
    assert draw_ps_per_block(Chance(seed)) == draw_ps_per_block(Chance(seed)) != draw_ps_per_block(Chance(seed + 1))


class Life(Bench):
    """All that can be late; see tests/twins.py."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.irq = FakeIrq()
        self.device = Recorder(self.clock)
        self.late, self.line = self.jitter.virtio(3, self.device), self.jitter.irq(4, "virtio-blk", self.irq)
        self.late.activate((), 0, lambda: None)

    @property
    def parts(self) -> list[Stateful]:
        return [self.chance, self.jitter]

    def take_over(self, old: Self) -> None:
        self.irq.level, self.irq.edges = old.irq.level, old.irq.edges
        self.device.notified[:] = old.device.notified

    def step(self, chance: Random) -> object:
        match chance.randrange(4):
            case 0:
                self.line(chance.random() < 0.5)
            case 1:
                self.late.notify(chance.randrange(2))
            case 2:
                self.events.advance(chance.randrange(LATEST_NS))
            case 3 if chance.random() < 0.2:
                self.late.reset()
                self.late.activate((), 0, lambda: None)
        return self.irq.level, self.irq.edges, self.device.notified[:], self.events.pending


@pytest.mark.parametrize("seed", range(5))
def test_as_if_it_had_never_been_saved(seed: int) -> None:
    live_through_snapshots(Life, seed, steps=200)


def test_a_wrong_state_is_refused_or_harmless() -> None:
    live_with_wrong_states(Life, seed=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": {"1": {"last": 0, "pending": [None, None]}}},
        {"lines": {"1": {"last": 0, "level": True, "rise": None}}},
        {"lines": {"4": {"last": 1 << 62, "level": True, "rise": None}}},
        {"devices": {"3": {"last": 0, "pending": []}}},
        {"devices": {"3": {"last": 0, "pending": [None, (0, 0), None]}}},
    ],
)
def test_what_cannot_be_late(wrong: dict[str, object]) -> None:
    state: Any = {"devices": {}, "lines": {}, **wrong}
    with pytest.raises(UsageError, match="what is late"):
        Life().jitter.restore(state)


def test_nothing_arrives_at_a_device_that_has_not_started() -> None:
    life = Life()
    life.late.notify(1)
    state = life.jitter.state()
    life.late.reset()
    with pytest.raises(UsageError, match="what is late"):
        life.jitter.restore(state)


def test_a_machine_goes_on_that_had_no_jitter() -> None:
    """Its line was high then, and falls now."""
    life = Life()
    life.irq(True)
    life.line(True)
    life.late.notify(0)
    life.events.follow(life.events)
    life.jitter.restore({"devices": {}, "lines": {}})
    life.line(False)
    assert not life.irq.level
    life.late.notify(0)
    life.events.advance(LATEST_NS)
    assert [index for _, index in life.device.notified] == [0]
    life.line(True)
    life.events.advance(LATEST_NS)
    assert life.irq.level


class DrivenLife(VirtioLife):
    """A device that is late, with a driver."""

    def __init__(self) -> None:
        self.bench = Bench(1)
        device = EntropyDevice(bytes)
        super().__init__(device, self.bench.events, lambda device: self.bench.jitter.virtio(0, device))

    @property
    def parts(self) -> list[Stateful]:
        return [self.bench.chance, *super().parts, self.bench.jitter]

    def request(self, chance: Random) -> tuple[int, list[bytes], list[int]]:
        return 0, [], [chance.randrange(100)]

    def happen(self, chance: Random) -> None:
        self.events.advance(chance.randrange(LATEST_NS))


@pytest.mark.parametrize("seed", range(2))
def test_a_device_that_is_late_may_be_saved_with_its_driver(seed: int) -> None:
    live_through_snapshots(DrivenLife, seed, steps=200)
