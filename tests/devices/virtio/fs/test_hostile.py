"""A hostile guest, or another one on the same directory: nothing outside of it is reached, and nothing runs out."""

import errno
import os
import random
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.virtio.fs import files, tree
from tests.devices.virtio.fake_driver import NEEDS_RESET, FakeMemory
from tests.devices.virtio.fs import guest as fuse
from tests.devices.virtio.fs.guest import ANSWER, HEADER, HIPRIO, REQUESTS, ROOT, FsGuest, FuseError, request
from tests.left import descriptors, leaves_nothing

NAMES = [b"", b".", b"..", b"../outside", b"folder/../../outside", b"/etc/passwd", b"folder/file", b"/"]


@pytest.fixture
def outside(folder: Path) -> Iterator[Path]:
    """A directory beside the share, which stays as it is."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    os.utime(outside / "secret", ns=(1, 1))
    before = [(path.stat().st_mtime_ns, path.stat().st_mode, path.stat().st_size) for path in (outside / "secret",)]
    yield outside
    assert (outside / "secret").read_bytes() == b"secret"
    assert [(path.stat().st_mtime_ns, path.stat().st_mode, path.stat().st_size) for path in outside.iterdir()] == before


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_name(guest: FsGuest, folder: Path, outside: Path, name: bytes) -> None:
    guest.write_file("file", b"", guest.mkdir("folder").node)
    file = guest.write_file("file", b"").node
    for opcode, body in (
        (fuse.LOOKUP, b""),
        (fuse.UNLINK, b""),
        (fuse.RMDIR, b""),
        (fuse.MKDIR, bytes(8)),
        (fuse.MKNOD, struct.pack("<IIII", 0o100644, 0, 0, 0)),
        (fuse.CREATE, struct.pack("<IIII", 2, 0o644, 0, 0)),
        (fuse.LINK, struct.pack("<Q", file)),
    ):
        assert guest.error(opcode, ROOT, body + name + b"\0") == errno.EINVAL
    assert guest.error(fuse.SYMLINK, ROOT, name + b"\0target\0") == errno.EINVAL
    for names in (name + b"\0file\0", b"file\0" + name + b"\0"):
        assert guest.error(fuse.RENAME, ROOT, struct.pack("<Q", ROOT) + names) == errno.EINVAL
        assert guest.error(fuse.RENAME2, ROOT, struct.pack("<QII", ROOT, 2, 0) + names) == errno.EINVAL
    assert sorted(path.name for path in folder.iterdir()) == ["file", "folder"]


def test_names_that_are_too_long_or_have_no_end(guest: FsGuest) -> None:
    assert guest.error(fuse.LOOKUP, ROOT, b"x" * 256 + b"\0") == errno.ENAMETOOLONG
    assert guest.error(fuse.LOOKUP, ROOT, b"x") == errno.EINVAL
    assert guest.error(fuse.RENAME, ROOT, struct.pack("<Q", ROOT) + b"one\0two") == errno.EINVAL
    assert guest.error(fuse.SYMLINK, ROOT, b"name\0" + b"x" * 4096 + b"\0") == errno.ENAMETOOLONG


def test_links_are_never_followed(guest: FsGuest, folder: Path, outside: Path) -> None:
    (folder / "to-file").symlink_to(outside / "secret")
    (folder / "to-folder").symlink_to(outside)
    to_file, to_folder = guest.lookup("to-file").node, guest.lookup("to-folder").node
    assert guest.error(fuse.OPEN, to_file, bytes(8)) == errno.EINVAL
    assert guest.error(fuse.OPENDIR, to_folder, bytes(8)) == errno.ENOTDIR
    assert guest.error(fuse.LOOKUP, to_folder, b"secret\0") == errno.ENOTDIR
    assert guest.error(fuse.UNLINK, to_folder, b"secret\0") == errno.ENOTDIR
    assert guest.error(fuse.CREATE, ROOT, struct.pack("<IIII", 1, 0o644, 0, 0) + b"to-file\0") == errno.EINVAL
    for valid in (fuse.MODE, fuse.SIZE):
        with pytest.raises(FuseError):
            guest.setattr(to_file, valid)
    guest.setattr(to_file, fuse.ATIME | fuse.MTIME, times=(5, 5))
    guest.rename("to-file", "moved")
    guest.unlink("moved")


def test_what_becomes_a_link_in_the_meantime_is_not_followed_either(
    guest: FsGuest, folder: Path, outside: Path
) -> None:
    (folder / "folder").mkdir()
    (folder / "folder/secret").write_bytes(b"not secret")
    node = guest.lookup("folder/secret").node
    parent = guest.lookup("folder").node
    guest.device.export.tree.restore(guest.device.export.tree.state())  # no directory is open any longer
    (folder / "folder").rename(folder / "elsewhere")
    (folder / "folder").symlink_to(outside)
    for opcode, body in ((fuse.OPEN, bytes(8)), (fuse.GETATTR, bytes(16))):
        assert guest.error(opcode, node, body) == errno.ESTALE
    assert guest.error(fuse.LOOKUP, parent, b"secret\0") == errno.ESTALE
    (folder / "folder").unlink()
    (folder / "folder").mkdir()
    (folder / "folder/secret").symlink_to(outside / "secret")
    for opcode, body in ((fuse.OPEN, bytes(8)), (fuse.SETATTR, struct.pack("<I84x", fuse.MODE))):
        assert guest.error(opcode, node, body) == errno.ESTALE


@pytest.mark.parametrize("mode", [0o20666, 0o60666, 0o040755, 0o120777, 0, 0o170777])
def test_no_devices(guest: FsGuest, folder: Path, mode: int) -> None:
    with pytest.raises(FuseError, match="EPERM"):
        guest.mknod("device", mode, device=0x103)
    assert not any(folder.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_of_the_host_is_not_opened(guest: FsGuest, folder: Path) -> None:
    os.mknod(folder / "null", 0o20666, os.makedev(1, 3))
    node = guest.lookup("null").node
    assert guest.error(fuse.OPEN, node, struct.pack("<II", 2, 0)) == errno.EINVAL
    assert guest.error(fuse.CREATE, ROOT, struct.pack("<IIII", 2, 0o644, 0, 0) + b"null\0") == errno.EINVAL
    assert guest.error(fuse.SETATTR, node, struct.pack("<I84x", fuse.SIZE)) == errno.EINVAL


def test_a_pipe_is_made_but_never_waited_for(guest: FsGuest) -> None:
    node = guest.mknod("pipe", 0o10666).node
    assert guest.error(fuse.OPEN, node, struct.pack("<II", 1, 0)) == errno.EINVAL
    assert stat.S_ISSOCK(guest.mknod("socket", 0o140666).attr.mode)


def test_nobody_gets_a_files_owners_rights(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"").node
    assert guest.setattr(node, fuse.MODE, mode=0o106755).mode == 0o100755
    (_, attr), _ = guest.create("other", mode=0o106755)
    assert attr.mode == 0o100755
    assert guest.setattr(guest.mkdir("folder").node, fuse.MODE, mode=0o42755).mode == 0o42755, "that only has heirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_belong_to_who_makes_them(guest: FsGuest, folder: Path) -> None:
    guest.uid, guest.gid = 1234, 1235
    attr = guest.mkdir("folder").attr
    assert (attr.uid, attr.gid) == (1234, 1235)
    (_, attr), _ = guest.create("file")
    assert (attr.uid, attr.gid) == (1234, 1235)
    assert ((folder / "file").stat().st_uid, (folder / "file").stat().st_gid) == (1234, 1235)


def test_owners_as_another_user_than_root(guest: FsGuest) -> None:
    export = guest.device.export
    export._user, export._group = 1000, 1001
    assert [export.shown_user(user) for user in (1000, 0, 1, 65534)] == [0, 65534, 1, 65534]
    assert [export.shown_group(group) for group in (1001, 0, 1)] == [0, 65534, 1]


# What is bounded


def test_open_files_are_bounded(guest: FsGuest) -> None:
    node = guest.write_file("file", b"").node
    opened = [guest.open(node) for _ in range(files.MOST_FILES)]
    assert guest.error(fuse.OPEN, node, bytes(8)) == errno.ENFILE
    assert guest.error(fuse.OPENDIR, ROOT, bytes(8)) == errno.ENFILE
    assert guest.error(fuse.CREATE, ROOT, bytes(16) + b"new\0") == errno.ENFILE
    assert not (guest.folder / "new").exists()
    guest.release(opened[0])
    guest.release(guest.open(node))


def test_closed_files_that_are_being_synchronised_count(folder: Path) -> None:
    pending = []
    guest = FsGuest(folder, aside=lambda work, done: pending.append((work, done)))
    node = guest.write_file("file", b"").node
    for _ in range(files.MOST_FILES):
        file = guest.open(node)
        guest.driver.submit(REQUESTS, [request(fuse.FSYNC, ROOT, struct.pack("<QII", file, 0, 0))], [ANSWER.size])
        guest.driver.kick(REQUESTS)
        guest.release(file)
    assert guest.error(fuse.OPEN, node, bytes(8)) == errno.ENFILE
    while pending:
        work, done = pending.pop(0)
        work()
        done(None)
    assert len(guest.driver.completed(REQUESTS)) == files.MOST_FILES
    guest.open(node)
    guest.close()


def test_a_machine_that_ends_while_files_are_synchronised_leaves_none_open(folder: Path) -> None:
    with leaves_nothing():
        guest = FsGuest(folder, aside=lambda work, done: None)
        _, file = guest.create("file")
        for _ in range(3):
            guest.driver.submit(REQUESTS, [request(fuse.FSYNC, ROOT, struct.pack("<QII", file, 0, 0))], [ANSWER.size])
        guest.driver.kick(REQUESTS)
        guest.close()


def test_open_directories_are_bounded_and_any_is_reached_again(guest: FsGuest, folder: Path) -> None:
    nodes = []
    for number in range(2 * tree.MOST_DIRECTORIES):
        node = guest.mkdir(f"{number}").node
        inner = guest.mkdir("inner", node).node
        nodes.append(guest.write_file("file", b"%d" % number, inner).node)
    assert guest.device.export.tree.descriptors <= tree.MOST_DIRECTORIES + 2
    for number, node in enumerate(nodes):
        assert guest.read_file(node) == b"%d" % number


def test_nodes_are_bounded_and_those_used_last_are_kept(
    guest: FsGuest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MOST_NODES", 10)
    for number in range(30):
        (folder / f"{number}").touch()
    kept = guest.lookup("0").node
    file = guest.open(guest.lookup("1").node)
    lost = guest.lookup("2").node
    for number in range(3, 30):
        guest.lookup(f"{number}")
        guest.getattr(kept)
    assert len(guest.device.export.tree) == 10
    assert guest.error(fuse.GETATTR, lost, bytes(16)) == errno.ESTALE
    assert guest.read(file, 0, 10) == b""
    guest.getattr(guest.lookup("2").node)


def test_deep_directories(guest: FsGuest, folder: Path) -> None:
    node, known = ROOT, guest.device.export.tree
    for _ in range(tree.DEEPEST + 1):
        node = guest.mkdir("d", node).node
    known.restore(known.state())  # no directory is open any longer
    assert guest.error(fuse.LOOKUP, node, b"x\0") == errno.ESTALE, "it would take too long"
    shallower = guest.lookup("/".join("d" * tree.DEEPEST)).node
    known.restore(known.state())
    assert guest.error(fuse.LOOKUP, shallower, b"x\0") == errno.ENOENT


def test_forgotten_nodes_take_nothing(guest: FsGuest, folder: Path) -> None:
    for number in range(100):
        (folder / f"{number}").mkdir()
    nodes = [guest.lookup(f"{number}").node for number in range(100)]
    for node in nodes:
        guest.error(fuse.LOOKUP, node, b"x\0")  # opens it
        guest.lookup(f"{nodes.index(node)}")
    for node in nodes[:50]:
        guest.forget(node, 1)
    batch = struct.pack("<II", 50, 0) + b"".join(struct.pack("<QQ", node, 2) for node in nodes[50:])
    guest.driver.request(HIPRIO, [request(fuse.BATCH_FORGET, 0, batch)])
    assert len(guest.device.export.tree) == 50
    for node in nodes[:50]:
        guest.forget(node, 1 << 63)
    export = guest.device.export
    assert (len(export.tree), export.tree.descriptors) == (0, 1)
    guest.forget(nodes[0])
    guest.forget(ROOT)
    guest.getattr(ROOT)


def test_a_request_larger_than_it_may_be(guest: FsGuest) -> None:
    _, file = guest.create("file")
    body = struct.pack("<QQIIQII", file, 0, (1 << 20) + 1, 0, 0, 0, 0)
    assert guest.error(fuse.WRITE, ROOT, body + bytes(100)) == errno.EINVAL
    assert guest.error(fuse.WRITE, ROOT, struct.pack("<QQIIQII", file, 0, 101, 0, 0, 0, 0) + bytes(100)) == errno.EINVAL
    body = struct.pack("<QQIIQII", file, (1 << 63) - 50, 100, 0, 0, 0, 0)
    assert guest.error(fuse.WRITE, ROOT, body + bytes(100)) == errno.EFBIG
    assert guest.error(fuse.READ, ROOT, body) == errno.EFBIG
    guest.write(file, 0, bytes(1000))
    assert guest.call(fuse.READ, ROOT, struct.pack("<QQIIQII", file, 0, 0xFFFF_FFFF, 0, 0, 0, 0), 10) == bytes(10)


def test_requests_without_room_for_an_answer_are_returned(guest: FsGuest) -> None:
    driver = guest.driver
    for readable, writable in (([b"x"], []), ([b"x" * 39], [100]), ([request(fuse.GETATTR, ROOT, bytes(16))], [15])):
        done = driver.request(REQUESTS, readable, writable)
        assert done.used_len == 0
    done = driver.request(REQUESTS, [request(fuse.GETATTR, ROOT, bytes(16))], [119])
    assert ANSWER.unpack(done.data[: done.used_len])[:2] == (16, -errno.EIO)


def test_the_guest_has_a_turn_between_the_pieces_of_a_large_transfer(guest: FsGuest) -> None:
    _, file = guest.create("file")
    body = struct.pack("<QQIIQII", file, 0, 1 << 20, 0, 0, 0, 0)
    guest.driver.submit(REQUESTS, [request(fuse.WRITE, ROOT, body + bytes(1 << 20))], [64])
    guest.driver.write("QueueNotify", REQUESTS)
    assert guest.driver.completed(REQUESTS) == []
    turns = 0
    while guest.driver.deferred:
        guest.driver.events.run_turn()
        turns += 1
    [done] = guest.driver.completed(REQUESTS)
    assert FsGuest.answered(done.data[: done.used_len]) == struct.pack("<II", 1 << 20, 0)
    assert turns >= 7


# Anything at all

BODIES = [0, 1, 2, 3, 4, 0o755, 0o100644, 1 << 20, (1 << 31) - 1, (1 << 32) - 1]


def random_request(chance: random.Random) -> bytes:
    """A request that may be nearly right."""
    opcode = chance.choice([*range(1, 54), 0, 999, (1 << 32) - 1])
    length = chance.choice([0, 4, 8, 16, 24, 32, 40, 56, 88])
    body = b"".join(struct.pack("<I", chance.choice(BODIES)) for _ in range(length // 4))
    body += chance.choice([b"", b"a", b"a\0", b"a\0b\0", b"b\0a\0", b"d\0", b"..\0", bytes(30), chance.randbytes(20)])
    node = chance.choice([0, 1, 1, 2, 3, 4, 5, 6, 99, (1 << 64) - 1])
    data = request(opcode, node, body, uid=chance.choice([0, 0, 5, (1 << 32) - 1]))
    if chance.random() < 0.1:
        data = chance.randbytes(4) + data[4:]
    return data[: chance.choice([len(data)] * 5 + [39, 41, chance.randrange(200)])]


@pytest.mark.parametrize("seed", range(5))
def test_random_requests(folder: Path, outside: Path, seed: int) -> None:
    chance = random.Random(seed)
    guest = FsGuest(folder, memory=FakeMemory(4 << 20))
    (folder / "d").mkdir()
    before = len(descriptors())
    for _ in range(2000):
        data = random_request(chance)
        queue = REQUESTS if chance.random() < 0.95 else HIPRIO
        room = chance.choice([[], [16], [16, 128], [16, 144], [16, 4096], [7]])
        done = guest.driver.request(queue, [data[:40], data[40:]], room, indirect=chance.random() < 0.5)
        if done.used_len:
            length, error, _ = ANSWER.unpack_from(done.data)
            assert length == done.used_len
            assert -134 < error <= 0
            assert not error or length == ANSWER.size
    assert not guest.driver.read("Status") & NEEDS_RESET
    guest.driver.start()
    guest.init()
    assert len(descriptors()) <= before
    guest.close()
    assert HEADER.size == 40
