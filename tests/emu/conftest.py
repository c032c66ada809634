"""For tests of the command line: small kernels, and pyemu in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from emu.cli import main
from tests.emu import tiny


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
