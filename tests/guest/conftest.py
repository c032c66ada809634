"""The default guest, booted: built on first use, never skipped."""

from pathlib import Path

import pytest

from emu import guest


@pytest.fixture(scope="session")
def guest_files() -> tuple[Path, Path]:
    """Image and rootfs.cpio of the default guest."""
    return guest.files(print)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, so that ``-m "not guest"`` leaves it out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.guest)
            item.add_marker(pytest.mark.timeout(600))
