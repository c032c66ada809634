"""What runs first, whatever kind of file it came in."""

from dataclasses import dataclass

__all__ = ["FIRMWARE_SPACE", "Program"]

#: What M-mode firmware may use at the start of RAM: supervisors are linked to begin behind it.
FIRMWARE_SPACE = 2 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """A program as it is to be in RAM: ``data`` at the physical address ``start``, to be entered at ``entry``.

    It uses ``size`` bytes from there, at least those of ``data``.
    """

    start: int
    data: bytes
    size: int
    entry: int
    is_linux: bool = False

    @property
    def space(self) -> range:
        """The addresses that are its own."""
        return range(self.start, self.start + self.size)
