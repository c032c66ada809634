"""Builds a part of the guest into the cache: once, whoever asks for it, and never incompletely.

A part appears under its name in one step (rename). While it is being built, there are also NAME.work, which lets an
interrupted build continue, and NAME.lock, which keeps two processes from building the same. After a failure, NAME.log
has the output of the command that failed.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from devices.errors import PyemuError
from emu.guest import kernel, requirements, rootfs
from emu.guest.job import Job

__all__ = ["build", "obtain"]


def build(kernel_part: Path, rootfs_part: Path, progress: Callable[[str], None]) -> None:
    """Build the kernel and the root file system, unless they are there.

    Raises MissingPackageError, before doing anything, if that needs a package missing on the host; else like obtain.
    """
    requirements.check(kernel=not kernel_part.is_dir(), rootfs=not rootfs_part.is_dir())
    if not kernel_part.is_dir():
        progress("building the default guest, which takes some minutes, but only once")
    obtain(kernel_part, kernel.build, progress)
    obtain(rootfs_part, rootfs.build, progress)


def obtain(finished: Path, make: Callable[[Job, Path], None], progress: Callable[[str], None]) -> None:
    """Make sure that the directory finished exists; if it does not, make(job, out) must fill the directory out.

    Raises PyemuError if the cache cannot be written, or what make raises.
    """
    if finished.is_dir():
        return
    path = finished.with_name(f"{finished.name}.lock")
    try:
        with _locked(path, progress) as lock:
            if not finished.is_dir():  # else another process built it while this one waited
                _build(finished, make, lock, progress)
            path.unlink()
    except OSError as error:
        reason = error.strerror or error
        message = f"the guest cannot be built in {finished.parent}: {reason}; PYEMU_CACHE chooses another place"
        raise PyemuError(message) from error


def _build(finished: Path, make: Callable[[Job, Path], None], lock: int, progress: Callable[[str], None]) -> None:
    work = finished.with_name(f"{finished.name}.work")
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    make(Job(work, progress, lock), out)
    for file in out.rglob("*"):
        if file.is_file():
            _flush(file)
    out.rename(finished)
    if any(work.iterdir()):  # which takes seconds
        progress(f"removing {work.name}")
    shutil.rmtree(work)
    finished.with_name(f"{finished.name}.log").unlink(missing_ok=True)


def _flush(file: Path) -> None:
    """Write the contents to disk before the rename, so that a power cut leaves no empty file under the final name."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock at path; yields its file descriptor. The kernel releases it if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("waiting for another build")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_there(file, path):  # who held it has finished, and removed it: it keeps nobody out any more
                continue
            yield file.fileno()
            return


def _is_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
