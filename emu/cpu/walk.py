"""Address translation as a debugger does it: it changes nothing, and asks for no permission.

Privileged Architecture 4.3 to 4.5. Unicorn's own would fill the TLB and set the bits A and D.
"""

from collections.abc import Callable

__all__ = ["walk"]

_PAGE_BITS, _INDEX_BITS, _PTE = 12, 9, 8
_V, _R, _W, _X = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_PPN_BITS = 44
#: Levels of page tables, by satp's MODE.
_LEVELS = {8: 3, 9: 4, 10: 5}
_MACHINE = 3


def walk(read: Callable[[int], int | None], satp: int, mode: int, address: int) -> int | None:
    """Return the physical address of a virtual one in privilege ``mode``; None if it has none.

    ``read`` returns the 8 bytes at a physical address, None if there are none.
    """
    levels = 0 if mode == _MACHINE else _LEVELS.get(satp >> 60, 0)
    if not levels:
        return address
    bits = _PAGE_BITS + _INDEX_BITS * levels
    if address >> (bits - 1) not in {0, (1 << (65 - bits)) - 1}:
        return None
    table = (satp & ((1 << _PPN_BITS) - 1)) << _PAGE_BITS
    for level in reversed(range(levels)):
        shift = _PAGE_BITS + _INDEX_BITS * level
        entry = read(table + (address >> shift & ((1 << _INDEX_BITS) - 1)) * _PTE)
        if entry is None or not entry & _V:
            return None
        base = (entry >> 10 & ((1 << _PPN_BITS) - 1)) << _PAGE_BITS
        if entry & (_R | _W | _X):
            offset = (1 << shift) - 1
            return base & ~offset | address & offset
        table = base
    return None
