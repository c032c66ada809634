"""Backwards, as gdb asks for it: one instruction, or to the last breakpoint or access that is watched.

A run cannot go backwards; but what comes before a moment is found by running up to it again, from a mark. Each journey
is a generator: it is called when the machine stands, has it go, and yields until it stands again.
"""

from collections.abc import Callable, Iterator

from emu.cpu.stepper import Stepper, Stop
from emu.debug.history import History, Mark, Moment

__all__ = ["BEGIN", "Travel"]

#: The answer where there is nothing earlier.
BEGIN = Stop("begin")
_ARRIVED = Stop("place")


class Travel:
    """Journeys of a machine, which ``go`` has run until ``stopped`` is called."""

    def __init__(self, history: History, stepper: Stepper, go: Callable[[], None]) -> None:
        self._history, self._stepper, self._go = history, stepper, go
        self._stop = _ARRIVED

    def step(self) -> Iterator[Stop | None]:
        """Go back by one instruction; the last that is yielded says how that ended."""
        history, stepper = self._history, self._stepper
        end = history.now
        if history.mark_before(end) is None:  # it has just begun anew
            yield from self._to_the_beginning()
            return
        if not end.over and end.place.instructions:
            place = end.place._replace(instructions=end.place.instructions - 1, pc=-1)
            yield from self._go_to(Moment(end.turn, over=False, place=place))
            yield Stop("step")
            return
        start = history.block_before(end)
        mark = history.mark_before(end)
        while start is None and mark is not None:
            yield from self._go_to(end, mark)
            start, mark = history.block_before(end), history.mark_before(mark.moment)
        if start is None or history.mark_before(start) is None:
            yield from self._to_the_beginning()
            return
        yield from self._go_to(start)
        last = history.now
        stepper.stepping, stepper.passing, stepper.within = True, True, range(0)
        history.goal = end
        while history.now.place.is_before(end.place):
            last = history.now
            yield from self._run()
        stepper.stepping = False
        yield from self._go_to(last)
        yield Stop("step")

    def run(self) -> Iterator[Stop | None]:
        """Go back to where the debugger would have been told of something last."""
        history, stepper = self._history, self._stepper
        start = end = history.now
        mark = history.mark_before(end)
        while mark is not None:
            found: tuple[Moment, Stop] | None = None
            history.go_to_mark(mark)
            stepper.stepping, stepper.passing = False, False
            history.goal = end
            yield from self._run()
            while not history.is_at(end):
                moment = self._moment_of_stop()
                if moment.place.is_before(start.place):
                    found = moment, self._stop
                    history.keep()
                yield from self._run()
            if found is not None:
                yield from self._go_to(found[0])
                yield found[1]
                return
            end, mark = mark.moment, history.mark_before(mark.moment)
        yield from self._to_the_beginning()

    def stopped(self, stop: Stop) -> None:
        """The machine has stopped."""
        self._stop = stop

    def _moment_of_stop(self) -> Moment:
        """Where the machine is; before the access, if that is why it has stopped."""
        now, accessed = self._history.now, self._stepper.accessed
        watched = self._stop.reason == "watch" and accessed is not None
        return now._replace(over=False, place=accessed) if watched else now  # type: ignore[arg-type]

    def _to_the_beginning(self) -> Iterator[Stop | None]:
        if self._history.first is not None:
            self._history.go_to_mark(self._history.first)
        yield BEGIN

    def _go_to(self, moment: Moment, mark: Mark | None = None) -> Iterator[Stop | None]:
        """Have the machine be there, from ``mark`` or the last one before."""
        history, stepper = self._history, self._stepper
        mark = mark or history.mark_before(moment) or history.first  # that is just there
        assert mark is not None
        history.go_to_mark(mark)
        stepper.stepping, stepper.passing = False, True
        history.goal = moment
        while not history.is_at(moment):
            yield from self._run()
        history.goal = None

    def _run(self) -> Iterator[Stop | None]:
        self._stepper.go_on()
        self._go()
        yield None
