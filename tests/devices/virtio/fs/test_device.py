"""The virtio-fs device: what programs do with files (virtio 1.2 section 5.11, Linux's fuse.h)."""

import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.virtio.fs import FsDevice, open_export
from tests.devices.virtio.fake_driver import EVENT_IDX, INDIRECT_DESC, VERSION_1, Driver
from tests.devices.virtio.fs import guest as fuse
from tests.devices.virtio.fs.guest import HIPRIO, REQUESTS, ROOT, FsGuest

O_RDONLY, O_WRONLY, O_RDWR, O_EXCL, O_TRUNC, O_APPEND, O_SYNC = 0, 1, 2, 0o200, 0o1000, 0o2000, 0o4010000


def test_config(folder: Path) -> None:
    device = FsDevice(open_export(folder, "söme tag"))
    driver = Driver(device)
    assert driver.read("DeviceID") == 26
    assert driver.config(0, 40) == "söme tag".encode().ljust(36, b"\0") + b"\1\0\0\0"
    assert driver.config(40, 4) == bytes(4)
    device.export.close()


def test_init(guest: FsGuest) -> None:
    answer = struct.unpack("<IIIIHHIIHHI28x", guest.init())
    major, minor, readahead, flags, _, _, max_write, granularity, max_pages, alignment, flags2 = answer
    assert (major, minor, readahead) == (7, 38, 128 << 10)
    assert (max_write, max_pages, granularity, alignment, flags2) == (1 << 20, 256, 1, 0, 0)
    writeback_cache, posix_locks, flock_locks, killpriv = 1 << 16, 1 << 1, 1 << 10, 1 << 19
    assert not flags & (writeback_cache | posix_locks | flock_locks | killpriv)
    assert flags & 1 << 12, "what the host writes replaces what the guest has cached"


def test_init_has_no_flag_that_was_not_asked_for(guest: FsGuest) -> None:
    assert struct.unpack_from("<IIII", guest.init(flags=1))[3] == 1


def test_init_of_other_versions(guest: FsGuest) -> None:
    assert struct.unpack_from("<II", guest.init(major=8)) == (7, 38)
    with pytest.raises(fuse.FuseError, match="EPROTO"):
        guest.init(minor=30)


def test_lookup_and_attributes(guest: FsGuest, folder: Path) -> None:
    (folder / "file").write_bytes(b"hello")
    os.utime(folder / "file", ns=(1_600_000_000_123_456_789, -1))
    node, attr = guest.lookup("file")
    status = (folder / "file").stat()
    assert (attr.size, attr.mode, attr.nlink, attr.ino) == (5, status.st_mode, 1, status.st_ino)
    assert (attr.atime, attr.atime_ns) == (1_600_000_000, 123_456_789)
    assert (attr.mtime, attr.mtime_ns) == ((1 << 64) - 1, 999_999_999)
    assert (attr.uid, attr.gid) == (0, 0), "who runs pyemu is the guest's root"
    assert guest.getattr(node) == attr
    assert stat.S_ISDIR(guest.getattr(ROOT).mode)


def test_the_same_file_is_the_same_node(guest: FsGuest, folder: Path) -> None:
    (folder / "file").touch()
    (folder / "other").hardlink_to(folder / "file")
    assert guest.lookup("file").node == guest.lookup("other").node == guest.lookup("file").node


def test_what_is_not_there(guest: FsGuest) -> None:
    assert guest.error(fuse.LOOKUP, ROOT, b"nothing\0") == errno.ENOENT
    assert guest.error(fuse.UNLINK, ROOT, b"nothing\0") == errno.ENOENT
    assert guest.error(fuse.GETATTR, 77, bytes(16)) == errno.ESTALE
    assert guest.error(fuse.READ, ROOT, struct.pack("<QQIIQII", 77, 0, 10, 0, 0, 0, 0)) == errno.EBADF


