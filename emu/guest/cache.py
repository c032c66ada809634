"""The cache of what was built: a directory for each part of the guest, named after a hash of its inputs.

A finished part appears under its name in one step (rename) and never changes. Beside it, only while it is being built:
NAME.work, which lets an interrupted build go on, and NAME.lock, so that two at once do not build the same. After a
failure, NAME.log has the output of the command that failed.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emu.errors import PyemuError
from emu.guest.job import Job

__all__ = ["digest", "directory", "obtain"]


def directory() -> Path:
    """Return where the guest is cached: $PYEMU_CACHE, else pyemu in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("PYEMU_CACHE"):
        return Path(own).absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG base directory specification says to ignore a relative one.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "pyemu"


def digest(*inputs: Path | str) -> str:
    """Return a short hash of texts, and of files and whole directories by relative name and content."""
    total = hashlib.sha256()
    for item in inputs:
        for name, data in [("", item.encode())] if isinstance(item, str) else _contents(item):
            total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()[:12]


def _contents(path: Path) -> Iterable[tuple[str, bytes]]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return ((str(file.relative_to(path.parent)), file.read_bytes()) for file in files if file.is_file())


def obtain(name: str, build: Callable[[Job, Path], None], progress: Callable[[str], None]) -> Path:
    """Return the directory of the part called name; if there is none yet, build(job, out) must fill the directory out.

    Raises PyemuError if the cache cannot be written, or what build raises.
    """
    finished = directory() / name
    if finished.is_dir():
        return finished
    try:
        with _locked(finished.with_name(f"{name}.lock"), progress) as lock:
            if not finished.is_dir():  # else another process built it while this one waited
                _build(finished, build, lock, progress)
    except OSError as error:
        message = f"the guest cannot be built in {directory()}: {error}; PYEMU_CACHE chooses another place"
        raise PyemuError(message) from error
    return finished


def _build(finished: Path, build: Callable[[Job, Path], None], lock: int, progress: Callable[[str], None]) -> None:
    work = finished.with_name(f"{finished.name}.work")
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    build(Job(work, progress, lock), out)
    for file in out.iterdir():
        _flush(file)
    out.rename(finished)
    progress(f"removing {work.name}")
    shutil.rmtree(work)
    finished.with_name(f"{finished.name}.lock").unlink()


def _flush(file: Path) -> None:
    """Have the contents on disk before the name, so that a power cut leaves no empty file under the final name."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock at path; yields its file descriptor. The kernel gives it back if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
