"""Unicorn's CPU as one hart of a whole machine: the one module that reaches into it.

Unicorn 2.1.4 is made for running pieces of code. As a machine it stops in the middle of instructions, leaves
exceptions to its caller and notices interrupts late. All of that is mended from outside, by four stores into its
data. layout.py knows where, and checks it when the engine is made; another release of Unicorn is refused.

    env               the CPU state itself, shared: a trap is entered by storing into it, with no call at all
    no_exit_request   set: a stop is looked for at the start of a block only, not after each load and store, where
                      the instruction would run again; so a stop from any thread is exact, and memory is faster
    rdtime_fn         set: rdtime is a call instead of an exception
    ext_ifencei       cleared, where there is no native part: fence.i becomes an exception, so that stale translations
                      can be dropped (codehook.py)

The native part (native.c), where it was built, does more of that, and without Python.
"""

import ctypes
import mmap
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from devices.errors import PyemuError, UsageError
from devices.state import U64, Ns, check
from emu.cpu import layout, unicorn
from emu.cpu.layout import EXIT_NOW, INTERRUPT_HARD, Reg
from emu.cpu.native import Native, NotNativeError, install
from emu.cpu.operand import memory_operand
from emu.cpu.unicorn import uclib
from emu.cpu.words import check_words, put_words, take_words

if TYPE_CHECKING:
    from emu.cpu.blockhook import BlockHook
    from emu.cpu.codehook import CodeHook
    from emu.cpu.stepper import Stepper

__all__ = ["CpuState", "Engine", "Reg"]

_U64 = ctypes.c_uint64
_NEVER = (1 << 64) - 1

_ReadCallback = ctypes.CFUNCTYPE(_U64, ctypes.c_void_p, _U64, ctypes.c_uint, ctypes.c_void_p)
_WriteCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, _U64, ctypes.c_uint, _U64, ctypes.c_void_p)
_ExceptionCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_UnmappedCallback = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_int, _U64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
_InvalidCallback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
_TimeCallback = ctypes.CFUNCTYPE(_U64)

#: Host memory for translated code, of which booting Linux fills 16 MiB. Unicorn starts anew when it is full.
_CODE_BUFFER = 64 << 20

_FETCH_ERRORS = (unicorn.UC_ERR_FETCH_UNMAPPED, unicorn.UC_ERR_FETCH_PROT)
_ACCESS_ERRORS = (*_FETCH_ERRORS, unicorn.UC_ERR_READ_UNMAPPED, unicorn.UC_ERR_WRITE_UNMAPPED)
_CAUSE_FETCH_ACCESS, _CAUSE_BREAKPOINT, _CAUSE_LOAD_ACCESS, _CAUSE_STORE_ACCESS = 1, 3, 5, 7
_CAUSE_LOAD_MISALIGNED, _CAUSE_STORE_MISALIGNED = 4, 6
#: Address translation that fails for every load and store, in M mode too: MPRV with MPP=U, and Sv39 without a root.
_MPRV, _MPP = 1 << 17, 3 << 11
_NO_ROOT = 8 << 60 | (1 << 44) - 1
#: More blocks than any run has, and so few that they can be added to.
_MOST_BLOCKS = 1 << 60


class CpuState(TypedDict):
    """The words of Unicorn's CPURISCVState, and what was counted."""

    words: list[U64]
    blocks: Ns
    time_reads: Ns