def test_create_write_read(guest: FsGuest, folder: Path) -> None:
    (node, attr), file = guest.create("file", mode=stat.S_IFREG | 0o640)
    assert (attr.mode, attr.size) == (stat.S_IFREG | 0o640, 0)
    assert guest.write(file, 0, b"hello, ") == 7
    assert guest.write(file, 7, b"world") == 5
    assert guest.read(file, 0, 4096) == b"hello, world"
    assert guest.read(file, 7, 3) == b"wor"
    assert guest.read(file, 12, 10) == guest.read(file, 1 << 40, 10) == b""
    guest.release(file)
    assert (folder / "file").read_bytes() == b"hello, world"
    assert guest.getattr(node).size == 12


def test_mode_is_what_the_guest_says_whatever_the_hosts_umask_is(guest: FsGuest, folder: Path) -> None:
    before = os.umask(0o077)
    try:
        (_, attr), _ = guest.create("file", mode=0o666)
        made = [attr.mode, guest.mkdir("folder", mode=0o1777).attr.mode, guest.mknod("pipe", 0o10666).attr.mode]
    finally:
        os.umask(before)
    assert made == [0o100666, 0o41777, 0o10666]
    assert [(folder / name).stat().st_mode for name in ("file", "folder", "pipe")] == made


def test_create_of_what_is_there(guest: FsGuest, folder: Path) -> None:
    (folder / "file").write_bytes(b"old")
    _, file = guest.create("file")
    assert guest.read(file, 0, 10) == b"old"
    _, file = guest.create("file", flags=O_RDWR | O_TRUNC)
    assert guest.read(file, 0, 10) == b""
    with pytest.raises(fuse.FuseError, match="EEXIST"):
        guest.create("file", flags=O_RDWR | O_EXCL)


def test_megabytes_both_ways(guest: FsGuest, folder: Path) -> None:
    data = os.urandom((1 << 20) - 13)
    _, file = guest.create("file")
    assert guest.write(file, 5, data) == len(data)
    assert guest.read(file, 5, 1 << 20) == data
    assert (folder / "file").read_bytes() == bytes(5) + data


def test_beyond_4_gib_and_holes(guest: FsGuest, folder: Path) -> None:
    (node, _), file = guest.create("file")
    guest.write(file, 5 << 30, b"end")
    assert guest.getattr(node).size == (5 << 30) + 3
    assert guest.read(file, (5 << 30) - 2, 5) == b"\0\0end"
    assert guest.getattr(node).blocks < 1000
    assert guest.lseek(file, 0, os.SEEK_DATA) >= (5 << 30) - (1 << 20)
    assert guest.lseek(file, 0, os.SEEK_HOLE) == 0
    guest.setattr(node, fuse.SIZE, size=6 << 30)
    assert (folder / "file").stat().st_size == 6 << 30


@pytest.mark.parametrize("whence", [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 9])
def test_other_seeks_are_the_guests_own_business(guest: FsGuest, whence: int) -> None:
    _, file = guest.create("file")
    assert guest.error(fuse.LSEEK, ROOT, struct.pack("<QQII", file, 0, whence, 0)) == errno.EINVAL


def test_appending_goes_to_the_end_wherever_that_is_by_now(guest: FsGuest, folder: Path) -> None:
    (folder / "log").write_bytes(b"1\n")
    file = guest.open(guest.lookup("log").node, O_WRONLY | O_APPEND)
    with (folder / "log").open("ab") as other:
        other.write(b"2\n")
    guest.write(file, 2, b"3\n", open_flags=O_WRONLY | O_APPEND)
    assert (folder / "log").read_bytes() == b"1\n2\n3\n"
    guest.write(file, 0, b"0", open_flags=O_WRONLY | O_APPEND, flags=1)  # from the guest's cache
    assert (folder / "log").read_bytes() == b"0\n2\n3\n"


def test_truncate_by_node_and_by_file(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"123456").node
    assert guest.setattr(node, fuse.SIZE, size=3).size == 3
    file = guest.open(node, O_RDWR)
    guest.unlink("file")
    assert guest.setattr(node, fuse.SIZE | fuse.BY_FILE, file=file, size=1).size == 1
    assert guest.read(file, 0, 10) == b"1"


