"""What the names in the cache depend on, and the message for a missing package."""

from pathlib import Path

import pytest

from devices.errors import MissingPackageError, PyemuError
from emu import guest
from emu.guest import inputs, requirements


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A board directory whose files the test may change."""
    board = tmp_path / "board"
    (board / "overlay").mkdir(parents=True)
    for name in ("linux.config", "tone.py", "overlay/init"):
        (board / name).write_text(name)
    monkeypatch.setattr(inputs, "board", lambda: board)
    return board


def install_source(monkeypatch: pytest.MonkeyPatch, source: Path | None) -> None:
    monkeypatch.setattr(inputs, "kernel_source", lambda: source)
    monkeypatch.setattr(requirements, "kernel_source", lambda: source)


def install_programs(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name if name in names else None)


def test_board_is_the_one_in_the_checkout() -> None:
    assert (inputs.board() / "linux.config").is_file()
    assert inputs.board().parents[1].joinpath("configs/pyemu_defconfig").is_file()


def test_an_overlay_file_changes_only_the_rootfs(board: Path) -> None:
    kernel, rootfs = inputs.kernel_name(), inputs.rootfs_name()
    (board / "overlay/init").write_text("changed")
    assert inputs.kernel_name() == kernel
    assert inputs.rootfs_name() != rootfs


def test_the_kernel_configuration_changes_only_the_kernel(board: Path) -> None:
    kernel, rootfs = inputs.kernel_name(), inputs.rootfs_name()
    (board / "linux.config").write_text("changed")
    assert inputs.kernel_name() != kernel
    assert inputs.rootfs_name() == rootfs


def test_a_new_source_package_changes_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "linux-source-6.1.tar.xz"
    source.write_bytes(b"old")
    install_source(monkeypatch, source)
    before = inputs.kernel_name()
    source.write_bytes(b"newer")
    assert inputs.kernel_name() != before


def test_a_cached_kernel_serves_when_its_source_is_gone(
    monkeypatch: pytest.MonkeyPatch, root: Path, board: Path
) -> None:
    source = root / "linux-source-6.1.tar.xz"
    source.touch()
    install_source(monkeypatch, source)
    built = inputs.kernel_name()
    install_source(monkeypatch, None)
    (root / f"{built}.work").mkdir()
    assert inputs.kernel_name() != built
    (root / built).mkdir()
    assert inputs.kernel_name() == built


def test_cached_files_come_silently(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for name in (inputs.kernel_name(), inputs.rootfs_name()):
        (root / name).mkdir()
    install_programs(monkeypatch)
    said: list[str] = []
    image, rootfs = guest.files(said.append)
    assert (image.name, rootfs.name) == ("Image", "rootfs.cpio")
    assert said == []


def test_missing_packages_are_all_in_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    install_source(monkeypatch, None)
    install_programs(monkeypatch, "apt-get", "dpkg-deb", "make", "gcc", "xz", "flex", "bc", "readelf")
    with pytest.raises(MissingPackageError) as caught:
        guest.files()
    assert str(caught.value) == (
        "building the guest needs gcc-riscv64-linux-gnu, bison, linux-source; "
        "install: sudo apt install gcc-riscv64-linux-gnu bison linux-source"
    )


def test_only_what_the_missing_part_needs_is_asked_for(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    (root / inputs.kernel_name()).mkdir()
    install_programs(monkeypatch, "apt-get", "dpkg-deb")
    with pytest.raises(MissingPackageError, match=r"^building the guest needs binutils; install: .* binutils$"):
        guest.files()


def test_without_apt_the_message_points_to_buildroot(monkeypatch: pytest.MonkeyPatch) -> None:
    install_programs(monkeypatch)
    with pytest.raises(PyemuError, match="Buildroot"):
        guest.files()
