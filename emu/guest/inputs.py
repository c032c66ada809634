"""What the guest is built from, and the cache names that follow from it.

A part's hash covers its configuration files, the modules that are its recipe, and for the kernel its source package
(name, size and date). It does not cover the compiler, which changes no behaviour that matters here, nor the versions of
the riscv64 packages, which only the network knows: a cached root file system stays until something here changes, and
`packages.txt` beside it lists what went in.
"""

import re
from functools import cache
from pathlib import Path

from devices.errors import PyemuError
from emu.guest.cache import digest, directory

__all__ = ["board", "kernel_name", "kernel_source", "rootfs_name"]

_HERE = Path(__file__).resolve().parent


@cache
def board() -> Path:
    """Return the directory `board/pyemu` of the Buildroot tree.

    An installed wheel carries the tree as package data; a checkout has it beside `emu/`.
    Raises PyemuError if it is in neither place.
    """
    for tree in (_HERE / "buildroot", _HERE.parents[1] / "buildroot"):
        if (tree / "external.desc").is_file():
            return tree / "board" / "pyemu"
    raise PyemuError("the guest's configuration files (buildroot/) are missing: this installation is incomplete")


def kernel_source() -> Path | None:
    """Return the installed kernel source: the newest 6.1, for which the guest is written, else the newest."""
    found = Path("/usr/src").glob("linux-source-6.*.tar.xz")
    return max(found, key=lambda path: (path.name.startswith("linux-source-6.1."), _version(path)), default=None)


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def kernel_name() -> str:
    """Return the name of the kernel in the cache.

    Where no source is installed (any longer), this is the latest kernel built from the same configuration, if any.
    """
    recipe = f"kernel-{digest(board() / 'linux.config', _HERE / 'kernel.py')}"
    source = kernel_source()
    if source is not None:
        status = source.stat()
        return f"{recipe}-{digest(f'{source.name} {status.st_size} {status.st_mtime_ns}')}"
    built = [path for path in directory().glob(f"{recipe}-*") if not path.suffix]
    return max(built, key=lambda path: path.stat().st_mtime).name if built else recipe


def rootfs_name() -> str:
    """Return the name of the root file system in the cache."""
    modules = [_HERE / name for name in ("rootfs.py", "packages.py", "cpio.py")]
    return f"rootfs-{digest(board() / 'overlay', board() / 'tone.py', *modules)}"
