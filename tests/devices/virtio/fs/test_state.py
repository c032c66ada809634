"""Snapshots of a share: nodes, open files and requests go on, as far as the directory is still what it was."""

import errno
import itertools
import os
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest

from devices.errors import UsageError
from devices.virtio.fs import FsDevice, open_export, tree
from devices.virtio.fs.server import Server
from emu.snapshot.plain import decode, encode, type_of
from tests.devices.virtio.fs import guest as fuse
from tests.devices.virtio.fs.guest import ANSWER, REQUESTS, ROOT, FsGuest, request
from tests.devices.virtio.life import VirtioLife
from tests.fakes import FakeClock, FakeEvents
from tests.twins import live_through_snapshots, live_with_wrong_states


class Blind(Server):
    """A server that tells nothing of what differs from directory to directory, and from moment to moment."""

    def _attr(self, status: os.stat_result) -> tuple[int, ...]:
        size = status.st_size if os.path.stat.S_ISREG(status.st_mode) else 0
        return 0, size, 0, 0, 0, 0, 0, 0, 0, status.st_mode, 0, 0, 0, 0, 0, 0


class Life(VirtioLife):
    """A share, and a guest that does anything with a few files."""

    names = itertools.count()

    def __init__(self, parent: Path) -> None:
        self.folder = parent / f"{next(self.names)}"
        (self.folder / "d").mkdir(parents=True)
        (self.folder / "a").write_bytes(b"a" * 300_000)
        device = FsDevice(open_export(self.folder))
        device._server = Blind(device.export)
        self.share = device
        weakref.finalize(self, device.export.close)
        super().__init__(device, FakeEvents(FakeClock()))

    def take_over(self, old: Self) -> None:
        super().take_over(old)
        self.folder = old.folder
        os.dup2(old.share.export.tree.root_descriptor, self.share.export.tree.root_descriptor)

    def request(self, chance: Random) -> tuple[int, Sequence[bytes], Sequence[int]]:
        name = chance.choice([b"a\0", b"b\0", b"d\0"])
        node, file = chance.choice([1, 1, 1, 2, 3, 4]), chance.choice([1, 1, 2, 3, 4])
        offset, size = chance.choice([0, 5, 299_000]), chance.choice([10, 100, 150_000])
        transfer = struct.pack("<QQIIQII", file, offset, size, 0, 0, chance.choice([0, 0o2000, 0o10000]), 0)
        opcode, body = chance.choice(
            [
                (fuse.LOOKUP, name),
                (fuse.LOOKUP, name),
                (fuse.OPEN, struct.pack("<II", 2, 0)),
                (fuse.OPEN, struct.pack("<II", 2, 0)),
                (fuse.CREATE, struct.pack("<IIII", 2, 0o644, 0, 0) + name),
                (fuse.READ, transfer),
                (fuse.READ, transfer),
                (fuse.WRITE, transfer + b"x" * size),
                (fuse.FSYNC, struct.pack("<QII", file, 0, 0)),
                (fuse.GETATTR, bytes(16)),
                (fuse.UNLINK, name),
                (fuse.MKDIR, bytes(8) + name),
                (fuse.RENAME, struct.pack("<Q", node) + name + chance.choice([b"a\0", b"b\0"])),
                (fuse.RELEASE, struct.pack("<QIIQ", file, 0, 0, 0)),
                (fuse.FORGET, struct.pack("<Q", 1)),
                (fuse.BATCH_FORGET, struct.pack("<IIQQ", 40, 0, node, 1) + bytes(39 * 16)),
                (fuse.INIT, struct.pack("<IIII48x", 7, 37, 0, 0)),
                (fuse.SETATTR, struct.pack("<I84x", chance.choice([fuse.MODE, fuse.SIZE]))),
            ]
        )
        data = request(opcode, node, body)
        return chance.choice([0, 1, 1, 1, 1, 1, 1]), [data[:40], data[40:]], chance.choice([[16, 200], [16, 150_000]])

    def see(self) -> object:
        return [(path.name, path.is_file() and path.stat().st_size) for path in sorted(self.folder.rglob("*"))]


@pytest.mark.parametrize("seed", range(3))
def test_it_goes_on_as_if_nothing_had_been(tmp_path: Path, seed: int) -> None:
    live_through_snapshots(lambda: Life(tmp_path), seed)


def test_wrong_states(tmp_path: Path) -> None:
    live_with_wrong_states(lambda: Life(tmp_path), 1)


def saved(guest: FsGuest) -> Any:
    """Return the state, by way of a file."""
    return decode(encode(guest.device.state()), type_of(guest.device))


def another(guest: FsGuest, folder: Path | None = None) -> FsGuest:
    """Return another machine's share, restored."""
    state, transport = saved(guest), guest.driver.transport.state()
    other = FsGuest(folder or guest.folder, start=False)
    other.driver.take_over(guest.driver)
    other.driver.events.follow(guest.driver.events)
    other.driver.transport.restore(transport)
    other.device.restore(state)
    return other


