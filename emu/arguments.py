"""What a Machine is given: its arguments are checked, completed with the defaults, and opened."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from devices.audio import AudioBackend, NullSink, parse
from devices.errors import UsageError
from emu.chance import Chance
from emu.jitter import USUAL_SEED, draw_ps_per_block, shifts_timing
from emu.options import parse_disk, parse_size
from emu.snapshot.magic import is_snapshot
from emu.timing.clock import Clock, make_clock
from emu.timing.warp import WarpClock

if TYPE_CHECKING:
    from devices.net import NetBackend
    from devices.virtio.disk import Disk
    from devices.virtio.net import NetDevice
    from emu.machine import Machine
    from emu.memory import RamImage
    from emu.recording import Reader, Recorder, Replayer, Writer
    from emu.snapshot.snapshot import Snapshot

__all__ = [
    "DEFAULT_APPEND", "DEFAULT_MEMORY", "GUEST_APPEND", "File", "Origin", "blaming_the_cache", "check", "open_audio",
    "open_cards", "open_disks", "open_journal", "origin", "time_and_chance",
]  # fmt: skip

DEFAULT_MEMORY = "256M"
DEFAULT_APPEND = "console=ttyS0"
#: The default guest's. Translated code belongs to an address: without a new random one at each start, programs with
#: shared libraries start three times as fast.
GUEST_APPEND = f"{DEFAULT_APPEND} norandmaps"

File = str | os.PathLike[str]

#: What an argument must have one of (a text has ``encode``), and what to ask for if it has none.
_FILE = (("__fspath__", "encode"), "the name of a file")
_ARGUMENTS = {
    "kernel": (("__fspath__", "encode", "made"), "the name of a file, or a snapshot"),
    "initrd": _FILE,
    "bios": _FILE,
    "append": (("encode",), "a text"),
    "disk": (("write_zeroes", "encode"), 'a text like "disk.img,snapshot", or an opened disk'),
    "net": (("transmit", "encode"), 'a text like "user", or a Wire'),
    "audio": (("open_playback", "encode"), 'a text like "wav:out.wav", or a backend'),
    "clock": (("now", "encode"), '"host", "warp" or a clock'),
    "trace": (("joints",), "a Trace"),
    "seed": (("bit_length",), "a whole number"),
    "record": (("__fspath__", "encode", "write"), "the name of a file"),
    "replay": (("__fspath__", "encode", "take"), "the name of a file"),
}
_REQUIRED = ("clock", "disk", "net")


def check(**arguments: object) -> None:
    """Raise UsageError for an argument of the wrong kind: not everybody has types checked."""
    for name, value in arguments.items():
        members, wanted = _ARGUMENTS[name]
        missing = value is None and name not in _REQUIRED
        if not missing and not any(hasattr(value, member) for member in members):
            raise UsageError(f"{name}={value!r} cannot be used; give {wanted}")


class Origin(NamedTuple):
    """What a machine begins with: software to boot, or a snapshot to go on from."""

    kernel: File | None
    initrd: File | None
    bios: File | None
    memory: int
    append: str
    snapshot: "Snapshot | None" = None

    @property
    def files(self) -> dict[str, File | None]:
        """The software, as far as there is any: ``kernel``, ``initrd`` and ``bios``."""
        return {"kernel": self.kernel, "initrd": self.initrd, "bios": self.bios}

    @property
    def seed(self) -> int | None:
        """The snapshot's."""
        return None if self.snapshot is None else self.snapshot.seed

    @property
    def ram(self) -> "RamImage | None":
        """What is in RAM at first, if it is not zeros."""
        return None if self.snapshot is None else self.snapshot.ram


