"""What happens before the first instruction: kernel, initramfs, device tree and firmware are loaded into RAM."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from devices.clint import TIMEBASE_HZ
from devices.placement import Placement
from firmware.fdt import board_tree
from firmware.image import fw_dynamic_info, load_bios, load_initrd, load_kernel
from firmware.layout import DTB_SPACE, place
from firmware.program import FIRMWARE_SPACE

__all__ = ["Boot", "load"]

ISA = "rv64imafdc"
#: Where Debian's fw_jump.bin moves the device tree (FW_JUMP_FDT_ADDR), from the start of RAM.
FW_JUMP_FDT_OFFSET = 0x220_0000
_PAGE = 4096


class Boot(NamedTuple):
    """Where to begin, in S mode or, with firmware, in M mode, and the values of a1 and a2."""

    machine_mode: bool
    pc: int
    dtb: int
    dynamic_info: int


def load(
    room: Callable[[int, int], memoryview],
    ram: range,
    placements: Sequence[Placement],
    *,
    kernel: Path | None,
    initrd: Path | None,
    bios: Path | None,
    bootargs: str,
    rng_seed: bytes | None = None,
) -> tuple[Boot, bytes]:
    """Put everything into ``ram``, where ``room(address, size)`` is; return where to begin, and the device tree.

    There must be a kernel or M-mode firmware; firmware alone is all the software that its machine runs.

    Raises UsageError for files that cannot be booted.
    """
    image = load_kernel(kernel, ram) if kernel is not None else None
    firmware = load_bios(bios, ram) if bios is not None else None
    next_stage = ram.start + FIRMWARE_SPACE  # where firmware expects it unless told otherwise
    info = range(ram.stop - _PAGE, ram.stop)
    reserved = [range(ram.start, next_stage), firmware.space, info] if firmware is not None else []
    kernel_space = range(ram.start, ram.start)
    if image is not None:
        next_stage, kernel_space = image.entry, image.space
        if firmware is not None:
            fdt = ram.start + FW_JUMP_FDT_OFFSET
            reserved.append(range(fdt, fdt + DTB_SPACE))
    layout = place(ram, kernel_space, 0, reserved)

    def room_for_initrd(size: int) -> memoryview:
        nonlocal layout
        layout = place(ram, kernel_space, size, reserved)
        assert layout.initrd is not None
        return room(layout.initrd.start, size)

    if initrd is not None:
        load_initrd(initrd, room_for_initrd, for_linux=image is not None and image.is_linux)
    dtb = board_tree(
        placements,
        ram=ram,
        timebase=TIMEBASE_HZ,
        isa=ISA,
        bootargs=bootargs,
        initrd=layout.initrd,
        rng_seed=os.urandom(32) if rng_seed is None else rng_seed,
    )
    pieces = [(layout.dtb, dtb)]
    if image is not None:
        pieces.append((image.start, image.data))
    if firmware is not None:
        pieces += (firmware.start, firmware.data), (info.start, fw_dynamic_info(next_stage))
    for start, data in pieces:
        room(start, len(data))[:] = data
    if firmware is None:
        return Boot(False, next_stage, layout.dtb, 0), dtb
    return Boot(True, firmware.entry, layout.dtb, info.start), dtb
