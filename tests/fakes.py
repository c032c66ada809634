"""What devices get in tests instead of a machine: a clock that only moves when told, its deadline heap, a line."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from devices.contracts import Moment
from devices.virtio.aside import at_once

__all__ = ["Elsewhere", "FakeClock", "FakeEvent", "FakeEvents", "FakeIrq"]


class FakeIrq:
    """An interrupt line that remembers its level and how often it rose; see devices.contracts.IrqLine."""

    def __init__(self) -> None:
        self.level = False
        self.edges = 0

    def __call__(self, level: bool) -> None:
        self.edges += level and not self.level
        self.level = level


class FakeClock:
    """Guest time under the test's control; see devices.contracts.Clock."""

    def __init__(self, now: int = 0) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def advance(self, ns: int) -> None:
        """Let time pass without running any events, as when the machine is late."""
        self._now += ns


@dataclass(order=True)
class FakeEvent:
    """One entry of the heap; see devices.contracts.Event."""

    deadline: int
    sequence: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    @property
    def moment(self) -> Moment:
        return self.deadline, self.sequence

    def cancel(self) -> None:
        self.cancelled = True


class FakeEvents:
    """A deadline heap that runs when told; see devices.contracts.Events."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self._heap: list[FakeEvent] = []
        self._sequence = 0

    def at(self, deadline: int, action: Callable[[], None]) -> FakeEvent:
        self._sequence += 1
        return self.resume((deadline, self._sequence), action)

    def resume(self, moment: Moment, action: Callable[[], None]) -> FakeEvent:
        event = FakeEvent(*moment, action)
        heapq.heappush(self._heap, event)
        return event

    def follow(self, other: "FakeEvents") -> None:
        """Forget all events, and be where ``other`` is: what a machine does before its parts are restored."""
        self._heap.clear()
        self._sequence = other._sequence
        self.clock.advance(other.clock.now() - self.clock.now())

    @property
    def pending(self) -> list[int]:
        """Deadlines still to come, in order."""
        self._heap = sorted(event for event in self._heap if not event.cancelled)  # which is a heap, too
        return [event.deadline for event in self._heap]

    def advance(self, ns: int) -> None:
        """Let time pass, running each action exactly when it is due, including those that actions schedule."""
        end = self.clock.now() + ns
        while (event := self._first()) is not None and event.deadline <= end:
            self.clock.advance(max(0, event.deadline - self.clock.now()))
            self.run_due()
        self.clock.advance(end - self.clock.now())

    def run_one(self) -> None:
        """Run the first action, which must be due."""
        event = self._first()
        assert event is not None
        assert event.deadline <= self.clock.now()
        heapq.heappop(self._heap)
        event.cancelled = True
        event.action()

    def run_turn(self) -> None:
        """Run what is due now; what that asks for waits for the next turn, as in the machine."""
        newest, now = self._sequence, self.clock.now()
        while (event := self._first()) is not None and event.deadline <= now and event.sequence <= newest:
            self.run_one()

    def run_due(self, limit: int = 100_000) -> None:
        """Run what is due now without moving the clock; more than ``limit`` actions at one instant are a livelock."""
        for _ in range(limit):
            event = self._first()
            if event is None or event.deadline > self.clock.now():
                return
            self.run_one()
        raise AssertionError(f"{limit} events without time passing")

    def _first(self) -> FakeEvent | None:
        while self._heap and self._heap[0].cancelled:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None


class Elsewhere:
    """Does the work given to it when the test says so."""

    def __init__(self) -> None:
        self.given: deque[tuple[Callable[[], None], Callable[[OSError | None], None]]] = deque()

    def __call__(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        self.given.append((work, done))

    def finish(self) -> None:
        at_once(*self.given.popleft())
