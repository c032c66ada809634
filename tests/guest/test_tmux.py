"""A person at a terminal: pyemu in a shell in a tmux window, what is typed there, and what appears."""

import hashlib
import itertools
import os
import random
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS, ROWS = 100, 30
#: Both consoles of the guest: the default, and the other.
CONSOLES = [pytest.param((), id="ttyS0"), pytest.param(("-a", "console=hvc0"), id="hvc0")]


class Window:
    """A window with a shell in it, on its own tmux server."""

    def __init__(self, folder: Path) -> None:
        self._questions = itertools.count(1)
        self._tmux = ["tmux", "-S", str(folder / "socket"), "-f", "/dev/null"]
        shell = shlex.join(["env", "PS1=host> ", "ENV=", "sh"])
        self.command("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "-c", str(ROOT), shell)
        self.wait_for("host>$")

    def command(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
        done = subprocess.run([*self._tmux, *arguments], check=True, env=environment, capture_output=True, text=True)
        return done.stdout

    def press(self, *keys: str) -> None:
        """Press keys: names like Enter or C-c, anything else literally."""
        self.command("send-keys", *keys)

    def line(self, text: str) -> None:
        self.command("send-keys", "-l", text)
        self.press("Enter")

    def text(self) -> str:
        """What is visible and what has scrolled away, without trailing blanks."""
        return "\n".join(map(str.rstrip, self.command("capture-pane", "-p", "-S", "-").rstrip().splitlines()))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the text ends with ``pattern``, which may span several lines.

        Pytest's timeout says if it never does, and its report has the text.
        """
        while (match := re.search(rf"^{pattern}\Z", self.text(), re.MULTILINE)) is None:
            time.sleep(0.02)
        return match

    def ask(self, command: str) -> str:
        """Run a command in the guest, and return what it printed."""
        number = next(self._questions)  # so as not to mistake the last answer for this one
        self.line(f"echo {number}:''; {command}")
        return self.wait_for(rf"{number}:\n([^#]*)\n#")[1]

    def close(self) -> None:
        print(self.text())
        self.command("kill-server")


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    window = Window(tmp_path)
    yield window
    window.close()


@pytest.fixture
def boot(window: Window, guest_files: tuple[Path, Path]) -> Callable[..., Window]:
    """Boot the guest in the window, by typing the command there."""

    def run(*options: str, below: str = "") -> Window:
        window.line(shlex.join([sys.executable, "-m", "emu", "boot", *map(str, guest_files), *options]))
        window.wait_for(f"#{below}")
        return window

    return run


@pytest.mark.parametrize("options", CONSOLES)
def test_line_editing(boot, options):
    window = boot(*options)
    window.press("echo ab3", "BSpace", "d", "Left", "c", "Right", "e", "Home", "Delete", "e", "End", "f", "Enter")
    window.wait_for("# echo abcdef\nabcdef\n#")
    window.press("Up", "Enter")
    window.wait_for("(# echo abcdef\nabcdef\n){2}#")


@pytest.mark.parametrize("options", CONSOLES)
def test_job_control_in_the_guest(boot, options):
    window = boot(*options)
    window.line("sh -c 'echo one; exec sleep 100'")
    window.wait_for("one")
    window.press("C-c")
    window.wait_for(r"one\n\^C\n#")
    window.line("sh -c 'echo two; exec sleep 200'")
    window.wait_for("two")
    window.press("C-z")
    window.wait_for(r"two\n\^Z\[1\]\+ +Stopped .*sleep 200.*\n#")
    window.line("fg")
    window.wait_for("# fg\n.*sleep 200.*")
    window.press("C-c")
    window.wait_for(r"# fg\n.*sleep 200.*\n\^C\n#")


def test_help_monitor_and_time_stamps(boot):
    window = boot()
    window.press("C-a", "h")
    for key in ("x", "c", "t", "z", "h", "C-a"):
        assert f"\npyemu: C-a {key} " in window.wait_for("(.*\n)*pyemu: C-a C-a .*")[0]
    window.press("C-a", "c")
    window.wait_for(r"\(pyemu\)")
    window.line("jack mic unplug")
    window.line("jack")
    window.wait_for(r"\(pyemu\) jack\nline: plugged\nmic: unplugged\n\(pyemu\)")
    window.press("C-a", "c", "Enter")
    window.wait_for("#")
    window.press("C-a", "t")
    window.line("echo one; echo two")
    stamp = r"\[00:0\d:\d\d\.\d{3}\] "
    window.wait_for(rf"# echo one; echo two\n{stamp}one\n{stamp}two\n{stamp}#")
    window.press("C-a", "t")
    window.line("echo one; echo two")
    window.wait_for(r".*# echo one; echo two\none\ntwo\n#")


def test_saved_and_gone_on_from(boot, window, tmp_path):
    """With C-a s, and at the monitor; what goes on from there is at its prompt, and what is typed is heard."""
    boot("--save", str(tmp_path / "key"))
    window.line("cd /tmp; echo one > file")
    window.wait_for("(.*\n)*# cd .*\n#")
    window.press("C-a", "s")
    window.wait_for(r"(.*\n)*# pyemu: saved; (.|\n)*/key")
    window.line("echo two > file; cat file")
    window.wait_for("(.*\n)*two\n#")
    window.press("C-a", "c")
    window.wait_for(r"(# )?\(pyemu\)")
    window.line(f"save {tmp_path}/monitor")
    window.wait_for(r"(# )?\(pyemu\) save (.|\n)*/monitor\n\(pyemu\)")
    window.line("quit")
    window.wait_for("(.*\n)*host>")
    for name, content in (("key", "one"), ("monitor", "two")):
        window.line(shlex.join([sys.executable, "-m", "emu", "boot", str(tmp_path / name)]))
        window.wait_for("pyemu: C-a x quits, C-a h shows help\n#")
        window.line("pwd; cat file")
        window.wait_for(f"# pwd; cat file\n/tmp\n{content}\n#")
        window.press("C-a", "x")
        window.wait_for("(.*\n)*host>")


@pytest.mark.parametrize("options", CONSOLES)
def test_the_guest_knows_the_size_of_the_window(boot, options):
    window = boot(*options)
    wait = "until stty size 2>&1 | grep -q '{0}'; do sleep 0.1; done; stty size"
    assert window.ask(wait.format("30 100")) == "30 100"
    window.command("resize-window", "-x", "121", "-y", "41")
    assert window.ask(wait.format("41 121")) == "41 121"
    # A program that asked is notified once if only the columns change: follow-window sets rows and columns separately.
    window.line("sh -c 'trap \"stty size; exit\" WINCH; echo ready; while :; do sleep 0.1; done'")
    window.wait_for("ready")
    window.command("resize-window", "-x", "90")
    window.wait_for("ready\n41 90\n#")


def test_the_meter_has_a_row_of_its_own(boot):
    meter = r"\n+ \d+:\d\d\.\d  silent .*"
    window = boot("--meter", below=meter)
    window.line("until stty size 2>&1 | grep '29 100'; do sleep 0.1; done")
    window.wait_for(f"29 100\n#{meter}")


def test_suspended_and_in_the_foreground_again(boot):
    window = boot()
    begin, uptime = time.monotonic(), float(window.ask("cut -d ' ' -f 1 /proc/uptime"))
    window.press("C-a", "z")
    window.wait_for(r".*\[1\] \+ (Stopped|Suspended) .*\n(.*\n)?host>")
    stopped = time.monotonic()
    window.line("stty -a | grep -o ' icanon\\| echo ' | sort")
    window.wait_for(" echo\n icanon\nhost>")
    window.command("resize-window", "-x", "90", "-y", "35")
    time.sleep(2)
    stopped = time.monotonic() - stopped
    window.line("fg")
    passed = float(window.ask("cut -d ' ' -f 1 /proc/uptime")) - uptime
    assert 0 < passed <= time.monotonic() - begin - stopped + 0.25  # the least gap that the clock takes for a stop
    window.ask("until stty size | grep '35 90'; do sleep 0.1; done")


@pytest.mark.parametrize("options", CONSOLES)
def test_a_paste_of_100_kb_loses_nothing(boot, tmp_path, options):
    window = boot(*options)
    data = random.Random(1).randbytes(50_000).hex(" ", 7).replace(" ", "\n") + "\n"
    assert len(data) > 100_000
    (tmp_path / "paste").write_text(data)
    window.line("echo ready; cat >/tmp/pasted")
    window.wait_for("ready")
    window.command("load-buffer", str(tmp_path / "paste"))
    window.command("paste-buffer")
    window.press("C-d")
    assert hashlib.md5(data.encode()).hexdigest() in window.ask("md5sum </tmp/pasted")


@pytest.mark.parametrize("way_out", [("C-a", "x"), ("poweroff", "Enter"), ("C-a", "c", "quit", "Enter")])
def test_the_terminal_is_as_it_was(boot, window, tmp_path, way_out):
    before, after = tmp_path / "before", tmp_path / "after"
    window.line(f"stty -a >{before}")
    boot().press(*way_out)
    window.wait_for("host>")
    window.line(f"stty -a >{after}; echo do''ne")
    window.wait_for("done\nhost>")
    assert after.read_text() == before.read_text()
