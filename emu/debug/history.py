"""Going backwards: the machine becomes what it was, and runs again, the same to the bit, to where it is wanted.

Under the warp clock a run depends on nothing but where it began and on what came from outside. So there are snapshots
of the machine between two turns of its loop, the marks; and what is typed, or done by hand, is remembered with the turn
that it came after, and done again there. Nobody hears or sees a repetition: what was printed is not printed again, and
what was played is not played again. What comes from outside meanwhile waits until the front is reached, where the
machine has never been; and so the past does not change.

Not covered: what a debugger itself writes. It is not repeated, so history begins anew with it. And a machine that
writes to files of the host's (a disk without ``,snapshot``, a share) or has a network has no way back: they would not
go with it.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import thread_time
from typing import TYPE_CHECKING, Any, NamedTuple

from devices.audio.base import AudioBackend, AudioState, Playback
from devices.audio.forwarding import ForwardingBackend
from devices.audio.loopback import Loopback
from devices.audio.pcm import PcmParams
from devices.contracts import Event as InHeap
from devices.contracts import Events
from devices.errors import PyemuError
from emu.cpu.stepper import Place, Stepper
from emu.timing.loop import Loop, Wait
from emu.timing.warp import WarpClock

if TYPE_CHECKING:
    from emu.machine import Machine
    from emu.snapshot.snapshot import Snapshot

__all__ = ["History", "Mark", "Moment", "can_go_back"]

#: Seconds of the processor's time between two marks, and how many times as long as a mark takes: that is 50 ms with the
#: default guest, and 1 s with one that uses a gigabyte.
_FAR_S, _FAR = 2.5, 50
#: The same while the past is searched.
_NEAR_S, _NEAR = 0.4, 8
#: Each holds the pages of RAM that the guest uses.
_MOST_MARKS = 8
#: Virtio devices that have nothing of the outside but what is remembered: disks, consoles, entropy, sound; not those of
#: shares and networks.
_REPEATABLE = {2, 3, 4, 25}


class Moment(NamedTuple):
    """A point of a run: in a turn of the loop, or, if that is over, behind it; and where the CPU stands."""

    turn: int
    over: bool
    place: Place

    def is_before(self, other: "Moment") -> bool:
        """Whether it is earlier."""
        return (self.turn, self.over, self.place[:2]) < (other.turn, other.over, other.place[:2])


class Mark(NamedTuple):
    """The machine between two turns, how many inputs had been applied, and what Python waited for."""

    moment: Moment
    inputs: int
    awaited: "list[tuple[_Awaited, InHeap]]"
    snapshot: "Snapshot"
    #: When it was made: seconds of the processor's time.
    made: float


def can_go_back(machine: "Machine") -> bool:
    """Whether the machine's runs can be repeated: nothing of the host's is in them, and they leave nothing behind."""
    states = [disk.state() for disk in machine.disks]
    written = any(state["changed"] is None and not state["image"]["read_only"] for state in states)
    alone = all(device.device_id in _REPEATABLE for device in machine.virtio)
    return isinstance(machine.clock, WarpClock) and machine.journal is None and alone and not written


class History:
    """The past of ``machine``, whose loop is ``loop``; its CPU is run by ``stepper``.

    ``goal`` is the moment that the machine is to run to; when that, or the front, is reached, ``next`` is called.
    """

    def __init__(self, machine: "Machine", loop: Loop, stepper: Stepper) -> None:
        self._machine, self._loop, self._stepper = machine, loop, stepper
        self._turn, self._in_turn = 0, False
        self._started: deque[tuple[int, int]] = deque(maxlen=4)  # turns in which blocks began: number, blocks before
        self._marks: list[Mark] = []  # the earliest first
        self._near: Mark | None = None  # one more: made in the past, a little before where it was gone to last
        self._last: Mark | None = None  # and one that was made while it was searched
        self._inputs: list[tuple[int, Callable[[], None]]] = []
        self._next_input = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._asked = False  # for a mark
        self._began = 0.0  # when a repetition began, of the processor's time
        self._took = 0.0  # how long the last mark took
        #: How far the machine has ever got, while it is somewhere else.
        self.front: Moment | None = None
        self.goal: Moment | None = None
        #: Called between two turns, when the goal or the front is there.
        self.arrived: Callable[[], None] = lambda: None
        #: Called between two turns, in any case.
        self.passed: Callable[[], None] = lambda: None
        self._wait, self._look = loop.wait, loop.look
        loop.wait, loop.look = self._count(loop.wait), self._between
        self._output = machine.console.output
        if self._output is not None:
            machine.console.output = self._show
        self._muffler = Muffler(machine.audio.backend, self)
        machine.audio.backend = self._muffler
        self._events = _Awaiting(self, machine.events)
        machine.events = self._events
        self._taps: list[Any] = []
        self._doors: list[tuple[object, str]] = []
        self._guard(machine.console, "send")
        self._guard(machine.console, "hold")
        self._guard(machine.hvc, "resize")
        self._guard(machine.sound.jacks, "plug")
        self._guard(machine.sound.controls, "set")
        self.mark()

    def close(self) -> None:
        """Forget it, at the front."""
        self._loop.wait, self._loop.look = self._wait, self._look
        if self._output is not None:
            self._machine.console.output = self._output
        if self._machine.audio.backend is self._muffler:
            self._machine.audio.backend = self._muffler.backend  # ports that are open stay muffled, and pass all
        for owner, method in self._doors:
            delattr(owner, method)
        self._machine.events = self._events.heap
        while self._waiting:
            with suppress(PyemuError):
                self._waiting.popleft()()

    # ---------------------------------------------------------------- where we are

    @property
    def now(self) -> Moment:
        """Where the machine stands."""
        return Moment(self._turn, not self._in_turn, self._stepper.place)

    @property
    def repeats(self) -> bool:
        """Whether this has all been."""
        return self.front is not None

    @property
    def first(self) -> Mark | None:
        """The earliest mark."""
        return self._marks[0] if self._marks else None

    def mark_before(self, moment: Moment) -> Mark | None:
        """Return the last mark that is earlier; None if there is none."""
        marks = [*self._marks, *filter(None, (self._near, self._last))]
        before = [mark for mark in marks if mark.moment.is_before(moment)]
        return max(before, key=lambda mark: (mark.moment.turn, mark.moment.over), default=None)

    def mark(self) -> None:
        """Make a mark here, between two turns."""
        self._asked = False
        if self._in_turn or self._loop.suspended or self._machine.power is not None:
            return
        started = thread_time()
        try:
            inputs = self._next_input if self.repeats else len(self._inputs)
            mark = Mark(self.now, inputs, self._events.pending, self._machine.snapshot(), thread_time())
        except PyemuError:  # the host has no room for it
            return
        self._took = mark.made - started
        if self.repeats:
            if self._stepper.passing:
                self._near = mark
            else:
                self._last = mark
            return
        self._marks.append(mark)
        if len(self._marks) > _MOST_MARKS:
            del self._marks[self._least_missed()]

    def _least_missed(self) -> int:
        """Which mark to give up: the older, the farther apart they may be."""
        made = [mark.made for mark in self._marks]
        now = made[-1] + self._far
        return min(range(1, len(made) - 1), key=lambda n: (made[n + 1] - made[n - 1]) / (now - made[n]))

    def keep(self) -> None:
        """What was searched for is here: it will be gone to."""
        if self._last is not None:
            self._near, self._last = self._last, None

    def cut(self) -> None:
        """What has been cannot be repeated any more: begin anew."""
        self._marks.clear()
        self._near = self._last = None
        self._inputs.clear()
        self._next_input = 0
        self._ask()

    # ---------------------------------------------------------------- going

    def go_to_mark(self, mark: Mark) -> None:
        """Be at a mark; the machine stands."""
        if self.front is None:
            self._machine.console.flush()
            self.front = self.now
            self._taps[:], self._machine.audio.taps[:] = self._machine.audio.taps, []
        self._loop.suspended = False
        self._machine.restore(mark.snapshot)
        self._turn, self._in_turn = mark.moment.turn, False
        self._started.clear()
        self._next_input = mark.inputs
        self._began = thread_time()
        self._events.restore(mark.awaited)
        self._repeat_inputs()

    def block_before(self, moment: Moment) -> Moment | None:
        """Return where the block began that came before ``moment``, at which the machine is; None if nobody knows."""
        blocks = moment.place.blocks
        turn = next((turn for turn, before in reversed(self._started) if before < blocks), None)
        return None if turn is None else Moment(turn, over=False, place=Place(blocks - 1, 0))

    def begin_turn(self) -> None:
        """The guest's turn comes."""
        self._begin()
        blocks = self._stepper.place.blocks
        if self._started and self._started[-1][1] == blocks:
            self._started.pop()
        self._started.append((self._turn, blocks))
        self.aim()

    def aim(self) -> None:
        """Have the CPU stop where the machine is to go to, if that is in this turn."""
        targets = [one for one in (self.goal, self.front) if one and one.turn == self._turn and not one.over]
        self._stepper.until = min((one.place for one in targets), default=None, key=lambda place: place[:2])

    def is_at(self, moment: Moment | None) -> bool:
        """Whether the machine has come there."""
        return moment is not None and not self.now.is_before(moment)

    def end_repetition(self) -> None:
        """What comes now has never been."""
        self._machine.console.flush()
        self.front = None
        self._machine.audio.taps[:] = self._taps
        if not self._in_turn:
            self._apply_waiting()

    def _begin(self) -> None:
        self._turn += 1
        self._in_turn = True

    def _count(self, wait: Wait) -> Wait:
        def counted(deadline: int | None, sleep: Callable[[float], None]) -> None:
            if deadline is not None:
                self._begin()
            wait(deadline, sleep)

        return counted

    def _between(self) -> None:
        """A step of the loop is over."""
        came, self._in_turn = self._in_turn, False
        if self.repeats and came:
            self._repeat_inputs()
        self._look()
        if not self.repeats:
            self._apply_waiting()
        if came and not self._asked and self._wants_mark():
            self._ask()
        if self.is_at(self.goal) or self.is_at(self.front):
            self.arrived()
        self.passed()

    @property
    def _far(self) -> float:
        return max(_FAR_S, _FAR * self._took)

    def _wants_mark(self) -> bool:
        if self.goal is not None and not self._stepper.passing:
            near = max(_NEAR_S, _NEAR * self._took)
            return thread_time() - self._began > near and (self._last is None or thread_time() - self._last.made > near)
        if self.goal is not None:  # it may be gone to again, or a little farther
            near_goal = self._near is not None and self._near.moment.turn == self._turn
            return self._turn == self.goal.turn - 1 and not near_goal
        return not self.repeats and (not self._marks or thread_time() - self._marks[-1].made > self._far)

    def _ask(self) -> None:
        self._asked = True
        self._machine.post(self.mark)

    # ---------------------------------------------------------------- from outside

    def _guard(self, owner: object, method: str) -> None:
        """Remember the calls of ``owner``'s ``method``, which are inputs."""
        real = getattr(owner, method)

        def door(*positional: Any, **named: Any) -> None:
            self.apply(partial(real, *positional, **named))

        setattr(owner, method, door)
        self._doors.append((owner, method))

    def apply(self, action: Callable[[], None]) -> None:
        """Do what comes from outside: now, or when the turn is over, or at the front."""
        if self.repeats or self._in_turn:
            self._waiting.append(action)
            return
        action()
        self._inputs.append((self._turn, action))

    def _apply_waiting(self) -> None:
        while self._waiting:
            with suppress(PyemuError):
                self.apply(self._waiting.popleft())

    def _repeat_inputs(self) -> None:
        while self._next_input < len(self._inputs) and self._inputs[self._next_input][0] <= self._turn:
            action = self._inputs[self._next_input][1]
            self._next_input += 1
            with suppress(PyemuError):
                action()

    def _show(self, data: bytes) -> None:
        if not self.repeats and self._output is not None:
            self._output(data)


class _Awaiting:
    """``machine.events`` for Python's own use: its deadlines, too, are where time jumps to, and the CPU stops."""

    def __init__(self, history: History, heap: Events) -> None:
        self.history, self.heap = history, heap
        self._pending: dict[_Awaited, InHeap] = {}

    @property
    def pending(self) -> "list[tuple[_Awaited, InHeap]]":
        """What has not happened yet."""
        return list(self._pending.items())

    def restore(self, pending: "list[tuple[_Awaited, InHeap]]") -> None:
        """Await this again, and nothing else."""
        self._pending = {one: self.heap.resume(event.moment, one.happen) for one, event in pending}

    def at(self, deadline: int, action: Callable[[], None]) -> InHeap:
        """Run ``action`` when guest time has reached ``deadline``, once, however often that is repeated."""
        awaited = _Awaited(self, deadline, action)
        self.history.apply(awaited.enter)
        return awaited

    def resume(self, moment: tuple[int, int], action: Callable[[], None]) -> InHeap:
        """Pass on: what belongs to the machine is not Python's."""
        return self.heap.resume(moment, action)

    def enter(self, awaited: "_Awaited") -> None:
        """Put it into the heap."""
        self._pending[awaited] = self.heap.at(awaited.moment[0], awaited.happen)

    def leave(self, awaited: "_Awaited") -> None:
        """Take it out."""
        event = self._pending.pop(awaited, None)
        if event is not None:
            event.cancel()


