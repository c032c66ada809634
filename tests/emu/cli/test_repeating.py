"""``--record`` and ``--replay``: a session in a real terminal, again to the bit; and what a failure says."""

import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from emu import Machine, guest
from tests.emu import tiny
from tests.emu.terminal.test_terminal import ROOT, Session

WARP = ("--clock", "warp")
FAILED = "pyemu: error: the guest switched the machine off because of a failure (code 1)\n"


@pytest.fixture
def image(tmp_path):
    return tiny.write_image(tmp_path / "Image", tiny.say("ready\n"), tiny.ECHO)


def record(image: Path, folder: Path, use) -> bytes:
    """Let ``use`` have a session that is recorded; return what the guest printed."""
    with (folder / "console").open("wb") as stdout:
        session = Session(image, *WARP, "--record", str(folder / "run"), stdout=stdout.fileno())
        try:
            session.wait_until(lambda: b"ready" in (folder / "console").read_bytes())
            use(session)
            session.status()
        finally:
            session.close()
    return (folder / "console").read_bytes()


def replay(image: Path, folder: Path, *options: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    done = subprocess.run(
        [sys.executable, "-m", "emu", "boot", str(image), "--replay", str(folder / "run"), *options],
        input=stdin, capture_output=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.decode()


def shut_down(session):
    session.type(b"hello\x04")


def quit_(session):
    session.type(b"hello\x01x")


def terminate(session):
    session.type(b"hello")
    os.kill(session.pid, signal.SIGTERM)


@pytest.mark.parametrize("end", [shut_down, quit_, terminate])
def test_a_session_is_the_same_however_it_ended(image, tmp_path, end):
    printed = record(image, tmp_path, end)
    status, again, said = replay(image, tmp_path)
    assert again == printed
    assert status == 0
    assert "this was the same run as" in said


def test_the_window_and_the_monitor(image, tmp_path):
    def use(session):
        session.type(b"\x01cjack mic unplug\r\x01c")
        termios.tcsetwinsize(session.slave, (50, 120))
        session.wait_until(lambda: '"resize",[120,50]' in (tmp_path / "run").read_text())
        session.type(b"\x04")

    record(image, tmp_path, use)
    lines = (tmp_path / "run").read_text()
    assert '"resize",[80,24]' in lines
    assert '"jack",["mic",false]' in lines
    assert "this was the same run as" in replay(image, tmp_path)[2]


def test_a_process_that_was_killed_leaves_a_recording(tmp_path):
    image = tiny.write_image(tmp_path / "Image", tiny.say("ready\n"), tiny.WAIT)

    def use(session):
        session.type(b"hello")
        session.wait_until(lambda: '"type"' in (tmp_path / "run").read_text())
        os.kill(session.pid, signal.SIGKILL)

    printed = record(image, tmp_path, use)
    status, again, said = replay(image, tmp_path)
    assert (status, again) == (0, printed)
    assert "has no end" in said


def test_resets_are_in_the_same_file(pyemu, tmp_path):
    image = tiny.write_image(tmp_path / "Image", tiny.say("again\n"), tiny.RESET)
    path = tmp_path / "run"
    command = [sys.executable, "-m", "emu", "boot", str(image), *WARP, "--record", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as running:
        printed = "".join(running.stdout.readline() for _ in range(3))
        running.terminate()
        printed += running.communicate()[0]
    assert running.returncode == 143
    assert path.read_text().count("pyemu recording") > 1
    status, again, said = pyemu("boot", image, "--replay", path)
    assert status == 0 or "ends here" in said  # where it was being switched on
    assert again == printed


def test_a_replay_asks_no_terminal_where_its_cursor_is(pyemu, tmp_path):
    image = tiny.write_image(tmp_path / "Image", tiny.say("one \x1b[6n two\n"), tiny.POWER_OFF)
    run = str(tmp_path / "run")
    assert pyemu("boot", image, *WARP, "--record", run) == (0, "one \x1b[6n two\n", "")
    session = Session(image, "--replay", run)
    try:
        session.wait_for(b"the same run")
        assert session.status() == 0
        assert b"one  two" in session.shown
    finally:
        session.close()


def test_what_is_typed_during_a_replay_goes_nowhere(image, tmp_path):
    printed = record(image, tmp_path, shut_down)
    assert replay(image, tmp_path, stdin=b"more\x04" * 100)[1] == printed


@pytest.mark.parametrize(("keys", "status"), [(b"x\x01x", 0), (b"x\x03", 130)])
def test_a_replay_can_be_left(tmp_path, keys, status):
    """Although nothing of it comes from the terminal."""
    image = tiny.write_image(tmp_path / "Image", tiny.say("ready\n"), tiny.SPIN)
    record(image, tmp_path, lambda session: os.kill(session.pid, signal.SIGKILL))
    session = Session(image, "--replay", str(tmp_path / "run"))
    try:
        session.wait_for(b"ready")
        session.type(keys)
        assert session.status() == status
        assert session.is_restored()
    finally:
        session.close()


def test_options_are_as_they_were_recorded(pyemu, tmp_path):
    image = tiny.write_image(tmp_path / "Image", tiny.say("ready\n"), tiny.POWER_OFF)
    path = tmp_path / "run"
    pyemu("boot", image, *WARP, "--record", path, "-m", "64M", "-a", "quiet", "--seed", 7)
    assert pyemu("boot", image, "--replay", path)[::2][0] == 0
    assert pyemu("boot", image, "--replay", path, *WARP, "-m", "64M", "-a", "quiet", "--seed", 7)[0] == 0
    status, _, said = pyemu("boot", image, "--replay", path, "-m", "65M")
    assert status == 2
    assert said.startswith(f"pyemu: error: {path} was recorded with memory")


def test_a_replay_that_differs_is_status_1_and_a_line(pyemu, tmp_path):
    image = tiny.write_image(tmp_path / "Image", tiny.say("ready\n"), tiny.POWER_OFF)
    path = tmp_path / "run"
    pyemu("boot", image, *WARP, "--record", path)
    path.write_text(path.read_text().replace('"end",[6,', '"end",[7,'))
    status, printed, said = pyemu("boot", image, "--replay", path)
    assert (status, printed) == (1, "ready\n")
    assert said.count("\n") == 1
    assert said.startswith(f"pyemu: error: the replay differs from {path} at 0.")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--record", "run"), "--record needs --clock warp"),
        (("--clock", "host", "--record", "run"), "--record needs --clock warp"),
        (("--clock", "host", "--replay", "run"), "--replay needs --clock warp"),
        (("--clock", "warp", "--record", "a", "--replay", "b"), "use one of --record and --replay"),
        (("--replay", "run", "--exec", "true"), "leave --exec out"),
        (("--replay", "nothing"), "the recording nothing cannot be read"),
    ],
)
def test_wrong_usage(pyemu, image, tmp_path, monkeypatch, options, why):
    monkeypatch.chdir(tmp_path)
    status, _, said = pyemu("boot", image, *options)
    assert (status, said.count("\n")) == (2, 1)
    assert why in said


def test_a_failure_says_how_to_repeat_it(pyemu, tmp_path):
    """A shell is not needed for one: this guest never has any."""
    image = tiny.write_image(tmp_path / "Image", tiny.say("ready\n"), tiny.FAIL)
    path = tmp_path / "run"
    status, _, said = pyemu("boot", image, *WARP, "--exec", "true")
    assert status == 1
    assert f"to repeat it: pyemu boot {image} --exec true --clock warp\n" in said
    status, _, said = pyemu("boot", image, *WARP, "--exec", "true", "--record", path, "-m", "64M", "--audio", "null")
    assert f"to repeat it: pyemu boot {image} --audio null --replay {path}\n" in said
    status, _, said = pyemu("boot", image, "--audio", "null", "--replay", path)
    assert status == 1
    assert "because of a failure (code 1)" in said
    assert "to repeat it" not in pyemu("boot", image, "--exec", "true")[2]


def test_a_run_from_a_snapshot_is_repeated_from_there(pyemu, tmp_path, monkeypatch):
    """With its own memory, command line and seed."""
    monkeypatch.chdir(tmp_path)
    with Machine(tiny.write_image(tmp_path / "Image", tiny.FAIL), clock="warp", seed=3, memory="64M") as machine:
        machine.save("x.pyemu")
    failed, _, said = pyemu("boot", "x.pyemu", *WARP, "--exec", "true")
    assert (failed, said.splitlines()[-1]) == (1, "pyemu: to repeat it: pyemu boot x.pyemu --exec true --clock warp")
    _, _, said = pyemu("boot", "x.pyemu", *WARP, "--exec", "true", "--record", "run")
    assert said.splitlines()[-1] == "pyemu: to repeat it: pyemu boot x.pyemu --replay run"
    assert pyemu("boot", "x.pyemu", "--replay", "run") == (1, "", FAILED)
    for options in (("-m", "64M"), ("-a", "quiet")):
        assert "a snapshot has its own" in pyemu("boot", "x.pyemu", "--replay", "run", *options)[2]
    assert "was recorded with a snapshot; give" in pyemu("boot", "Image", "--replay", "run")[2]


def test_a_quick_run_is_repeated_quickly(pyemu, tmp_path, monkeypatch):
    """Whether or not that is asked for again; and one that was none is not, whatever the environment says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path / "cache"))
    image = tiny.write_image(tmp_path / "Image", tiny.say("booted\n# "), tiny.until_typed(tiny.FAIL))
    monkeypatch.setattr(guest, "files", lambda *_: (image, None))
    _, printed, said = pyemu("boot", "--quick", *WARP, "-m", "64M", "--exec", "true")
    assert "booted" not in printed
    assert said.endswith("to repeat it: pyemu boot --quick --memory 64M --exec true --clock warp\n")
    assert said.count("booting the guest") == 1
    _, printed, said = pyemu("boot", "--quick", *WARP, "-m", "64M", "--exec", "true", "--record", "run")
    assert said.endswith("to repeat it: pyemu boot --replay run\n")
    for options in ((), ("--quick",)):
        assert pyemu("boot", "--replay", "run", *options) == (1, printed, FAILED)
    _, printed, _ = pyemu("boot", *WARP, "--exec", "true", "--record", "run")
    monkeypatch.setenv("PYEMU_QUICK", "1")
    assert "booted" in printed
    assert pyemu("boot", "--replay", "run")[:2] == (1, printed)
