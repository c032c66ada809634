"""The command line that repeats a run, for people to copy."""

import shlex
from collections.abc import Mapping

__all__ = ["boot_line"]


def boot_line(image: object, rootfs: object, options: Mapping[str, object]) -> str:
    """Return ``pyemu boot`` with these ``options``, by their long names.

    A tuple or a list is an option repeated, True a flag; None and False are left out.
    """
    words = ["pyemu", "boot", *(str(file) for file in (image, rootfs) if file is not None)]
    for name, value in options.items():
        for one in value if isinstance(value, tuple | list) else (value,):
            if one is not None and one is not False:
                words += [f"--{name}"] if one is True else [f"--{name}", str(one)]
    return shlex.join(words)
