"""A machine at one instant: what it is made of, the state of each part, its RAM and what its disks have changed.

It is taken between two turns of the machine's loop, where nothing is under way that is not in a part's state.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from devices.errors import UsageError
from devices.state import I64, U8, U64, Stateful, check
from devices.virtio.disk import Disk, DiskState, reopen_disk
from emu.memory import PAGE, Ram, RamImage, SharedFile
from emu.snapshot import file
from emu.snapshot.file import Region, write_all
from emu.snapshot.plain import encode, parse, type_of

__all__ = ["Body", "Made", "Snapshot", "save"]

_RAM = "ram"
#: As many digits as Python makes a number of.
_SEED = re.compile(r"-?\d{1,4000}", re.ASCII)
_CHANCE, _JITTER = "chance", "jitter"


class Made(TypedDict):
    """What a machine is made of, beside the states of its parts."""

    memory: U64
    append: str
    #: Whether it has firmware of its own, in M mode, instead of the built-in one.
    bios: bool
    dtb: bytes
    #: A whole number of any size, in decimal; None where chance was the host's.
    seed: str | None
    #: What the calendar showed at guest time 0, in ns since the epoch.
    calendar: I64
    #: The sound device's: for playing, for recording.
    streams: tuple[U8, U8]
    #: The tags of the directories that it shares with the guest; which directories these are, only the user says.
    shares: list[str]
    #: How many network cards it has; what they are plugged into is the user's affair.
    cards: U8


class _Plain(TypedDict):
    made: Made
    states: dict[str, Any]
    disks: list[DiskState]


class Body(NamedTuple):
    """A machine, as far as it is saved: its parts, in the order in which they are restored; its RAM and its disks."""

    parts: Mapping[str, Stateful]
    ram: Ram
    disks: Sequence[Disk]


class _Places(NamedTuple):
    """Where RAM and disks are, in the file that all machines share."""

    file: SharedFile
    regions: Mapping[str, Region]

    def image(self, name: str) -> RamImage:
        return RamImage(self.file, self.regions[name].offset)

    def reader(self, name: str) -> Callable[[int, int], bytes]:
        """Return what reads so many bytes from an offset."""
        start, file_ = self.regions[name].offset, self.file
        return lambda offset, size: os.pread(file_.fileno(), size, start + offset).ljust(size, b"\0")


class Snapshot:
    """A machine at one instant. Any number of machines go on from there, and none of them changes it.

        with Machine(clock="warp") as machine:
            machine.console.run("modprobe my_driver")
            ready = machine.snapshot()
            for case in cases:
                machine.restore(ready)
                check(machine, case)

    ``Machine.snapshot`` makes one in memory, ``Machine.save`` a file, which ``Snapshot.open`` reads.
    """

    def __init__(self, made: Made, states: Mapping[str, Any], disks: list[DiskState], places: _Places) -> None:
        #: What its machine was made of.
        self.made = made
        #: The state of each part; in a file's they are not parsed yet.
        self._states, self._parsed = states, False
        self._disks, self._places = disks, places
        self.ram = places.image(_RAM)

    @classmethod
    def take(cls, made: Made, body: Body) -> "Snapshot":
        """Make one in memory. What the machine changes from now on is all that its RAM takes beside it.

        Raises UsageError if there is no room for it.
        """
        regions, end = {}, 0
        try:
            memory = SharedFile(os.memfd_create("pyemu", os.MFD_CLOEXEC))
            for name, (size, write) in _regions(body).items():
                regions[name] = Region(end, size)
                end += -(-size // PAGE) * PAGE
                os.ftruncate(memory.fileno(), end)
                write(RamImage(memory, regions[name].offset))
        except OSError as error:
            raise UsageError(f"the host has no room for a snapshot in memory: {error.strerror}") from error
        taken = cls(made, _states(body), [disk.state() for disk in body.disks], _Places(memory, regions))
        taken._parsed = True
        body.ram.rest_on(taken.ram)
        return taken

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Snapshot":
        """Read the file ``path``; raises UsageError, one line, if it is no snapshot, or damaged, or of another format.

        The file must not change while any machine runs that goes on from it; to replace it by another is no change.
        """
        contents = file.read(Path(path))
        plain: _Plain = parse(contents.plain, _Plain, "it")
        made, disks = plain["made"], plain["disks"]
        sizes = {_RAM: made["memory"]} | {_disk(number): disk["image"]["size"] for number, disk in enumerate(disks)}
        check({name: region.size for name, region in contents.regions.items()} == sizes, "the size of RAM or of a disk")
        check(made["seed"] is None or _SEED.fullmatch(made["seed"]) is not None, "the seed")
        return cls(made, plain["states"], disks, _Places(contents.file, contents.regions))

    @property
    def seed(self) -> int | None:
        """Where its machine's chance came from; None if that was the host."""
        return None if self.made["seed"] is None else int(self.made["seed"])

    def identity(self) -> str:
        """Return what tells this file from any other; raises UsageError for a snapshot in memory."""
        if self._parsed:
            raise UsageError("a run that is recorded can begin with a snapshot's file only; save() makes one")
        return file.identity(self._places.file)

    def check_fits(self, made: Made) -> None:
        """Raise UsageError if a machine that is ``made`` so can't become this one."""
        for name in ("memory", "bios", "streams", "cards"):
            if made[name] != self.made[name]:
                hint = "; give each its --net again" if name == "cards" else ""
                raise UsageError(f"the snapshot has {name}: {self.made[name]}, and this machine {made[name]}{hint}")
        if made["shares"] != self.made["shares"]:
            raise UsageError(_other_shares(self.made["shares"]))

    def open_disks(self) -> list[Disk]:
        """Open the disks that its machine had; raises UsageError, naming one that cannot be, or has changed."""
        disks: list[Disk] = []
        try:
            for number, state in enumerate(self._disks):
                _refuse_writing(state)
                disks.append(reopen_disk(state, self._places.reader(_disk(number))))
        except BaseException:
            for disk in disks:
                disk.close()
            raise
        return disks

    def restore(self, body: Body, *, same_seed: bool) -> None:
        """Make a machine of the same kind what this one was; raises UsageError if it is none, or this is damaged.

        What comes by chance goes on as it did from the ``same_seed``; from another, it begins anew.
        """
        if len(body.disks) != len(self._disks):
            raise UsageError(f"the snapshot has disks: {len(self._disks)}, and this machine {len(body.disks)}")
        parts = {name: part for name, part in body.parts.items() if same_seed or name != _CHANCE}
        if _JITTER not in parts and _JITTER in self._states:
            raise UsageError(
                f"the snapshot is of a machine with its own timing; go on with --clock warp --seed {self.made['seed']}"
            )
        nothing_late: dict[str, Any] = {} if _JITTER in self._states else {_JITTER: {"devices": {}, "lines": {}}}
        states = {name: nothing_late.get(name) or self._state_of(name, part) for name, part in parts.items()}
        for number, (disk, state) in enumerate(zip(body.disks, self._disks, strict=True)):
            disk.restore(state, self._places.reader(_disk(number)))
        for name, part in parts.items():
            part.restore(states[name])

    def _state_of(self, name: str, part: Stateful) -> Any:
        check(name in self._states, f"{name}, which is not there,")
        return self._states[name] if self._parsed else parse(self._states[name], type_of(part), name)