class _Awaited:
    """One of Python's events."""

    def __init__(self, events: _Awaiting, deadline: int, action: Callable[[], None]) -> None:
        self.moment = deadline, 0
        self._events = events
        self._action: Callable[[], None] | None = action

    def enter(self) -> None:
        self._events.enter(self)

    def happen(self) -> None:
        self._events.leave(self)
        if not self._events.history.repeats:
            action, self._action = self._action, None
            if action is not None:
                action()

    def cancel(self) -> None:
        if self._action is not None:
            self._action = None
            self._events.history.apply(partial(self._events.leave, self))


class Muffler(ForwardingBackend):
    """Passes to ``backend`` what is played for the first time."""

    def __init__(self, backend: AudioBackend, history: History) -> None:
        super().__init__(backend)
        self._history = history

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Play what is new."""
        port = self.backend.open_playback(stream, params)
        inside = isinstance(self.backend, Loopback)  # what it plays is recorded
        return port if inside else _MuffledPlayback(port, self._history)

    def restore(self, state: AudioState) -> None:
        """Hold what was on its way; what is in files stays there."""
        self.backend.restore({**state, "files": []})


class _MuffledPlayback(Playback):
    def __init__(self, port: Playback, history: History) -> None:
        self._port, self._history = port, history
        self.part_ns = port.part_ns
        self.start, self.stop, self.close = port.start, port.stop, port.close  # type: ignore[method-assign]

    @property
    def latency_bytes(self) -> int:
        return self._port.latency_bytes

    def write(self, data: bytes) -> None:
        if not self._history.repeats:
            self._port.write(data)

    def write_part(self, data: bytes) -> None:
        if not self._history.repeats:
            self._port.write_part(data)
