"""Shared directories of a machine."""

from pathlib import Path
from typing import Any

import pytest

from devices.errors import UsageError
from devices.virtio.fs import FsDevice
from emu.machine import Machine
from emu.shares import parse_share
from tests.emu.tiny import WAIT, write_image
from tests.left import leaves_nothing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def switch_on(tmp_path: Path, **options: Any) -> Machine:
    return Machine(write_image(tmp_path / "Image", WAIT), memory="32M", clock="warp", **options)


def exports(machine: Machine) -> list[tuple[str, bool]]:
    return [(one.export.tag, one.export.read_only) for one in machine.virtio if isinstance(one, FsDevice)]


def test_they_are_the_last_devices_and_have_names(tmp_path: Path, folder: Path) -> None:
    shares = [str(folder), f"{folder},readonly", f"{folder},tag=other"]
    with switch_on(tmp_path, share=str(folder), shares=shares[1:]) as machine:
        assert [device.device_id for device in machine.virtio[-3:]] == [26] * 3
        assert exports(machine) == [("share", False), ("share1", True), ("other", False)]
        assert b"virtio_mmio@10006000" in machine.dtb


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}/nothing", "share .*/nothing cannot be opened: No such file or directory"),
        ("{}/file", "share .*/file is not a directory; for an image file there is --disk"),
        ("{},snapshot", "'snapshot' makes no sense; write DIR, DIR,readonly or DIR,tag=NAME"),
        ("", "the directory '' makes no sense"),
        ("{},tag=a,tag=b", "a second tag makes no sense"),
        ("{},tag=", "the tag '' must have 1 to 36 bytes"),
        ("{},tag=" + "x" * 37, "must have 1 to 36 bytes"),
        ("\0", "no name of a directory"),
    ],
)
def test_what_cannot_be_shared(folder: Path, text: str, message: str) -> None:
    (folder / "file").touch()
    with pytest.raises(UsageError, match=message):
        parse_share(text.format(folder))


def test_what_a_machine_cannot_share(tmp_path: Path, folder: Path) -> None:
    for shares, message in (
        ([str(folder), f"{folder},tag=share"], "two shared directories are called 'share'"),
        ([5], "share=5 cannot be used"),
        ([str(folder)] * 14, "there is room for 16 virtio devices"),
    ):
        with pytest.raises(UsageError, match=message):
            switch_on(tmp_path, shares=shares)


def test_nothing_is_left_open(tmp_path: Path, folder: Path) -> None:
    with leaves_nothing():
        switch_on(tmp_path, shares=[str(folder), f"{folder},readonly"]).close()
        with pytest.raises(UsageError, match="nothing"):
            switch_on(tmp_path, shares=[str(folder), f"{folder}/nothing"])


def test_a_run_with_a_share_is_not_recorded(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="can't be recorded or replayed"):
        switch_on(tmp_path, share=str(folder), record=tmp_path / "run.pyemu")


def test_a_snapshot_wants_its_shares_again_and_no_others(tmp_path: Path, folder: Path) -> None:
    saved, without = tmp_path / "saved.pyemu", tmp_path / "without.pyemu"
    with switch_on(tmp_path, shares=[str(folder), f"{folder},tag=tools"]) as machine:
        machine.save(saved)
    with switch_on(tmp_path) as machine:
        machine.save(without)
    assert str(folder).encode() not in saved.read_bytes()
    with pytest.raises(UsageError, match="name them again: --share DIR,tag=share --share DIR,tag=tools"):
        Machine(saved)
    with pytest.raises(UsageError, match="has no shared directory, and can be given none"):
        Machine(without, share=str(folder))
    with Machine(saved, shares=[f"{folder},readonly", f"{folder},tag=tools"]) as machine:
        assert exports(machine) == [("share", True), ("tools", False)]
