"""The default guest from Python: every example in the documentation is run; and a user's own repository."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import emu
from emu import Machine, ShellError

ROOT = Path(emu.__file__).parents[1]
TEXT = "".join((ROOT / name).read_text() for name in ("README.md", "emu/GUIDE.md"))
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SCRIPTS = [example for example in EXAMPLES if "\ndef test_" not in example]
TESTS = [example for example in EXAMPLES if "\ndef test_" in example]


def docstring_example(text: str, first_line: str) -> str:
    """The indented example in a docstring, starting with ``first_line``."""
    block = re.search(rf"^( *){re.escape(first_line)}.*\n(?:(?:\1 *.*)?\n)*", text, re.MULTILINE)
    assert block, f"no example begins with {first_line!r}"
    return "\n".join(line.removeprefix(block[1]) for line in block[0].splitlines())


@pytest.fixture(scope="module")
def machine(guest_files) -> Machine:
    with Machine(*guest_files, clock="warp") as machine:
        yield machine


# ---------------------------------------------------------------- examples


def test_there_are_examples():
    assert len(SCRIPTS) >= 2
    assert len(TESTS) >= 1


@pytest.mark.parametrize("example", SCRIPTS)
def test_examples_work(example, guest_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in guest_files:  # for an example that names them
        (tmp_path / file.name).symlink_to(file)
    printed = []
    exec(example, {"print": lambda *values: printed.append(" ".join(map(str, values)))})
    promised = re.findall(r"print\(.*\)  # (.*)", example)
    assert [line for line in printed if line in promised] == promised


@pytest.mark.parametrize("docstring", [Machine.__doc__, emu.__doc__], ids=["Machine", "emu"])
def test_docstring_examples_work(docstring, guest_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = docstring_example(docstring, "with Machine(")
    printed = []
    exec(
        code.partition("\n\nT")[0].partition("\n\nW")[0],
        {"Machine": Machine, "print": lambda *values: printed.append(values)},
    )
    assert printed == [(0, (48000, 2))]


# ---------------------------------------------------------------- console.run


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("true", 0, ""),
        ("false", 1, ""),
        ("echo one; echo two", 0, "one\ntwo\n"),
        ("printf 'no newline'", 0, "no newline"),
        ("echo one\necho two", 0, "one\ntwo\n"),
        ("""echo "it's" '"quoted"' '\\n'""", 0, 'it\'s "quoted" \\n\n'),
        (f"echo {'x' * 2000}", 0, "x" * 2000 + "\n"),
        ("echo über", 0, "über\n"),
        ("exec 3>&1; (exit 42)", 42, ""),
        ("echo to stderr >&2", 0, "to stderr\n"),
        ("printf '%s\\n' \"$PS1\" | grep -c pyemu", 0, "1\n"),
    ],
)
def test_run_returns_the_status_and_what_was_printed(machine, command, status, output):
    assert machine.console.run(command) == (status, output)


def test_a_syntax_error_is_the_commands_error(machine):
    status, output = machine.console.run("if")
    assert status == 2
    assert "syntax error" in output
    assert machine.console.run("echo fine") == (0, "fine\n")


def test_kernel_messages_are_output_too(machine):
    output = machine.console.run("dmesg | head -3").output
    assert all(line.startswith("[    0.0") for line in output.splitlines())
    assert len(output.splitlines()) == 3


def test_the_console_can_be_used_by_hand_in_between(machine):
    machine.console.run("cd /tmp")
    machine.console.sendline("echo by hand; cat")
    machine.console.expect("by hand\r\n")
    machine.console.send("\x04")
    assert machine.console.run("pwd") == (0, "/tmp\n")
    machine.console.sendline("sleep 3; echo slept")  # its prompt is still to come
    assert machine.console.run("echo next") == (0, "next\n")


def test_expect_looks_at_what_comes_after_a_command(machine):
    machine.console.run("(sleep 5; echo ready) & echo ready")
    machine.console.expect("ready\r\n")


def test_a_command_that_takes_too_long_is_abandoned_and_the_next_one_works(machine):
    with pytest.raises(ShellError, match=r"console\.run: not finished after 0\.1 s, still running"):
        machine.console.run("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", timeout=0.1)
    assert machine.console.run("echo back") == (0, "back\n")


@pytest.mark.parametrize("command", ["cat", "while :; do :; done", "(trap '' INT; exec cat)"])
def test_a_command_that_does_not_end_is_interrupted_by_the_next_one(machine, command):
    with pytest.raises(ShellError):
        machine.console.run(command, timeout=0.3)
    assert machine.console.run("echo back; false") == (1, "back\n")


def test_output_beyond_what_is_kept_is_an_error_not_truncated(machine, monkeypatch):
    monkeypatch.setattr("emu.console._KEPT", 2000)
    with pytest.raises(ShellError, match="too long, or garbled"):
        machine.console.run("dmesg")
    assert machine.console.run("echo fine") == (0, "fine\n")


# ---------------------------------------------------------------- sound and counters


def test_what_is_played_into_the_microphone_is_recorded_exactly(machine):
    ramp = np.arange(2 * 40_000).reshape(-1, 2).astype(np.int16)
    machine.audio.play(ramp)
    assert machine.console.run("arecord -q -D hw:0,0 -f S16_LE -r 48000 -c 2 -d 1 /tmp/ramp.wav").status == 0
    output = machine.console.run("tail -c +45 /tmp/ramp.wav | md5sum").output
    expected = ramp.tobytes() + bytes(4 * 8000)
    assert output.split()[0] == hashlib.md5(expected).hexdigest()


def test_counters_cover_sound_and_interrupts(machine):
    before = machine.counters
    machine.console.run("aplay -q -D hw:0,0 /root/tone.wav")
    after = machine.counters
    assert after.frames_played - before.frames_played == 48000
    assert after.periods > before.periods
    assert after.interrupts[1] > before.interrupts[1]
    assert after.traps > before.traps
    assert (after.underruns, after.lost_frames) == (before.underruns, before.lost_frames)
    assert after.guest_ns - before.guest_ns >= 10**9


def test_a_jack_unplugged_in_the_monitor_is_unplugged_in_the_guest(machine):
    def state() -> str:
        return machine.console.run("amixer -c 0 cget iface=CARD,name='Mic Jack'").output

    assert "values=on" in state()
    machine.monitor("jack mic unplug")
    assert "values=off" in state()
    machine.monitor("jack mic plug")
    assert "values=on" in state()


# ---------------------------------------------------------------- a user's own repository


def plugin_options() -> list[str]:
    """What loads the plugin where pyemu is not installed but in the path."""
    points = metadata.entry_points(group="pytest11")
    return (
        []
        if any(point.value == "emu.testing.pytest_plugin" for point in points)
        else ["-p", "emu.testing.pytest_plugin"]
    )


class Repository:
    """Another project, which tests with pyemu."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run(["git", "init", "--quiet", path], check=True)
        # Where the host is busy, a machine may need long for its answer.
        self.write("conftest.py", "from emu.testing import pytest_plugin\npytest_plugin._PROMPTLY_S = 1000.0\n")

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Where all of a user's pytests keep files, only those of the last three stay.
        kept = f"--basetemp={self.path.with_name('kept')}"
        return subprocess.run(  # noqa: PLW1510 - its status is what is looked at
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", kept, *plugin_options(), *arguments],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def repository(tmp_path, guest_files) -> Repository:
    return Repository(tmp_path / "project")


def test_the_example_is_ten_lines_and_green(repository):
    assert len(TESTS[0].splitlines()) <= 10
    repository.write("test_tone.py", TESTS[0])
    done = repository.pytest()
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_machine_that_went_on_from_a_snapshot_is_repeated_by_the_command_in_the_report(repository):
    repository.write(
        "test_it.py",
        """
def test_it(fresh_machine):
    machine = fresh_machine()
    assert b"Linux version" in bytes(machine.console.text)  # it has booted already
    assert machine.console.run("echo it went wrong; exit 3 | true").status == 3
""",
    )
    text = repository.pytest("--basetemp=kept").stdout
    command = re.search(r"to repeat it, to the bit:\npyemu (boot .*/ready.pyemu --replay .*/run.pyemu)\n", text)
    assert command, text
    done = subprocess.run(
        [sys.executable, "-m", "emu", *shlex.split(command[1])], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "it went wrong" in done.stdout
    assert "this was the same run as" in done.stderr


def test_each_test_has_the_machine_as_it_had_booted(repository):
    """With pyemu_restore; and fresh_machine boots when asked to."""
    repository.write("pytest.ini", "[pytest]\npyemu_restore = true\n")
    repository.write(
        "test_it.py",
        """
import pytest

@pytest.mark.parametrize("end", ["true", "poweroff -f &", "cat &"])
def test_it(machine, end):
    assert machine.console.run("ls /tmp/file").status == 1
    machine.console.run("touch /tmp/file")
    machine.console.sendline(end)
    machine.run_for(0.2)

def test_booted(fresh_machine):
    machine = fresh_machine(boot=True)
    assert bytes(machine.console.text) == b""
    machine.console.expect("# ")
""",
    )
    done = repository.pytest()
    assert "4 passed" in done.stdout, done.stdout


def test_workers_that_start_at_once_share_one_snapshot(repository, guest_files, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    for file in guest_files:
        (cache / file.parent.name).symlink_to(file.parent)
    monkeypatch.setenv("PYEMU_CACHE", str(cache))
    repository.write(
        "test_it.py",
        """
import pytest

@pytest.mark.parametrize("n", range(4))
def test_it(fresh_machine, machine, n):
    for one in fresh_machine(), machine:
        assert one.console.run(f"echo {n}; aplay -q -D hw:0,0 /root/tone.wav") == (0, f"{n}\\n")
        assert len(one.audio.frames) == 48000
""",
    )
    done = repository.pytest("-n", "2")
    assert "4 passed" in done.stdout, done.stdout
    assert (done.stdout + done.stderr).count("booting the guest") == 1
    assert len(list(cache.glob("ready-*/ready.pyemu"))) == 1


def test_a_failure_shows_the_console_and_the_next_test_has_a_new_machine(repository):
    repository.write(
        "test_it.py",
        """
seen = []

def test_it_fails(machine):
    seen.append(machine)
    machine.console.run("touch /tmp/left; aplay -q -D hw:0,0 /root/tone.wav; echo the driver says boo")
    assert False

def test_it_has_a_new_machine(machine):
    assert machine is not seen[0]
    assert machine.console.run("ls /tmp/left").status == 1
    seen.append(machine)

def test_it_is_shared(machine):
    assert machine is seen[1]
    assert machine.audio.played == 0
    machine.console.run("aplay -q -D hw:0,0 /root/tone.wav")
    assert len(machine.audio.frames) == 48000

def test_sound_is_its_own(machine):
    assert machine is seen[1]
    assert len(machine.audio.frames) == 0
    machine.console.sendline("poweroff")
    machine.run()

def test_it_boots_again_after_a_power_off(machine):
    assert machine is not seen[1]
""",
    )
    done = repository.pytest()
    assert "1 failed, 4 passed" in done.stdout, done.stdout
    assert re.search(r"- console of the machine -+\n(.*\n)*the driver says boo\n", done.stdout)
    assert "played.wav: 48000 frames (1.000 s)" in done.stdout
    picture = re.search(r"^(/.*/played.png): the same as a picture$", done.stdout, re.MULTILINE)
    assert Path(picture[1]).read_bytes().startswith(b"\x89PNG")
    command = re.search(r"run.pyemu: the run; to repeat it, to the bit:\npyemu (boot .*)\n", done.stdout)
    again = subprocess.run(
        [sys.executable, "-m", "emu", *shlex.split(command[1])], capture_output=True, text=True, check=False
    )
    assert "the driver says boo" in again.stdout
    assert "this was the same run as" in again.stderr


def test_settings_and_fresh_machines(repository):
    program = "guest/usr/bin/greet"
    repository.write(program, "#!/bin/sh\necho hello $1\n")
    (repository.path / program).chmod(0o755)
    (repository.path / "data.img").write_bytes(b"data" * 128)
    repository.write(
        "pytest.ini",
        "[pytest]\npyemu_overlay = guest\npyemu_memory = 128M\npyemu_disks = data.img,readonly\n"
        "pyemu_append = console=ttyS0 quiet\n",
    )
    repository.write(
        "test_it.py",
        """
def test_the_shared_one(machine):
    assert machine.console.run("greet you") == (0, "hello you\\n")
    assert machine.console.run("head -c 4 /dev/vda").output == "data"
    assert "quiet" in machine.console.run("cat /proc/cmdline").output
    machine.console.run("touch /tmp/left")

def test_a_fresh_one(machine, fresh_machine):
    with_disk, without = fresh_machine(), fresh_machine(disks=[], memory="64M")
    for fresh in with_disk, without:
        assert fresh.console.run("greet me; ls /tmp/left 2>/dev/null") == (1, "hello me\\n")
    assert without.console.run("ls /dev/vda").status == 1
    memory = [int(one.console.run("grep MemTotal /proc/meminfo").output.split()[1]) for one in (with_disk, without)]
    assert memory[1] < 65536 < memory[0] < 131072
""",
    )
    done = repository.pytest()
    assert "2 passed" in done.stdout, done.stdout


def test_a_session_without_machines_does_not_load_one(repository):
    repository.write(
        "test_it.py",
        "import sys\ndef test_it():\n    assert 'unicorn' not in sys.modules and 'numpy' not in sys.modules\n",
    )
    done = repository.pytest()
    assert done.returncode == 0, done.stdout


def test_fixtures_are_documented(repository):
    done = repository.pytest("--fixtures", "--markers")
    assert done.returncode == 0
    done = repository.pytest("--fixtures")
    assert "fresh_machine -- " in done.stdout
    assert "machine -- " in done.stdout
