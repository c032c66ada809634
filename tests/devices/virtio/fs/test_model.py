"""Random programs do in a share what they do in a directory of the host."""

# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH211 - the host's own calls are the model

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from devices.virtio.fs import calls
from tests.devices.virtio.fs import guest as fuse
from tests.devices.virtio.fs.guest import ROOT, FsGuest, FuseError

O_RDWR, O_TRUNC, O_APPEND = 2, 0o1000, 0o2000
PATHS = ["a", "b", "d", "d/a", "d/b", "d/d", "d/d/a"]
Outcome = object


class Here:
    """The model: the host's own calls, in a directory of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[int, int] = {}

    @property
    def paths(self) -> "Here":
        return self

    def __getitem__(self, path: str) -> Path:
        """Return a path, whose directories must be no links: in a guest, Linux follows them."""
        place = self.folder / path
        if any(parent.is_symlink() for parent in (place.parent, place.parent.parent)):
            raise NotADirectoryError(errno.ENOTDIR, "")
        return place

    def create(self, slot: int, path: str, _: str, number: int) -> Outcome:
        self.close(slot)
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number % 2 else 0) | (os.O_EXCL if number % 5 == 0 else 0)
        self.files[slot] = os.open(self.paths[path], flags | os.O_NOFOLLOW, 0o644)
        return None

    def open(self, slot: int, path: str, _: str, number: int) -> Outcome:
        self.close(slot)
        self.files[slot] = os.open(self.paths[path], os.O_RDWR | os.O_NOFOLLOW | (os.O_TRUNC if number % 9 == 0 else 0))
        return None

    def close(self, slot: int, *_: Any) -> Outcome:
        if slot in self.files:
            os.close(self.files.pop(slot))
        return None

    def write(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.pwrite(self.files[slot], data(number), number) if slot in self.files else None

    def append(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.pwritev(self.files[slot], [data(number)], 0, os.RWF_APPEND) if slot in self.files else None

    def read(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.pread(self.files[slot], 2000, number) if slot in self.files else None

    def truncate(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.ftruncate(self.files[slot], number) if slot in self.files else None

    def size(self, slot: int, path: str, other: str, number: int) -> Outcome:
        if slot not in self.files:
            return None
        status = os.fstat(self.files[slot])
        return status.st_size, status.st_nlink

    def mkdir(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.mkdir(self.paths[path], 0o755)

    def rmdir(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.rmdir(self.paths[path])

    def unlink(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.unlink(self.paths[path])

    def rename(self, slot: int, path: str, other: str, number: int) -> Outcome:
        flags = number % 4 if number % 4 < 3 else 0
        if flags:
            return calls.renameat2(-1, bytes(self.paths[path]), -1, bytes(self.paths[other]), flags)
        return os.rename(self.paths[path], self.paths[other])

    def link(self, slot: int, path: str, other: str, number: int) -> Outcome:
        os.lstat(self.paths[path])
        return os.link(self.paths[path], self.paths[other], follow_symlinks=False)

    def symlink(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return os.symlink(other, self.paths[path])

    def chmod(self, slot: int, path: str, other: str, number: int) -> Outcome:
        if stat.S_ISLNK(os.lstat(self.paths[path]).st_mode):
            return None
        return os.chmod(self.paths[path], number & 0o777 | 0o700)


class There:
    """The same in a share."""

    def __init__(self, folder: Path) -> None:
        self.guest = FsGuest(folder)
        self.files: dict[int, int] = {}
        self.nodes: dict[int, int] = {}

    def parent(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return (self.guest.lookup(folder).node if folder else ROOT), name

    def create(self, slot: int, path: str, _: str, number: int) -> Outcome:
        self.close(slot)
        flags = O_RDWR | (O_TRUNC if number % 2 else 0) | (0o200 if number % 5 == 0 else 0)
        node, name = self.parent(path)
        (self.nodes[slot], _attr), self.files[slot] = self.guest.create(name, node, flags)
        return None

    def open(self, slot: int, path: str, _: str, number: int) -> Outcome:
        self.close(slot)
        node = self.guest.lookup(path).node
        self.files[slot] = self.guest.open(node, O_RDWR | (O_TRUNC if number % 9 == 0 else 0))
        self.nodes[slot] = node
        return None

    def close(self, slot: int, *_: Any) -> Outcome:
        if slot in self.files:
            self.guest.release(self.files.pop(slot))
        return None

    def write(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return self.guest.write(self.files[slot], number, data(number)) if slot in self.files else None

    def append(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return self.guest.write(self.files[slot], 0, data(number), O_APPEND) if slot in self.files else None

    def read(self, slot: int, path: str, other: str, number: int) -> Outcome:
        return self.guest.read(self.files[slot], number, 2000) if slot in self.files else None

    def truncate(self, slot: int, path: str, other: str, number: int) -> Outcome:
        if slot in self.files:
            self.guest.setattr(self.nodes[slot], fuse.SIZE | fuse.BY_FILE, file=self.files[slot], size=number)
        return None

    def size(self, slot: int, path: str, other: str, number: int) -> Outcome:
        if slot not in self.files:
            return None
        attr = self.guest.getattr(self.nodes[slot])
        return attr.size, attr.nlink

    def mkdir(self, slot: int, path: str, other: str, number: int) -> Outcome:
        node, name = self.parent(path)
        self.guest.mkdir(name, node)
        return None

    def rmdir(self, slot: int, path: str, other: str, number: int) -> Outcome:
        node, name = self.parent(path)
        return self.guest.rmdir(name, node)

    def unlink(self, slot: int, path: str, other: str, number: int) -> Outcome:
        node, name = self.parent(path)
        return self.guest.unlink(name, node)

    def rename(self, slot: int, path: str, other: str, number: int) -> Outcome:
        (node, name), (to, new) = self.parent(path), self.parent(other)
        return self.guest.rename(name, new, node, to, number % 4 if number % 4 < 3 else 0)

    def link(self, slot: int, path: str, other: str, number: int) -> Outcome:
        old = self.guest.lookup(path).node
        node, name = self.parent(other)
        self.guest.link(old, name, node)
        return None

    def symlink(self, slot: int, path: str, other: str, number: int) -> Outcome:
        node, name = self.parent(path)
        self.guest.symlink(name, other, node)
        return None

    def chmod(self, slot: int, path: str, other: str, number: int) -> Outcome:
        entry = self.guest.lookup(path)
        if not stat.S_ISLNK(entry.attr.mode):
            self.guest.setattr(entry.node, fuse.MODE, mode=number & 0o777 | 0o700)
        return None


def data(number: int) -> bytes:
    return bytes([number % 251]) * (number % 700)


#: What the host can do while the guest has the share.
OF_NAMES = {"mkdir", "rmdir", "unlink", "rename", "link", "symlink", "chmod"}
OPERATIONS = [name for name, value in vars(There).items() if callable(value) and name not in {"__init__", "parent"}]


def outcome(act: Callable[..., Outcome], arguments: tuple[Any, ...]) -> Outcome:
    try:
        return act(*arguments)
    except FuseError as error:
        return f"refused: {error.errno}"
    except OSError as error:
        # Linux, in a guest, opens no link: a device that is asked to says that this is nonsense.
        return f"refused: {errno.EINVAL if error.errno == errno.ELOOP else error.errno}"


def seen(folder: Path) -> list[object]:
    """All that is in a directory."""
    return [
        (
            str(path.relative_to(folder)),
            path.lstat().st_mode,
            path.lstat().st_nlink,
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(folder.rglob("*"))
    ]


steps = st.tuples(st.integers(0, 2), st.sampled_from(PATHS), st.sampled_from(PATHS), st.integers(0, 3000))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), steps, st.booleans()), max_size=60))
def test_a_share_is_like_a_directory(program: list[tuple[str, tuple[int, str, str, int], bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder, "here"), Path(folder, "there")
        for one in (here, there):
            (one / "d").mkdir(parents=True)
            (one / "a").write_bytes(b"a")
        model, share, host = Here(here), There(there), Here(there)
        for name, arguments, by_host in program:
            ours = host if by_host and name in OF_NAMES else share
            expected = outcome(getattr(model, name), arguments)
            assert outcome(getattr(ours, name), arguments) == expected, (name, arguments)
        assert seen(there) == seen(here)
        share.guest.close()
        for slot in range(3):
            model.close(slot)
