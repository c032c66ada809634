"""The default guest: a kernel and a root file system with ALSA, built on first use and cached.

This is the recipe from the distribution's packages (Debian or a derivative), with the configuration files in
`buildroot/`, which are a complete Buildroot recipe as well; see `buildroot/README.md`.
"""

from collections.abc import Callable
from pathlib import Path

from emu.guest import cache, inputs

__all__ = ["files"]


def files(progress: Callable[[str], None] = lambda _line: None) -> tuple[Path, Path]:
    """Return the paths of Image and rootfs.cpio of the default guest, building first what is not cached.

    progress gets a line of text for each step, and every few seconds during the long one. Two callers at once do not
    disturb each other, and an interrupted build goes on where it stopped.

    Raises MissingPackageError if a package of the host is needed, PyemuError if the network, the disk or a build fails.
    """
    kernel, rootfs = (cache.directory() / name for name in (inputs.kernel_name(), inputs.rootfs_name()))
    if not (kernel.is_dir() and rootfs.is_dir()):
        from emu.guest import building  # noqa: PLC0415 - pyemu starts sooner if it does not load what only builds

        building.build(kernel, rootfs, progress)
    return kernel / "Image", rootfs / "rootfs.cpio"
