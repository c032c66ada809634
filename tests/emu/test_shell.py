"""--exec against a scripted console: what a guest shows, and its answer to each line."""

import math
import re
import time
from collections.abc import Callable, Iterator

import pytest

from devices.errors import UsageError
from devices.power import PowerAction, PowerRequest
from emu.chance import Chance
from emu.console import Console, ConsoleState
from emu.shell import Shell, ShellError, run_commands
from emu.snapshot.plain import decode, encode, type_of
from emu.timing.clock import ManualClock
from emu.timing.events import DeadlineHeap

Script = Callable[["Guest"], Iterator[None]]


class Guest:
    """What Shell needs from a Machine. ``script`` is the guest's program: it yields to wait for a line."""

    def __init__(self, script: Script) -> None:
        self.clock = ManualClock()
        self.events = DeadlineHeap()
        self.chance = Chance(0)
        self.console = Console(lambda done, _timeout: self.run_until(done), shell=lambda word: Shell(self, "run", word))
        self.console.connect(self)
        self.power: PowerRequest | None = None
        self.paused = False
        self.ready = None
        self.lines: list[str] = []  # typed, not yet read
        self._partial = ""
        self._script = script(self)
        next(self._script, None)

    # the serial line
    def receive(self, data: bytes) -> int:
        *lines, self._partial = re.split(r"\r|(?<=[\x03\x1c])", self._partial + data.decode())
        self.lines += lines
        return len(data)

    listening = True

    # the machine
    def run_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        if self.paused and timeout is None:
            raise UsageError("paused")
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not done() and self.power is None:
            if time.monotonic() > end:
                return False
            if self.lines:
                next(self._script, None)
            else:
                deadline = self.events.next_deadline()
                assert deadline is not None, "waits for ever"
                self.clock.advance(max(0, deadline - self.clock.now()))
            self.console.flush()
            self.events.run_due(self.clock.now())
        return done()

    # the script's tools
    def show(self, text: str) -> None:
        self.console.print(text.encode())

    def after(self, seconds: float, text: str) -> None:
        self.events.at(self.clock.now() + round(seconds * 1e9), lambda: self.show(text))

    def read_line(self) -> str:
        line = self.lines.pop(0)
        self.show(f"{line}\r\n")  # the echo
        return line


def shell(guest: Guest, prompt: str = "# ", answers: dict[str, tuple[str, int]] | None = None) -> Iterator[None]:
    """A root shell that knows ``answers``: command -> (output, exit status)."""
    status = 0
    while True:
        guest.show(prompt.replace("$?", str(status)))
        yield
        line = guest.read_line()
        if setting := re.match(r"_pyemu_ps1=\$PS1; PS1='(.*?)' && trap 'echo \"(.*)\"' EXIT$", line.replace("''", "")):
            prompt, trap = setting[1], setting[2].replace('""', "")
        elif line == "poweroff":
            guest.power = PowerRequest(PowerAction.OFF)
        elif line:
            command = re.fullmatch(r"eval '(.*)'", line)[1].replace("'\\''", "'")
            if captured := re.fullmatch(r"echo (.*?); eval (.*)", command):
                guest.show(captured[1].replace("''", "") + "\r\n")
                command = captured[2].strip("'")
            if command == "die":
                return
            if leave := re.fullmatch(r"exit (\d+)", command):
                guest.show(trap.replace("$?", leave[1]) + "\r\n")
                return
            output, status = (answers or {}).get(command, ("", 0))
            guest.show(output)


def test_status_of_the_last_command_when_all_succeed():
    guest = Guest(lambda guest: shell(guest, answers={"one": ("1\r\n", 0)}))
    assert run_commands(guest, ["one", "two"]) == 0
    assert guest.power == PowerRequest(PowerAction.OFF)


def test_a_machine_that_pauses_until_its_output_is_read_is_waited_for():
    guest = Guest(shell)
    guest.paused = True
    assert run_commands(guest, ["one"]) == 0
    with pytest.raises(UsageError, match="paused"):
        guest.console.run("one")


def test_stops_at_the_first_command_that_fails_and_still_powers_off():
    guest = Guest(lambda guest: shell(guest, answers={"one": ("", 7)}))
    assert run_commands(guest, ["one", "two"]) == 7
    assert b"two" not in guest.console.text
    assert guest.power == PowerRequest(PowerAction.OFF)


