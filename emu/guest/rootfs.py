"""The root file system of the default guest, made from the distribution's riscv64 packages.

Its contents are chosen rather than pruned, because every file costs time at boot: the programs named here, the
libraries that they need, the data files that these read, and the overlay, which the Buildroot recipe uses, too.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from devices.errors import PyemuError
from emu.guest import cpio, packages
from emu.guest.inputs import board
from emu.guest.job import Job

__all__ = ["build", "entries"]

_PACKAGES = (
    "busybox-static",  # static: fork and exec are twice as fast as with the dynamic loader
    "coreutils",  # env, a small program with shared libraries: benchmarks measure what starting one costs
    "libc6",
    "libgcc-s1",
    "alsa-utils",
    "libasound2t64",
    "libasound2-data",
    "libfftw3-single3",  # alsabat's analysis
    "e2fsprogs",
    "libext2fs2t64",
    "libblkid1",
    "libuuid1",
    "libcom-err2",
    "rt-tests",
    "libnuma1",
)

_PROGRAMS = (
    *("busybox", "aplay", "arecord", "amixer", "alsabat", "alsactl", "speaker-test"),
    *("e2fsck", "mke2fs", "mkfs.ext4"),
    *("cyclictest", "hackbench"),
    "env",
)

_DATA = (
    "etc/mke2fs.conf",
    "usr/share/alsa/alsa.conf",
    "usr/share/alsa/cards/aliases.conf",
    "usr/share/alsa/ctl",
    "usr/share/alsa/init/00main",
    "usr/share/alsa/init/default",
    "usr/share/alsa/init/help",
    "usr/share/alsa/init/info",
    "usr/share/alsa/pcm",
    "usr/share/sounds/alsa",
)

_DIRECTORIES = {
    "dev": 0o755,
    "mnt": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var/lib/alsa": 0o755,
}

_LIBRARIES = "usr/lib/riscv64-linux-gnu"
_LOADER = "ld-linux-riscv64-lp64d.so.1"
# No program names this library, but libc opens it when a thread calls pthread_exit, as alsabat's do.
_FOR_THREADS = "libgcc_s.so.1"

# All programs are in one directory; the other names that scripts and the ABI know are links.
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "usr/sbin": "bin",
    "lib": "usr/lib",
    f"usr/lib/{_LOADER}": f"riscv64-linux-gnu/{_LOADER}",
    "etc/mtab": "/proc/mounts",
}


def build(job: Job, out: Path) -> None:
    """Write rootfs.cpio and packages.txt (the package versions used) into the directory out.

    Raises PyemuError if the packages cannot be fetched or lack something.
    """
    debs = packages.fetch(job, _PACKAGES)
    job.report("packing the root file system")
    tree = job.work / "tree"
    for deb in debs:
        job.run("dpkg-deb", "--extract", deb, tree)
    tone = job.work / "tone.wav"
    job.run(sys.executable, board() / "tone.py", tone)
    contents = [*entries(job, tree, board() / "overlay"), cpio.file("root/tone.wav", tone.read_bytes())]
    (out / "rootfs.cpio").write_bytes(cpio.pack(contents))
    (out / "packages.txt").write_text("".join(f"{deb.name}\n" for deb in debs))


def entries(job: Job, tree: Path, overlay: Path) -> Iterator[cpio.Entry]:
    """Yield the root file system's entries, from the unpacked packages in tree and from overlay."""
    # The kernel opens /dev/console for process 1 before anything is mounted.
    yield cpio.device("dev/console", 5, 1)
    yield from (cpio.directory(path, mode) for path, mode in _DIRECTORIES.items())
    yield from (cpio.symlink(path, target) for path, target in _LINKS.items())
    programs = [_program(tree, name) for name in _PROGRAMS]
    libraries = [*_closure(job, tree, programs), tree / _LIBRARIES / _FOR_THREADS]
    yield from map(_installed_program, programs)
    yield from _applets(tree / "usr/bin/busybox")
    yield from (cpio.file(f"{_LIBRARIES}/{path.name}", path.read_bytes(), 0o755) for path in libraries)
    for name in _DATA:
        yield from _files(tree, tree / name)
    yield from _files(overlay, overlay)


def _program(tree: Path, name: str) -> Path:
    for directory in ("usr/bin", "usr/sbin"):
        path = tree / directory / name
        if path.exists():
            return path
    raise PyemuError(f"the packages have no program {name}")


def _installed_program(path: Path) -> cpio.Entry:
    name = f"usr/bin/{path.name}"
    if path.is_symlink():
        return cpio.symlink(name, path.readlink().name)
    return cpio.file(name, path.read_bytes(), 0o755)


def _applets(busybox: Path) -> Iterator[cpio.Entry]:
    """Yield links to busybox for all its applets, except where the packages have the real program.

    The host cannot run it to ask, but its table of names is a sorted run of C strings that starts with "[".
    """
    _, found, table = busybox.read_bytes().partition(b"[\0[[\0")
    if not found:
        raise PyemuError("busybox has no table of applets where one is expected")
    names = table.partition(b"\0\0")[0].decode().split("\0")
    for name in sorted({"[", "[[", *names} - {*_PROGRAMS, "init", "linuxrc"}):
        yield cpio.symlink(f"usr/bin/{name}", "busybox")


def _closure(job: Job, tree: Path, programs: Iterable[Path]) -> list[Path]:
    """Return the libraries that the programs need, directly or indirectly, under the names used to ask for them."""
    found: dict[str, Path] = {}
    ask = {path.resolve() for path in programs}
    while ask:
        needed = re.findall(r"\(NEEDED\).*\[(.+)\]", job.run("readelf", "--dynamic", "--wide", *sorted(ask)))
        new = {name: tree / _LIBRARIES / name for name in needed if name not in found}
        for name, path in new.items():
            if not path.exists():
                raise PyemuError(f"the packages have no library {name}, which a program in them needs")
        found |= new
        ask = set(new.values())
    return sorted(found.values())


def _files(root: Path, path: Path) -> Iterator[cpio.Entry]:
    """Yield path, or all files below it; scripts are executable, whatever has become of their mode by now."""
    for source in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if source.is_file():
            data = source.read_bytes()
            yield cpio.file(str(source.relative_to(root)), data, 0o755 if data.startswith(b"#!") else 0o644)
