"""The wheel, without the checkout: it has what is needed and no more, and needs system packages only for sound."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import emu

ROOT = Path(emu.__file__).parents[1]
#: A process without PortAudio, and without the checkout in its path.
WITHOUT_PORTAUDIO = """
import ctypes.util, sys
ctypes.util.find_library = lambda _name: None
sys.path[:] = [path for path in sys.path if path not in ("", {root!r})]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
from emu.cli import main
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def pyemu(wheel, guest_files, tmp_path_factory):
    """Run what the wheel installs without compiler, dtc or PortAudio; return status, stdout, stderr."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    zipfile.ZipFile(wheel).extractall(site)
    (folder / "bin").mkdir()
    for program in ("apt-get", "dpkg-deb"):
        (folder / "bin" / program).symlink_to("/bin/false")
    code = WITHOUT_PORTAUDIO.format(root=str(ROOT))

    def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        environment = {**os.environ, "PYTHONPATH": str(site), "PATH": str(folder / "bin"), **variables}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


def files(*folders: str) -> set[str]:
    names = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(name) for name in names if "__pycache__" not in name.parts}


def test_it_has_the_packages_and_the_guests_recipe_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    recipe = {f"emu/guest/{name}" for name in files("buildroot")}
    assert names == files("emu", "devices", "firmware") - {"emu/cpu/build_native.py"} | recipe


def test_without_a_compiler_it_is_platform_independent_and_works(tmp_path):
    environment = {**os.environ, "CC": "there-is-no-compiler"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert "does without its native part" in done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "emu/cpu/libnative.so" not in zipfile.ZipFile(wheel).namelist()


def test_every_command_works_without_system_packages(pyemu, guest_files):
    assert pyemu("--version")[0] == 0
    image, rootfs = guest_files
    assert pyemu("guest", "path") == (0, f"{image}\n{rootfs}\n", "")
    assert pyemu("guest", "build")[0] == 0
    assert pyemu("boot", "--dump-dtb", "dtb") == (0, "", "")
    sound = "wav:out.wav,log=out.jsonl"
    status, output, error = pyemu(
        "boot", "--clock", "warp", "--audio", sound, "--exec", "aplay -D hw:0,0 /root/tone.wav"
    )
    assert (status, error) == (0, "pyemu: out.wav: 48000 frames (1.000 s), 48000 Hz, S16, 2 channels\n"), output
    status, output, _ = pyemu("audio", "check", "out.wav", "--log", "out.jsonl")
    assert status == 0
    assert output.endswith("\nfine\n")
    assert pyemu("audio", "plot", "out.wav", "-o", "out.png")[0] == 0
    assert pyemu("completion", "zsh")[0] == 0
    status, _, error = pyemu("boot", "--exec", "aplay -q -D hw:0,0 /root/tone.wav")
    assert status == 0
    assert "libportaudio2" in error


def test_host_sound_and_a_build_say_what_to_install(pyemu, tmp_path):
    for arguments in (("audio", "list"), ("boot", "--audio", "host")):
        status, output, error = pyemu(*arguments)
        assert (status, output) == (1, "")
        assert "apt-get install libportaudio2" in error
        assert error.count("\n") == 1
    for arguments in (("boot",), ("guest", "path"), ("guest", "build")):
        status, output, error = pyemu(*arguments, PYEMU_CACHE=str(tmp_path / "cache"))
        assert (status, output) == (1, "")
        assert "install: sudo apt install " in error
        assert error.count("\n") == 1