@pytest.mark.parametrize("prompt", ["# ", "~ # ", "root@box:~# ", "\x1b[1;32mroot\x1b[0m# \x1b[6n", "sh-5.2$ "])
def test_prompts_that_it_knows(prompt):
    assert run_commands(Guest(lambda guest: shell(guest, prompt)), ["true"]) == 0


@pytest.mark.parametrize("output", ["no newline", "# ", "\r\n# ", "pyemu-000000:0# ", "x" * 5000])
def test_output_that_looks_like_a_prompt_or_has_no_newline(output):
    guest = Guest(lambda guest: shell(guest, answers={"one": (output, 3)}))
    assert run_commands(guest, ["one"]) == 3


def test_kernel_line_in_the_middle_of_the_prompt():
    def script(guest: Guest) -> Iterator[None]:
        guest.show("# ")
        yield
        word = guest.read_line().replace("''", "").split("PS1='")[1].split(":")[0]
        guest.show(f"{word[:7]}[    1.234567] a line of the kernel's\r\n{word[7:]}:0# ")
        yield from shell(guest, f"{word}:$?# ")

    assert run_commands(Guest(script), ["true"]) == 0


def test_kernel_line_after_the_first_prompt():
    def script(guest: Guest) -> Iterator[None]:
        guest.show("# [    1.234567] a line of the kernel's\r\n")
        yield
        guest.read_line()
        yield from shell(guest)

    assert run_commands(Guest(script), ["true"]) == 0


@pytest.mark.parametrize("typed", ["", "eval 'o"])
def test_a_prompt_that_is_drawn_again_is_not_the_end_of_the_command(typed):
    def script(guest: Guest) -> Iterator[None]:
        guest.show("# ")
        yield
        word = guest.read_line().replace("''", "").split("PS1='")[1].split(":")[0]
        guest.show(f"{word}:0# ")
        yield
        guest.show(f"{typed}\r{word}:0# {typed}\x1b[J")
        guest.after(1, f"{guest.lines.pop(0)}\r\nprogress\r{word}:7# ")
        yield
        guest.power = PowerRequest(PowerAction.OFF)

    assert run_commands(Guest(script), ["one"]) == 7


def test_logs_in_as_root():
    def script(guest: Guest) -> Iterator[None]:
        guest.show("\r\nWelcome\r\nbox login: ")
        yield
        assert guest.read_line() == "root"
        yield from shell(guest)

    assert run_commands(Guest(script), ["true"]) == 0


def test_a_console_that_wants_enter_first():
    def script(guest: Guest) -> Iterator[None]:
        guest.show("\r\nPlease press Enter to activate this console. ")
        yield
        guest.read_line()
        yield from shell(guest)

    assert run_commands(Guest(script), ["true"]) == 0


@pytest.mark.parametrize(("answer", "message"), [
    ("Password: ", "asks for a password"),
    ("\r\nLogin incorrect\r\nbox login: ", "root cannot log in"),
])  # fmt: skip
def test_login_that_fails(answer, message):
    def script(guest: Guest) -> Iterator[None]:
        guest.show("box login: ")
        yield
        guest.read_line()
        guest.show(answer)
        yield

    with pytest.raises(ShellError, match=message):
        run_commands(Guest(script), ["true"])


def test_no_shell_is_given_up_and_the_console_is_quoted():
    def script(guest: Guest) -> Iterator[None]:
        guest.show("starting\r\n")
        guest.after(20, "nothing more")
        while True:
            yield
            guest.lines.clear()

    guest = Guest(script)
    with pytest.raises(ShellError, match="shows no shell; its console ends with 'nothing more'"):
        run_commands(guest, ["true"])
    assert 100 < guest.clock.now() / 1e9 < 200


def test_something_that_only_looks_like_a_shell():
    def script(guest: Guest) -> Iterator[None]:
        guest.show("# ")
        while True:
            yield
            guest.read_line()

    with pytest.raises(ShellError, match="what looked like a shell is not"):
        run_commands(Guest(script), ["true"])


def test_shell_that_ends():
    def script(guest: Guest) -> Iterator[None]:
        yield from shell(guest)
        guest.show("\r\n")
        yield from shell(guest)

    for command in ("die", "exit 0"):
        with pytest.raises(ShellError, match=f"'{command}': the shell has ended"):
            run_commands(Guest(script), [command, "true"])


