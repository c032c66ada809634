"""Kernels of a few instructions, for testing what is around the guest: they boot at once and do one thing."""

import struct
from pathlib import Path

from tests.emu.asm import (
    A0,
    A1,
    T0,
    T1,
    T2,
    ZERO,
    Item,
    addi,
    andi,
    assemble,
    beq,
    bne,
    j,
    lbu,
    li,
    rdtime,
    sb,
    sw,
    wfi,
)  # fmt: skip

__all__ = [
    "ECHO", "FAIL", "POWER_OFF", "RESET", "SIZE", "SPIN", "TRAP", "WAIT", "panic", "say", "until_typed",
    "write_image",
]  # fmt: skip

_HEADER = 64
_UART, _TEST = 0x1000_0000, 0x10_0000
_CONSOLE_CONFIG = 0x1000_3100  # of a machine without disks
_CTRL_D = 4


def _switch(value: int) -> list[Item]:
    """Write ``value`` to the test device."""
    return [li(A0, _TEST), li(A1, value), sw(A1, A0), j(0)]


def say(text: str) -> list[Item]:
    """Print ``text``."""
    return [li(A0, _UART), [[li(T0, ord(character)), sb(T0, A0)] for character in text]]


def until_typed(code: Item) -> list[Item]:
    """Wait until something is typed; then do ``code``. It looks seldom: that costs the host as much as 1,000 blocks."""
    return [
        li(A0, _UART), li(T0, 7), sb(T0, A0, 2), li(T0, 1), sb(T0, A0, 1),
        "untyped", li(T1, 5000), "idle", addi(T1, T1, -1), bne(T1, ZERO, "idle"),
        lbu(T0, A0, 5), andi(T0, T0, 1), beq(T0, ZERO, "untyped"), code,
    ]  # fmt: skip


def panic(why: str) -> list[Item]:
    """Do what Linux's panic() does: say so, and delay for ever."""
    return [say(f"Kernel panic - not syncing: {why}\n"), "delay", rdtime(T0), j("delay")]


#: Compute for ever, with every interrupt off.
SPIN: list[Item] = [j(0)]
#: Sleep for ever.
WAIT: list[Item] = ["wait", wfi(), j("wait")]
POWER_OFF = _switch(0x5555)
FAIL = _switch(0x1_3333)  # with code 1
RESET = _switch(0x7777)
#: An illegal instruction without a handler.
TRAP: list[Item] = [0]
#: Echo input; power off after C-d. The receiver is set up as a driver does: FIFO, then its interrupt.
ECHO: list[Item] = [
    li(A0, _UART), li(T2, _CTRL_D), li(T0, 7), sb(T0, A0, 2), li(T0, 1), sb(T0, A0, 1),
    "wait", lbu(T0, A0, 5), andi(T0, T0, 1), beq(T0, ZERO, "wait"),
    lbu(T1, A0), beq(T1, T2, "off"), sb(T1, A0), j("wait"),
    "off", POWER_OFF,
]  # fmt: skip
#: Print the size of the virtio console for ever: columns and rows, one byte each.
SIZE: list[Item] = [
    li(A0, _UART), li(A1, _CONSOLE_CONFIG),
    "again", lbu(T0, A1), sb(T0, A0), lbu(T0, A1, 2), sb(T0, A0), j("again"),
]  # fmt: skip


def write_image(path: Path, *code: Item) -> Path:
    """Write ``code`` to ``path`` as a kernel's Image (Linux, Documentation/riscv/boot-image-header.rst)."""
    body = assemble(_HEADER, code)
    jump = assemble(0, j(_HEADER))
    path.write_bytes(
        struct.pack("<4sIQQQI12x8s4sI", jump, 0, 0x20_0000, _HEADER + len(body), 0, 2, b"RISCV", b"RSC\5", 0) + body
    )
    return path
