"""How packages are found, and what the root file system takes from them, with fake commands."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.errors import PyemuError
from emu.guest import packages, rootfs
from emu.guest.job import CommandError, Job

LISTED = """\
'http://mirror.example/updates/dists/codename-updates/InRelease' a_InRelease 0
'http://mirror.example/debian/dists/codename/InRelease' b_InRelease 0
'http://other.example/x/dists/nodistro/InRelease' c_InRelease 0
'http://mirror.example/debian/dists/codename/main/binary-amd64/Packages.xz' b_Packages 0
"""


def job(tmp_path: Path, answer: Callable[..., str]) -> Job:
    """A job whose commands are answered by a function of their arguments."""

    class AnsweredJob(Job):
        def run(self, *command: str | Path, **_options: object) -> str:
            return answer(*map(str, command))

    return AnsweredJob(tmp_path, lambda _line: None, -1)


@pytest.fixture(autouse=True)
def release(monkeypatch: pytest.MonkeyPatch) -> None:
    described = {"ID": "debian", "VERSION_CODENAME": "codename"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: described)


def test_mirrors_has_each_once_and_the_distribution_first(tmp_path: Path) -> None:
    found = packages._mirrors(job(tmp_path, lambda *_command: LISTED))
    assert found == ["http://mirror.example/debian", "http://mirror.example/updates", "http://other.example/x"]


def test_settings_take_from_the_host_only_how_to_reach_a_mirror(tmp_path: Path) -> None:
    dump = """\
Acquire::http::Proxy "http://proxy:3128";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "de";
APT::Update::Post-Invoke:: "rm -rf /";
Dir::Etc "etc/apt";
"""
    settings = [*packages._settings(job(tmp_path, lambda *_command: dump), tmp_path)]
    assert settings[-2:] == ['Acquire::http::Proxy "http://proxy:3128";', 'Acquire::Check-Valid-Until "false";']
    assert not [line for line in settings if "Invoke" in line or '"de"' in line or "Etc" in line]


def test_fetch_without_a_network_is_one_clear_error(tmp_path: Path) -> None:
    def offline(program: str, *words: str) -> str:
        if "--print-uris" in words:
            return LISTED
        if program == "apt-config":
            return ""
        raise CommandError("apt-get failed", "Err:1 http://...\nE: Could not resolve 'mirror.example'\n")

    with pytest.raises(PyemuError, match=r"is the network up\?\): Could not resolve 'mirror.example'"):
        packages.fetch(job(tmp_path, offline), ["libc6"])


def test_applets_are_links_except_where_a_real_program_is(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF\0code[\0[[\0ash\0busybox\0init\0ls\0mke2fs\0\0/var/log\0")
    links = {entry.path: entry.data for entry in rootfs._applets(busybox)}
    assert links == dict.fromkeys(["usr/bin/[", "usr/bin/[[", "usr/bin/ash", "usr/bin/ls"], b"busybox")


def test_applets_without_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "busybox").write_bytes(b"\x7fELF")
    with pytest.raises(PyemuError, match="table of applets"):
        list(rootfs._applets(tmp_path / "busybox"))


def needs(**needed: list[str]) -> Callable[..., str]:
    """A readelf that answers by file name."""
    line = " 0x01 (NEEDED)             Shared library: [{}]\n"
    return lambda *words: "".join(line.format(n) for word in words for n in needed.get(Path(word).stem, []))


def test_closure_follows_libraries_of_libraries(tmp_path: Path) -> None:
    libraries = tmp_path / rootfs._LIBRARIES
    libraries.mkdir(parents=True)
    for name in ("a.so", "b.so", "unused.so"):
        (libraries / name).touch()
    readelf = job(tmp_path, needs(program=["a.so"], a=["b.so"], b=["a.so"]))
    found = rootfs._closure(readelf, tmp_path, [tmp_path / "program"])
    assert [path.name for path in found] == ["a.so", "b.so"]


def test_closure_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(PyemuError, match=r"no library lost\.so"):
        rootfs._closure(job(tmp_path, needs(program=["lost.so"])), tmp_path, [tmp_path / "program"])


def test_files_makes_scripts_executable_whatever_their_mode(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/data").write_text("data")
    (tmp_path / "init").write_text("#!/bin/sh\n")
    (tmp_path / "init").chmod(0o600)
    modes = {entry.path: stat.S_IMODE(entry.mode) for entry in rootfs._files(tmp_path, tmp_path)}
    assert modes == {"etc/data": 0o644, "init": 0o755}
