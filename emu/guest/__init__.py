"""The default guest: a kernel and a root file system with ALSA, built on first use and cached.

This is the recipe from the distribution's packages (Debian or a derivative), with the configuration files in
`buildroot/`, which are a complete Buildroot recipe as well; see `buildroot/README.md`.
"""

from collections.abc import Callable
from pathlib import Path

from emu.guest import cache, inputs, kernel, requirements, rootfs

__all__ = ["files"]


def files(progress: Callable[[str], None] = lambda _line: None) -> tuple[Path, Path]:
    """Return the paths of Image and rootfs.cpio of the default guest, building first what is not cached.

    progress gets a line of text for each step, and every few seconds during the long one. Two callers at once do not
    disturb each other, and an interrupted build goes on where it stopped.

    Raises MissingPackageError if a package of the host is needed, PyemuError if the network, the disk or a build fails.
    """
    parts = {inputs.kernel_name(): kernel.build, inputs.rootfs_name(): rootfs.build}
    missing = [build for name, build in parts.items() if not (cache.directory() / name).is_dir()]
    if missing:
        requirements.check(kernel=kernel.build in missing, rootfs=rootfs.build in missing)
    built_kernel, built_rootfs = (cache.obtain(name, build, progress) for name, build in parts.items())
    return built_kernel / "Image", built_rootfs / "rootfs.cpio"
