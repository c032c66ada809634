"""Small kernels, pyemu in this process, and the two kinds of engine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emu.cli import main
from emu.cpu.native import SWITCH
from tests.emu import tiny


@pytest.fixture(scope="module", params=["native", "python"])
def engine_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every engine has its native part, or none has: what the CPU does must not depend on that."""
    before = os.environ.pop(SWITCH, None)
    if request.param == "python":
        os.environ[SWITCH] = "off"
    yield request.param
    os.environ.pop(SWITCH, None)
    if before is not None:
        os.environ[SWITCH] = before


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[..., Path]:
    """Make a kernel of the given instructions."""
    return lambda *code: tiny.write_image(tmp_path / "Image", *code)


@pytest.fixture
def pyemu(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; its exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code, *capfd.readouterr()

    return run
