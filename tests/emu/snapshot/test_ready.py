"""Guests that have booted, kept in the cache: here, of a few instructions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devices.errors import PyemuError, UsageError
from emu import Machine, ShellError
from emu.snapshot import ready as module
from emu.snapshot.ready import ready
from tests.emu import tiny

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty one."""
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def kernel(tmp_path):
    """A kernel that looks as if it had a shell. It sleeps, so that a second of its time takes none here."""
    return tiny.write_image(tmp_path / "Image", tiny.say("booted\n# "), tiny.WAIT)


def booted(kernel, initrd=None, **options):
    """The snapshot, and whether the guest was booted for it."""
    progress = []
    path = ready(kernel, initrd, {"memory": "32M"} | options, progress.append, for_people=True)
    return path, "booting the guest, for a snapshot of it that is kept" in progress


def test_it_is_made_once_and_is_the_guest_at_its_prompt(kernel):
    tiny.write_image(kernel, tiny.say("booted\n# "), tiny.ECHO)
    path, made = booted(kernel)
    assert made
    assert booted(kernel) == (path, False)
    with Machine(path, clock="warp") as machine:
        assert bytes(machine.console.text) == b"booted\n# "
        machine.console.send("x")
        machine.console.expect("x")


def test_whatever_it_comes_from_makes_another(tmp_path, monkeypatch):
    kernel = tiny.write_image(tmp_path / "Image", tiny.say("booted\n# "), tiny.WAIT)  # ECHO would compute all the time
    initrd = tmp_path / "rootfs"
    initrd.write_bytes(b"x" * 4096)
    sources = tmp_path / "sources"
    for name in ("devices/a.py", "emu/cpu/b.c", "firmware/c.py"):
        (sources / name).parent.mkdir(parents=True)
        (sources / name).write_text(name)
    monkeypatch.setattr(module, "_ROOT", sources)
    paths = [booted(kernel)[0]]

    def is_another(*files, **options):
        path, made = booted(*files, **options)
        assert made == (path not in paths)
        paths.append(path)
        return made

    assert is_another(kernel, memory="33M")
    assert is_another(kernel, append="quiet")
    assert is_another(kernel, initrd)
    initrd.write_bytes(b"y" * 4096)
    assert is_another(kernel, initrd)
    assert not is_another(kernel)
    assert not is_another(kernel, memory=32 << 20), "the same size"
    for name in ("devices/a.py", "emu/cpu/b.c", "firmware/c.py"):
        (sources / name).write_text("changed")
        assert is_another(kernel)
    tiny.write_image(kernel, tiny.say("other\n# "), tiny.WAIT)
    assert is_another(kernel)


def test_one_that_nobody_has_used_for_a_month_goes_when_another_is_made(kernel, cache):
    before, _ = booted(kernel)
    unfinished = cache / "ready-12345678.work"
    unfinished.mkdir()
    (cache / "kernel-1").mkdir()
    for path in (before.parent, unfinished, cache / "kernel-1"):
        os.utime(path, times=(0, 0))
    assert booted(kernel) == (before, False), "it is used again"
    after, _ = booted(kernel, memory="33M")
    assert sorted(path.name for path in cache.iterdir()) == sorted(["kernel-1", before.parent.name, after.parent.name])
    os.utime(before.parent, times=(0, 0))
    last, _ = booted(kernel, memory="34M")
    assert set(cache.glob("ready-*")) == {after.parent, last.parent}


ASKS = """
import sys
from pathlib import Path
from emu.snapshot.ready import ready
sys.stdin.read(1)
print(ready(Path(sys.argv[1]), None, {}, lambda line: print(line, file=sys.stderr), for_people=True))
"""


def test_several_who_ask_at_once_get_the_same_that_one_makes(kernel):
    """As the workers of pytest-xdist do."""
    command = [sys.executable, "-c", ASKS, str(kernel)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    asking = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(4)]
    for one in asking:
        one.stdin.write("x")
        one.stdin.flush()
    said = [one.communicate() for one in asking]
    assert [one.returncode for one in asking] == [0] * 4, said
    assert len({path for path, _ in said}) == 1
    assert sum(progress.count("booting the guest") for _, progress in said) == 1


def test_what_cannot_boot_leaves_nothing_that_is_taken_for_it(tmp_path, cache):
    silent = tiny.write_image(tmp_path / "Image", tiny.WAIT)
    for _ in range(2):
        with pytest.raises(ShellError, match="--quick: the guest shows no shell"):
            booted(silent)
    with pytest.raises(UsageError):
        booted(silent, memory="much")
    assert not list(cache.rglob("*.pyemu"))


def test_a_cache_that_cannot_be_written_is_a_line(kernel, monkeypatch):
    monkeypatch.setenv("PYEMU_CACHE", str(kernel))
    with pytest.raises(PyemuError, match=r"^.*: File exists; PYEMU_CACHE chooses another place$"):
        booted(kernel)
