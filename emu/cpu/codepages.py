"""What fence.i needs where the native part isn't: which pages have changed since code was translated from them."""

import ctypes
import mmap
from bisect import insort
from collections.abc import Iterator

__all__ = ["PAGE", "CodePages"]

PAGE = 4096

_memcmp = ctypes.CDLL(None).memcmp  # a call through ctypes lets other threads run meanwhile
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class CodePages:
    """Pages of ``ram``, by their offsets, and what they held when they were noted first."""

    def __init__(self, ram: mmap.mmap) -> None:
        self._ram = ram
        self._copy = mmap.mmap(-1, len(ram), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._addresses = [ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in (ram, self._copy)]
        self._pages: list[int] = []  # in order
        self._noted: set[int] = set()
        self._changed: set[int] = set()  # for sure, even if they hold again what they held

    def __len__(self) -> int:
        return len(self._pages)

    def note(self, page: int) -> None:
        """Code was translated from ``page``."""
        content = self._ram[page : page + PAGE]
        if page not in self._noted:
            self._noted.add(page)
            insort(self._pages, page)
            self._copy[page : page + PAGE] = content
        elif self._copy[page : page + PAGE] != content:
            self._changed.add(page)

    def take_changed(self) -> set[int]:
        """Return the pages that have changed, and forget that they were noted."""
        ram, copy = self._ram, self._copy
        for start, end in self._runs():
            if _memcmp(*(address + start for address in self._addresses), end - start):
                pages = range(start, end, PAGE)
                self._changed.update(page for page in pages if ram[page : page + PAGE] != copy[page : page + PAGE])
        changed, self._changed = self._changed, set()
        if changed:
            self._noted -= changed
            self._pages = [page for page in self._pages if page not in changed]
        return changed

    def clear(self) -> None:
        """Forget all pages."""
        self._pages.clear()
        self._noted.clear()
        self._changed.clear()

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Give the stretches of pages without a gap: where each starts and ends."""
        start = end = -1
        for page in self._pages:
            if page != end:
                if start >= 0:
                    yield start, end
                start = page
            end = page + PAGE
        if start >= 0:
            yield start, end