class Engine:
    """One RV64GC hart with M, S and U mode on Unicorn, and the physical address space around it.

    ``state`` is the live CPU state, 8-byte words indexed by ``Reg``. It may be read and written while the CPU does
    not run, and in ``exception``; in MMIO handlers only ``set_pending`` and ``stop`` may be used.

    ``exception(cause, pc)`` is called for each synchronous exception that the guest raises, with ``state`` as it was
    before the instruction; it enters the trap by changing ``state``, or emulates the instruction by setting the pc.
    An exception of Python's own in a handler stops the CPU and is raised by ``run``.

    Raises PyemuError where this is not the Unicorn that it fits.
    """

    def __init__(self, ram: mmap.mmap, ram_base: int) -> None:
        layout.check_release()
        self.exception: Callable[[int, int], None] = lambda _cause, _pc: self.stop()
        self._time: Callable[[], int] = lambda: 0
        self._watched, self._time_reads = False, 0
        self._failure: BaseException | None = None
        self._before_store: bytes | None = None  # the state before a store to nothing, see _on_unmapped_store
        self._keep: list[Any] = []  # callbacks live as long as the engine
        self.native: Native | None = None
        self._counter: Native | BlockHook | None = None
        self._block_hook: BlockHook | None = None
        self._code_hook: CodeHook | None = None
        self._stepper: Stepper | None = None  # a debugger's
        self._held, self._raised = False, 0  # whether interrupts are; exceptions
        #: Why the native part is not in use; "" if it is.
        self.why_not_native = ""
        library = None
        try:
            library = install()
        except NotNativeError as reason:
            self.why_not_native = str(reason)
        self._uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
        self._handle = self._uc._uch  # noqa: SLF001
        self._address: int = self._handle.value
        self._uc.ctl_set_tcg_buffer_size(_CODE_BUFFER)
        self._uc.ctl_exits_enabled(True)  # no "until" address: a guest may go anywhere
        self._ram, self._ram_base = ram, ram_base
        self._uc.mem_map_ptr(ram_base, len(ram), unicorn.UC_PROT_ALL, ctypes.addressof(ctypes.c_char.from_buffer(ram)))
        found = layout.find(self._uc)
        self._found, self.state, self._halted = found, found.state, found.halted
        self._interrupt_request, self._exit_chain = found.interrupt_request, found.exit_chain
        found.no_exit_request.value = 1
        python = _ExceptionCallback(self._on_exception)
        try:
            self.native = None if library is None else self._attach_native(library, found, python)
        except NotNativeError as reason:
            self.why_not_native = str(reason)
        if self.native is None:
            self._hook(unicorn.UC_HOOK_INTR, python)
        else:
            self._hook(unicorn.UC_HOOK_INTR, self.native.trap, user=self.native.user)
        unmapped = _UnmappedCallback(self._on_unmapped_store)  # around the RAM, where it would make all stores slow
        self._hook(unicorn.UC_HOOK_MEM_WRITE_UNMAPPED, unmapped, end=ram_base - 1)
        self._hook(unicorn.UC_HOOK_MEM_WRITE_UNMAPPED, unmapped, begin=ram_base + len(ram))
        self._hook(unicorn.UC_HOOK_INSN_INVALID, _InvalidCallback(self._on_breakpoint))
        if self.native is None:
            found.ext_ifencei.value = 0
            self._code_hook = self._make_code_hook()
        rdtime = _TimeCallback(self._on_rdtime)
        self._keep.append(rdtime)
        found.rdtime_fn.value = ctypes.cast(rdtime, ctypes.c_void_p).value or 0
        self._new = take_words(self.state)

    def _attach_native(self, library: ctypes.CDLL, found: layout.Internals, python: Any) -> Native:
        return Native(
            library,
            uc=self._address,
            cpu=found.cpu,
            state=ctypes.addressof(ctypes.c_char.from_buffer(found.state.cast("B"))),
            exit_chain=ctypes.addressof(found.exit_chain),
            jump_cache=found.jump_cache,
            ram=ctypes.addressof(ctypes.c_char.from_buffer(self._ram)),
            ram_size=len(self._ram),
            ram_base=self._ram_base,
            python=python,
        )

    def _make_code_hook(self) -> "CodeHook":
        from emu.cpu.codehook import CodeHook  # noqa: PLC0415 - not needed with the native part

        fetch = partial(self.translate, fetch=True)
        return CodeHook(self._uc, self.state, self._ram, self._ram_base, hook=self._hook, fetch=fetch)

    # ---------------------------------------------------------------- running

    def run(self) -> bool:
        """Run the guest until ``stop`` is asked for or the hart waits for an interrupt; return whether it waits (WFI).

        Raises whatever a handler raised, and PyemuError if Unicorn itself gives up.
        """
        if self._stepper is not None:
            return self._stepper.run()
        if self._counter is not None and self._counter.blocks_left <= 0:
            return False
        return self.go()

    def go(self) -> bool:
        """Do what ``run`` does without a debugger, even if there are no blocks left."""
        state = self.state
        if self._block_hook is None:
            error = uclib.uc_emu_start(self._handle, state[Reg.PC], 0, 0, 0)
        else:
            error = self._block_hook.run(lambda: state[Reg.PC], self._is_over)
        if self._before_store is not None:
            self._access_fault(unicorn.UC_ERR_WRITE_UNMAPPED)
        elif error in _ACCESS_ERRORS:
            self._access_fault(error)
        elif error not in (unicorn.UC_ERR_OK, unicorn.UC_ERR_EXCEPTION):  # the latter after ebreak
            raise PyemuError(f"Unicorn gives up at pc {state[Reg.PC]:#x}: {unicorn.UcError(error)}")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return bool(self._halted[0]) and not error

    @property
    def time(self) -> Callable[[], int]:
        """What the ``time`` CSR reads: ticks."""
        return self._time

    @time.setter
    def time(self, time: Callable[[], int]) -> None:
        self._time = time
        if self.native is not None:
            self.native.leave_time()

    def share_clock(self, shared: memoryview) -> Native | None:
        """Let the native part tell the time by what a HostClock shares; ``time`` is asked where that is not enough.

        Returns what counts the blocks then, and stops the CPU at a deadline without another thread; None if there is no
        native part.
        """
        if self.native is not None:
            self.native.share_clock(shared)
        return self.native

    @property
    def time_reads(self) -> int:
        """How often the guest has read the time so far."""
        return self._time_reads + (0 if self.native is None else self.native.time_reads)

    # ---------------------------------------------------------------- counting

    def count_blocks(self) -> None:
        """Count the blocks of code that the guest executes, from now on, which is before the first ``run``.

        A block is what Unicorn translates at once: instructions up to the next jump, branch, system instruction or
        end of the page. It counts when it begins, once, whether it comes to its end or not; so the count depends on
        nothing but the guest, and is the same with the native part and without it; then no other thread may ``stop``.
        """
        if self.native is not None:
            self.native.count_blocks()
            self._counter = self.native
            return
        from emu.cpu.blockhook import BlockHook  # noqa: PLC0415 - not needed with the native part

        try:
            self._counter = self._block_hook = BlockHook(self._address, self._hook)
        except LookupError as error:
            raise layout.misfit(str(error)) from error

    @property
    def blocks(self) -> int:
        """How many blocks have begun; in a handler, the one that it is called from is the last of them."""
        return self._counted.blocks

    def stop_after(self, blocks: int) -> None:
        """Have ``run`` return when so many more blocks have been executed, of this run and later ones.

        With 0 in a handler, the block that it is called from is the last one.
        """
        if self._stepper is None:
            self._counted.stop_after(blocks)
        else:
            self._stepper.stop_after(blocks)

    def share_work(self, shared: memoryview) -> None:
        """Let the native part tell the time by the blocks that were counted and by what a WarpClock shares.

        Without it, ``time`` is asked.
        """
        if self.native is not None:
            self.native.share_work(shared)

    @property
    def _counted(self) -> "Native | BlockHook":
        assert self._counter is not None, "count_blocks comes first"
        return self._counter

    def _is_over(self) -> bool:
        """Whether the guest came back for another reason than an interrupt."""
        return bool(self._halted[0]) or self._before_store is not None or self._failure is not None

    # ---------------------------------------------------------------- from outside

    def leave_traps_to_python(self) -> None:
        """Have ``exception`` called for each exception, from now on; the native part enters most of them itself."""
        self._watched = True
        if self.native is not None:
            self.native.leave_traps(to_python=True)

    def stop(self) -> None:
        """Make ``run`` return at the start of the next block. For any thread.

        Without effect when the CPU is not running: whoever needs it to stop asks again until it has.
        """
        if self._stepper is not None:
            self._stepper.stop()
        if self._block_hook is None:
            uclib.uc_emu_stop(self._handle)
        else:
            self._block_hook.stop()

    def set_pending(self, mask: int, level: bool) -> None:
        """Raise or lower bits of mip. An interrupt that is enabled is entered at the start of the next block."""
        state = self.state
        mip = state[Reg.MIP]
        pending = mip | mask if level else mip & ~mask
        if pending == mip:
            return
        state[Reg.MIP] = pending
        if self._held:
            return
        if pending:
            self._interrupt_request[0] |= INTERRUPT_HARD
            if self._block_hook is None:
                self._exit_chain[1] = EXIT_NOW
            else:
                self._block_hook.interrupt()
        else:
            self._interrupt_request[0] &= ~INTERRUPT_HARD

    def line(self, mask: int) -> Callable[[bool], None]:
        """Return the interrupt line that is a bit of mip."""
        return lambda level: self.set_pending(mask, level)

    def close(self) -> None:
        """Give Unicorn's memory back, and the guest's; the engine is of no more use."""
        self.state.release()
        self._keep.clear()
        del self._uc
        self._ram.madvise(mmap.MADV_DONTNEED)  # the object may live until cycles are looked for

    # ---------------------------------------------------------------- for a debugger

    def debug(self) -> "Stepper":
        """Have a debugger run the CPU, from now on; the same one each time. Raises UsageError without a count."""
        if self._stepper is None:
            from emu.cpu.blocks import Blocks  # noqa: PLC0415 - not needed to boot
            from emu.cpu.stepper import Stepper  # noqa: PLC0415

            counter = self.native if self._counter is None else self._counter
            if counter is None:
                raise UsageError("debugging needs the clock host or warp, or the native part of the engine")
            blocks = Blocks(self._found, self._ram, self._ram_base, self.invalidate, self._invalidate_all)
            self._stepper = Stepper(self, counter, blocks, self._hook)
        return self._stepper

    def leave_debugger(self) -> None:
        """Run by itself again."""
        if self._stepper is not None:
            self._stepper.unhook()
            left, self._stepper = self._stepper.blocks_left, None
            if self._counter is not None:
                self._counter.stop_after(left)

    @property
    def blocks_left(self) -> int | None:
        """How many more blocks may begin; None where they are not counted."""
        if self._counter is None:
            return None
        return self._counter.blocks_left if self._stepper is None else self._stepper.blocks_left

    def set_word(self, word: int, value: int) -> None:
        """Change a word of the CPU's ``state``, but a pointer; raises UsageError for what no guest can bring about."""
        words = take_words(self.state)
        words[word] = value
        check_words(words, self._new)
        self.state[word] = value
        self.flush_tlb()

    @property
    def counts_blocks(self) -> bool:
        """Whether the CPU stops after a number of blocks."""
        return self._counter is not None

    @property
    def raised(self) -> int:
        """How many exceptions there have been, more or less: it has changed if there was one."""
        return self._raised + (0 if self.native is None else self.native.traps)

    def hold_interrupts(self) -> None:
        """Have no interrupt entered until ``release_interrupts``."""
        self._held = True
        self._interrupt_request[0] &= ~INTERRUPT_HARD

    def release_interrupts(self) -> None:
        """Have those that are pending entered, if they are enabled, at the start of the next block."""
        self._held = False
        if self.state[Reg.MIP]:
            self._interrupt_request[0] |= INTERRUPT_HARD

    @property
    def handle(self) -> Any:
        """Unicorn's handle."""
        return self._handle

    # ---------------------------------------------------------------- memory

    def map_device(
        self, base: int, size: int, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> None:
        """Put a device at ``base``: ``read(offset, size)``, ``write(offset, size, value)``, aligned, 1 to 4 bytes."""

        def on_read(_uc: int, offset: int, size: int, _user: int) -> int:
            try:
                return read(offset, size)
            except BaseException as failure:  # noqa: BLE001 - it must not pass through C; run() raises it
                self._fail(failure)
                return 0

        def on_write(_uc: int, offset: int, size: int, value: int, _user: int) -> None:
            try:
                write(offset, size, value)
            except BaseException as failure:  # noqa: BLE001
                self._fail(failure)

        callbacks = _ReadCallback(on_read), _WriteCallback(on_write)
        self._keep.extend(callbacks)
        self._try(uclib.uc_mmio_map(self._handle, base, size, callbacks[0], None, callbacks[1], None))

    @property
    def invalidate(self) -> Callable[[int, int], None]:
        """What drops all that was translated from so many bytes of RAM at an address (physical): they have changed."""
        if self.native is not None:
            return self.native.written
        assert self._code_hook is not None
        return self._code_hook.invalidate

    def _invalidate_all(self) -> None:
        self._uc.ctl_flush_tb()
        if self._code_hook is not None:
            self._code_hook.forget()

    def synchronize_code(self) -> None:
        """What fence.i does: from now on the guest executes what is in memory."""
        if self._code_hook is not None:  # the native part does so all the time
            self._code_hook.synchronize()

    def changed(self, ranges: Sequence[tuple[int, int]] | None) -> None:
        """RAM holds something else now in ``ranges`` (offset, end), or anywhere: drop what was made of it."""
        self.flush_tlb()
        if ranges is not None and self.native is not None:
            self.native.changed(ranges)
        elif ranges is None or ranges:
            self._invalidate_all()

    def code_pages(self) -> list[int] | None:
        """Return the pages of RAM, by their offsets, that something was translated from; None where nobody knows."""
        return None if self.native is None else self.native.code_pages()

    def flush_tlb(self) -> None:
        """Drop all cached address translations."""
        self._uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)

    def translate(self, address: int, *, fetch: bool = False) -> int | None:
        """Physical address of a virtual one for a load (or a fetch) in the current mode, or None."""
        result = _U64()
        access = unicorn.UC_PROT_EXEC if fetch else unicorn.UC_PROT_READ
        return None if uclib.uc_vmem_translate(self._handle, address, access, ctypes.byref(result)) else result.value

    def instruction(self, pc: int) -> int:
        """Return the instruction at ``pc``; 0 (which is illegal) where it can't be read."""
        low = self._parcel(pc)
        return low if low & 3 != 3 else low | self._parcel(pc + 2) << 16

    def _parcel(self, address: int) -> int:
        physical = self.translate(address, fetch=True)
        offset = -1 if physical is None else physical - self._ram_base
        return int.from_bytes(self._ram[offset : offset + 2], "little") if 0 <= offset < len(self._ram) else 0

    # ---------------------------------------------------------------- snapshots

    def save(self) -> CpuState:
        """Return the state of the CPU, which does not run; TLBs and translated code are no part of it."""
        blocks = 0 if self._counter is None else self._counter.blocks
        return {"words": take_words(self.state), "blocks": blocks, "time_reads": self.time_reads}

    def restore(self, state: CpuState) -> None:
        """Have the CPU, which does not run, go on from ``state``; where RAM has changed, ``changed`` has to know.

        Raises UsageError, changing nothing, for a state that no guest can bring about.
        """
        check_words(state["words"], self._new)
        check(state["blocks"] < _MOST_BLOCKS, "the number of the CPU's blocks")
        put_words(self.state, state["words"])
        self._interrupt_request[0] &= ~INTERRUPT_HARD
        if self.state[Reg.MIP]:
            self._interrupt_request[0] |= INTERRUPT_HARD
        if self._counter is not None:
            self._counter.blocks = state["blocks"]
        self._time_reads += state["time_reads"] - self.time_reads
        self.flush_tlb()
        if self._stepper is not None:
            self._stepper.forget()

    # ---------------------------------------------------------------- accesses to nothing

    def _on_unmapped_store(
        self, _uc: object, _type: object, _address: object, _size: object, _value: object, _user: object
    ) -> bool:
        """Unicorn would go on to the end of the block before it gives up.

        What that does to the registers is taken back in ``_access_fault``, and so that it can do nothing to memory
        or devices, from here on no address can be translated: the next access is an exception, which ends the block.
        """
        if self._before_store is None:
            state = self.state
            self._before_store = state.tobytes()
            if self._block_hook is not None:
                self._block_hook.stop()  # as Unicorn does; but that would count the next block
            if self.native is not None:
                self.native.leave_traps(to_python=True)
            state[Reg.MSTATUS] = state[Reg.MSTATUS] & ~_MPP | _MPRV
            state[Reg.SATP] = _NO_ROOT
            self.flush_tlb()
        return False

    def _access_fault(self, error: int) -> None:
        """Raise the exception that ``error`` stands for, with the state as it was before the instruction."""
        state = self.state
        if self._before_store is not None:
            mip = state[Reg.MIP]
            state.cast("B")[:] = self._before_store
            state[Reg.MIP] = mip
            self._before_store = None
            self.flush_tlb()
            if self.native is not None:
                self.native.leave_traps(to_python=self._watched)
        pc = state[Reg.PC]
        if error in _FETCH_ERRORS:
            cause, state[Reg.BADADDR] = _CAUSE_FETCH_ACCESS, pc
        else:
            address, writes = memory_operand(self.instruction(pc), state) or (0, False)
            cause, state[Reg.BADADDR] = _CAUSE_STORE_ACCESS if writes else _CAUSE_LOAD_ACCESS, address
        self._raise(cause, pc)

    # ---------------------------------------------------------------- Unicorn's callbacks

    def _on_exception(self, _uc: object, cause: int, _user: object) -> None:
        if self._before_store is None:
            pc = (self.state[Reg.PC] - 4) & _NEVER  # Unicorn adds 4, however long the instruction
            if cause == _CAUSE_LOAD_MISALIGNED and (memory_operand(self.instruction(pc), self.state) or (0, False))[1]:
                cause = _CAUSE_STORE_MISALIGNED  # an AMO
            self._raise(cause, pc)

    def _raise(self, cause: int, pc: int) -> None:
        self._raised += 1
        try:
            self.exception(cause, pc)
        except BaseException as failure:  # noqa: BLE001
            self._fail(failure)
            uclib.uc_emu_stop(self._handle)  # the next exception may come without a block that could be the last

    def _on_breakpoint(self, _uc: object, _user: object) -> bool:
        if self._before_store is None:
            self._raise(_CAUSE_BREAKPOINT, self.state[Reg.PC])
            self.stop()  # Unicorn has noted an error; it forgets that when it is started again
        return True

    def _on_rdtime(self) -> int:
        self._time_reads += 1
        try:
            return self._time()
        except BaseException as failure:  # noqa: BLE001
            self._fail(failure)
            return 0

    def _fail(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        self.stop()

    def _hook(self, kind: int, callback: Any, begin: int = 0, end: int = _NEVER, user: Any = None) -> int:
        self._keep.append(callback)
        hook = ctypes.c_size_t()
        self._try(uclib.uc_hook_add(self._handle, ctypes.byref(hook), kind, callback, user, begin, end))
        return hook.value

    @staticmethod
    def _try(error: int) -> None:
        if error:
            raise PyemuError(f"Unicorn refuses: {unicorn.UcError(error)}")
