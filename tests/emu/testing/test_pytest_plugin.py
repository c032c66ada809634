"""The pytest plugin with kernels of a few instructions; tests/guest/test_python.py has it with a real guest."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emu.console import CommandResult
from emu.shell import ShellError
from emu.testing.pytest_plugin import SharedMachine
from tests.emu.tiny import ECHO, WAIT, say, write_image


def test_a_kernel_without_a_shell(project, tmp_path):
    write_image(tmp_path / "Image", say("ready\n"), ECHO)
    (tmp_path / "disk.img").write_bytes(bytes(1024))
    text = project(
        "pyemu_kernel = Image\npyemu_memory = 32M\npyemu_disks = disk.img,readonly\npyemu_clock = host\npyemu_seed = 7",
        """
from emu import HostClock, WarpClock

def test_settings(fresh_machine):
    machine = fresh_machine()
    machine.console.expect("ready")
    assert type(machine.clock) is HostClock
    assert [disk.size for disk in machine.disks] == [1024]
    assert machine.audio.frames.shape == (0, 2)

def test_options_come_first(fresh_machine):
    machines = fresh_machine(clock="warp"), fresh_machine(disks=[])
    assert [machine.chance.seed for machine in machines] == [7, 7]
    assert type(machines[0].clock) is WarpClock
    assert machines[1].disks == []
""",
    )
    assert "2 passed" in text, text


def test_a_seed_that_is_no_number(project, tmp_path):
    write_image(tmp_path / "Image", WAIT)
    text = project("pyemu_kernel = Image\npyemu_seed = chance", "def test_it(fresh_machine): fresh_machine()")
    assert "pyemu_seed: 'chance' is not a whole number" in text


def test_only_the_report_of_a_failure_has_the_console(project, tmp_path):
    write_image(tmp_path / "Image", say("it went \x1b[1mwrong\x1b[0m\r\n"), WAIT)
    text = project(
        "pyemu_kernel = Image",
        """
def test_fails(fresh_machine):
    fresh_machine().run_for(0.01)
    assert False

def test_passes(fresh_machine):
    fresh_machine().run_for(0.01)
""",
    )
    assert "1 failed, 1 passed" in text, text
    assert text.count("console of the machine -") == 1
    assert "\nit went wrong\n" in text
    assert "played-1.wav: nothing was played" in text


def test_the_report_of_a_failure_has_the_command_that_repeats_it(project, tmp_path):
    write_image(tmp_path / "Image", say("it went wrong\n"), WAIT)
    text = project(
        "pyemu_kernel = Image\npyemu_seed = 3",
        """
def test_fails(fresh_machine):
    machine = fresh_machine(memory="64M", audio="null,streams=2+1")
    machine.run_for(0.01)
    machine.console.send("x")
    assert False
""",
    )
    command = re.search(r"run.pyemu: the run; to repeat it, to the bit:\npyemu (boot .*)\n", text)
    done = subprocess.run(
        [sys.executable, "-m", "emu", *shlex.split(command[1])], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "it went wrong\n")
    assert "this was the same run as" in done.stderr


def test_by_the_hosts_clock_there_is_none(project, tmp_path):
    write_image(tmp_path / "Image", WAIT)
    text = project("pyemu_kernel = Image\npyemu_clock = host", "def test_it(fresh_machine): fresh_machine().nonsense()")
    assert "1 failed" in text
    assert "run of the machine" not in text


def test_a_machine_that_cannot_boot_is_one_error_with_its_console(project, tmp_path):
    write_image(tmp_path / "Image", say("no shell here\r\n"), WAIT)
    text = project("pyemu_kernel = Image", "def test_it(machine):\n    pass\n")
    assert "1 error" in text, text
    assert "console.run: the guest shows no shell; its console ends with 'no shell here'" in text
    assert "console of the machine -" in text


def test_a_wrong_setting_says_what_is_right(project):
    text = project("pyemu_kernel = nothing", "def test_it(machine):\n    pass\n")
    assert "UsageError" in text
    assert "nothing" in text


class Fake:
    """A machine, as far as SharedMachine uses it."""

    def __init__(self) -> None:
        self.console = self
        self.closed = False
        self.error: Exception | None = None

    def run(self, command: str, timeout: float = 60.0) -> CommandResult:
        if self.error is not None:
            raise self.error
        return CommandResult(0, "")

    def resume(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_one_machine_is_shared_until_it_is_discarded_or_does_not_answer():
    made: list[Fake] = []
    watched: list[Fake] = []

    def switch_on() -> Fake:
        made.append(Fake())
        return made[-1]

    shared = SharedMachine(switch_on)
    assert shared.get(watched.append) is shared.get(watched.append) is made[0]
    made[0].error = ShellError("gone")
    assert shared.get(watched.append) is made[1]
    assert made[0].closed
    shared.discard()
    assert made[1].closed
    assert shared.get(watched.append) is made[2]
    assert watched == [made[0], made[0], made[1], made[2]]


PLAYS = """
from devices.audio.pcm import FORMATS, PcmParams

