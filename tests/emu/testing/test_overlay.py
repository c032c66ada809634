"""An archive of the user's files after the guest's."""

import subprocess

import pytest

from devices.errors import UsageError
from emu.guest import cpio
from emu.testing.overlay import overlay


def test_files_links_and_permissions_follow_the_first_archive(tmp_path):
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_bytes(b"#!/bin/sh\n")
    (tree / "usr/bin/tool").chmod(0o751)
    (tree / "usr/bin/link").symlink_to("tool")
    base = cpio.pack([cpio.file("init", b"first")])
    (tmp_path / "initrd").write_bytes(base)
    out = overlay(tmp_path / "initrd", tree, tmp_path / "out").read_bytes()
    assert out.startswith(base)
    second = out[-(-len(base) // 512) * 512 :]
    assert not any(out[len(base) : len(out) - len(second)])
    listing = subprocess.run(["cpio", "-tv"], input=second, capture_output=True, check=True).stdout.decode()
    entries = {line.split(maxsplit=8)[8]: line.split()[0] for line in listing.splitlines()}
    assert entries == {
        "usr": "drwxr-xr-x",
        "usr/bin": "drwxr-xr-x",
        "usr/bin/tool": "-rwxr-x--x",
        "usr/bin/link -> tool": "lrwxrwxrwx",
    }


@pytest.mark.parametrize("missing", ["tree", "initrd"])
def test_what_is_missing_is_reported(tmp_path, missing):
    (tmp_path / "initrd").touch()
    (tmp_path / "tree").mkdir()
    paths = {"tree": tmp_path / "tree", "initrd": tmp_path / "initrd"} | {missing: tmp_path / "nothing"}
    with pytest.raises(UsageError, match="nothing"):
        overlay(paths["initrd"], paths["tree"], tmp_path / "out")
