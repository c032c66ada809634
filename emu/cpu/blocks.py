"""Blocks of code as a debugger looks at them, and cuts them: it executes nothing and changes nothing of the guest's."""

import ctypes
import mmap
from collections.abc import Callable

from emu.cpu.layout import BLOCK_COUNT, NO_FLAGS, Internals, Reg
from emu.cpu.walk import walk

__all__ = ["Blocks"]

_PAGE = 4096


class Blocks:
    """The blocks of one engine, by the virtual address where they begin, in the CPU's current mode.

    ``found`` are Unicorn's internals; ``ram`` is at ``ram_base``. ``invalidate(address, size)`` drops what was
    translated from there (physical), ``invalidate_all()`` everything.
    """

    def __init__(
        self,
        found: Internals,
        ram: mmap.mmap,
        ram_base: int,
        invalidate: Callable[[int, int], None],
        invalidate_all: Callable[[], None],
    ) -> None:
        self._found, self._state = found, found.state
        self._ram, self._ram_base = ram, ram_base
        self._invalidate, self._invalidate_all = invalidate, invalidate_all

    def limit_next(self, instructions: int | None) -> None:
        """Have the first block of the next run end after so many instructions, at the latest."""
        self._found.next_flags[0] = NO_FLAGS if instructions is None else instructions

    def translated(self, pc: int) -> int:
        """Return how many instructions the block at ``pc`` has that was translated last; 0 if there is none."""
        address = self._found.jump_cache[(pc ^ pc >> 6) >> 6 & 0xFC0 | (pc ^ pc >> 6) & 0x3F]
        if not address or ctypes.c_uint64.from_address(address).value != pc:
            return 0
        return ctypes.c_uint16.from_address(address + BLOCK_COUNT).value

    def instructions(self, pc: int, count: int) -> list[int]:
        """Return where the first ``count`` instructions of a block at ``pc`` are."""
        physical = self.physical(pc)
        page = -1 if physical is None else (physical & -_PAGE) - self._ram_base
        code = self._ram[page : page + _PAGE] if 0 <= page < len(self._ram) else bytes(_PAGE)
        found, at, start = [], pc % _PAGE, pc & -_PAGE
        for _ in range(count):
            found.append(start + at)
            at += 4 if at < _PAGE and code[at] & 3 == 3 else 2
        return found

    def drop(self, page: int) -> None:
        """Drop the blocks of the page at this virtual address, in any address space."""
        physical = self.physical(page) if page >> 63 or not self._state[Reg.SATP] >> 60 else None
        if physical is not None and self._word(physical) is not None:
            self._invalidate(physical, _PAGE)
        else:
            self._invalidate_all()

    def physical(self, address: int) -> int | None:
        """Return the physical address of a virtual one, without asking whether it is allowed; None if it has none."""
        return walk(self._word, self._state[Reg.SATP], self._state[Reg.PRIV], address)

    def _word(self, address: int) -> int | None:
        offset = address - self._ram_base
        return int.from_bytes(self._ram[offset : offset + 8], "little") if 0 <= offset <= len(self._ram) - 8 else None
