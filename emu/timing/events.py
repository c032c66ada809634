"""The deadline heap: what is to happen at which guest time."""

import heapq
from collections.abc import Callable
from typing import TypedDict

from devices.contracts import Moment
from devices.state import Ns

__all__ = ["DeadlineHeap", "Event", "HeapState"]

#: Entries in the heap before cancelled ones are swept out.
_ROOM = 64


class Event:
    """An action that waits for its deadline (ns of guest time)."""

    __slots__ = ("action", "moment")

    def __init__(self, moment: Moment, action: Callable[[], None]) -> None:
        #: The deadline, and the event's place among those with the same one.
        self.moment = moment
        self.action: Callable[[], None] | None = action

    def __lt__(self, other: object) -> bool:
        return False  # only a damaged snapshot has two events of one moment

    def cancel(self) -> None:
        """Make it not happen. Harmless when it already has."""
        self.action = None


class HeapState(TypedDict):
    """The place of the next event among those with its deadline."""

    order: Ns


class DeadlineHeap:
    """Events in the order of their deadlines; equal ones in the order in which they were asked for.

    ``earlier(deadline)`` is called whenever the earliest deadline has come nearer, so that whoever sleeps until then
    can wake up sooner.
    """

    def __init__(self, earlier: Callable[[int], None] = lambda _deadline: None) -> None:
        self._heap: list[tuple[int, int, Event]] = []
        self._crowded = _ROOM
        self._order = 0  # of the next
        self._earlier = earlier

    def at(self, deadline: int, action: Callable[[], None]) -> Event:
        """Run ``action`` once, when guest time has reached ``deadline``, never before."""
        order = self._order
        self._order = order + 1
        return self.resume((deadline, order), action)

    def resume(self, moment: Moment, action: Callable[[], None]) -> Event:
        """Ask for an event of a saved machine, see ``restore``: it keeps its place among all others."""
        event = Event(moment, action)
        if len(self._heap) >= self._crowded:  # a guest may set and cancel as long as it likes
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._crowded = 2 * len(self._heap) + _ROOM
        heap, (deadline, order) = self._heap, moment
        if not heap or deadline < heap[0][0]:
            heapq.heappush(heap, (deadline, order, event))
            self._earlier(deadline)
        else:
            heapq.heappush(heap, (deadline, order, event))
        return event

    def state(self) -> "HeapState":
        """What is left when each event belongs to whoever asked for it."""
        return {"order": self._order}

    def restore(self, state: "HeapState") -> None:
        """Forget all events; those that are asked for with ``resume`` next are in the place that they were."""
        self._heap.clear()
        self._order = state["order"]

    def next_deadline(self) -> int | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_due(self, now: int) -> None:
        """Run what is due at ``now``. What these actions ask for waits for the next call, so that this one ends."""
        newest = self._order
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] < newest:
            event = heapq.heappop(self._heap)[2]
            action, event.action = event.action, None
            if action is not None:
                action()
