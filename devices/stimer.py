"""The supervisor timer, set by the firmware's TIME calls and by Sstc's ``stimecmp`` (Privileged Architecture, Sstc)."""

from collections.abc import Callable
from typing import TypedDict

from devices.clint import ns_from_ticks
from devices.contracts import NEVER_NS, Clock, Event, Events, IrqLine
from devices.state import Moment, resume, saved

__all__ = ["NEVER", "SetTimer", "SupervisorTimer", "SupervisorTimerState"]

#: The comparator value that is never reached; also used by SBI 2.0 section 6.1.
NEVER = (1 << 64) - 1

#: ``SupervisorTimer.set``.
SetTimer = Callable[[int], None]


class SupervisorTimerState(TypedDict):
    """When it is due; whether it was is the line's state."""

    due: Moment | None


class SupervisorTimer:
    """The S-mode timer: ``line`` is high from the programmed time (in ticks of ``time``) until it is set again."""

    def __init__(self, clock: Clock, events: Events, line: IrqLine) -> None:
        self._clock, self._events, self._line = clock, events, line
        self._event: Event | None = None

    def set(self, ticks: int) -> None:
        """Interrupt when ``time`` reaches ``ticks``: at once if that is in the past, not at all if it is NEVER."""
        if self._event is not None:
            self._event.cancel()
            self._event = None
        deadline = ns_from_ticks(ticks)
        due = deadline <= self._clock.now()
        self._line(due)
        if not due and deadline < NEVER_NS:
            self._event = self._events.at(deadline, self._expire)

    def state(self) -> SupervisorTimerState:
        """Return its state."""
        return {"due": saved(self._event)}

    def restore(self, state: SupervisorTimerState) -> None:
        """Become what ``state`` says."""
        self._event = resume(self._events, state["due"], self._expire)

    def _expire(self) -> None:
        self._event = None
        self._line(True)