def test_chmod_chown_utimens(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"").node
    assert guest.setattr(node, fuse.MODE, mode=0o100604).mode == 0o100604
    times = (1_000_000_000_000_000_001, -5_000_000_001)
    guest.setattr(node, fuse.ATIME | fuse.MTIME, times=times)
    status = (folder / "file").stat()
    assert (status.st_atime_ns, status.st_mtime_ns, status.st_mode) == (*times, 0o100604)
    guest.setattr(node, fuse.MTIME, times=(0, 7))
    assert (folder / "file").stat().st_atime_ns == times[0]
    before = time.time_ns()
    guest.setattr(node, fuse.ATIME | fuse.ATIME_NOW | fuse.MTIME | fuse.MTIME_NOW)
    assert (folder / "file").stat().st_atime_ns >= before - 10_000_000
    assert guest.setattr(node, fuse.UID | fuse.GID, owner=(0, 0)).uid == 0


def test_attributes_of_links_are_their_own(guest: FsGuest, folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.touch(mode=0o600)
    os.utime(outside, ns=(1, 1))
    node = guest.symlink("link", outside.name).node
    guest.setattr(node, fuse.ATIME | fuse.MTIME, times=(2, 3))
    assert guest.getattr(node).mtime_ns == 3
    with pytest.raises(fuse.FuseError):  # of the link: Linux has no such thing
        guest.setattr(node, fuse.MODE, mode=0o777)
    with pytest.raises(fuse.FuseError):
        guest.setattr(node, fuse.SIZE, size=5)
    status = outside.stat()
    assert (status.st_mtime_ns, stat.S_IMODE(status.st_mode), status.st_size) == (1, 0o600, 0)


def test_links(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"hello").node
    entry = guest.link(node, "other")
    assert (entry.node, entry.attr.nlink) == (node, 2)
    guest.unlink("file")
    assert guest.getattr(node).nlink == 1
    assert guest.read_file(node) == b"hello"
    assert guest.readlink(guest.symlink("link", "any/thing\xff").node) == "any/thing\xff".encode()
    assert (folder / "link").readlink() == Path("any/thing\xff")


def test_a_link_is_not_followed_when_it_gets_another_name(guest: FsGuest, folder: Path) -> None:
    guest.write_file("file", b"")
    entry = guest.link(guest.symlink("link", "file").node, "other")
    assert stat.S_ISLNK(entry.attr.mode)


def test_directories(guest: FsGuest, folder: Path) -> None:
    node = guest.mkdir("folder").node
    guest.write_file("file", b"deep", guest.mkdir("inner", node).node)
    assert (folder / "folder/inner/file").read_bytes() == b"deep"
    with pytest.raises(fuse.FuseError, match="ENOTEMPTY"):
        guest.rmdir("folder")
    with pytest.raises(fuse.FuseError, match=r"EISDIR|EPERM"):
        guest.unlink("folder")
    guest.unlink("file", guest.lookup("folder/inner").node)
    guest.rmdir("inner", node)
    guest.rmdir("folder")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("plus", [False, True])
def test_a_directory_is_read_in_pieces(guest: FsGuest, folder: Path, plus: bool) -> None:
    names = {f"{number:04}-{'x' * (number % 50)}".encode() for number in range(1000)}
    for name in names:
        (folder / os.fsdecode(name)).touch()
    found = guest.listdir(plus=plus)
    assert {entry.name for entry in found} == names | {b".", b".."}
    assert len(found) == len(names) + 2
    assert all(entry.kind == (4 if entry.name in {b".", b".."} else 8) for entry in found)
    if plus:
        assert all((entry.entry is None) == (entry.name in {b".", b".."}) for entry in found)
        assert all(entry.entry is None or entry.entry.attr.ino == entry.ino for entry in found)


def test_a_directory_that_changes_while_it_is_read(guest: FsGuest, folder: Path) -> None:
    for number in range(500):
        (folder / f"{number}").touch()
    file, offset, found = guest.opendir(), 0, set[bytes]()
    while entries := guest.readdir(file, offset):
        names = {entry.name for entry in entries}
        assert not found & names, "nothing twice"
        found |= names
        offset = entries[-1].next
        for name in sorted(names - {b".", b".."})[:5]:
            guest.unlink(name)
    assert len(found) == 502


def test_any_offset_of_a_directory_can_be_gone_back_to(guest: FsGuest, folder: Path) -> None:
    for number in range(300):
        (folder / f"{number}").touch()
    file = guest.opendir()
    first = guest.readdir(file)
    second = guest.readdir(file, first[-1].next)
    assert guest.readdir(file, first[-1].next) == second
    assert guest.readdir(file, 0) == first
    assert guest.readdir(file, first[3].next)[0] == first[4]


def test_rename(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("a", b"a").node
    inner = guest.mkdir("folder").node
    guest.rename("a", "b", to=inner)
    assert (folder / "folder/b").read_bytes() == b"a"
    assert guest.getattr(node).size == 1, "the node is where it is now"
    replaced = guest.write_file("c", b"ccc").node
    file = guest.open(replaced)
    guest.rename("b", "c", node=inner)
    assert (folder / "c").read_bytes() == b"a"
    assert guest.read(file, 0, 10) == b"ccc", "what was replaced is still open"
    assert guest.lookup("c").node == node


def test_a_renamed_directory_takes_along_what_is_in_it(guest: FsGuest, folder: Path) -> None:
    node = guest.mkdir("one").node
    inner = guest.write_file("file", b"x", node).node
    guest.rename("one", "two")
    assert guest.read_file(inner) == b"x"
    guest.rename("two", "three")
    assert guest.lookup("file", node).node == inner


def test_rename_without_replacing_and_exchanging(guest: FsGuest, folder: Path) -> None:
    one, two = guest.write_file("one", b"1").node, guest.write_file("two", b"22").node
    with pytest.raises(fuse.FuseError, match="EEXIST"):
        guest.rename("one", "two", flags=1)
    guest.rename("one", "two", flags=2)
    assert (folder / "one").read_bytes() == b"22"
    assert (guest.getattr(one).size, guest.getattr(two).size) == (1, 2)
    assert guest.lookup("one").node == two
    with pytest.raises(fuse.FuseError, match="EINVAL"):
        guest.rename("one", "three", flags=4)


@pytest.mark.parametrize(("plus", "most"), [(True, 8), (False, 40)])
def test_a_directory_is_read_in_pieces_that_delay_nobody(guest: FsGuest, folder: Path, plus: bool, most: int) -> None:
    names = {b".", b".."} | {f"{number}".encode() for number in range(300)}
    for name in names - {b".", b".."}:
        (folder / name.decode()).touch()
    file = guest.opendir()
    assert len(guest.readdir(file, 0, 1 << 20, plus=plus)) == most
    assert {entry.name for entry in guest.listdir(plus=plus, size=1 << 20)} == names


def test_what_was_unlinked_lives_as_long_as_it_is_open(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"hello").node
    file = guest.open(node, O_RDWR)
    guest.unlink("file")
    assert guest.getattr(node).nlink == 0
    assert guest.write(file, 5, b"!") == 1
    again = guest.open(node)
    assert guest.read(again, 0, 10) == b"hello!"
    guest.write_file("file", b"another")
    assert guest.lookup("file").node != node
    guest.release(file)
    guest.release(again)
    guest.forget(node)
    assert guest.error(fuse.GETATTR, node, bytes(16)) == errno.ESTALE


def test_files_are_forgotten_without_a_kick_and_an_interrupt_for_each(guest: FsGuest, folder: Path) -> None:
    driver, tree = guest.driver, guest.device.export.tree
    (folder / "file").touch()
    node = guest.lookup("file").node
    for _ in range(299):
        guest.lookup("file")
    driver.ack()
    kicks = interrupts = forgotten = 0
    for _ in range(300):
        driver.submit(HIPRIO, [fuse.request(fuse.FORGET, node, struct.pack("<Q", 1))])
        if driver.wants_kick(HIPRIO):
            driver.write("QueueNotify", HIPRIO)
            driver.run_deferred()
            kicks += 1
        driver.events.advance(100_000)
        interrupts += bool(driver.ack())
        forgotten += len(driver.completed(HIPRIO))
    driver.events.advance(fuse.FORGET_NS)
    forgotten += len(driver.completed(HIPRIO))
    assert (forgotten, len(tree)) == (300, 0)
    assert kicks + interrupts < 20
    driver.events.advance(10 * fuse.FORGET_NS)
    assert driver.deferred == 0, "with nothing to forget, nobody looks for it"
    guest.forget(node)


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | INDIRECT_DESC | EVENT_IDX])
def test_a_full_queue_of_files_to_forget_is_dealt_with_in_turns(folder: Path, features: int) -> None:
    guest = FsGuest(folder, start=False)
    guest.driver.start(features)
    for _ in range(3):
        for _ in range(128):
            guest.driver.submit(HIPRIO, [fuse.request(fuse.FORGET, 5, struct.pack("<Q", 1))])
        assert guest.driver.wants_kick(HIPRIO, 128)
        guest.driver.write("QueueNotify", HIPRIO)
        assert 0 < len(guest.driver.completed(HIPRIO)) <= 8
        guest.driver.run_deferred()
        assert guest.driver.queues[HIPRIO].last_used != guest.driver.queues[HIPRIO].used_idx, "without waiting"
        guest.driver.completed(HIPRIO)
        assert len(guest.driver.queues[HIPRIO].free) == 128
    guest.close()


