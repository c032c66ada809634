"""The loop: one thread that runs the guest until something is due, does that, and listens to whoever rings."""

import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

from devices.errors import UsageError
from emu.cpu.engine import Engine
from emu.cpu.hart import Hart
from emu.timing.clock import Clock, HostClock
from emu.timing.doorbell import Alarm, AlarmThread, Doorbell
from emu.timing.events import DeadlineHeap
from emu.timing.signals import HeldSignals
from emu.timing.warp import WarpClock

__all__ = ["Loop", "LoopState", "Wait"]

#: How often the loop looks after a guest that computes without a pause: output, timeouts (guest time, ns).
_LONGEST_RUN_NS = 20_000_000
#: How often a paused machine looks for messages that nobody rings for.
_PAUSED_S = 1.0

#: A clock's ``wait``: (deadline, sleep).
Wait = Callable[[int | None, Callable[[float], None]], None]


class LoopState(TypedDict):
    """Whether the hart executed WFI, and nothing has woken it yet."""

    waiting: bool


class Loop:
    """Runs the CPU by ``clock``, and in between what ``events`` has due and the messages that were posted.

    ``run`` runs the guest and ``wait`` passes time while it waits: the engine's and the clock's own, or what watches
    them. ``look`` is called after each step, when the CPU is back and the events are done, before the messages.

    One thread at a time may run the loop; any thread may ``post``. What a device, an event, a message or a signal
    handler raises comes out of ``run_until``, which can be called again.
    """

    def __init__(
        self,
        engine: Engine,
        hart: Hart,
        clock: Clock,
        *,
        run: Callable[[], bool],
        wait: Wait,
        look: Callable[[], None],
    ) -> None:
        self.run, self.wait, self.look = run, wait, look
        #: Whether the hart executed WFI, and nothing has woken it yet.
        self.waiting = False
        #: Whether time stands still: the guest does not run, messages are still taken.
        self.paused = False
        #: Whether a step is under way: the guest runs, or an event does; but not what was posted.
        self.stepping = False
        #: Whether what ran the guest has left it in the middle of its turn, which is to go on there: a debugger.
        self.suspended = False
        self._turn_ends = 0  # when it is to end, at the latest
        self._engine, self._hart, self._clock = engine, hart, clock
        self._alarm_thread: AlarmThread | None = None
        # Where time is counted, nothing that the host does may change the guest's turns.
        counted = isinstance(clock, WarpClock)
        self._doorbell = Doorbell(self._make_alarm(), deadlines_only=counted)
        #: ``events.at(ns, action)`` has something done at a guest time.
        self.events = DeadlineHeap(self._doorbell.nearer)
        self._inbox: deque[Callable[[], None]] = deque()
        self._signals = HeldSignals(self._doorbell.ring)
        self._halted = self._closed = False
        self._running = threading.Lock()
        self._thread: int | None = None  # which runs it

    def run_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Run until ``done()``, which is asked between the steps, and say whether it came to that.

        It doesn't after ``halt``, or when ``timeout`` seconds of real time have passed. Raises UsageError if the loop
        is closed or running already.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._owned(), _no_collection(), self._signals:
            self._clock.settle()  # what Python did since the last time was not the guest's
            while not done():
                left = None if end is None else end - time.monotonic()
                if self._halted or (left is not None and left < 0):
                    return False
                self.check_open()
                self._signals.hold()
                try:
                    self._step(left)
                finally:
                    self.stepping = False
                    self._signals.release()
        return True

    def post(self, message: Callable[[], None]) -> None:
        """Have ``message()`` called between two steps, soon. For any thread, and for signal handlers."""
        self._inbox.append(message)
        self._doorbell.ring()

    def halt(self) -> None:
        """Run no further, from the next block on."""
        self._halted = True
        if not self._closed:
            self._engine.stop()

    def state(self) -> LoopState:
        """Return its state, between two steps."""
        return {"waiting": self.waiting}

    def restore(self, state: LoopState) -> None:
        """Go on from ``state``, also after ``halt``."""
        self.waiting = state["waiting"]
        self._halted = self.suspended = False

    def check_thread(self) -> None:
        """Raise UsageError if another thread is running the loop: only ``post`` is safe then."""
        if self._thread not in {None, threading.get_ident()}:
            raise UsageError("the machine is running on another thread; use its post() from this one")

    def check_open(self) -> None:
        """Raise UsageError if the loop is closed."""
        if self._closed:
            raise UsageError("the machine is closed; a new one can be made")

    def close(self) -> None:
        """End the alarm's thread. Raises UsageError while the loop runs: what runs it would lose its CPU."""
        self.check_thread()
        if self._thread is not None:
            raise UsageError("the machine cannot be closed by what it calls; switch_off() ends the run")
        self._closed = True
        if self._alarm_thread is not None:
            self._alarm_thread.close()

    def _step(self, longest: float | None) -> None:
        """Run the guest until there is something else to do, or let it sleep, for ``longest`` seconds at most."""
        doorbell, clock, events = self._doorbell, self._clock, self.events

        def sleep(seconds: float) -> None:
            doorbell.sleep(seconds if longest is None else min(seconds, longest))

        deadline, paused = events.next_deadline(), self.paused
        self.stepping = True
        try:
            if paused:
                sleep(_PAUSED_S)
            elif self.waiting and not self._hart.wakes():
                self.wait(deadline, sleep)
            else:
                if not self.suspended:
                    latest = clock.now() + _LONGEST_RUN_NS
                    self._turn_ends = latest if deadline is None else min(deadline, latest)
                doorbell.enter(self._turn_ends)
                self.suspended = False
                self.waiting = self.run()
                self._turn_ends = doorbell.deadline
                clock.settle()
        finally:
            doorbell.acknowledge()
        if not self.suspended:
            if not paused:  # else what is to be done at once would be done without the guest's turns in between
                events.run_due(clock.now())
            self.look()
        self.stepping = False
        while self._inbox:
            self._inbox.popleft()()

    def _make_alarm(self) -> Alarm:
        if isinstance(self._clock, WarpClock):
            self._clock.follow(self._engine)
            return self._clock
        if isinstance(self._clock, HostClock):
            native = None if self._clock.shared is None else self._engine.share_clock(self._clock.shared)
            if native is not None:
                self._clock.follow(native, native=True)
                return native
            self._engine.count_blocks()
            self._clock.follow(self._engine, native=False)
        self._alarm_thread = AlarmThread(self._engine.stop, self._clock.now)
        return self._alarm_thread

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Be the one that runs the loop."""
        if not self._running.acquire(blocking=False):
            self.check_thread()
            raise UsageError("the machine is running already; what it calls cannot run it, too")
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None
            self._running.release()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Have no cycles looked for while the guest runs: that takes 10 to 40 ms, and running makes next to none."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