def test_exit_is_a_command_with_a_status():
    def script(guest: Guest) -> Iterator[None]:
        yield from shell(guest)
        guest.after(1, "\r\nbox login: ")
        yield
        assert guest.read_line() == "root"
        yield from shell(guest)

    guest = Guest(script)
    assert run_commands(guest, ["true", "exit 3", "true"]) == 3
    assert guest.power == PowerRequest(PowerAction.OFF)
    assert run_commands(Guest(script), ["exit 0"]) == 0
    console = Guest(script).console
    assert console.run("exit 4") == (4, "")
    assert console.run("true") == (0, "")


def test_exit_of_the_only_shell_of_a_guest_that_powers_off_then():
    def script(guest: Guest) -> Iterator[None]:
        yield from shell(guest)
        guest.power = PowerRequest(PowerAction.OFF)

    assert run_commands(Guest(script), ["exit 3"]) == 3


def test_command_may_take_its_time():
    def script(guest: Guest) -> Iterator[None]:
        for _ in shell(guest):
            yield
            if guest.lines == ["eval 'slow'"]:
                guest.read_line()
                break
        word = re.search(rb"pyemu-\w{6}:", guest.console.text)[0].decode()
        guest.after(5000, f"done\r\n{word}4# ")
        yield
        guest.power = PowerRequest(PowerAction.OFF)

    assert run_commands(Guest(script), ["slow"]) == 4


def test_power_off_by_the_last_command_is_its_success():
    def script(guest: Guest) -> Iterator[None]:
        for _ in shell(guest):
            yield
            if guest.lines == ["eval 'halt'"]:
                guest.power = PowerRequest(PowerAction.OFF)

    assert run_commands(Guest(script), ["halt"]) == 0
    with pytest.raises(ShellError, match=r"went away \(power off\)"):
        run_commands(Guest(script), ["halt", "true"])


def test_reset_is_a_failure():
    def script(guest: Guest) -> Iterator[None]:
        for _ in shell(guest):
            yield
            if guest.lines == ["eval 'reboot'"]:
                guest.power = PowerRequest(PowerAction.RESET)

    with pytest.raises(ShellError, match=r"went away \(reset\)"):
        run_commands(Guest(script), ["reboot"])


def test_guest_that_does_not_power_off():
    def script(guest: Guest) -> Iterator[None]:
        for _ in shell(guest):
            yield
            if "poweroff" in guest.lines[0]:
                break
        while True:
            guest.read_line()
            yield

    with pytest.raises(ShellError, match="cannot be switched off"):
        run_commands(Guest(script), ["true"])


@pytest.mark.parametrize(
    ("pattern", "output"),
    [
        ("{mark}\r\none\r\ntwo{prompt}", b"one\r\ntwo"),
        ("{mark}\r\n{prompt}", b""),
        ("{mark}\r\none\r\n\x1b[?2004h{prompt}\x1b[6n", b"one\r\n"),
        ("{mark}\r\n[    1.234567] a line of the kernel's\r\n{prompt}", b"[    1.234567] a line of the kernel's\r\n"),
        ("{mark:.7}[    1.234567] a line of the kernel's\r\n{mark_end}\r\none\r\n{prompt}", b"one\r\n"),
        ("{mark}\r\none\r\n{prompt:.7}[    1.234567] a line of the kernel's\r\n{prompt_end}", b"one\r\n"),
    ],
)
def test_what_a_command_printed(pattern, output):
    def script(guest: Guest) -> Iterator[None]:
        guest.show("# ")
        yield
        word = guest.read_line().replace("''", "").split("PS1='")[1].split(":")[0]
        prompt, mark = f"{word}:0# ", word.replace("-", "+")
        guest.show(prompt)
        yield
        guest.read_line()
        guest.show(pattern.format(prompt=prompt, prompt_end=prompt[7:], mark=mark, mark_end=mark[7:]))
        yield

    shell = Shell(Guest(script))
    shell.find()
    assert shell.capture("a command") == (0, output)


