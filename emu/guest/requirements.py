"""The host packages that a build needs; they are only checked for, never installed."""

import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from devices.errors import MissingPackageError, PyemuError
from emu.guest.inputs import board, kernel_source

__all__ = ["check", "keyring"]

# A program or the absolute path of a file, and the package that contains it.
_KERNEL = {
    "make": "make",
    "gcc": "gcc",
    "/usr/include/stdio.h": "libc6-dev",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu",
    "bc": "bc",
    "bison": "bison",
    "flex": "flex",
    "xz": "xz-utils",
}
_ROOTFS = {"readelf": "binutils"}


def keyring() -> Path:
    """Return the file of keys with which this distribution signs its packages."""
    return Path(f"/usr/share/keyrings/{_distribution()}-archive-keyring.gpg")


def check(*, kernel: bool, rootfs: bool) -> None:
    """Raise MissingPackageError, listing all that is missing in one line, unless these parts can be built here."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        tree = board().parents[1]
        raise PyemuError("the default guest is built from Debian packages, and there is no apt here; build it with "
                         f"Buildroot ({tree / 'README.md'}), then: pyemu boot Image rootfs.cpio")  # fmt: skip
    missing = []
    if kernel:
        missing += _absent(_KERNEL)
        missing += ["linux-source"] if kernel_source() is None else []
    if rootfs:
        missing += _absent({**_ROOTFS, str(keyring()): f"{_distribution()}-archive-keyring"})
    if missing:
        names = " ".join(missing)
        raise MissingPackageError(f"building the guest needs {', '.join(missing)}; install: sudo apt install {names}")


def _absent(needed: Mapping[str, str]) -> list[str]:
    return [package for what, package in needed.items() if not (Path(what).exists() or shutil.which(what))]


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return "debian"
