"""A guest that has booted, as a snapshot in the cache: made once, by the first who asks, for whoever asks after that.

It is kept under a checksum of all that it comes from, pyemu itself included, so it can't be out of date. What
nobody has used for a month is removed when another one is made.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emu.arguments import DEFAULT_MEMORY
from emu.guest import cache
from emu.guest.building import obtain
from emu.guest.job import Job
from emu.machine import Machine
from emu.options import parse_size
from emu.shell import Shell

__all__ = ["SNAPSHOT", "ready"]

SNAPSHOT = "ready.pyemu"
_ROOT = Path(__file__).parents[2]
_SOURCES = ("devices", "emu", "firmware")


def ready(
    kernel: Path,
    initrd: Path | None,
    options: Mapping[str, Any],
    progress: Callable[[str], None] = lambda _line: None,
    *,
    for_people: bool = False,
) -> Path:
    """Return a snapshot of the guest at its shell, where ``console.run`` goes on with the very next command.

    ``options`` are further arguments of Machine: ``memory`` and ``append``. ``for_people``, the shell has a prompt as
    they know it. Raises ShellError if there is no shell, UsageError for what can't be booted, PyemuError if the cache
    cannot be written.
    """
    files = [kernel] if initrd is None else [kernel, initrd]
    options = {**options, "memory": parse_size(options.get("memory") or DEFAULT_MEMORY)}
    chosen = sorted(options.items())
    key = cache.digest(*files, repr(chosen), str(for_people), *_sources())
    part = cache.directory() / f"ready-{key}"

    def make(_job: Job, out: Path) -> None:
        progress("booting the guest, for a snapshot of it that is kept")
        with Machine(kernel, initrd, clock="warp", **options) as machine:
            if for_people:
                Shell(machine, "--quick").wait()
            else:
                machine.console.run("true")
            machine.save(out / SNAPSHOT)

    made = not part.is_dir()
    obtain(part, make, progress)
    cache.use(part)
    if made:  # each change of a kernel, of an overlay, of pyemu leaves one behind
        cache.forget(cache.directory().glob(f"ready-{'[0-9a-f]' * len(key)}*"))
    return part / SNAPSHOT


def _sources() -> list[Path]:
    """All of pyemu that a snapshot may depend on."""
    paths = (Path(folder) / name for top in _SOURCES for folder, _, names in os.walk(_ROOT / top) for name in names)
    return sorted(path for path in paths if path.suffix in {".py", ".c"})
