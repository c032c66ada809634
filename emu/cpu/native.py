"""Loads the engine's native part, native.c, where it was built, and puts it to work for an engine.

It fits the release of Unicorn that layout.py fits, where the library is an ELF file with a table of jumps to its own
functions, as the wheels for Linux are.
"""

import ctypes
import functools
import gc
import os
import re
import sys
from array import array
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from emu.cpu.unicorn import uclib

__all__ = ["LIBRARY", "SWITCH", "WATCH_READ", "WATCH_WRITE", "Native", "NotNativeError", "Seen", "install"]

#: What the build makes of native.c.
LIBRARY = Path(__file__).with_name("libnative.so")
#: With "off" in this environment variable, new engines do without.
SWITCH = "PYEMU_NATIVE"

#: What is watched for: QEMU's BP_MEM_READ, BP_MEM_WRITE.
WATCH_READ, WATCH_WRITE = 1, 2

_U64 = ctypes.c_uint64
_MANY = 1 << 60
_PAGE_BITS = 12
_PADDING = 8  # of IcountDecr, before the CPU state: eight bytes that nobody uses, where blocks are counted
_NOT_ZERO = re.compile(rb"[^\0]")
_HART = 194  # word of the CPU state: QEMUTimer *timer, of which Unicorn makes no use
# Sizes of Unicorn's TLB: CPUTLBEntry, CPUTLBDesc, CPUTLBCommon, CPUTLBDescFast; IcountDecr follows.
_MODES, _VICTIMS, _ENTRIES = 4, 8, 256
_ENTRY = 64
_SLOW = 6 * 8 + _VICTIMS * (_ENTRY + 16) + 8
_COMMON, _FAST = 32, 16
#: Places in our cache of blocks for indirect jumps.
_JUMPS = 1 << 13


class NotNativeError(Exception):
    """An engine has to do without; the message says why."""


class _Hart(ctypes.Structure):
    """``struct hart`` of native.c."""

    _fields_ = [
        (name, _U64)
        for name in (
            "state", "tlb", "uc", "cpu", "ram", "ram_size", "ram_base", "has_code", "python", "only_python", "traps",
            "last_write", "ascending", "clock", "deadline", "tells_time", "time_reads", "counts", "limit", "work",
            "flushes", "access", "jump_cache", "blocks", "watches", "watch_count", "watching", "seen", "seen_kind",
            "seen_block", "seen_count",
        )
    ]  # fmt: skip


class Seen(NamedTuple):
    """An access that is watched, and about to come: where; which kind; its block; the number of instructions there."""

    address: int
    kind: int
    block: int
    instructions: int


