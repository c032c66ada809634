"""Debian's own riscv64 kernel, which nobody here configured, with its modules and the default root file system.

    kernel, initrd = debian.files(folder, print)
    Machine(kernel, initrd, append=debian.APPEND)

Its package comes from the same source as the default guest's and is verified by apt; the result is cached beside
theirs, so it is downloaded once (112 MB).
"""

import lzma
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from devices.errors import PyemuError
from emu import guest
from emu.guest import building, cache, cpio, packages, requirements
from emu.guest.job import Job

__all__ = ["APPEND", "files"]

_INIT = "etc/modules.init"
#: The kernel's command line: its modules are loaded, then the root file system's own init takes over.
APPEND = f"console=ttyS0 rdinit=/{_INIT}"

# Empty; it depends on the package of the current version.
_METAPACKAGE = "linux-image-riscv64"
# Debian builds nearly everything as a module.
_WANTED = ("virtio_mmio", "virtio_blk", "virtio_rng", "virtio_snd")
_MODULES = "usr/lib/modules"


def files(folder: Path, progress: Callable[[str], None], *modules: str) -> tuple[Path, Path]:
    """Return the kernel's Image and an initramfs with its modules, built in ``folder``.

    ``modules`` are loaded besides those that every guest needs. Raises PyemuError if they are not available.
    """
    requirements.check(kernel=False, rootfs=True)
    _, rootfs = guest.files(progress)
    part = cache.directory() / "-".join(("debian", cache.digest(Path(__file__)), *modules))
    building.obtain(part, partial(_build, (*_WANTED, *modules)), progress)
    initrd = folder / "rootfs.cpio"
    # The kernel unpacks one archive after the other.
    initrd.write_bytes(rootfs.read_bytes() + (part / "modules.cpio").read_bytes())
    return part / "Image", initrd


def _build(modules: tuple[str, ...], job: Job, out: Path) -> None:
    [metapackage] = packages.fetch(job, [_METAPACKAGE])
    package = job.run("dpkg-deb", "--field", metapackage, "Depends").split()[0]
    [deb] = packages.fetch(job, [package])
    job.report(f"unpacking {deb.name}")
    tree = job.work / "tree"
    job.run("dpkg-deb", "--extract", deb, tree)
    [image] = (tree / "boot").glob("vmlinu[xz]-*")
    (out / "Image").write_bytes(image.read_bytes())
    (out / "modules.cpio").write_bytes(cpio.pack(_entries(tree, modules)))
    (out / "packages.txt").write_text(f"{deb.name}\n")


def _entries(tree: Path, modules: tuple[str, ...]) -> Iterator[cpio.Entry]:
    available = {_name(path): path for path in (tree / _MODULES).rglob("*.ko*")}
    loaded: dict[str, bytes] = {}
    for name in modules:
        _add(name, available, loaded)
    for name, module in loaded.items():
        yield cpio.file(f"{_MODULES}/{name}.ko", module)
    lines = ["#!/bin/sh", *(f"insmod /{_MODULES}/{name}.ko" for name in loaded), 'exec /init "$@"']
    yield cpio.file(_INIT, "\n".join([*lines, ""]).encode(), 0o755)


def _add(name: str, available: dict[str, Path], loaded: dict[str, bytes]) -> None:
    """Add a module after everything it says it depends on."""
    if name in loaded:
        return
    if name not in available:
        raise PyemuError(f"the kernel's package has no module {name}")
    path = available[name]
    module = path.read_bytes() if path.suffix == ".ko" else lzma.decompress(path.read_bytes())
    depends = re.search(rb"\0depends=([^\0]*)\0", module)
    for other in depends[1].decode().split(",") if depends and depends[1] else ():
        _add(other.replace("-", "_"), available, loaded)
    loaded[name] = module


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")
