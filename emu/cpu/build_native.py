"""Builds the engine's native part while pyemu is installed, if there is a C compiler; without one, pyemu does without.

This is a build hook of hatchling's, named in pyproject.toml, and not part of the package.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any
from zlib import crc32

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_HERE = Path(__file__).parent
_NAME = "libnative.so"


class NativeBuildHook(BuildHookInterface[Any]):
    """Puts the library into the wheel, or beside its source for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel is put together."""
        self._folder = tempfile.TemporaryDirectory()
        target = _HERE / _NAME if version == "editable" else Path(self._folder.name, _NAME)
        if self._compile(target):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            if version != "editable":
                build_data["force_include"][str(target)] = f"emu/cpu/{_NAME}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Clean up after it."""
        self._folder.cleanup()

    def _compile(self, target: Path) -> bool:
        if sys.platform != "linux":
            return False  # native.c finds its way through ELF files
        source = _HERE / "native.c"
        built_from = crc32(source.read_bytes())
        compiler = shlex.split(os.environ.get("CC", "cc"))
        options = ["-O2", "-shared", "-fPIC", f"-DBUILT_FROM={built_from}u", "-o", str(target), str(source), "-ldl"]
        try:
            subprocess.run([*compiler, *options], check=True)  # noqa: S603 - the user's own compiler
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"pyemu does without its native part, as it cannot be compiled: {error}")
            target.unlink(missing_ok=True)
            return False
        return True
