"""Counts the blocks that the guest executes, where the native part isn't: by Unicorn's own native counter.

Given a count, Unicorn stops after so many instructions: it has a hook of its own called before each, ``hook_count_cb``
in uc.c, which counts and asks for a stop beyond the limit. Here the same function is hooked to blocks. It comes before
the question whether to stop, so a block that doesn't begin because of a stop was counted already; so nobody else may
ask for one, and then exactly what is beyond the limit did not begin.

Two things stay the host's, for which native.c has a cure: the cycle and instret CSRs; and when the TLB changes its
size, which only a guest can notice that changes page tables without a fence.
"""

import ctypes
import functools
import mmap
from collections.abc import Callable

from emu.cpu import unicorn
from emu.cpu.unicorn import uclib

__all__ = ["BlockHook"]

_U64 = ctypes.c_uint64
# struct uc_struct: uc_hook count_hook; size_t emu_counter, emu_count
_UC_COUNT_HOOK, _UC_EMU_COUNTER, _UC_EMU_COUNT = 1360, 1368, 1376
_MANY = 1 << 60
# A Unicorn that is thrown away, to see where the function is: it executes two instructions of four.
_CODE, _NOP = 0x1000, b"\x13\0\0\0"
_COUNTED, _GIVEN = 2, 0x1234567


class BlockHook:
    """The count of one engine; ``handle`` is Unicorn's, of which nothing may have been translated.

    ``hook(kind, callback, begin, end)`` adds a hook to it. Raises LookupError where Unicorn's internals are not where
    they should be.
    """

    def __init__(self, handle: int, hook: Callable[[int, ctypes.c_void_p], int]) -> None:
        self._start, self._handle = uclib.uc_emu_start, ctypes.c_void_p(handle)
        self._counter = _U64.from_address(handle + _UC_EMU_COUNTER)
        self._limit = _U64.from_address(handle + _UC_EMU_COUNT)  # of the run that is under way
        self._before, self._last = 0, _MANY  # blocks before that run; after how many the CPU stops
        self._stop = False
        callback = _hook_count_cb()
        # Named so, Unicorn takes it for the one that it would make when it is given a count, and makes none.
        self._known = _U64.from_address(handle + _UC_COUNT_HOOK)
        self._known.value = hook(unicorn.UC_HOOK_BLOCK, ctypes.c_void_p(callback))

    @property
    def blocks(self) -> int:
        """How many blocks have begun."""
        return self._before + min(self._counter.value, self._limit.value)

    @blocks.setter
    def blocks(self, blocks: int) -> None:
        more = blocks - self.blocks
        self._before += more
        self._last += more

    @property
    def blocks_left(self) -> int:
        """How many more may begin."""
        return self._last - self.blocks

    def stop_after(self, blocks: int) -> None:
        """Have the CPU stop after so many more."""
        self._last = self.blocks + blocks
        self._limit.value = self._last - self._before

    def stop(self) -> None:
        """Have ``run`` return at the start of the next block."""
        self._stop = True
        self.interrupt()

    def interrupt(self) -> None:
        """Have the CPU look for interrupts at the start of the next block."""
        self._limit.value = min(self._counter.value, self._limit.value)

    def refuse(self) -> None:
        """From another hook of a block, which comes after this one: it does not begin, and is not counted."""
        self._stop = True
        self._limit.value = min(self._counter.value - 1, self._limit.value)
        uclib.uc_emu_stop(self._handle)

    def count_exactly(self, _exactly: bool) -> None:
        """It does."""

    def run(self, pc: Callable[[], int], over: Callable[[], bool]) -> int:
        """Start the CPU, and again after an ``interrupt``, until it is ``over``; return Unicorn's error number."""
        self._stop = False
        while True:
            error: int = self._begin(pc(), self._last - self._before)
            self._before, self._counter.value = self.blocks, 0
            self._limit.value = self._last - self._before
            if error or self._stop or self.blocks_left <= 0 or over():
                return error

    def _begin(self, pc: int, most: int) -> int:
        """Start the CPU. Unicorn takes away its hook where nothing may be executed, if it knows of it."""
        if most > 0:
            return int(self._start(self._handle, pc, 0, 0, most))
        hook, self._known.value = self._known.value, 0
        try:
            return int(self._start(self._handle, pc, 0, 0, 0))
        finally:
            self._known.value = hook


@functools.cache
def _hook_count_cb() -> int:
    """Have Unicorn hook its function to instructions, and return its address."""
    uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    handle = uc._uch.value  # noqa: SLF001
    code = mmap.mmap(-1, mmap.PAGESIZE)
    code.write(2 * _COUNTED * _NOP)
    uc.mem_map_ptr(_CODE, len(code), unicorn.UC_PROT_ALL, ctypes.addressof(ctypes.c_char.from_buffer(code)))
    uclib.uc_emu_start(handle, _CODE, _CODE + _COUNTED * len(_NOP), 0, _GIVEN)
    counted, given = (_U64.from_address(handle + offset).value for offset in (_UC_EMU_COUNTER, _UC_EMU_COUNT))
    if (counted, given) != (_COUNTED, _GIVEN):
        raise LookupError("its counter is not where it should be")
    # struct hook: int type, insn; int refs; int op, op_flags; bool to_delete; uint64_t begin, end; void *callback
    kind, _, _, begin, end, callback = (_U64 * 6).from_address(_U64.from_address(handle + _UC_COUNT_HOOK).value)
    if kind & 0xFFFF_FFFF != unicorn.UC_HOOK_CODE or (begin, end) != (1, 0):
        raise LookupError("its counting hook is not where it should be")
    return callback
