"""What runs first, whatever kind of file it came from."""

from typing import NamedTuple

__all__ = ["FIRMWARE_SPACE", "Program"]

#: What M-mode firmware may use at the start of RAM: supervisors are linked to begin after it.
FIRMWARE_SPACE = 2 << 20


class Program(NamedTuple):
    """A program as it goes into RAM: ``data`` at the physical address ``start``, entered at ``entry``.

    It uses ``size`` bytes from ``start``, at least those of ``data``.
    """

    start: int
    data: bytes
    size: int
    entry: int
    is_linux: bool = False

    @property
    def space(self) -> range:
        """The addresses that it occupies."""
        return range(self.start, self.start + self.size)
