"""The deadline heap: what is to happen at which guest time."""

import heapq
from collections.abc import Callable
from itertools import count

__all__ = ["DeadlineHeap", "Event"]

#: Entries in the heap before cancelled ones are swept out.
_ROOM = 64


class Event:
    """An action that waits for its deadline (ns of guest time)."""

    __slots__ = ("action", "deadline")

    def __init__(self, deadline: int, action: Callable[[], None]) -> None:
        self.deadline = deadline
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Make it not happen. Harmless when it already has."""
        self.action = None


class DeadlineHeap:
    """Events in the order of their deadlines; equal ones in the order in which they were asked for.

    ``earlier(deadline)`` is called whenever the earliest deadline has come nearer, so that whoever sleeps until then
    can wake up sooner.
    """

    def __init__(self, earlier: Callable[[int], None] = lambda _deadline: None) -> None:
        self._heap: list[tuple[int, int, Event]] = []
        self._crowded = _ROOM
        self._order = count()
        self._earlier = earlier

    def at(self, deadline: int, action: Callable[[], None]) -> Event:
        """Run ``action`` once, when guest time has reached ``deadline``, never before."""
        event = Event(deadline, action)
        if len(self._heap) >= self._crowded:  # a guest may set and cancel as long as it likes
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._crowded = 2 * len(self._heap) + _ROOM
        heap = self._heap
        if not heap or deadline < heap[0][0]:
            heapq.heappush(heap, (deadline, next(self._order), event))
            self._earlier(deadline)
        else:
            heapq.heappush(heap, (deadline, next(self._order), event))
        return event

    def next_deadline(self) -> int | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_due(self, now: int) -> None:
        """Run what is due at ``now``. What these actions ask for waits for the next call, so that this one ends."""
        newest = next(self._order)
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] < newest:
            event = heapq.heappop(self._heap)[2]
            action, event.action = event.action, None
            if action is not None:
                action()
