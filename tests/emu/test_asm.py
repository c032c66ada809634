"""The assembler that the other tests are written in; its encodings were compared with those of objdump."""

import pytest

from emu.cpu.engine import Reg
from tests.emu.asm import (
    A0,
    S1,
    T0,
    ZERO,
    addi,
    assemble,
    beq,
    bne,
    c_addi,
    ebreak,
    fadd_s,
    fcvt_d_s,
    fmax_d,
    fmin_s,
    fmv_w_x,
    fmv_x_w,
    j,
    jal,
    la,
    li,
    lw,
    sd,
    wfi,
)  # fmt: skip
from tests.emu.cpu.bare import Bare


@pytest.mark.parametrize("bit", range(64))
@pytest.mark.parametrize("delta", [-1, 0, 1, 0x7FF, 0x800])
def test_li_loads_any_number(bit: int, delta: int) -> None:
    value = (1 << bit) + delta
    assert Bare().run(li(A0, value), wfi())[A0] == value & (1 << 64) - 1


def test_labels_forwards_and_backwards() -> None:
    bare = Bare().run(
        li(T0, 3), "loop", addi(A0, A0, 2), c_addi(T0, -1), bne(T0, ZERO, "loop"), j("on"), ebreak(),
        "on", la(S1, "end"), beq(ZERO, ZERO, "end"), ebreak(), "end", wfi(),
    )  # fmt: skip
    assert bare[A0] == 6
    assert bare[S1] + 4 == bare[Reg.PC]


def test_encodings() -> None:
    words = assemble(0, lw(A0, S1, -4), sd(A0, S1, 2040), jal(1, -8), beq(A0, S1, 16))
    assert words.hex(" ", 4) == "03a5c4ff 23bca47e eff09fff 63089500"
    words = assemble(
        0, fmv_w_x(1, A0), fmv_x_w(A0, 1), fadd_s(2, 1, 1), fcvt_d_s(3, 1), fmin_s(3, 1, 2), fmax_d(3, 1, 2)
    )
    assert words.hex(" ", 4) == "d30005f0 538500e0 53f11000 d3810042 d3812028 d391202a"