def test_open_files_and_nodes_in_another_machine(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"hello", guest.mkdir("folder").node).node
    file, directory = guest.open(node, 2), guest.opendir()
    other = another(guest)
    assert other.read(file, 0, 10) == b"hello"
    assert other.write(file, 5, b"!") == 1
    assert other.getattr(node).size == 6
    assert other.lookup("folder/file").node == node
    assert {entry.name for entry in other.readdir(directory)} == {b".", b"..", b"folder"}
    assert other.write_file("new", b"").node not in {ROOT, node}
    other.close()


def test_what_is_no_longer_there_is_stale(guest: FsGuest, folder: Path) -> None:
    nodes = [guest.write_file(name, b"hello").node for name in ("gone", "replaced", "there")]
    files = [guest.open(node) for node in nodes]
    unnamed = guest.open(guest.write_file("unnamed", b"").node)
    guest.unlink("unnamed")
    state = guest.device.state()
    (folder / "gone").unlink()
    (folder / "new").write_bytes(b"another")
    (folder / "new").rename(folder / "replaced")
    guest.device.restore(state)
    body = struct.pack("<QQIIQII", 0, 0, 10, 0, 0, 0, 0)[8:]
    for file in (*files[:2], unnamed):
        assert guest.error(fuse.READ, ROOT, struct.pack("<Q", file) + body) == errno.ESTALE
        assert guest.error(fuse.FSYNC, ROOT, struct.pack("<QII", file, 0, 0)) == errno.ESTALE
        guest.release(file)
    for node in nodes[:2]:
        assert guest.error(fuse.GETATTR, node, bytes(16)) == errno.ESTALE
    assert guest.read(files[2], 0, 10) == b"hello"
    assert guest.read_file(guest.lookup("replaced").node) == b"another"


def test_in_another_directory_everything_is_stale_but_the_root(guest: FsGuest, folder: Path, tmp_path: Path) -> None:
    node = guest.write_file("file", b"hello").node
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_bytes(b"other")
    other = another(guest, tmp_path / "other")
    assert other.error(fuse.GETATTR, node, bytes(16)) == errno.ESTALE
    assert other.read_file(other.lookup("file").node) == b"other"
    other.close()


def test_a_snapshot_names_no_directory_of_the_host(guest: FsGuest, folder: Path) -> None:
    guest.write_file("file", b"")
    assert folder.name.encode() not in encode(guest.device.state())


def test_of_many_nodes_those_used_last_are_saved(guest: FsGuest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_SAVED", 10)
    inner = guest.mkdir("folder").node
    nodes = [guest.write_file(f"{number}", b"", inner).node for number in range(30)]
    opened = guest.open(nodes[0])
    state = guest.device.state()
    assert [one["id"] for one in state["export"]["tree"]["nodes"]] == [inner, nodes[0], *nodes[-8:]]
    guest.device.restore(state)
    assert guest.error(fuse.GETATTR, nodes[5], bytes(16)) == errno.ESTALE
    assert guest.read(opened, 0, 10) == b""
    assert guest.getattr(nodes[-1]).size == 0


@pytest.mark.parametrize("name", [b"..", b"../outside", b"/etc", b""])
def test_a_damaged_snapshot_reaches_nothing_outside(guest: FsGuest, name: bytes) -> None:
    guest.write_file("file", b"")
    state = saved(guest)
    state["export"]["tree"]["nodes"][0]["places"] = [(ROOT, name)]
    with pytest.raises(UsageError, match="damaged"):
        guest.device.restore(state)


def test_a_request_in_progress_goes_on(guest: FsGuest, folder: Path) -> None:
    data = os.urandom(1 << 20)
    (folder / "file").write_bytes(data)
    file = guest.open(guest.lookup("file").node)
    body = struct.pack("<QQIIQII", file, 0, 1 << 20, 0, 0, 0, 0)
    guest.driver.submit(REQUESTS, [request(fuse.READ, ROOT, body)], [ANSWER.size, 1 << 20])
    guest.driver.write("QueueNotify", REQUESTS)
    other = another(guest)
    other.driver.run_deferred()
    [done] = other.driver.completed(REQUESTS)
    assert done.data[16:] == data
    other.close()


def test_what_waits_for_the_hosts_disk_waits_again(folder: Path) -> None:
    guest = FsGuest(folder, aside=lambda work, done: None)
    _, file = guest.create("file")
    guest.driver.submit(REQUESTS, [request(fuse.FSYNC, ROOT, struct.pack("<QII", file, 0, 0))], [16])
    body = struct.pack("<QQIIQII", file, 0, 4, 0, 0, 0o10000, 0) + b"data"
    guest.driver.submit(REQUESTS, [request(fuse.WRITE, ROOT, body)], [16, 8])
    guest.driver.kick(REQUESTS)
    assert guest.driver.completed(REQUESTS) == []
    other = another(guest)
    assert other.driver.completed(REQUESTS) == [], "restoring is silent"
    other.driver.run_deferred()
    assert [done.data[4:8] for done in other.driver.completed(REQUESTS)] == [bytes(4), bytes(4)]
    assert (folder / "file").read_bytes() == b"data"
    other.close()
    guest.close()


def test_another_tag_is_refused(guest: FsGuest, folder: Path) -> None:
    other = FsDevice(open_export(folder, "other"))
    with pytest.raises(UsageError, match="--share DIR,tag=share"):
        other.restore(guest.device.state())
    other.export.close()
