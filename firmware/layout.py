"""Where in RAM the loader puts the device tree and the initramfs."""

from collections.abc import Sequence
from typing import NamedTuple

from devices.errors import UsageError
from firmware.files import MIB

__all__ = ["DTB_SPACE", "Layout", "place"]

PAGE = 4096
#: RAM reserved for the device tree, with room for what M-mode firmware adds to it in place.
DTB_SPACE = 64 << 10


class Layout(NamedTuple):
    """The physical addresses that the loader chooses."""

    dtb: int
    initrd: range | None


def place(ram: range, kernel: range, initrd_size: int = 0, reserved: Sequence[range] = ()) -> Layout:
    """Choose addresses in ``ram`` above those of the kernel (which may be empty), as high as possible.

    The DTB gets DTB_SPACE bytes, the initramfs whole pages. Nothing touches ``reserved``, which belongs to firmware.
    Raises UsageError if that is impossible, naming the least memory with which it is possible.
    """
    for piece in reserved:
        if _overlap(kernel, piece):
            raise UsageError(
                f"the kernel, {len(kernel) // MIB} MiB, overlaps what the M-mode firmware needs "
                f"at {piece.start:#x}; use a smaller kernel or other firmware"
            )
    layout = _try(ram, kernel, initrd_size, reserved)
    if layout is None:
        raise UsageError(
            f"what you want to boot does not fit into {len(ram) // MIB} MiB of memory: "
            f"use --memory {_least_memory(ram, kernel, initrd_size, reserved) // MIB}M or more"
        )
    return layout


def _try(ram: range, kernel: range, initrd_size: int, reserved: Sequence[range]) -> Layout | None:
    """Return the layout, or None if it does not fit."""
    if any(piece.stop > ram.stop for piece in (kernel, *reserved)):
        return None
    above = range(kernel.stop, ram.stop)  # Linux before 6.4 cannot reach what is below it
    dtb = _highest_free(above, DTB_SPACE, reserved)
    if dtb is None:
        return None
    if not initrd_size:
        return Layout(dtb.start, None)
    initrd = _highest_free(above, initrd_size, [*reserved, dtb])
    return None if initrd is None else Layout(dtb.start, initrd)


def _least_memory(ram: range, kernel: range, initrd_size: int, reserved: Sequence[range]) -> int:
    size = len(ram) // MIB * MIB + MIB
    while _try(range(ram.start, ram.start + size), kernel, initrd_size, reserved) is None:
        size += MIB
    return size


def _highest_free(space: range, size: int, taken: Sequence[range]) -> range | None:
    """Return ``size`` bytes in ``space`` starting at the highest page that avoids what is ``taken``, or None."""
    start = (space.stop - size) // PAGE * PAGE
    for piece in sorted(taken, key=lambda piece: piece.start, reverse=True):
        if _overlap(piece, range(start, start + size)):
            start = (piece.start - size) // PAGE * PAGE
    return range(start, start + size) if start >= space.start else None


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop
