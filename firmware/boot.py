"""What happens before the first instruction: kernel, initramfs, device tree and firmware are put into RAM."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.clint import TIMEBASE_HZ
from devices.placement import Placement
from firmware.fdt import board_tree
from firmware.image import fw_dynamic_info, load_bios, load_initrd, load_kernel
from firmware.layout import DTB_SPACE, place

__all__ = ["Boot", "load"]

ISA = "rv64imafdc"
#: What M-mode firmware may use at the start of RAM: kernels are linked to begin behind it.
FIRMWARE_SPACE = 2 << 20
#: Where Debian's fw_jump.bin moves the device tree (FW_JUMP_FDT_ADDR), from the start of RAM.
FW_JUMP_FDT_OFFSET = 0x220_0000
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Boot:
    """Where to begin, in S mode or, with firmware, in M mode, and what is to stand in a1 and a2."""

    machine_mode: bool
    pc: int
    dtb: int
    dynamic_info: int


def load(
    store: Callable[[int, bytes], None],
    ram: range,
    placements: Sequence[Placement],
    *,
    kernel: Path,
    initrd: Path | None,
    bios: Path | None,
    bootargs: str,
    rng_seed: bytes | None = None,
) -> tuple[Boot, bytes]:
    """Put everything into ``ram`` with ``store(address, data)``; return where to begin, and the device tree.

    Raises UsageError for files that can't be booted.
    """
    image = load_kernel(kernel)
    archive = load_initrd(initrd) if initrd is not None else b""
    firmware = load_bios(bios) if bios is not None else b""
    info = range(ram.stop - _PAGE, ram.stop)
    fw_jump_fdt = range(ram.start + FW_JUMP_FDT_OFFSET, ram.start + FW_JUMP_FDT_OFFSET + DTB_SPACE)
    reserved = [range(ram.start, ram.start + max(FIRMWARE_SPACE, len(firmware))), info, fw_jump_fdt] if firmware else []
    layout = place(ram, image, len(archive), reserved)
    dtb = board_tree(
        placements,
        ram=ram,
        timebase=TIMEBASE_HZ,
        isa=ISA,
        bootargs=bootargs,
        initrd=layout.initrd,
        rng_seed=os.urandom(32) if rng_seed is None else rng_seed,
    )
    store(layout.kernel, image.data)
    store(layout.dtb, dtb)
    if layout.initrd is not None:
        store(layout.initrd.start, archive)
    if not firmware:
        return Boot(False, layout.kernel, layout.dtb, 0), dtb
    store(ram.start, firmware)
    store(info.start, fw_dynamic_info(layout.kernel))
    return Boot(True, ram.start, layout.dtb, info.start), dtb
