"""What is left behind in this process: descriptors and threads."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["descriptors", "leaves_nothing", "threads"]


def descriptors() -> set[tuple[str, str]]:
    """All that are open, and of what."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.add((path.name, os.readlink(path)))  # noqa: PTH115 - of what is no file, too
        except FileNotFoundError:  # the one of the directory itself, or one that another thread has closed
            continue
    return found


def threads() -> set[threading.Thread]:
    """All that run."""
    return set(threading.enumerate())


@contextmanager
def leaves_nothing() -> Iterator[None]:
    """Nothing new may be there afterwards; what earlier tests have left may go meanwhile."""
    gc.collect()
    before = descriptors(), threads()
    yield
    assert descriptors() - before[0] == set()
    assert threads() - before[1] == set()
