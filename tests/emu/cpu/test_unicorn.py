"""Unicorn's library without its package: it is the same, and says the same."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import unicorn as package
from unicorn.unicorn_py3.unicorn import uclib

from emu.cpu import unicorn

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [name for name in vars(unicorn) if name.startswith("UC_")])
def test_constants(name: str) -> None:
    assert getattr(unicorn, name) == getattr(package, name)


def test_registers() -> None:
    assert unicorn.riscv_const.UC_RISCV_REG_SEPC == package.riscv_const.UC_RISCV_REG_SEPC


def test_release() -> None:
    assert unicorn.__version__ == package.__version__


def test_it_is_one_library() -> None:
    assert unicorn.uclib._handle == uclib._handle


def test_what_unicorn_refuses() -> None:
    with pytest.raises(unicorn.UcError, match=re.escape(str(package.UcError(package.UC_ERR_ARCH)))):
        unicorn.Uc(99, 0)


def test_an_engine_is_closed_with_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr(unicorn.uclib, "uc_close", closed.append)
    engine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    handle = engine._uch
    del engine
    assert closed == [handle]


class _MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t) for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"]
    ]
    _fields_ += [(name, ctypes.c_size_t) for name in ["uordblks", "fordblks", "keepcost"]]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 tells")
def test_what_unicorn_frees_is_put_together_at_once() -> None:
    """Else whoever allocates next does that for all of it, within a callback."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    libc.mallinfo2.restype = _MallInfo
    pieces = [libc.malloc(40) for _ in range(1000)]
    before = libc.mallinfo2().fsmblks  # of threads that were there before Unicorn
    for piece in pieces:
        libc.free(piece)
    assert libc.mallinfo2().fsmblks <= before


def run(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    ).stdout


def test_a_library_in_a_place_that_only_the_package_knows() -> None:
    folder = str(Path(uclib._name).parent)
    code = "import sys; from emu.cpu import unicorn; print(unicorn.__version__, 'unicorn' in sys.modules)"
    assert run(code, LIBUNICORN_PATH=folder) == f"{package.__version__} True\n"
    assert run(code) == f"{package.__version__} False\n"
