"""Sizes, disks and consoles, as users write them."""

import pytest

from devices.errors import UsageError
from emu.options import last_console, parse_disk, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("256M", 256 << 20), ("1g", 1 << 30), ("4KiB", 4096), (512, 512)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "1T", "1.5G", "much"])
def test_what_is_not_a_size(text):
    with pytest.raises(UsageError, match="is not a size; write it like 256M"):
        parse_size(text)


@pytest.mark.parametrize(
    ("append", "name"),
    [
        ("console=ttyS0", "ttyS0"),
        ("console=ttyS0,115200 quiet console=hvc0", "hvc0"),
        ("console=hvc0\tconsole=ttyS0,115200n8", "ttyS0"),
        ("netconsole=hvc0 quiet", ""),
        ("", ""),
    ],
)
def test_the_last_console_counts(append, name):
    assert last_console(append) == name


@pytest.mark.parametrize("text", ["", "a.img,rw", ",readonly"])
def test_what_is_not_a_disk(text):
    with pytest.raises(UsageError, match="makes no sense"):
        parse_disk(text)


def test_a_disk_that_looks_like_another_kind_of_image(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(b"QFI\xfb" + bytes(508))
    with pytest.raises(UsageError, match=r"disk\.img,raw$"):
        parse_disk(f"{image},readonly")
    parse_disk(f"{image},readonly,raw").close()


def test_a_disk_that_is_not_whole_sectors_is_reported(tmp_path, caplog):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1000))
    disk = parse_disk(f"{image},readonly")
    disk.close()
    assert disk.size == 512
    assert "the last 488 bytes are not part of the disk" in caplog.text