class Native:
    """The native part at work for one engine; the addresses are of this process.

    ``uc`` is Unicorn's handle, ``cpu`` its CPU, ``state`` that one's state and ``exit_chain`` its IcountDecr, which the
    TLBs come before; ``jump_cache`` is its tb_jmp_cache. ``ram`` is the guest's RAM, all that there is, and ``python``
    the callback for the traps that are left to Python. It must outlive the handle. ``library`` is what ``install``
    returned before the handle was made.

    Raises NotNativeError where it does not fit.
    """

    def __init__(
        self, library: ctypes.CDLL, *, uc: int, cpu: int, state: int, exit_chain: int,
        jump_cache: ctypes.Array[ctypes.c_uint64], ram: int, ram_size: int, ram_base: int, python: Any,
    ) -> None:  # fmt: skip
        tlb = exit_chain - _MODES * _FAST - _MODES * _SLOW - _COMMON
        _check_tlb(tlb)
        if any(jump_cache):
            raise NotNativeError("this build of unicorn does not fit: its cache of blocks is not where it should be")
        word = _U64.from_address(state + 8 * _HART)
        if word.value or uclib.qemu_ram_addr_from_host_riscv64(ctypes.c_void_p(uc), ctypes.c_void_p(ram)):
            raise NotNativeError("this build of unicorn does not fit")
        if state - exit_chain != 2 * _PADDING:
            raise NotNativeError("this build of unicorn does not fit: there is no room to count blocks in")
        library.native_layout(_U64(state - cpu))
        self._library = library
        self._ram_base = ram_base
        self._has_code = (ctypes.c_uint8 * (ram_size >> _PAGE_BITS))()
        self._blocks = (_U64 * _JUMPS)()
        self._python = python
        self._hart = _Hart(
            state=state, tlb=tlb, uc=uc, cpu=cpu, ram=ram, ram_size=ram_size, ram_base=ram_base,
            has_code=ctypes.addressof(self._has_code), python=ctypes.cast(python, ctypes.c_void_p).value,
            jump_cache=ctypes.addressof(jump_cache), blocks=ctypes.addressof(self._blocks),
        )  # fmt: skip
        word.value = ctypes.addressof(self._hart)
        self._left = ctypes.c_int64.from_address(state - _PADDING)
        self._counts = False
        self._uc = ctypes.c_void_p(uc)
        #: A callback for Unicorn's exceptions, and the user data that it needs.
        self.trap = library.native_trap
        self.user = ctypes.c_void_p(word.value)

    @property
    def traps(self) -> int:
        """How many traps were entered without Python."""
        return int(self._hart.traps)

    def share_clock(self, shared: memoryview) -> None:
        """Tell the time by a HostClock's ``shared`` words: for the ``time`` CSR, and for ``stop_at``.

        Blocks are counted then, but a stop may count one that does not begin.
        """
        self._clock = shared
        self._hart.limit = -self._left.value
        self._hart.tells_time = True
        self._hart.clock = ctypes.addressof(ctypes.c_char.from_buffer(shared))

    def leave_time(self) -> None:
        """Have Python tell the time, again; the deadline stays the clock's."""
        self._hart.tells_time = False

    def stop_at(self, deadline: int) -> None:
        """Have the CPU stop when it is so late (guest time, ns), at the start of a block. For any thread."""
        self._hart.deadline = deadline

    def count_blocks(self) -> None:
        """Count the blocks that the guest executes, and look at no clock; see ``Engine.count_blocks``."""
        self._hart.limit, self._left.value = _MANY, -_MANY
        self._hart.counts = self._counts = True

    @property
    def blocks(self) -> int:
        """How many blocks have begun."""
        return int(self._hart.limit + self._left.value)

    @blocks.setter
    def blocks(self, blocks: int) -> None:
        self._hart.limit += blocks - self.blocks

    @property
    def blocks_left(self) -> int:
        """How many more may begin."""
        return -self._left.value

    def stop_after(self, blocks: int) -> None:
        """Have the CPU stop after so many more."""
        self._hart.limit, self._left.value = self.blocks + blocks, -blocks

    def count_exactly(self, exactly: bool) -> None:
        """Stop after so many blocks, also where there is a clock that is looked at otherwise."""
        self._hart.counts = exactly or self._counts

    def refuse(self) -> None:
        """From a hook that is called before a block: it does not begin, and is not counted."""
        uclib.uc_emu_stop(self._uc)

    def watch(self, watches: Sequence[tuple[int, int, int]]) -> None:
        """Watch accesses to virtual addresses: (first, last, WATCH_READ | WATCH_WRITE); the TLB has to be flushed."""
        words = (_U64 * (3 * len(watches)))(*chain.from_iterable(watches))
        self._watches = words
        self._hart.watches, self._hart.watch_count = ctypes.addressof(words), len(watches)

    def look(self, looks: bool) -> None:
        """Stop before accesses that are watched, or don't."""
        self._hart.watching = looks

    def take_seen(self) -> Seen | None:
        """Return the access before which the CPU has stopped; interrupts have been held since."""
        if not self._hart.seen:
            return None
        seen = Seen(self._hart.seen - 1, self._hart.seen_kind, self._hart.seen_block, self._hart.seen_count)
        self._hart.seen = 0
        return seen

    def share_work(self, shared: memoryview) -> None:
        """Tell the time by the blocks that were counted, and by a WarpClock's ``shared`` words."""
        self._clock = shared
        self._hart.tells_time = True
        self._hart.work = ctypes.addressof(ctypes.c_char.from_buffer(shared))

    @property
    def time_reads(self) -> int:
        """How often the guest has read the time without Python."""
        return int(self._hart.time_reads)

    def leave_traps(self, to_python: bool) -> None:
        """Have Python enter every trap, or only those that it has to."""
        self._hart.only_python = to_python

    def written(self, address: int, size: int) -> None:
        """The host has written ``size`` bytes to RAM: drop what was translated from there."""
        offset = address - self._ram_base
        first = offset >> _PAGE_BITS
        if first == offset + size - 1 >> _PAGE_BITS and not self._has_code[first]:
            return  # nearly always, and in half the time of a call: 0.7 us less for each write
        self._library.native_written(self.user, _U64(offset), _U64(size))

    def code_pages(self) -> list[int]:
        """Return the pages of RAM, by their offsets, that something was translated from."""
        return [found.start() << _PAGE_BITS for found in _NOT_ZERO.finditer(self._has_code)]

    def changed(self, ranges: Sequence[tuple[int, int]]) -> None:
        """The same for many ranges of RAM (offset, end)."""
        words = array("Q", chain.from_iterable(ranges))
        self._library.native_changed(self.user, ctypes.c_void_p(words.buffer_info()[0]), _U64(len(ranges)))