def play(machine, second=bytes(range(256)) * 750):
    machine.audio.open_playback(0, PcmParams(FORMATS["S16"], 48000, 2)).write(second)
"""
FAILS = f"""
{PLAYS}
def test_it(fresh_machine):
    play(fresh_machine())
    assert False
"""


def test_a_failure_leaves_a_picture_of_the_sound(project, tmp_path):
    pytest.importorskip("matplotlib")
    write_image(tmp_path / "Image", WAIT)
    text = project("pyemu_kernel = Image\nfilterwarnings = error", FAILS)
    picture = re.search(r"^(/.*/played-1.png): the same as a picture$", text, re.MULTILINE)
    assert picture, text
    assert Path(picture[1]).read_bytes().startswith(b"\x89PNG")
    assert Path(picture[1]).with_suffix(".jsonl").is_file()
    assert f"{Path(picture[1]).with_suffix('.wav')}: 48000 frames (1.000 s)" in text


def test_a_passing_test_leaves_no_picture(project, tmp_path):
    write_image(tmp_path / "Image", WAIT)
    text = project("pyemu_kernel = Image", FAILS.replace("assert False", "pass"))
    assert "1 passed" in text, text
    assert not list((tmp_path / "kept").rglob("*.png"))
    assert list((tmp_path / "kept").rglob("played-1.wav"))


def test_without_matplotlib_a_line_says_how_to_get_it(project, tmp_path):
    write_image(tmp_path / "Image", WAIT)
    text = project("pyemu_kernel = Image", f"import sys\nsys.modules['matplotlib'] = None\n{FAILS}")
    assert "played-1.png: pictures need matplotlib: pip install 'pyemu-riscv[plot]'" in text, text


def test_a_picture_that_fails_does_not_hide_the_failure(project, tmp_path):
    write_image(tmp_path / "Image", WAIT)
    text = project("pyemu_kernel = Image", f"import emu.analysis.picture as p\np.plot = lambda *a: 1 / 0\n{FAILS}")
    assert "played-1.png could not be drawn: ZeroDivisionError: division by zero" in text, text
    assert "1 failed" in text
    assert "E   " in text


def test_a_build_shows_its_progress(project, tmp_path):
    image = write_image(tmp_path / "Image", say("ready\n"), WAIT)
    (tmp_path / "conftest.py").write_text(
        f"""
import emu.guest
from pathlib import Path

def files(progress):
    progress("compiling the kernel: 42 %")
    return Path({str(image)!r}), None

emu.guest.files = files
"""
    )
    text = project("", "def test_it(fresh_machine):\n    fresh_machine(boot=True).console.expect('ready')\n")
    assert "pyemu: compiling the kernel: 42 %\n" in text, text
    assert "1 passed" in text


def test_a_guest_that_cannot_be_built_is_one_line_that_says_what_to_install(project, tmp_path):
    (tmp_path / "conftest.py").write_text(
        """
import emu.guest
from emu import MissingPackageError

def files(progress):
    raise MissingPackageError("building the guest needs bc; install: sudo apt install bc")

emu.guest.files = files
"""
    )
    text = project("", "def test_it(machine):\n    pass\n")
    assert "\npyemu: building the guest needs bc; install: sudo apt install bc\n" in text, text
    assert "Traceback" not in text
    assert "def _default_guest" not in text
