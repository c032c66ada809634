"""Stops the CPU within a block of code, for a debugger: at an instruction, and after one.

Guest time is a count of blocks, and interrupts are entered between them. So that a run with a debugger is the same as
without, to the bit, no block is ever cut in two, and none is counted twice:

    breakpoint   a hook sees the blocks of the breakpoint's page before they begin. One with the breakpoint in it does
                 not; the CPU stops, and its instructions are executed in pieces
    piece        so many instructions of a block, translated as a block of their own (cflags_next_tb, which QEMU has for
                 its own steps). All pieces of a block count as one, and no interrupt is entered before the last
    step         a piece of one instruction. An interrupt that is due before it is let through first: the guest runs
                 until it is back, as if nobody stepped. That takes as long as it takes without a debugger

Two things are not so: a block that changes itself, without fence.i, is executed as it is now, not as it was when it
began; and where there are breakpoints, but no native part, an illegal instruction of two bytes that is a block by
itself is not counted.

Without a debugger there is no Stepper, and while it has nothing to look for, the CPU runs as ever. The memory of the
guest is not written to.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from devices.errors import UsageError
from emu.cpu import unicorn
from emu.cpu.layout import Reg
from emu.cpu.unicorn import uclib

if TYPE_CHECKING:
    from emu.cpu.blockhook import BlockHook
    from emu.cpu.blocks import Blocks
    from emu.cpu.engine import Engine
    from emu.cpu.native import Native

__all__ = ["Place", "Stepper", "Stop"]

_PAGE = 4096
_INTERRUPT = 1 << 63  # in scause and mcause
_SP = 2
_SUPERVISOR = 1
#: Pages without a breakpoint that keep their hook: debuggers take breakpoints away at each stop, and put them back.
_IDLE_PAGES = 16
#: How many pieces are executed in one run.
_PATIENCE = 10

_BlockCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)


class Place(NamedTuple):
    """Where in its run the CPU stands: blocks that are over, and instructions of the next one that were executed.

    Between two blocks, ``pc`` tells whether a trap was entered already; -1 if that does not matter.
    """

    blocks: int
    instructions: int
    pc: int = -1

    def is_before(self, other: "Place") -> bool:
        """Whether it is another place, and earlier; before and after a trap count as the same."""
        return self[:2] < other[:2]


class Stop(NamedTuple):
    """Why the CPU was stopped: "break", "step", "place", or "watch" because of an access of ``kind`` to ``address``.

    Or "busy": it has taken a while already, and others may want something; there is no other reason.
    """

    reason: str
    address: int = 0
    kind: int = 0


class _Return(NamedTuple):
    """What the hart has when it is back from an interrupt."""

    pc: int
    mode: int
    sp: int
    satp: int


class Stepper:
    """Runs ``engine`` as a debugger wants it, in place of the engine's own ``run``.

    ``breakpoints`` are virtual addresses, in whatever address space. With ``stepping``, ``run`` executes one
    instruction, or all those in a row that are at addresses of ``within``. ``until`` is where it stops at the latest.
    After ``run``, ``stopped`` says whether it was stopped because of any of this; called again, it goes on.
    """

    def __init__(
        self, engine: "Engine", counter: "Native | BlockHook", blocks: "Blocks", hook: Callable[..., int]
    ) -> None:
        self.breakpoints: set[int] = set()
        self.stepping = False
        self.within = range(0)
        self.until: Place | None = None
        #: Whether breakpoints are passed: by a run that is a repetition.
        self.passing = False
        self.stopped: Stop | None = None
        #: Where the instruction began whose access was watched.
        self.accessed: Place | None = None
        #: The guest's code as it is where the CPU stands.
        self.blocks = blocks
        self._engine, self._counter, self._hook = engine, counter, hook
        self._state = engine.state
        self._last = counter.blocks + counter.blocks_left  # block that may begin
        self._cap: int | None = None  # the last that may begin now
        self._rest: list[int] = []  # where the instructions are that come next in this block
        self._done = 0  # how many of it were executed; 0: it has not begun, and is not counted
        self._skip: int | None = None  # the breakpoint at which the CPU stands
        self._return: _Return | None = None  # where an interrupt comes back to that was let through
        self._watches, self._looks = False, True
        self._pages: dict[int, int] = {}  # those with a hook
        self._stops: dict[int, tuple[int, ...]] = {}  # where to look, by page
        self._seen: Stop | None = None  # an access that is watched is the next instruction's
        self._asked = False  # to stop
        self._armed = self._refused = False  # whether blocks may be refused; whether one was
        self._refused_at = 0
        self._callback = _BlockCallback(self._on_block)

    @property
    def place(self) -> Place:
        """Where the CPU stands."""
        return Place(self._counter.blocks - (self._done > 0), self._done, self._state[Reg.PC])

    @property
    def blocks_left(self) -> int:
        """How many more blocks may begin."""
        return self._last - self._counter.blocks

    def stop_after(self, blocks: int) -> None:
        """Let so many more begin, as ``Engine.stop_after``."""
        self._last = self._counter.blocks + blocks
        self._limit(self._cap)

    def _limit(self, cap: int | None) -> None:
        """Let no block begin behind that number, nor behind the last."""
        counter, self._cap = self._counter, cap
        if self._engine.counts_blocks:
            last = self._last if cap is None else min(self._last, cap)
            counter.stop_after(max(last - counter.blocks, 0))
        else:  # it looks at a clock when there is none left
            counter.stop_after(0 if cap is None else max(cap - counter.blocks, 0))

    def stop(self) -> None:
        """Have ``run`` return at the start of the next block. For any thread."""
        self._asked = True

    def go_on(self) -> None:
        """Have the next ``run`` execute the instruction at the pc, even if there is a breakpoint."""
        self._skip = self._state[Reg.PC]

    def forget(self) -> None:
        """The CPU is somewhere else now: what was begun is not."""
        self._rest, self._done = [], 0
        self._skip = self._return = self._seen = None
        self._last = self._counter.blocks + self._counter.blocks_left

    def watch(self, watches: Sequence[tuple[int, int, int]]) -> None:
        """Stop behind accesses: (first address, last, WATCH_READ | WATCH_WRITE); UsageError where that can't be."""
        native = self._engine.native
        if native is None:
            raise UsageError("watchpoints need the native part of the engine")
        native.watch(watches)
        self._watches = bool(watches)
        self._engine.flush_tlb()

    def run(self) -> bool:
        """Run the guest until a stop is asked for, or it waits, or there is a reason of the debugger's to stop.

        Returns whether it waits (WFI).
        """
        self.stopped, self._asked = None, False
        self._hook_pages()
        for _ in range(_PATIENCE):
            if not self._rest:
                if self._is_there:
                    self._enter_trap()
                    return self._stop("place")
                if self._is_over or self._asked:
                    return False
                if not self._is_next_special:
                    waits, over = self._run_blocks()
                    if over or self.stopped is not None:
                        return waits
                    continue
                self._open()
            waits = bool(self._rest) and self._execute()
            if waits or self.stopped is not None:
                return waits
        self.stopped = Stop("busy")
        return False

    def _stop(self, reason: str, address: int = 0, kind: int = 0) -> bool:
        self.stopped = Stop(reason, address, kind)
        self._return = None
        if not self._done:
            self._rest = []  # an interrupt may come before it
        return False

    # ---------------------------------------------------------------- whole blocks

    @property
    def _is_over(self) -> bool:
        """Whether no more blocks may begin."""
        return self._engine.counts_blocks and self.blocks_left <= 0

    @property
    def _is_next_special(self) -> bool:
        """Whether there is something to do in the next block."""
        if self.until is not None and self.until.blocks <= self._counter.blocks + (not self.until.instructions):
            return True  # also the last one: an interrupt that is due behind it is to be left alone
        return (
            self._refused
            or self._seen is not None
            or self._skip in self.breakpoints
            or (self.stepping and self._return is None)
        )

    def _run_blocks(self) -> tuple[bool, bool]:
        """Run up to a block in which there is something to do; return whether the guest waits; whether that is all."""
        counter, until = self._counter, self.until
        cap = None if until is None else until.blocks - (not until.instructions)
        self._skip = None
        self._armed = True
        if cap is not None:
            self._limit(cap)
        try:
            waits = self._go()
        finally:
            self._armed = False
            if cap is not None:
                self._limit(None)
        if self._take_seen():
            return False, False
        if self._refused and self._state[Reg.PC] != self._refused_at:
            self._refused = False  # an interrupt came first
            return False, False
        return waits, not self._refused and (waits or cap is None or counter.blocks != cap)

    @property
    def _is_there(self) -> bool:
        """Whether the place is reached where it is to stop."""
        return self.until is not None and not self.place.is_before(self.until)

    def _enter_trap(self) -> None:
        """Enter a trap that is due, if the place to stop at comes behind it."""
        if (
            self.until is not None
            and self.until[:2] == self.place[:2]
            and self.until.pc not in {-1, self._state[Reg.PC]}
        ):
            self._translate()

    # ---------------------------------------------------------------- pieces of a block

    def _open(self) -> None:
        """Look at the next block; a trap that is due is entered instead."""
        state = self._state
        self._refused = False
        here = self._here()
        count = self._translate()
        if (state[Reg.PC], state[Reg.PRIV]) == here[:2]:
            self._rest, self._done = self.blocks.instructions(here.pc, count), 0
            return
        self._skip = None
        if not self.stepping or self._return is not None:
            return
        cause, back = (Reg.SCAUSE, Reg.SEPC) if state[Reg.PRIV] == _SUPERVISOR else (Reg.MCAUSE, Reg.MEPC)
        if state[cause] & _INTERRUPT and state[back] == here.pc:
            self._return = here
            self._hook_pages()
        else:
            self._stop("step")

    def _execute(self) -> bool:
        """Execute the rest of the block, or as much as there is nothing to do in; return whether the guest waits."""
        pc = self._rest[0]
        if self._return is not None and self._here() == self._return:
            self._return, self._skip = None, pc
            if not self._done:
                self._rest = []  # another one may be due
                return False
        if pc in self.breakpoints and pc != self._skip and not self.passing:
            return self._stop("break", pc)
        if self._is_there:
            return self._stop("place")
        seen, self._looks = self._seen, self._seen is None
        if seen is not None:
            self.accessed = self.place
        steps = self.stepping and self._return is None
        count = 1 if steps or seen is not None else self._quiet()
        if self.until is not None and self.until.blocks == self.place.blocks and self.until.instructions:
            count = min(count, self.until.instructions - self._done)
        waits = self._piece(count)
        if seen is not None:
            self._seen, self._looks = None, True
            self._stop(*seen)
        elif steps and self._seen is None and self._state[Reg.PC] not in self.within:
            self._stop("step")
        return waits

    def _quiet(self) -> int:
        """Return how many instructions come before one at which there may be something to do."""
        stops = self._stops.get(self._rest[0] & -_PAGE, ())
        return next((n for n, pc in enumerate(self._rest) if n and pc in stops), len(self._rest))

    def _here(self) -> _Return:
        state = self._state
        return _Return(state[Reg.PC], state[Reg.PRIV], state[_SP], state[Reg.SATP])

    def _piece(self, count: int) -> bool:
        """Execute the next ``count`` instructions of the block; return whether the guest waits."""
        engine, counter = self._engine, self._counter
        rest, done, before, raised = self._rest, self._done, self._counter.blocks, engine.raised
        if done:
            counter.blocks = before - 1  # it will be counted again
        self._rest, self._done, self._skip = [], 0, None
        engine.hold_interrupts()
        try:
            waits = self._run_limited(before + (not done), count)
        finally:
            engine.release_interrupts()
            began = counter.blocks > before - (done > 0)
            if done and not began:
                counter.blocks = before
        if not began and done:  # another thread asked for a stop
            self._rest, self._done = rest, done
        elif began and self._take_seen(rest, done):
            return False
        elif began and not waits and rest[count : count + 1] == [self._state[Reg.PC]] and engine.raised == raised:
            self._rest, self._done = rest[count:], done + count
        return waits

    # ---------------------------------------------------------------- accesses

    def _take_seen(self, rest: Sequence[int] = (), done: int = 0) -> bool:
        """Whether the CPU has stopped before an access that is watched: in this piece, or in a block of its own."""
        seen = self._engine.native.take_seen() if self._watches and self._engine.native is not None else None
        if seen is None:
            return False
        engine, counter = self._engine, self._counter
        engine.release_interrupts()
        rest = rest or self.blocks.instructions(seen.block, seen.instructions)
        executed = rest.index(self._state[Reg.PC])
        self._seen = Stop("watch", seen.address, seen.kind)
        self._refused = False
        if done + executed:
            self._rest, self._done = list(rest[executed:]), done + executed
        else:  # it is the first: the block is to begin again
            counter.blocks -= 1
            self._limit(None)
        return True

    # ---------------------------------------------------------------- what the CPU does

    def _go(self) -> bool:
        native = self._engine.native
        if not self._watches or native is None:
            return self._engine.go()
        native.look(self._looks and not self.passing)
        try:
            return self._engine.go()
        finally:
            native.look(False)

    def _translate(self) -> int:
        """Have the next block translated, but not begin, and return how many instructions it has.

        A trap that is due is entered instead.
        """
        pc = self._state[Reg.PC]
        self._run_limited(self._counter.blocks, 0)
        return self.blocks.translated(pc)

    def _run_limited(self, cap: int, instructions: int) -> bool:
        """Let no block begin behind number ``cap``, and the next one end after so many ``instructions`` (0: any)."""
        counter = self._counter
        counter.count_exactly(True)
        self._limit(cap)
        if instructions:
            self.blocks.limit_next(instructions)
        try:
            return self._go()
        finally:
            self.blocks.limit_next(None)
            counter.count_exactly(False)
            self._limit(None)

    # ---------------------------------------------------------------- hooks

    def _hook_pages(self) -> None:
        """See the blocks of all pages where there is something to stop at."""
        wanted = set() if self.passing else set(self.breakpoints)
        if self._return is not None:
            wanted.add(self._return.pc)
        stops: dict[int, tuple[int, ...]] = {}
        for address in wanted:
            page = address & -_PAGE
            stops[page] = (*stops.get(page, ()), address)
        self._stops = stops
        for page in stops.keys() - self._pages.keys():
            self._pages[page] = self._hook(unicorn.UC_HOOK_BLOCK, self._callback, page, page + _PAGE - 1)
            self.blocks.drop(page)
        idle = self._pages.keys() - stops.keys()
        if len(idle) > _IDLE_PAGES:
            self._unhook(idle)

    def unhook(self) -> None:
        """See no blocks any more."""
        self._stops = {}
        self._unhook(set(self._pages))

    def _unhook(self, pages: set[int]) -> None:
        for page in pages:
            uclib.uc_hook_del(self._engine.handle, self._pages.pop(page))
            self.blocks.drop(page)

    def _on_block(self, _uc: object, address: int, size: int, _user: object) -> None:
        """A block is about to begin, of a page that has a hook."""
        if self._armed and any(0 <= one - address <= size for one in self._stops.get(address & -_PAGE, ())):
            self._refused, self._refused_at = True, address
            self._counter.refuse()