def install() -> ctypes.CDLL:
    """Have the library ready for an engine that is to be made.

    Raises NotNativeError where it was not built, is switched off, or does not fit.
    """
    if os.environ.get(SWITCH) == "off":
        raise NotNativeError(f"{SWITCH}=off")
    return _install()


@functools.cache
def _install() -> ctypes.CDLL:
    """Load the library, and put its functions between those of libunicorn, once in a process."""
    if not LIBRARY.exists():
        raise NotNativeError("it was not built, which needs a C compiler when pyemu is installed")
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise NotNativeError(str(error)) from error
    if library.native_built_from() & 0xFFFF_FFFF != crc32(LIBRARY.with_name("native.c").read_bytes()):
        raise NotNativeError("it was built from another native.c; install pyemu again")
    others = sys.modules.get("unicorn")  # whose engines would meet functions that they don't know
    if others is not None and any(isinstance(one, others.Uc) for one in gc.get_objects()):
        raise NotNativeError("this process was using unicorn before; make the first machine sooner")
    library.native_install.restype = ctypes.c_char_p
    missing = library.native_install(ctypes.c_void_p(uclib._handle))  # noqa: SLF001
    if missing is not None:
        raise NotNativeError(f"this build of unicorn does not fit: {missing.decode()}")
    return library


def _check_tlb(tlb: int) -> None:
    """Compare the TLBs with what Unicorn makes of them before the CPU has run; raises NotNativeError."""
    fits = not any(ctypes.string_at(tlb, 24))  # nothing is dirty, no flush has had anything to do
    for mode in range(_MODES):
        slow = ctypes.string_at(tlb + _COMMON + mode * _SLOW, _SLOW)
        fits = fits and slow[:16] + slow[48 : 48 + _VICTIMS * _ENTRY] == b"\xff" * (16 + _VICTIMS * _ENTRY)
        fits = fits and not any(slow[32:48])  # no entry in use
        mask = _U64.from_address(tlb + _COMMON + _MODES * _SLOW + _FAST * mode).value
        fits = fits and mask == (_ENTRIES - 1) * _ENTRY
    if not fits:
        raise NotNativeError("this build of unicorn does not fit: its TLB is not where it should be")
