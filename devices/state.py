"""State is a type: what a part of the machine is at one instant, as plain data from which it is rebuilt.

A part says what its state is by a TypedDict of numbers, texts, bytes and lists of them, nothing executable, which
``state`` returns and ``restore`` takes. (A TypedDict is those plain data, and costs 17 us to declare; a frozen
dataclass costs 1 ms, at every start of a program that saves nothing.) The fields' types say how many bits a number may
have: whoever reads a state from a file checks that (emu/snapshot/plain.py), so ``restore`` gets the right types, and
checks the rest: lists' lengths, and what would raise or hold the machine up later. A file is as hostile as a guest.

Deadlines are data of whoever asked for them. An event is saved as its ``Moment`` and asked for anew when the machine's
heap, empty by then, is filled again; of equal deadlines, the order is part of it.
"""

from collections.abc import Callable
from typing import Annotated, Any, Protocol

from devices.contracts import NEVER_NS, Event, Events, Moment
from devices.errors import UsageError

__all__ = ["I64", "U8", "U16", "U32", "U64", "Bit", "Moment", "Ns", "Stateful", "check", "resume", "saved"]

#: Whole numbers: how many bits, negative for signed ones.
Bit = Annotated[int, 1]
U8 = Annotated[int, 8]
U16 = Annotated[int, 16]
U32 = Annotated[int, 32]
U64 = Annotated[int, 64]
I64 = Annotated[int, -64]
#: Guest time or a stretch of it, and any count of what a guest can do in it.
Ns = Annotated[int, 63]


class Stateful(Protocol):
    """A part of the machine that can be saved and rebuilt."""

    def state(self) -> Any:
        """Return its state, a TypedDict (the annotation says which) that shares nothing with the part."""
        ...

    def restore(self, state: Any) -> None:
        """Become what ``state`` says, whatever it was before; keep nothing of ``state`` that can change.

        The heap of events is empty then. Nothing is done that others notice: no line changes, nothing is output.
        Raises UsageError for a state that no part can have.
        """
        ...


def check(possible: bool, what: str) -> None:
    """Raise UsageError unless a state is ``possible``."""
    if not possible:
        raise UsageError(f"the snapshot is damaged: {what} cannot be so; save it again")


def saved(event: Event | None) -> Moment | None:
    """Return the state of an event, for ``resume``."""
    return None if event is None else event.moment


def resume(events: Events, moment: Moment | None, action: Callable[[], None]) -> Event | None:
    """Ask for an event that was ``saved``; raises UsageError for one that is never due."""
    if moment is None:
        return None
    check(moment[0] < NEVER_NS, "a deadline")  # time would have to jump that far
    return events.resume(moment, action)