@pytest.mark.parametrize("queue", [HIPRIO, REQUESTS])
def test_a_batch_of_files_to_forget_is_dealt_with_in_turns(guest: FsGuest, folder: Path, queue: int) -> None:
    driver, known = guest.driver, guest.device.export.tree
    (folder / "file").touch()
    node = guest.lookup("file").node
    for _ in range(999):
        guest.lookup("file")
    for _ in range(2):
        batch = struct.pack("<II", 500, 0) + struct.pack("<QQ", node, 1) * 500
        driver.submit(queue, [fuse.request(fuse.BATCH_FORGET, 0, batch)])
    driver.write("QueueNotify", queue)
    left = [1000]
    while len(known):
        left.append(known.node(node).lookups)
        assert 0 <= left[-2] - left[-1] <= 16
        driver.events.run_turn()
    assert len(left) > 1000 // 16
    driver.run_deferred()
    assert len(driver.completed(queue)) == 2


def test_what_the_host_renames_is_stale_until_it_is_looked_up(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"hello").node
    (folder / "file").rename(folder / "other")
    assert guest.error(fuse.GETATTR, node, bytes(16)) == errno.ESTALE
    assert guest.error(fuse.LOOKUP, ROOT, b"file\0") == errno.ENOENT
    assert guest.lookup("other").node == node
    assert guest.getattr(node).size == 5


