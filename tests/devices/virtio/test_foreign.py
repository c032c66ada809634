"""Files that are not raw disks: the message, and that its command works."""

import gzip
import lzma
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from devices.errors import UsageError
from devices.virtio.disk import open_disk

SIZE = 1 << 16
DISK = Random(1).randbytes(SIZE - 512) + bytes(512)


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(UsageError) as caught:
        open_disk(path, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("head", "kind", "name"),
    [
        (b"QFI\xfb\0\0\0\3", "qcow2", "qcow2"),
        (b"KDMV\1\0\0\0", "vmdk", "vmdk"),
        (b"COWD\1\0\0\0", "vmdk", "vmdk"),
        (b"# Disk DescriptorFile\nversion=1\n", "vmdk", "vmdk"),
        (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", "vdi", "vdi"),
        (b"vhdxfile", "vhdx", "vhdx"),
        (b"conectix", "VHD", "vpc"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"snapshot": True}])
def test_images_of_other_machines(tmp_path: Path, head: bytes, kind: str, name: str, options: dict[str, bool]) -> None:
    path = tmp_path / "my disk.img"
    path.write_bytes(head + DISK)
    assert refusal(path, **options) == (
        f"disk {path} is a {kind} image; convert it: qemu-img convert -f {name} -O raw '{path}' "
        f"'{path.with_suffix('.raw')}'; if it is a raw disk that only looks like one, use {path},raw"
    )


@pytest.mark.parametrize(
    ("program", "pack"),
    [
        ("gunzip", lambda path: path.write_bytes(gzip.compress(DISK))),
        ("xz", lambda path: path.write_bytes(lzma.compress(DISK))),
        ("zstd", lambda path: path.write_bytes(subprocess.run(["zstd"], input=DISK, stdout=-1, check=True).stdout)),
        ("unzip", lambda path: zipfile.ZipFile(path, "w").writestr("disk.img", DISK)),
    ],
)
def test_what_is_refused_can_be_converted(tmp_path: Path, program: str, pack: Callable[[Path], object]) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    path = tmp_path / "it's packed"
    pack(path)
    command = re.search(r" unpack it: (.*); if it is ", refusal(path))[1]
    subprocess.run(command, shell=True, check=True)
    assert path.with_suffix(".img").read_bytes() == DISK


def test_a_vhd_of_fixed_size_has_it_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(DISK + b"conectix".ljust(512, b"\0"))
    assert f"convert -f vpc -O raw {path} {tmp_path}/disk.img" in refusal(path)


def test_a_raw_disk_that_looks_like_another_image(tmp_path: Path) -> None:
    """A guest may have written the header: a disk is never taken for what it claims to be."""
    path = tmp_path / "disk.img"
    path.write_bytes(DISK)
    disk = open_disk(path)
    disk.write(0, b"QFI\xfb".ljust(512, b"\0"))
    disk.close()
    assert "qcow2" in refusal(path)
    disk = open_disk(path, raw=True)
    assert (disk.size, disk.read(0, 4)) == (SIZE, b"QFI\xfb")
    disk.close()


@pytest.mark.parametrize("data", [DISK, bytes(512), b"\x1f\x8b" + bytes(510), bytes(1024) + b"QFI\xfb" + bytes(508)])
def test_raw_disks(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(data)
    open_disk(path).close()
