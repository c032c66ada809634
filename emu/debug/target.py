"""The machine as a debugger sees it: it stands or runs, and can be looked at while it stands.

It stands anywhere: where the debugger's stop is in the middle of a turn of the machine's loop, that turn goes on when
the machine does. So the loop's turns, and with them guest time, are those of a run without a debugger.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from devices.contracts import OutsideRamError
from devices.errors import UsageError
from emu.cpu.engine import Engine, Reg
from emu.cpu.native import WATCH_WRITE
from emu.cpu.stepper import Stop
from emu.debug.history import History, can_go_back
from emu.debug.registers import REGISTERS
from emu.debug.travel import Travel
from emu.memory import Ram
from emu.timing.loop import Loop

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["Target", "Watch"]

_PAGE = 4096


class Watch(NamedTuple):
    """A watchpoint: gdb's name for its kind, what is watched for (see Native), and virtual addresses."""

    name: bytes
    kinds: int
    first: int
    last: int


class Target:
    """``machine``, of which ``engine``, ``loop`` and ``ram`` are parts, while it has a debugger.

    ``report(stop)`` is called on the machine's thread when the machine has come to stand by itself.
    """

    def __init__(self, machine: "Machine", engine: Engine, loop: Loop, ram: Ram) -> None:
        self.machine = machine
        self.report: Callable[[Stop], None] = lambda _stop: None
        #: Called when the machine has been switched off.
        self.switched_off: Callable[[], None] = lambda: None
        #: Whether the debugger has the machine stand.
        self.stands = False
        #: Whether addresses of memory are physical.
        self.physical = False
        self._engine, self._loop, self._ram = engine, loop, ram
        self.stepper = engine.debug()
        self.watches: list[Watch] = []
        #: Whether there can be watchpoints.
        self.can_watch = engine.native is not None
        self._left: int | None = None  # blocks, of the turn that is to go on
        self._changed = ram.changed
        self._run_turn = loop.run
        loop.run = self._run
        self._leaves = False
        self._journey: Iterator[Stop | None] | None = None
        #: The machine's past, where it can go back.
        self.history: History | None = None
        if can_go_back(machine):
            self.history = History(machine, loop, self.stepper)
            self.history.arrived = self._arrive
            self.history.passed = self._between

    def detach(self) -> None:
        """Leave the machine alone: it goes on, from the front if it was in the past."""
        self.stepper.breakpoints.clear()
        if self.watches:
            self.watches.clear()
            self.watch()
        self._journey, self._leaves = None, True
        self.go_on()
        self._leave_if_possible()

    def _leave_if_possible(self) -> None:
        if self._loop.suspended or (self.history is not None and self.history.repeats):
            return
        if self.history is not None:
            self.history.close()
        self._loop.run = self._run_turn
        self._engine.leave_debugger()

    # ---------------------------------------------------------------- running

    def stand(self) -> None:
        """Have guest time stand, and the guest with it."""
        self.stands = True
        self._journey = None
        if not self.machine.paused:
            self.machine.pause()

    def go_on(self, *, stepping: bool = False, within: range = range(0)) -> None:
        """Go on: until there is a reason to stop, or for a step; see Stepper."""
        stepper = self.stepper
        stepper.stepping, stepper.within, stepper.passing = stepping, within, False
        if self.history is not None:
            self.history.goal = None
        stepper.go_on()
        self.stands = False
        self._go()

    def go_back(self, *, stepping: bool) -> None:
        """Go back, for a step or until there is a reason to stop; raises UsageError if there is no way back."""
        if self.history is None:
            raise UsageError("there is no way back")
        travel = Travel(self.history, self.stepper, self._go)
        self._travel, self._journey = travel, travel.step() if stepping else travel.run()
        self._go_further()

    def _go(self) -> None:
        self._loop.paused = False
        self.machine.clock.resume()

    def _run(self) -> bool:
        """Run the guest, in place of the loop's own: for a turn, or the rest of one."""
        if self._left is None:
            if self.history is not None:
                self.history.begin_turn()
            waits = self._run_turn()
        else:
            if self.history is not None:
                self.history.aim()
            if self._left >= 0:
                self._engine.stop_after(self._left)
            waits = self._engine.run()
        stop = self.stepper.stopped
        self._left = None
        if stop is not None and not waits:
            left = self._engine.blocks_left
            self._left = -1 if left is None else left
            self._loop.suspended = True
        if self.machine.power is not None:
            self.machine.console.flush()
            self.switched_off()
        elif stop is not None and stop.reason != "busy":
            self._on_stop(stop)
        return waits

    def _on_stop(self, stop: Stop) -> None:
        """The CPU was stopped: report that, unless it is a journey's affair, or the front is reached."""
        if self._journey is not None:
            self._travel.stopped(stop)
            self.machine.pause()
            self.machine.post(self._go_further)
        elif stop.reason == "place":
            self._arrive()
        else:
            self.stand()
            self.machine.console.flush()
            self.report(stop)

    def _arrive(self) -> None:
        """The machine is where it was to go to, or where it has never been beyond."""
        if self._journey is not None:
            self._on_stop(Stop("place"))
        elif self.history is not None and self.history.is_at(self.history.front):
            self.history.end_repetition()

    def _between(self) -> None:
        if self._leaves:
            self._leave_if_possible()

    def _go_further(self) -> None:
        """Continue the journey."""
        if self._journey is None:
            return
        stop = next(self._journey)
        if not self._loop.suspended:  # the machine has become another
            self._left = None
        if stop is not None:
            assert self.history is not None
            self.history.goal = None
            self.stand()
            self.report(stop)

    def watch(self) -> None:
        """``watches`` has changed."""
        self.stepper.watch([(watch.first, watch.last, watch.kinds) for watch in self.watches])
        self._ram.changed = self._on_device_write if self.watches else self._changed

    def _on_device_write(self, address: int, size: int) -> None:
        """RAM was written to, and not by the CPU: stop when the event is over in which that was done."""
        self._changed(address, size)
        if self.stands or self._journey is not None:  # it was the debugger; or it was before
            return
        for watch in self.watches:
            place = self.stepper.blocks.physical(watch.first)
            if watch.kinds & WATCH_WRITE and place is not None and address <= place < address + size:
                self.machine.post(partial(self._stop_outside, Stop("watch", watch.first, WATCH_WRITE)))

    def _stop_outside(self, stop: Stop) -> None:
        if not self.stands:
            self.stand()
            self.report(stop)

    def _check_is_front(self) -> None:
        """Something is to be changed: raise UsageError in the past; history begins anew here."""
        if self.history is not None:
            if self.history.repeats:
                raise UsageError("the past cannot be changed")
            self.history.cut()

    # ---------------------------------------------------------------- looking

    def read_register(self, number: int) -> bytes:
        """Return a register's bytes; raises UsageError if there is none."""
        if not 0 <= number < len(REGISTERS):
            raise UsageError("there is no such register")
        register = REGISTERS[number]
        return register.read(self._engine).to_bytes(register.bits // 8, "little")

    def write_register(self, number: int, data: bytes) -> None:
        """Change a register; raises UsageError if there is none, or it cannot be so."""
        if not 0 <= number < len(REGISTERS) or len(data) != REGISTERS[number].bits // 8:
            raise UsageError("there is no such register")
        self._check_is_front()
        pc = self._engine.state[Reg.PC]
        REGISTERS[number].write(self._engine, int.from_bytes(data, "little"))
        if self._engine.state[Reg.PC] != pc:
            self.stepper.forget()

    def read_memory(self, address: int, size: int) -> bytes:
        """Return bytes, as many as there are; raises UsageError if there are none."""
        found = b""
        try:
            while len(found) < size:
                at, room = self._place(address + len(found))
                found += self._ram.read(at, min(room, size - len(found)))
        except (UsageError, OutsideRamError):
            if not found:
                raise UsageError("there is no memory") from None
        return found

    def write_memory(self, address: int, data: bytes) -> None:
        """Change memory; raises UsageError if some of it is not there."""
        self._check_is_front()
        try:
            while data:
                at, room = self._place(address)
                self._ram.write(at, data[:room])
                address, data = address + room, data[room:]
        except OutsideRamError:
            raise UsageError("there is no memory") from None

    def _place(self, address: int) -> tuple[int, int]:
        """Return the physical address, and how many bytes there are to the end of the page."""
        address &= (1 << 64) - 1
        physical = address if self.physical else self.stepper.blocks.physical(address)
        if physical is None:
            raise UsageError("there is no memory")
        return physical, _PAGE - address % _PAGE