@pytest.mark.parametrize("pieces", [1, 2000], ids=["at once", "in pieces"])
def test_empty_lines_are_looked_at_a_few_times_only(pieces, monkeypatch):
    """A megabyte of them: searching for the prompt from each line on would never end."""
    lines = "\r\n" * (500_000 // pieces)

    def script(guest: Guest) -> Iterator[None]:
        for _ in shell(guest):
            yield
            if guest.lines == ["eval 'one'"]:
                guest.read_line()
                break
        word = re.search(rb"pyemu-\w{6}:", guest.console.text)[0].decode()
        for piece in range(pieces):
            guest.after(piece, lines)
        guest.after(pieces, f"{word}4# ")
        yield
        guest.power = PowerRequest(PowerAction.OFF)

    guest = Guest(script)
    since, looked = guest.console.since, 0

    def count(position: int) -> bytes:
        nonlocal looked
        text = since(position)
        looked += len(text)
        return text

    monkeypatch.setattr(guest.console, "since", count)
    assert run_commands(guest, ["one"]) == 4
    assert looked < 5 * 1_000_000


@pytest.mark.parametrize("failure", [ShellError, KeyboardInterrupt])
@pytest.mark.parametrize("heeded", ["\x03", "\x1c"])
def test_after_a_command_that_was_given_up_the_next_one_runs(failure, heeded):
    def script(guest: Guest) -> Iterator[None]:
        for _ in shell(guest):
            yield
            if "hang" in guest.lines[0]:
                guest.read_line()
                break
        if failure is KeyboardInterrupt:
            guest.events.at(guest.clock.now(), interrupt)
        while guest.lines[:1] != [heeded]:
            guest.lines.clear()
            yield
        guest.read_line()
        yield from shell(guest, "\r\n# ", {"next": ("hello\r\n", 3)})

    def interrupt() -> None:
        raise KeyboardInterrupt

    console = Guest(script).console
    assert console.run("first") == (0, "")
    with pytest.raises(failure):
        console.run("hang", timeout=0.05)
    assert console.run("next") == (3, "hello\n")


def test_a_shell_that_was_not_found_in_time_is_not_interrupted():
    """The guest is booting: C-c could end what it is doing."""

    def script(guest: Guest) -> Iterator[None]:
        while True:
            yield
            keys.append(guest.lines.pop(0))

    keys: list[str] = []
    console = Guest(script).console
    with pytest.raises(ShellError):
        console.run("first", timeout=0)
    with pytest.raises(ShellError, match="shows no shell"):
        console.run("first")
    assert set(keys) == {""}


def test_a_restored_console_goes_on_at_the_prompt():
    answers = {"one": ("1\r\n", 1), "two": ("2\r\n", 2)}
    straight = Guest(lambda guest: shell(guest, answers=answers))
    assert straight.console.run("one") == (1, "1\n")
    state = decode(encode(straight.console.state()), type_of(straight.console))
    restored = Guest(lambda guest: shell(guest, f"{state['shell']}:$?# ", answers))
    restored.clock.advance(straight.clock.now())
    restored.chance.restore(straight.chance.state())
    restored.console.restore(state)
    for console in (straight.console, restored.console):
        assert console.run("two") == (2, "2\n")
        console.sendline()  # which may have been a command: the shell is looked for again, and gets another word
        assert console.run("one") == (1, "1\n")
    assert restored.console.text == straight.console.text
    assert restored.clock.now() == straight.clock.now()
    assert restored.chance.state() == straight.chance.state()


def test_a_command_that_was_running_when_the_machine_was_saved_is_interrupted():
    def script(guest: Guest) -> Iterator[None]:
        for _ in shell(guest):
            yield
            if "hang" in guest.lines[0]:
                states.append(guest.console.state())
                guest.power = PowerRequest(PowerAction.OFF)

    def hanging(guest: Guest) -> Iterator[None]:
        while guest.lines != ["\x03"]:
            yield
        guest.read_line()
        yield from shell(guest, "\r\n# ", {"next": ("hello\r\n", 3)})

    states: list[ConsoleState] = []
    with pytest.raises(ShellError):
        Guest(script).console.run("hang")
    restored = Guest(hanging)
    restored.console.restore(states[0])
    assert restored.console.run("next") == (3, "hello\n")


@pytest.mark.parametrize("word", ["", "pyemu-00000", "(a+)+$", "pyemu-000000\n"])
def test_a_word_that_no_shell_has(word):
    guest = Guest(shell)
    with pytest.raises(UsageError, match="the prompt of the shell"):
        guest.console.restore({**guest.console.state(), "shell": word})
