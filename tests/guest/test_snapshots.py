"""The default guest, saved and gone on from: nothing that it prints, plays, records or writes shows that."""

import hashlib
import os
import random
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from emu import Machine, Snapshot, WavSink
from tests.benchmarks.snapshots import SESSION_NS, go_on, straight
from tests.guest.studio import S16_STEREO, noise

PYEMU = [sys.executable, "-m", "emu"]
ROOT = Path(__file__).parents[2]

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def ready(guest_files, tmp_path_factory) -> Path:
    """A snapshot of the guest at its shell."""
    path = tmp_path_factory.mktemp("ready") / "ready.pyemu"
    with Machine(*guest_files, clock="warp") as machine:
        machine.console.run("true")
        machine.save(path)
    return path


@pytest.mark.parametrize(("seed", "count"), [(0, 5), (3, 3)])
def test_it_is_the_run_that_was_not_saved(guest_files, tmp_path, seed, count):
    """At random instants of a busy session, with the usual timing and with one of its own."""
    chance = random.Random(seed)
    instants = sorted(chance.randrange(SESSION_NS) for _ in range(count))
    expected = straight(tmp_path, instants, seed=seed)
    assert [go_on(tmp_path, instants, number) for number in range(count)] == expected


def test_a_song_goes_on_with_the_very_next_frame(ready, tmp_path):
    """With which the WAV file of the machine that goes on begins."""
    saved = tmp_path / "song.pyemu"
    with Machine(ready, clock="warp", audio=WavSink(tmp_path / "straight.wav")) as machine:
        machine.console.sendline("head -c 192000 /dev/urandom | aplay -q -D hw:0,0 -f dat")
        assert machine.run_until(lambda: machine.audio.played > 20_000)
        machine.save(saved)
        before = machine.audio.played
        machine.run_for(2)
        heard = machine.audio.frames.tobytes()
    assert len(heard) >= 192_000 > before * 4
    with Machine(saved, clock="warp", audio=WavSink(tmp_path / "rest.wav")) as machine:
        machine.run_for(2)
        assert machine.audio.frames.tobytes() == heard[before * 4 :]


def test_a_recording_goes_on_with_the_very_next_frame(ready, tmp_path):
    saved, source = tmp_path / "recording.pyemu", tmp_path / "in.wav"
    frames = noise(S16_STEREO, 48_000)
    with wave.open(str(source), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        file.writeframes(frames)
    audio = f"wav:{tmp_path / 'out.wav'},in={source}"
    with Machine(ready, clock="warp", audio=audio) as machine:
        machine.console.sendline("arecord -q -D hw:0,0 -f dat -d 1 /tmp/in.wav")
        assert machine.run_until(lambda: machine.counters.frames_recorded > 20_000)
        assert machine.counters.frames_recorded < 48_000
        machine.save(saved)
    with Machine(saved, clock="warp", audio=audio) as machine:
        machine.run_for(1)
        assert machine.console.run("tail -c +45 /tmp/in.wav | md5sum").output.split()[0] == md5(frames)


def test_it_goes_back_in_the_middle_of_everything(ready):
    """In the same process, too, and to what was before."""
    with Machine(ready, clock="warp") as machine:
        machine.console.run("echo saved > /tmp/file")
        state = machine.snapshot()
        machine.console.sendline("echo other > /tmp/file; aplay -q -D hw:0,0 /root/tone.wav & sync; md5sum /init")
        machine.run_for(0.3)
        machine.restore(state)
        assert machine.console.run("cat /tmp/file; pidof aplay") == (1, "saved\n")
        machine.restore(Snapshot.open(ready))
        assert machine.console.run("cat /tmp/file").status == 1


# ---------------------------------------------------------------- the command line


@pytest.fixture
def boot(guest_files, tmp_path) -> Run:
    """Run ``pyemu boot`` with an empty cache that has the guest's parts."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for file in guest_files:
        (cache / file.parent.name).symlink_to(file.parent)

    def run(*arguments: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*PYEMU, "boot", "--clock", "warp", *map(str, arguments)],
            cwd=ROOT, env={**os.environ, "PYEMU_CACHE": str(cache)}, stdin=subprocess.DEVNULL, capture_output=True,
            check=False,
        )  # fmt: skip

    return run


def test_exec_saves_what_it_leaves_and_another_goes_on(boot, tmp_path):
    saved = tmp_path / "it is.pyemu"
    run = boot("--exec", "echo saved > /tmp/file", "--exec", "cd /tmp", "--save", saved)
    assert (run.returncode, run.stderr.decode()) == (0, f"pyemu: saved; to go on from there: pyemu boot '{saved}'\n")
    assert b"Power down" not in run.stdout
    for _ in range(2):
        run = boot(saved, "--exec", "pwd; cat file; rm file")
        assert (run.returncode, run.stderr) == (0, b"")
        assert b"\r\n/tmp\r\nsaved\r\n" in run.stdout
        assert b"Linux version" not in run.stdout
        assert b"Power down" in run.stdout
    assert boot(saved, "--exec", "exit 3").returncode == 3


def test_a_command_that_fails_saves_nothing(boot, tmp_path):
    run = boot("--exec", "(exit 7)", "--save", tmp_path / "x")
    assert run.returncode == 7
    assert b"saved" not in run.stderr
    assert not (tmp_path / "x").exists()


def test_quick_boots_once_for_all_that_are_the_same(boot):
    def boots(*options: str) -> bool:
        run = boot("--quick", "--exec", "uname -m", *options)
        assert run.returncode == 0, run.stderr
        assert b"\r\nriscv64\r\n" in run.stdout
        assert b"Linux version" not in run.stdout
        return b"booting the guest" in run.stderr

    assert [boots(), boots()] == [True, False]
    assert [boots("-m", "64M"), boots("-m", "64M")] == [True, False]
    assert [boots("-a", "quiet"), boots("-a", "quiet"), boots()] == [True, False, False]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
