"""The newc writer: what comes out is what the kernel, and cpio(1), read."""

import shutil
import stat
import subprocess

import pytest

from emu.guest import cpio

HEADER_SIZE = 110
FIELDS = (
    *("ino", "mode", "uid", "gid", "nlink", "mtime", "filesize"),
    *("devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check"),
)


def read(archive: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """A reader written from the format's description, not from the writer."""
    found: list[tuple[str, dict[str, int], bytes]] = []
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        numbers = (int(archive[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13))
        fields = dict(zip(FIELDS, numbers, strict=True))
        name_at = offset + HEADER_SIZE
        name = archive[name_at : name_at + fields["namesize"]]
        assert name.endswith(b"\0")
        data_at = (name_at + fields["namesize"] + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert data_at == len(archive)
            return found
        data = archive[data_at : data_at + fields["filesize"]]
        found.append((name[:-1].decode(), fields, data))
        offset = (data_at + fields["filesize"] + 3) & ~3


ENTRIES = [
    cpio.file("usr/bin/tool", b"odd", 0o755),
    cpio.file("empty", b""),
    cpio.symlink("bin", "usr/bin"),
    cpio.directory("tmp", 0o1777),
    cpio.device("dev/console", 5, 1),
]


def test_pack_has_every_entry_and_its_parents_in_order() -> None:
    assert [name for name, _, _ in read(cpio.pack(ENTRIES))] == [
        *("bin", "dev", "dev/console", "empty", "tmp", "usr", "usr/bin", "usr/bin/tool")
    ]


def test_pack_keeps_contents_modes_and_device_numbers() -> None:
    by_name = {name: (fields, data) for name, fields, data in read(cpio.pack(ENTRIES))}
    assert by_name["usr/bin/tool"][1] == b"odd"
    assert by_name["usr/bin/tool"][0]["mode"] == stat.S_IFREG | 0o755
    assert by_name["bin"][1] == b"usr/bin"
    assert stat.S_ISLNK(by_name["bin"][0]["mode"])
    assert by_name["tmp"][0]["mode"] == stat.S_IFDIR | 0o1777
    console = by_name["dev/console"][0]
    assert (stat.S_ISCHR(console["mode"]), console["rdevmajor"], console["rdevminor"]) == (True, 5, 1)


def test_pack_reveals_nothing_about_the_host() -> None:
    records = read(cpio.pack(ENTRIES))
    assert {(f["uid"], f["gid"], f["mtime"]) for _, f, _ in records} == {(0, 0, 0)}
    assert len({f["ino"] for _, f, _ in records}) == len(records)
    assert cpio.pack(ENTRIES) == cpio.pack(reversed(ENTRIES))


def test_pack_refuses_two_files_of_one_name() -> None:
    with pytest.raises(ValueError, match="two files are named empty"):
        cpio.pack([cpio.file("empty", b""), cpio.file("empty", b"x")])


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio(1) is not installed")
def test_cpio_lists_the_archive() -> None:
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=cpio.pack(ENTRIES), stdout=subprocess.PIPE, check=True)
    assert listed.stdout.decode().split() == [name for name, _, _ in read(cpio.pack(ENTRIES))]