def origin(
    kernel: "File | Snapshot | None",
    initrd: File | None,
    bios: File | None,
    memory: str | int | None,
    append: str | None,
) -> Origin:
    """Return what is to be booted: the user's, or the default guest's where there is neither a kernel nor firmware.

    A kernel that is a snapshot, or its file, has all the rest with it. Raises UsageError.
    """
    snapshot = None if kernel is None else _snapshot(kernel)
    if snapshot is not None:
        for name, value in {"initrd": initrd, "bios": bios, "memory": memory, "append": append}.items():
            if value is not None:
                raise UsageError(f"a snapshot has its own {name}, which is not {value!r}; leave that out")
        return Origin(None, None, None, snapshot.made["memory"], snapshot.made["append"], snapshot)
    default = DEFAULT_APPEND
    assert kernel is None or isinstance(kernel, str | os.PathLike)
    if kernel is None and bios is None:
        from emu import guest  # noqa: PLC0415 - whoever has a kernel needs no other

        kernel, rootfs = guest.files()
        initrd = rootfs if initrd is None else initrd
        default = GUEST_APPEND
    size = parse_size(DEFAULT_MEMORY if memory is None else memory)
    return Origin(kernel, initrd, bios, size, default if append is None else append)


def _snapshot(kernel: "File | Snapshot") -> "Snapshot | None":
    """Return the snapshot that ``kernel`` is, or is the file of, if so."""
    if not isinstance(kernel, str | os.PathLike):
        return kernel
    if not is_snapshot(kernel):
        return None
    from emu.snapshot.snapshot import Snapshot  # noqa: PLC0415 - not needed to boot

    return Snapshot.open(kernel)


@contextmanager
def blaming_the_cache(*files: File | None) -> Iterator[None]:
    """Say what to do where a file that cannot work is the default guest's, which nobody can copy again."""
    try:
        yield
    except UsageError as error:
        from emu.guest import cache  # noqa: PLC0415 - not needed to boot

        for file in files:
            if file is not None and cache.directory() in Path(file).parents and str(error).startswith(f"{file}: "):
                what = str(error).partition(";")[0]
                raise UsageError(f"{what}; remove {Path(file).parent}, then: pyemu guest build") from error
        raise


def time_and_chance(clock: Clock | str, seed: int | None, saved: int | None = None) -> tuple[Clock, Chance]:
    """Return the machine's clock, and where its chance comes from: with the warp clock the ``saved`` seed by default.

    Raises UsageError.
    """
    made = make_clock(clock) if isinstance(clock, str) else clock
    if seed is None and isinstance(made, WarpClock):
        seed = USUAL_SEED if saved is None else saved
    chance = Chance(seed)
    if isinstance(clock, str) and shifts_timing(made, chance):  # whoever made a clock has said how fast it is
        made = WarpClock(draw_ps_per_block(chance))
    return made, chance


def open_journal(
    record: "File | Writer | None", replay: "File | Reader | None", clock: Clock, opened: ExitStack
) -> "Recorder | Replayer | None":
    """Open what this run is recorded in, or is to repeat; ``opened`` closes it. Raises UsageError."""
    if record is None and replay is None:
        return None
    from emu.recording import Reader, Recorder, Replayer, Writer  # noqa: PLC0415 - not needed to boot

    if record is not None and replay is not None:
        raise UsageError("a replay is the same run as its recording; use one of record and replay")
    if not isinstance(clock, WarpClock):
        raise UsageError("a run can be recorded and replayed with the warp clock only; use --clock warp")
    if replay is not None:
        return Replayer(replay if isinstance(replay, Reader) else opened.enter_context(Reader(replay)))
    assert record is not None
    return Recorder(record if isinstance(record, Writer) else opened.enter_context(Writer(record)))


def open_disks(disks: "Sequence[Disk | str]", snapshot: "Snapshot | None") -> "Iterator[Disk]":
    """Open the disks, those that are not open: by default the snapshot's. Raises UsageError."""
    if snapshot is not None and not disks:
        yield from snapshot.open_disks()
    for disk in disks:
        check(disk=disk)
        yield parse_disk(disk) if isinstance(disk, str) else disk


def open_cards(nets: "Sequence[NetBackend | str]", machine: "Machine", opened: ExitStack) -> "list[NetDevice]":
    """Make a card for each of ``nets``; ``opened`` closes those that are opened here. Raises UsageError."""
    if not nets:
        return []
    for net in nets:
        check(net=net)
    from emu.cards import make_cards  # noqa: PLC0415 - most machines have none

    return make_cards(nets, machine, opened)


def open_audio(audio: AudioBackend | str | None, *, real_time: bool) -> AudioBackend:
    """Make the backend, unless it is one; raises UsageError."""
    if audio is None:
        return NullSink()
    return parse(audio, real_time=real_time) if isinstance(audio, str) else audio