def test_what_the_host_replaces_is_another_file(guest: FsGuest, folder: Path) -> None:
    node = guest.write_file("file", b"hello").node
    (folder / "new").write_bytes(b"other")
    (folder / "new").rename(folder / "file")
    assert guest.error(fuse.OPEN, node, bytes(8)) == errno.ESTALE
    assert guest.lookup("file").node != node


def test_fallocate(guest: FsGuest, folder: Path) -> None:
    (node, _), file = guest.create("file")
    guest.fallocate(file, 0, 0, 1 << 16)
    assert (guest.getattr(node).size, guest.getattr(node).blocks) == (1 << 16, 128)
    guest.write(file, 0, b"x" * 8192)
    guest.fallocate(file, 1 | 2, 0, 4096)  # a hole
    assert guest.read(file, 0, 8192) == bytes(4096) + b"x" * 4096
    with pytest.raises(fuse.FuseError, match="ENOTSUP"):
        guest.fallocate(file, 8, 0, 4096)


def test_copy_within_the_host(guest: FsGuest, folder: Path) -> None:
    data = os.urandom(1 << 20)
    (folder / "from").write_bytes(data)
    source, (_, target) = guest.open(guest.lookup("from").node), guest.create("to")
    done = 0
    while copied := guest.copy(source, done, target, done, len(data)):
        done += copied
    assert (folder / "to").read_bytes() == data


def test_statfs(guest: FsGuest, folder: Path) -> None:
    blocks, _, _, files, _, size, longest, fragment = struct.unpack_from("<QQQQQIII", guest.call(fuse.STATFS, ROOT))
    room = os.statvfs(folder)
    assert (blocks, files, size, longest, fragment) == (
        room.f_blocks, room.f_files, room.f_bsize, room.f_namemax, room.f_frsize,
    )  # fmt: skip


