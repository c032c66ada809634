"""Where Unicorn's library is; and loading it while Python is busy with something else."""

import ctypes
import os
import threading
from importlib.util import find_spec
from pathlib import Path

__all__ = ["load_meanwhile", "package", "path"]


def package() -> Path:
    """Return the directory of the package unicorn, without running it; raises ModuleNotFoundError."""
    spec = find_spec("unicorn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'unicorn'", name="unicorn")
    return Path(spec.origin).parent


def path() -> Path | None:
    """Return where the library is, or None where only the package itself knows."""
    found = package() / "lib" / "libunicorn.so.2"
    return None if "LIBUNICORN_PATH" in os.environ or not found.exists() else found


def load_meanwhile() -> None:
    """Load the library on another thread: its 45,000 relocations take 13 ms, with Python's lock if Python does it."""
    try:
        found = path()
    except ModuleNotFoundError:
        return  # whoever needs it says so
    if found is not None:
        name, load = os.fsencode(found), ctypes.CDLL(None).dlopen
        threading.Thread(target=load, args=(name, os.RTLD_NOW), name="pyemu loader", daemon=True).start()
