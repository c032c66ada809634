"""Page tables in the RAM of a Bare (Privileged Architecture, chapter 4.3 to 4.5)."""

from emu.cpu.engine import Reg
from tests.emu.cpu.bare import BASE, PAGE, Bare

__all__ = ["KERNEL_DATA", "RWX", "A", "D", "G", "R", "Sv", "U", "V", "W", "X"]

V, R, W, X, U, G, A, D = (1 << n for n in range(8))
RWX = R | W | X
#: An address in the upper half, in every mode of translation.
KERNEL_DATA = 0xFFFF_FFC0_0000_0000
_MODES = {39: 8, 48: 9, 57: 10}
_TABLES = BASE + (8 << 20)


class Sv:
    """Sv39, Sv48 or Sv57 tables."""

    def __init__(self, bare: Bare, bits: int, at: int = _TABLES) -> None:
        self.bare, self.bits, self.levels = bare, bits, (bits - 12) // 9
        self.root, self._free = at, at + PAGE

    def entry(self, virtual: int, level: int = 0, flags: int = V) -> int:
        """Address of the PTE for ``virtual`` at ``level``; makes the tables on the way, with ``flags``."""
        table = self.root
        for above in range(self.levels - 1, level, -1):
            pte = table + 8 * (virtual >> 12 + 9 * above & 511)
            if not self.bare.word(pte) & V:
                self.bare.put_word(pte, self._free >> 12 << 10 | flags)
                self._free += PAGE
            table = self.bare.word(pte) >> 10 << 12
        return table + 8 * (virtual >> 12 + 9 * level & 511)

    def map(self, virtual: int, physical: int, flags: int = RWX, level: int = 0) -> int:
        """Map one page (at level 1 one of 2 MiB ...); return the address of its PTE."""
        pte = self.entry(virtual, level)
        self.bare.put_word(pte, physical >> 12 << 10 | flags | V)
        return pte

    @property
    def satp(self) -> int:
        """What satp must be."""
        return _MODES[self.bits] << 60 | self.root >> 12

    def enable(self) -> None:
        """Translate S and U mode from now on."""
        self.bare[Reg.SATP] = self.satp
        self.bare.engine.flush_tlb()
