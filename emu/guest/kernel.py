"""The kernel of the default guest, compiled from the distribution's source package."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from devices.errors import PyemuError
from emu.guest.inputs import board, kernel_source
from emu.guest.job import CommandError, Job

__all__ = ["build"]

# Names that changed after 6.1, for which board/pyemu/linux.config is written: SOC_VIRT and EMBEDDED.
_LATER_NAMES = "CONFIG_ARCH_VIRT=y\nCONFIG_EXPERT=y\n"

# Without one of these the guest would not boot, or would have no sound.
_ESSENTIAL = (
    *("BLK_DEV_INITRD", "BINFMT_SCRIPT", "DEVTMPFS", "FUTEX", "MMU", "PRINTK", "SYSVIPC", "TMPFS"),
    *("SERIAL_8250_CONSOLE", "SERIAL_OF_PLATFORM", "RISCV_SBI", "SIFIVE_PLIC", "RTC_DRV_GOLDFISH", "HIGH_RES_TIMERS"),
    *("VIRTIO_MMIO", "VIRTIO_BLK", "VIRTIO_CONSOLE", "VIRTIO_FS", "VIRTIO_NET", "HW_RANDOM_VIRTIO", "SND_VIRTIO"),
    *("EXT4_FS", "INET", "PACKET"),
)

# The same bytes from every user, host and day.
_REPRODUCIBLE = {
    "KBUILD_BUILD_USER": "pyemu",
    "KBUILD_BUILD_HOST": "pyemu",
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_VERSION": "1",
}

# Large, not needed here, and with no Kconfig or Makefile that others include: not even unpacked.
_UNUSED = (
    *("arch/arm/boot/dts/*", "arch/arm64/boot/dts/*", "drivers/gpu/drm/amd/include/*"),
    *("Documentation/*/*", "tools/perf/*", "tools/testing/*"),
)

_STEPS = 1400  # lines that a build prints, about
_REPORT_SECONDS = 5.0


def build(job: Job, out: Path) -> None:
    """Write Image, System.map, the complete .config (as `config`) and what gdb reads into the directory out.

    For gdb: vmlinux with its debug information (DWARF, compressed), and Linux's own scripts beside it (lx-symbols ...).

    A build that was interrupted goes on where it stopped. Raises PyemuError if the kernel does not compile.
    """
    tree = _unpack(job)
    try:
        _configure(job, tree, board() / "linux.config")
        _compile(job, tree)
    except CommandError:
        shutil.rmtree(tree)  # what a crash or a full disk left half done must not spoil the next attempt
        raise
    shutil.copyfile(tree / "arch/riscv/boot/Image", out / "Image")
    shutil.copyfile(tree / "System.map", out / "System.map")
    shutil.copyfile(tree / ".config", out / "config")
    shutil.copyfile(tree / "vmlinux", out / "vmlinux")
    shutil.copyfile(tree / "vmlinux-gdb.py", out / "vmlinux-gdb.py")
    shutil.copytree(tree / "scripts/gdb/linux", out / "scripts/gdb/linux", ignore=shutil.ignore_patterns("*.in", ".*"))


def _unpack(job: Job) -> Path:
    tree = job.work / "linux"
    if tree.is_dir():
        job.report("going on with the kernel where an earlier build stopped")
        return tree
    tarball = kernel_source()
    if tarball is None:
        raise PyemuError("the kernel's source is gone from /usr/src")
    job.report(f"unpacking {tarball.name}")
    partial = job.work / "linux.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    excluded = [f"--exclude=*/{pattern}" for pattern in _UNUSED]
    job.run("tar", "--extract", "--xz", "--file", tarball, "--strip-components=1", *excluded, directory=partial)
    return partial.rename(tree)


def _configure(job: Job, tree: Path, config: Path) -> None:
    job.report("configuring the kernel")
    (tree / ".config").write_text(config.read_text() + _LATER_NAMES)
    _make(job, tree, "olddefconfig")
    chosen = set((tree / ".config").read_text().splitlines())
    missing = [name for name in _ESSENTIAL if f"CONFIG_{name}=y" not in chosen]
    if missing:
        raise PyemuError(f"this kernel's configuration cannot have {', '.join(missing)}; linux-source-6.1 has all")


def _compile(job: Job, tree: Path) -> None:
    steps = 0
    next_report = 0.0

    def count(_line: str) -> None:
        nonlocal steps, next_report
        steps += 1
        now = time.monotonic()
        if now >= next_report:
            next_report = now + _REPORT_SECONDS
            job.report(f"compiling the kernel: {min(99, 100 * steps // _STEPS)} %")

    _make(job, tree, f"--jobs={os.cpu_count() or 1}", "Image", "scripts_gdb", on_line=count)


def _make(job: Job, tree: Path, *arguments: str, on_line: Callable[[str], None] = lambda _line: None) -> None:
    cross = ("ARCH=riscv", "CROSS_COMPILE=riscv64-linux-gnu-")
    job.run("make", *cross, *arguments, directory=tree, environment=_REPRODUCIBLE, on_line=on_line)
