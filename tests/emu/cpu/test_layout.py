"""What is checked of Unicorn when an engine is made."""

from collections.abc import Callable

import pytest

from devices.errors import PyemuError
from emu.cpu import layout, unicorn
from emu.cpu.engine import Engine, Reg
from emu.memory import Ram
from tests.emu.cpu.bare import BASE, MACHINE, Bare

pytestmark = pytest.mark.usefixtures("engine_kind")


def test_another_release_of_unicorn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicorn, "__version__", "2.2.0")
    ram = Ram(BASE, 16 << 20)
    with pytest.raises(PyemuError, match=r"needs unicorn 2\.1\.4 .* finds 2\.2\.0: pip install unicorn==2\.1\.4"):
        Engine(ram.buffer, BASE)


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("_ENV_UC", 1552),
        ("_UC_NO_EXIT_REQUEST", 2035),
        ("_CPU_UC", 32888),
        ("_CFG", bytes(14)),
        ("_WITNESSES", ((12, unicorn.riscv_const.UC_RISCV_REG_X31, 5),)),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, constant: str, value: object) -> None:
    monkeypatch.setattr(layout, constant, value)
    ram = Ram(BASE, 16 << 20)
    with pytest.raises(PyemuError, match=r"does not fit pyemu: .*; please report it"):
        Engine(ram.buffer, BASE)


def test_the_check_leaves_the_hart_as_it_was() -> None:
    bare = Bare()
    registers: Callable[[int], int] = bare.state.__getitem__
    assert [registers(n) for n in range(1, 32)] == [0] * 31
    assert bare[Reg.PRIV] == MACHINE
    assert bare[Reg.MEDELEG] == bare[Reg.MIDELEG] == bare[Reg.MIE] == bare[Reg.STVEC] == 0
