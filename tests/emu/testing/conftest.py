"""Projects that test with the plugin."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import emu

ROOT = Path(emu.__file__).parents[1]
INSTALLED = any(point.value == "emu.testing.pytest_plugin" for point in metadata.entry_points(group="pytest11"))


@pytest.fixture
def project(tmp_path):
    """``project(ini, tests, *options)`` returns what pytest prints."""

    def run(ini: str, tests: str, *options: str) -> str:
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}")
        (tmp_path / "test_it.py").write_text(tests)
        load = [] if INSTALLED else ["-p", "emu.testing.pytest_plugin"]
        kept = f"--basetemp={tmp_path / 'kept'}"  # elsewhere, another pytest may clear up
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", kept, *load, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        ).stdout  # fmt: skip

    return run