def test_synchronised_when_asked(guest: FsGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: log.append("fsync"))
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: log.append("fdatasync"))
    _, file = guest.create("file")
    guest.fsync(file)
    guest.fsync(file, data_only=True)
    guest.write(file, 0, b"x")
    assert log == ["fsync", "fdatasync"]
    assert guest.write(file, 0, b"x", open_flags=O_SYNC) == 1
    assert log == ["fsync", "fdatasync", "fdatasync"]
    assert guest.call(fuse.FSYNCDIR, ROOT, struct.pack("<QII", guest.opendir(), 0, 0)) == b""
    assert log[3:] == ["fsync"]


@pytest.mark.parametrize(
    "opcode", [fuse.SETXATTR, fuse.GETXATTR, fuse.LISTXATTR, fuse.FLUSH, fuse.ACCESS, 31, 39, 40, 51, 999]
)
def test_what_there_is_not_is_said_so_that_linux_asks_but_once(guest: FsGuest, opcode: int) -> None:
    assert guest.error(opcode, ROOT, bytes(64)) == errno.ENOSYS


def test_nothing_is_known_or_open_after_an_unmount_or_a_reset(guest: FsGuest, folder: Path) -> None:
    for end in (lambda: guest.call(fuse.DESTROY, ROOT), guest.driver.reset):
        guest.driver.start()
        guest.init()
        node = guest.write_file("file", b"").node
        guest.open(node)
        guest.opendir()
        guest.lookup("file")
        end()
        export = guest.device.export
        assert (len(export.files), len(export.tree), export.tree.descriptors) == (0, 0, 1)


# A read-only share

READ_ONLY: list[Callable[[FsGuest], object]] = [
    lambda guest: guest.create("new"),
    lambda guest: guest.open(guest.lookup("file").node, O_WRONLY),
    lambda guest: guest.open(guest.lookup("file").node, O_RDWR),
    lambda guest: guest.open(guest.lookup("file").node, O_TRUNC),
    lambda guest: guest.unlink("file"),
    lambda guest: guest.rmdir("folder"),
    lambda guest: guest.mkdir("new"),
    lambda guest: guest.mknod("new", 0o100644),
    lambda guest: guest.symlink("new", "file"),
    lambda guest: guest.link(guest.lookup("file").node, "new"),
    lambda guest: guest.rename("file", "new"),
    lambda guest: guest.setattr(guest.lookup("file").node, fuse.MODE, mode=0),
    lambda guest: guest.setattr(guest.lookup("file").node, fuse.SIZE, size=0),
    lambda guest: guest.setattr(guest.lookup("file").node, fuse.MTIME, times=(1, 1)),
    lambda guest: guest.fallocate(guest.open(guest.lookup("file").node), 0, 0, 100),
]


@pytest.mark.parametrize("change", READ_ONLY)
def test_a_read_only_share_cannot_be_changed(folder: Path, change: Callable[[FsGuest], object]) -> None:
    (folder / "file").write_bytes(b"hello")
    (folder / "folder").mkdir()
    guest = FsGuest(folder, read_only=True)
    before = sorted((path.name, path.stat()) for path in folder.iterdir())
    with pytest.raises(fuse.FuseError, match="EROFS"):
        change(guest)
    assert sorted((path.name, path.stat()) for path in folder.iterdir()) == before
    assert guest.read_file(guest.lookup("file").node) == b"hello"
    guest.close()


def test_two_guests_on_one_directory(guest: FsGuest, folder: Path) -> None:
    other = FsGuest(folder)
    node = guest.write_file("file", b"one").node
    theirs = other.lookup("file").node
    assert other.read_file(theirs) == b"one"
    file = other.open(theirs, O_WRONLY)
    other.write(file, 3, b" two")
    assert guest.getattr(node).size == 7
    assert guest.read_file(node) == b"one two"
    other.rename("file", "moved")
    assert guest.error(fuse.LOOKUP, ROOT, b"file\0") == errno.ENOENT
    assert guest.lookup("moved").node == node
    other.close()
