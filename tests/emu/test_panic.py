"""A kernel that panics, and programs that only say so: all print the same, then do different things."""

from pathlib import Path

import pytest

from devices.errors import MachineError
from emu.machine import Machine
from tests.emu import tiny
from tests.emu.asm import T0, T1, ZERO, Csr, Item, addi, bne, csrr, csrw, ecall, j, la, li, rdtime, sret

LIE = tiny.say("[    1.234567] Kernel panic - not syncing: a lie\n")
READ_TIME: list[Item] = [li(T1, 1000), "read", rdtime(T0), addi(T1, T1, -1), bne(T1, ZERO, "read")]
#: Go on in U mode, which may read the time; its system calls come to "handler".
USER: list[Item] = [
    la(T0, "handler"), csrw(Csr.STVEC, T0), li(T0, 7), csrw(Csr.SCOUNTEREN, T0),
    la(T0, "user"), csrw(Csr.SEPC, T0), sret(), "user",
]  # fmt: skip


@pytest.mark.parametrize(
    "begin",
    ["", "[    1.234567] ", "[    1.234567][    T1] ", "<0>[    1.234567] ", "~ # [    1.234567] "],
)
def test_a_panic_wherever_the_cursor_was(tmp_path: Path, begin: str) -> None:
    image = tiny.write_image(tmp_path / "Image", tiny.say(begin), tiny.panic("Fatal exception"))
    with Machine(image, memory="32M") as machine, pytest.raises(MachineError, match=r"panicked: Fatal exception$"):
        machine.run()


@pytest.mark.parametrize(
    "then",
    [
        tiny.WAIT,
        tiny.SPIN,  # as a system call that takes long
        [*USER, "again", rdtime(T0), j("again"), "handler"],
        [*USER, "again", ecall(), j("again"), "handler", READ_TIME, csrr(T0, Csr.SEPC), addi(T0, T0, 4),
         csrw(Csr.SEPC, T0), sret()],
        ["again", READ_TIME, tiny.say("."), j("again")],
    ],
    ids=["waits", "computes", "reads the time", "has the kernel read it", "prints"],
)  # fmt: skip
def test_a_program_that_only_says_so(tmp_path: Path, then: list[Item]) -> None:
    with Machine(tiny.write_image(tmp_path / "Image", LIE, then), memory="32M") as machine:
        machine.run_for(0.7)
        assert machine.console.text.startswith(b"[    1.234567] Kernel panic - not syncing: a lie\n")


def test_a_panic_after_a_lie(tmp_path: Path) -> None:
    image = tiny.write_image(tmp_path / "Image", LIE, tiny.panic("the truth"))
    with Machine(image, memory="32M") as machine, pytest.raises(MachineError, match=r"panicked: the truth$"):
        machine.run()
