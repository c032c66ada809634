"""Notices changed code where the native part isn't: at fence.i, which is made an exception there.

Unicorn notices a write to translated code only if it is the first through its mapping since the last TLB flush (2.1.4
takes the page for clean after that), so we must look for changes ourselves. Linux's own image is spared: it patches
itself through a fresh mapping, one instruction at a time, which is noticed.
"""

import ctypes
import mmap
from collections.abc import Callable
from typing import Any

from emu.cpu import unicorn
from emu.cpu.codepages import PAGE, CodePages
from emu.cpu.layout import Reg
from emu.cpu.unicorn import uclib

__all__ = ["CodeHook"]

_TranslatedCallback = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64 * 2), ctypes.c_void_p, ctypes.c_void_p
)

#: Pages of code that fence.i looks through one by one; with more, it drops everything.
_MOST_TRANSLATED = 2048
#: Where Linux runs its own image from (KERNEL_LINK_ADDR).
_KERNEL_LINK_ADDRESS = 0xFFFF_FFFF_8000_0000
#: Two blocks that do nothing: jal zero, 4; wfi.
_TWO_BLOCKS = b"\x6f\x00\x40\x00\x73\x00\x50\x10"
_MACHINE = 3


class CodeHook:
    """What ``ram``, which is at ``ram_base``, holds where code of one engine's was translated from it.

    ``uc`` and ``state`` are Unicorn and its CPU's state, before the first run; ``hook(kind, callback, begin, end)``
    adds a hook, and ``fetch(address)`` returns the physical address that instructions of a virtual one come from.
    """

    def __init__(
        self,
        uc: unicorn.Uc,
        state: memoryview,
        ram: mmap.mmap,
        ram_base: int,
        *,
        hook: Callable[..., int],
        fetch: Callable[[int], int | None],
    ) -> None:
        self._uc, self._state, self._ram, self._ram_base, self._fetch = uc, state, ram, ram_base, fetch
        self._pages = CodePages(ram)
        # A block is reported together with the one that was executed before it, so let the first be one of ours.
        callback = _TranslatedCallback(self._on_translated)
        hook(unicorn.UC_HOOK_EDGE_GENERATED, callback, 0, _KERNEL_LINK_ADDRESS - 1)
        words, code = state.tobytes(), ram[: len(_TWO_BLOCKS)]
        ram[: len(_TWO_BLOCKS)] = _TWO_BLOCKS
        uclib.uc_emu_start(uc._uch, ram_base, 0, 0, 0)  # noqa: SLF001
        state.cast("B")[:] = words
        ram[: len(_TWO_BLOCKS)] = code
        self.invalidate(ram_base, len(_TWO_BLOCKS))
        self._pages.clear()

    def invalidate(self, address: int, size: int) -> None:
        """Drop what was translated from ``size`` bytes of RAM at ``address`` (physical)."""
        state = self._state
        mode, state[Reg.PRIV] = state[Reg.PRIV], _MACHINE  # Unicorn takes a virtual address; M mode has none
        self._uc.ctl_remove_cache(address, address + size)
        state[Reg.PRIV] = mode

    def synchronize(self) -> None:
        """What fence.i does: drop what was translated from pages that have changed since."""
        if len(self._pages) > _MOST_TRANSLATED:
            self._uc.ctl_flush_tb()
            self._pages.clear()
        for page in self._pages.take_changed():
            self.invalidate(self._ram_base + page, PAGE)

    def forget(self) -> None:
        """All that was translated has been dropped."""
        self._pages.clear()

    def _on_translated(self, _uc: object, block: Any, _previous: object, _user: object) -> None:
        """A block was translated: note what its pages hold."""
        if len(self._pages) > _MOST_TRANSLATED:
            return
        pc, rest = block.contents
        for address in {pc, pc + (rest >> 16 & 0xFFFF) - 1 & ~(PAGE - 1) | pc & (PAGE - 1)}:
            physical = self._fetch(address)
            if physical is not None and 0 <= physical - self._ram_base < len(self._ram):
                self._pages.note(physical - self._ram_base & ~(PAGE - 1))
