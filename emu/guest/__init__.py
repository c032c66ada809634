"""The default guest: a kernel and a root file system with ALSA, built on first use and cached.

This recipe uses the distribution's packages (Debian or a derivative) and the configuration files in `buildroot/`,
which are a complete Buildroot recipe as well; see `buildroot/README.md`.
"""

from collections.abc import Callable
from pathlib import Path

from emu.guest import cache, inputs

__all__ = ["files"]


def files(progress: Callable[[str], None] = lambda _line: None) -> tuple[Path, Path]:
    """Return the paths of the default guest's Image and rootfs.cpio, first building what is not cached.

    progress gets a line of text for each step, and every few seconds during the long one. Concurrent callers do not
    disturb each other, and an interrupted build resumes where it stopped.

    Raises MissingPackageError if a host package is missing, PyemuError if the network, the disk or a build fails.
    """
    kernel, rootfs = (cache.directory() / name for name in (inputs.kernel_name(), inputs.rootfs_name()))
    if not (kernel.is_dir() and rootfs.is_dir()):
        from emu.guest import building  # noqa: PLC0415 - pyemu starts faster without the modules for building

        building.build(kernel, rootfs, progress)
    return kernel / "Image", rootfs / "rootfs.cpio"
