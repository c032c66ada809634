"""The guest's RAM."""

import ctypes
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import FileIO
from typing import NamedTuple

from devices.contracts import OutsideRamError
from devices.errors import UsageError

__all__ = ["PAGE", "Ram", "RamImage", "SharedFile"]

_LARGEST = 64 << 30
PAGE = mmap.PAGESIZE
_ZEROS = bytes(PAGE)
#: Of the highest byte of a page's entry in /proc/PID/pagemap: bits 63 and 62, present and swapped out, and 61, which is
#: set while a page of a private mapping is still the file's (Linux, Documentation/admin-guide/mm/pagemap.rst).
_PRESENT, _SWAPPED, _OF_FILE = 0x80, 0x40, 0x20
_THERE = bytes(bool(high & (_PRESENT | _SWAPPED)) for high in range(256))
_CHANGED = bytes(bool(high & (_PRESENT | _SWAPPED) and not high & _OF_FILE) for high in range(256))
_RUN = re.compile(b"\x01+")
#: What a booting Linux uses of RAM, at either end: huge pages save thousands of faults there. Elsewhere each would hold
#: up the guest, or a device that writes for it, while the host finds and clears 2 MiB: up to 20 ms.
_BOOTED_IN = 16 << 20
_MAP_FIXED = 0x10
_MAP_FAILED = ctypes.c_void_p(-1).value


class SharedFile:
    """An open file, which is closed with the last reference to it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)


class RamImage(NamedTuple):
    """What RAM held at one instant: in a file, from a page-aligned ``offset`` on; where that has holes, zeros.

    The file must not change while anybody uses it.
    """

    file: SharedFile
    offset: int


class Ram:
    """RAM at a physical address, as the devices reach it (devices.contracts.GuestMemory).

    It is zeros, or what ``image`` holds, of which it is a private copy: a page is shared until it is written to, and
    takes no memory until it is touched. ``changed(address, size)`` is called after each write, so that code translated
    from there is dropped. ``buffer`` is the memory itself, shared with the CPU.

    Raises UsageError for a size that cannot be.
    """

    def __init__(self, base: int, size: int, image: RamImage | None = None) -> None:
        if not 16 << 20 <= size <= _LARGEST:
            raise UsageError(f"the machine needs between 16M and 64G of memory, not {size} bytes; use --memory 256M")
        try:
            if image is None:
                self.buffer = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            else:
                self.buffer = mmap.mmap(image.file.fileno(), size, mmap.MAP_PRIVATE, offset=image.offset)
        except (OSError, OverflowError, ValueError) as error:  # the last: the image's file has become shorter
            raise UsageError(f"the host has no {size >> 20} MiB of memory to give; use a smaller --memory") from error
        if image is None and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # the host has none
                self.buffer.madvise(mmap.MADV_HUGEPAGE, 0, min(_BOOTED_IN, size))
                self.buffer.madvise(mmap.MADV_HUGEPAGE, max(0, size - _BOOTED_IN) & -PAGE)
        self.base, self.size = base, size
        self.changed: Callable[[int, int], None] = lambda _address, _size: None
        self._view = memoryview(self.buffer)
        self._image = image

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

    def room(self, address: int, size: int) -> memoryview:
        """Return ``size`` bytes to be filled before the CPU has run; raises OutsideRamError."""
        if not self.contains(address, size):
            raise OutsideRamError(f"{size} bytes at {address:#x} are not RAM")
        return self._view[address - self.base : address - self.base + size]

    def view(self, address: int, size: int) -> memoryview:
        """Return ``size`` bytes as they are whenever they are looked at, for reading only; raises OutsideRamError."""
        return self.room(address, size).toreadonly()

    # ---------------------------------------------------------------- images

    def save(self, image: RamImage) -> None:
        """Write what is there to ``image``, where its file has nothing but holes; raises OSError."""
        there = self._pages(_THERE) or b"\1" * (self.size // PAGE)
        if self._image is not None:  # what was never touched is there, too
            pages = bytearray(there)
            for start, end in _data_of(self._image, self.size):
                first, last = start // PAGE, -(-end // PAGE)
                pages[first:last] = b"\1" * (last - first)
            there = bytes(pages)
        for run in _RUN.finditer(there):
            self._save(image, run.start() * PAGE, run.end() * PAGE)

    def rest_on(self, image: RamImage) -> None:
        """Be a copy of ``image`` from now on, which was just saved: only what changes then takes memory of its own."""
        self._map(image)

    def go_back(self, image: RamImage, code: Sequence[int] | None = None) -> list[tuple[int, int]] | None:
        """Become what ``image`` holds; return which ranges (offset, end) that changed, None where nobody knows.

        ``code`` are the pages, by their offsets, where that matters.
        """
        if image != self._image:
            view = self._view
            before = [(page, bytes(view[page : page + PAGE])) for page in code or ()]
            self._map(image)
            changed = [(page, page + PAGE) for page, content in before if view[page : page + PAGE] != content]
            return None if code is None else changed
        pages = self._pages(_CHANGED)
        self.buffer.madvise(mmap.MADV_DONTNEED)
        return None if pages is None else [(run.start() * PAGE, run.end() * PAGE) for run in _RUN.finditer(pages)]

    def _map(self, image: RamImage) -> None:
        """Put ``image`` in the place of what is there: the CPU knows the address."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64
        access, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
        place = libc.mmap(self._address, self.size, access, flags, image.file.fileno(), image.offset)
        if place == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._image = image

    @property
    def _address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))

    def _save(self, image: RamImage, start: int, end: int) -> None:
        """Write one stretch, but for the pages of zeros."""
        view, begun = self._view, start
        for page in range(start, end, PAGE):
            if view[page : page + PAGE] == _ZEROS:
                _write(image, begun, view[begun:page])
                begun = page + PAGE
        _write(image, begun, view[begun:end])

    def _pages(self, wanted: bytes) -> bytes | None:
        """Return a byte for each page, 1 if it is ``wanted``; None where the system does not say."""
        size, start = self.size // PAGE * 8, self._address // PAGE * 8
        entries = bytearray()
        try:
            with FileIO("/proc/self/pagemap") as pagemap:
                while len(entries) < size:
                    entries += os.pread(pagemap.fileno(), size - len(entries), start + len(entries))
        except OSError:
            return None
        return bytes(entries[7::8].translate(wanted))


def _write(image: RamImage, start: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(image.file.fileno(), data, image.offset + start)
        data, start = data[written:], start + written


def _data_of(image: RamImage, size: int) -> Iterator[tuple[int, int]]:
    """Where ``image`` has no holes: (start, end)."""
    descriptor, first = image.file.fileno(), image.offset
    end = first
    with suppress(OSError):  # ENXIO: there is no more
        while (start := os.lseek(descriptor, end, os.SEEK_DATA)) < first + size:
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            yield start - first, min(end, first + size) - first
