"""The guest's RAM."""

import mmap
from collections.abc import Callable
from contextlib import suppress

from devices.contracts import OutsideRamError
from devices.errors import UsageError

__all__ = ["Ram"]

_LARGEST = 64 << 30


class Ram:
    """RAM at a physical address, as the devices reach it (devices.contracts.GuestMemory).

    ``changed(address, size)`` is called after each write, so that code translated from there is dropped.
    ``buffer`` is the memory itself, shared with the CPU; untouched pages take no host memory.
    """

    def __init__(self, base: int, size: int) -> None:
        if not 16 << 20 <= size <= _LARGEST:
            raise UsageError(f"the machine needs between 16M and 64G of memory, not {size} bytes; use --memory 256M")
        try:
            self.buffer = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise UsageError(f"the host has no {size >> 20} MiB of memory to give; use a smaller --memory") from error
        if hasattr(mmap, "MADV_HUGEPAGE"):  # which saves thousands of faults while the guest boots
            with suppress(OSError):  # the host has none
                self.buffer.madvise(mmap.MADV_HUGEPAGE)
        self.base, self.size = base, size
        self.changed: Callable[[int, int], None] = lambda _address, _size: None
        self._view = memoryview(self.buffer)

    def contains(self, address: int, size: int) -> bool:
        """Whether ``[address, address + size)`` is all RAM."""
        return self.base <= address and address + size <= self.base + self.size

    def read(self, address: int, size: int) -> bytes:
        """Copy ``size`` bytes out; raises OutsideRamError unless all of them are RAM."""
        offset = address - self.base
        if offset < 0 or size < 0 or offset + size > self.size:
            raise OutsideRamError(f"{size} bytes at {address:#x} are not RAM")
        return self.buffer[offset : offset + size]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` in; raises OutsideRamError, writing nothing, unless all of it goes to RAM."""
        offset, size = address - self.base, len(data)
        if offset < 0 or offset + size > self.size:
            raise OutsideRamError(f"{size} bytes at {address:#x} are not RAM")
        if size:
            self._view[offset : offset + size] = data
            self.changed(address, size)

    def load(self, address: int, data: bytes) -> None:
        """Copy ``data`` in before the CPU has run; raises OutsideRamError."""
        if not self.contains(address, len(data)):
            raise OutsideRamError(f"{len(data)} bytes at {address:#x} are not RAM")
        self._view[address - self.base : address - self.base + len(data)] = data
