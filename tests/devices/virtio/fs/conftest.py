"""A guest with a share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.virtio.fs.guest import FsGuest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory that is shared; there are others beside it."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def guest(folder: Path) -> Iterator[FsGuest]:
    guest = FsGuest(folder)
    yield guest
    guest.close()
