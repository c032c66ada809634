"""What users of the package import, and what it promises whatever the guest does."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import emu
from devices.audio import WavSink
from emu import ExpectError, Machine, ManualClock, ShellError, UsageError
from tests.emu.tiny import ECHO, POWER_OFF, SPIN, WAIT, say, write_image

ROOT = Path(emu.__file__).parents[1]


def test_every_public_name_is_there_and_documented():
    for name in emu.__all__:
        assert getattr(emu, name).__doc__, name
    assert set(emu.__all__) <= set(dir(emu))


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        emu.Nothing  # noqa: B018


def test_the_errors_alone_load_no_machine():
    code = "import sys, emu; emu.UsageError; print([m for m in sys.modules if m.startswith(('dev', 'emu', 'uni'))])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['emu', 'devices', 'devices.errors']\n"


@pytest.mark.parametrize("package", ["emu", "devices", "firmware"])
def test_packages_are_typed(package):
    assert Path(import_module(package).__file__).with_name("py.typed").exists()


def test_the_pytest_plugin_is_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"pyemu": "emu.testing.pytest_plugin"}


@pytest.mark.parametrize("clock", ["host", "warp"])
@pytest.mark.parametrize("code", [SPIN, WAIT], ids=["spinning with interrupts off", "waiting for ever"])
def test_timeouts_hold_whatever_the_guest_does(tmp_path, code, clock):
    with Machine(write_image(tmp_path / "Image", code), clock=clock) as machine:
        assert not machine.run_until(lambda: False, timeout=0.1)
        with pytest.raises(ExpectError):
            machine.console.expect("anything", timeout=0.1)
        if clock == "host" or code is SPIN:  # otherwise guest time passes quickly and runs out first
            with pytest.raises(ShellError, match=r"no shell after 0\.1 s"):
                machine.console.run("true", timeout=0.1)


def test_run_for_ends_when_the_guest_spins(tmp_path):
    with Machine(write_image(tmp_path / "Image", SPIN)) as machine:
        before = machine.clock.now()
        machine.run_for(0.05)
        assert 0.05 <= (machine.clock.now() - before) / 1e9 < 0.5


def test_a_guest_without_a_shell(tmp_path):
    with (
        Machine(write_image(tmp_path / "Image", say("no shell\r\n"), WAIT), clock=ManualClock()) as machine,
        pytest.raises(ShellError, match=r"console.run: the guest shows no shell; its console ends with 'no shell'"),
    ):
        machine.console.run("true")


def test_a_guest_that_goes_away(tmp_path):
    with (
        Machine(write_image(tmp_path / "Image", POWER_OFF)) as machine,
        pytest.raises(ShellError, match=r"console.run: the guest went away \(power off\)"),
    ):
        machine.console.run("true")


def test_disk_and_disks_are_one_list(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(512))
    image = write_image(tmp_path / "Image", WAIT)
    with Machine(image, disk=f"{tmp_path}/a,readonly", disks=[f"{tmp_path}/b"]) as machine:
        assert [disk.read_only for disk in machine.disks] == [True, False]


def test_audio_by_name(tmp_path):
    with Machine(write_image(tmp_path / "Image", WAIT), audio=f"wav:{tmp_path}/out.wav") as machine:
        assert isinstance(machine.audio.backend, WavSink)
        assert machine.audio.frames.shape == (0, 2)


def test_audio_that_keeps_no_frames_says_what_does(tmp_path):
    with Machine(write_image(tmp_path / "Image", WAIT)) as machine, pytest.raises(UsageError, match="WavSink"):
        _ = machine.audio.frames


def test_counters_are_a_snapshot(tmp_path):
    with Machine(write_image(tmp_path / "Image", ECHO), clock="warp") as machine:
        before = machine.counters
        machine.console.send("abc")
        machine.console.expect("abc")
        machine.run_for(0.01)
        after = machine.counters
        assert (before.printed, after.printed) == (0, 3)
        assert after.guest_ns - before.guest_ns >= 10_000_000
        assert after.skew_ns == after.guest_ns - after.real_ns
        with pytest.raises(AttributeError):
            after.printed = 4


@pytest.mark.parametrize("clock", ["host", "warp"])
def test_no_guest_time_passes_while_the_machine_is_paused(tmp_path, clock):
    with Machine(write_image(tmp_path / "Image", SPIN), clock=clock) as machine:
        machine.run_for(0.01)
        for _ in range(2):
            machine.pause()
            paused_at = machine.clock.now()
            assert not machine.run_until(lambda: False, timeout=0.3)
            assert machine.clock.now() == paused_at
            machine.resume()
            assert 0 <= machine.clock.now() - paused_at < 100_000_000
            machine.run_for(0.01)
            assert machine.clock.now() >= paused_at + 10_000_000


def test_a_paused_machine_takes_messages(tmp_path):
    with Machine(write_image(tmp_path / "Image", SPIN)) as machine:
        machine.pause()
        machine.post(machine.resume)
        assert machine.run_until(lambda: not machine.paused, timeout=3600)


def test_running_a_paused_machine_for_ever_is_refused(tmp_path):
    with Machine(write_image(tmp_path / "Image", SPIN)) as machine:
        machine.pause()
        with pytest.raises(UsageError, match="paused; resume it"):
            machine.run_for(1)
