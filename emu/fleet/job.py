"""What a sweep's machines have in common, as it is sent to whoever runs them."""

import hashlib
import json
import os
import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from devices.errors import UsageError
from emu.fleet.files import File
from emu.fleet.target import Target
from emu.options import parse_size

__all__ = ["Job", "Limits", "canonical"]

#: Machine's arguments that a sweep sets itself.
_OURS = {"output", "trace", "seed", "close_audio", "record", "replay"}
#: Those that are files, and those with an option of ``pyemu sweep``, by their names there.
_FILES = ("kernel", "initrd", "bios")
_TOLD = {name: name for name in (*_FILES, "memory", "append", "audio", "clock")} | {"disk": "disk", "disks": "disk"}


_LONGEST_S = 1e7


class Limits(NamedTuple):
    """What a case may take at most."""

    seconds: float
    #: Of the process that runs it, its machine's RAM included, in bytes.
    memory: int

    @classmethod
    def of(cls, seconds: float, memory: str | int) -> "Limits":
        """Check the limits; raises UsageError."""
        if not 0 < seconds <= _LONGEST_S:
            raise UsageError(f"timeout: {seconds!r} is not a number of seconds that a case may take")
        return cls(seconds, parse_size(memory))


class Job(NamedTuple):
    """A test, and what each of its machines is made of."""

    target: Target
    #: Machine's arguments; its kernel may be a snapshot's file.
    options: dict[str, Any]
    limits: Limits
    #: Tells this sweep from any other.
    key: str

    @classmethod
    def make(cls, target: Target, options: Mapping[str, Any], limits: Limits) -> "Job":
        """Check the options, and complete them; raises UsageError."""
        for name in sorted(_OURS & options.keys()):
            raise UsageError(f"{name} cannot be chosen for a sweep: it is each case's own")
        made = {"clock": "warp", **{name: value for name, value in options.items() if value is not None}}
        for name in _FILES:
            if name in made:
                made[name] = _existing(made[name])
        if not {"kernel", "bios"} & made.keys():
            made = _default_guest(made)
        return cls(target, made, limits, uuid.uuid4().hex)

    def to_send(self) -> "Job":
        """Return the job for other computers: its files are known by their contents."""
        files = {name: File.of(path) for name, path in self.options.items() if name in _FILES}
        return self._replace(options=self.options | files)

    @property
    def files(self) -> dict[str, File]:
        """Its files, in a job that was sent."""
        return {name: value for name, value in self.options.items() if isinstance(value, File)}

    def identity(self) -> str:
        """Return a checksum of the test and of what its machines are made of: the same in each sweep of these."""
        digest = hashlib.sha256(f"{self.target.name}\0".encode() + self.target.text())
        for name, value in sorted(self.options.items()):
            digest.update(f"\0{name}\0{File.of(value).sha256 if name in _FILES else value}".encode())
        return digest.hexdigest()[:16]

    def repeat(self, case: Mapping[str, Any], seed: int) -> str:
        """Return the command line that runs one case alone; "" for options or a case that it cannot have."""
        words = []
        for name, chosen in self.options.items():
            value = chosen.path if isinstance(chosen, File) else chosen
            for one in value if isinstance(value, list | tuple) else (value,):
                if name not in _TOLD or not isinstance(one, str | int):
                    return ""
                if (name, one) != ("clock", "warp"):
                    words += [f"--{_TOLD[name]}", str(one)]
        try:
            text = canonical(case)
        except (TypeError, ValueError):
            return ""
        own = [] if "seed" in case else ["--seed", str(seed)]
        return shlex.join(["pyemu", "sweep", str(self.target), "--case", text, *words, *own])


def canonical(case: Mapping[str, Any]) -> str:
    """Return ``case`` as JSON: the same text for equal cases. Raises TypeError or ValueError for what JSON lacks."""
    return json.dumps(case, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _default_guest(options: dict[str, Any]) -> dict[str, Any]:
    """Have each machine go on from the default guest at its shell, if it need not have been there when it booted."""
    from emu import guest  # noqa: PLC0415 - whoever has a kernel needs no other
    from emu.arguments import GUEST_APPEND  # noqa: PLC0415
    from emu.snapshot.ready import ready  # noqa: PLC0415

    kernel, rootfs = guest.files()
    options = {"initrd": str(rootfs), **options}
    if options.keys() & {"disk", "disks", "share", "shares", "net", "nets"} or "streams=" in str(options.get("audio")):
        return {"kernel": str(kernel), "append": GUEST_APPEND, **options}
    sooner: dict[str, Any] = {name: options.pop(name) for name in ("memory", "append") if name in options}
    return {"kernel": str(ready(kernel, Path(options.pop("initrd")), sooner)), **options}


def _existing(file: str | os.PathLike[str]) -> str:
    path = os.fspath(file)
    try:
        with open(path, "rb"):  # noqa: PTH123 - a path may be bytes for all we know
            return path
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
