"""How a snapshot's file is recognised: a quick look at each kernel that is booted."""

import os
import stat

__all__ = ["MAGIC", "is_snapshot"]

MAGIC = b"pyemu snapshot\n\0"


def is_snapshot(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins like a snapshot; False where there is none to be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - nothing may be taken out of a pipe
            return False
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False