def save(path: Path, made: Made, body: Body) -> None:
    """Write a snapshot to ``path``; raises UsageError if that cannot be done."""
    disks = [disk.state() for disk in body.disks]
    try:
        for disk, state in zip(body.disks, disks, strict=True):
            state["image"]["sha256"] = disk.digest()
    except OSError as error:
        raise UsageError(f"a disk of the machine cannot be read: {error.strerror}") from error
    plain: _Plain = {"made": made, "states": _states(body), "disks": disks}
    file.write(path, encode(plain), _regions(body))


def _states(body: Body) -> dict[str, Any]:
    return {name: part.state() for name, part in body.parts.items()}


def _disk(number: int) -> str:
    return f"disk {number}"


def _regions(body: Body) -> dict[str, tuple[int, Callable[[RamImage], None]]]:
    """What is saved beside the states: how much room it takes, holes included, and what writes it."""
    disks = {_disk(number): (disk.size, partial(_save_changes, disk)) for number, disk in enumerate(body.disks)}
    return {_RAM: (body.ram.size, body.ram.save), **disks}


def _save_changes(disk: Disk, place: RamImage) -> None:
    disk.copy_changes(lambda offset, data: write_all(place.file, place.offset + offset, data))


def _other_shares(tags: list[str]) -> str:
    if not tags:
        return "the snapshot's machine has no shared directory, and can be given none; boot one with --share"
    again = " ".join(f"--share DIR,tag={tag}" for tag in tags)
    return f"the snapshot's machine shares directories with its guest; name them again: {again}"


def _refuse_writing(state: DiskState) -> None:
    """Raise UsageError for an image that would be written to: nobody but a file has named it."""
    image = state["image"]
    if state["changed"] is None and not image["read_only"]:
        raise UsageError(f"the snapshot's machine writes to {image['path']}; if you want that: --disk {image['path']}")
