"""Find the guest's shell on the console, type commands there, and learn how each of them ended.

That is what ``--exec`` and ``console.run`` do. The shell gets a prompt of our own, which contains the exit status and a
word that nobody can know beforehand: the end of a command is therefore unmistakable, whatever it prints. A shell that
exits prints the same, with a full stop, from its trap. All waiting is bounded in guest time, which costs nothing under
the warp clock; only a command may take as long as it likes.
"""

import math
import re
import shlex
import time
from collections.abc import Callable, Sequence

from devices.errors import PyemuError
from devices.power import PowerAction
from devices.state import check
from emu.machine import Machine

__all__ = ["Shell", "ShellError", "run_commands"]

#: Cursor movements, colours, window titles: of no interest here.
_TERMINAL = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
#: The kernel may print a line of its own into the middle of anything.
_KERNEL_LINE = re.compile(rb"\[ *\d+\.\d{6}\] [^\r\n]{0,1024}\r?\n")
_PROMPT = re.compile(rb"(?:^|\n)[^\r\n]{0,100}[#$] \Z")
_LOGIN = re.compile(rb"login: ?\Z")
_PASSWORD = re.compile(rb"[Pp]assword: ?\Z")
_ENTER = re.compile(rb"(?i)press enter to activate this console\.\s*\Z")

#: What our prompts begin with.
_WORD = re.compile(r"pyemu-[0-9a-f]{6}")

_TAIL = 512
#: Guest time in seconds. A prompt is one only if nothing follows it for this long.
_QUIET = 0.05
#: After this much silence, Enter makes a shell or a login show its prompt again, in case a kernel message hid it.
_NUDGE = 3.0
#: After this much silence there is no shell.
_SILENT = 90.0
#: The keys that end a command, the gentle one first, and how long a command may take to react.
_INTERRUPT, _QUIT = b"\x03", b"\x1c"
_END_OF_INPUT = b"\x04"
_HEED = 3.0
#: How long a shell may take to accept a line, or to log in.
_PROMPTLY = 20.0
#: How long an orderly power-off may take, and then a forced one.
_POWER_OFF = 20.0

#: A command of these bytes can be typed as one line, within the shell's quotes; any other takes several, in octal.
_PRINTABLE = re.compile(rb"[ -~]{0,300}")
_TO_OCTAL = re.compile(rb"[^ -~]|['\\]")
_PIECE = 300


class ShellError(PyemuError):
    """The guest's shell cannot be found, went away, or does not respond as expected."""


def run_commands(machine: Machine, commands: Sequence[str], instead: Callable[[], None] | None = None) -> int:
    """Type ``commands`` at the guest's shell until one fails, then switch the guest off; return the last exit status.

    If all succeed, ``instead`` is called, at the shell's own prompt, and the guest stays on. Raises ShellError;
    MachineError if the guest's kernel panics.
    """
    shell = Shell(machine)
    shell.find()
    status = 0
    for number, command in enumerate(commands, 1):
        try:
            status = shell.run(command)
        except SwitchedError as switched:
            if switched.action is PowerAction.OFF and number == len(commands):
                return 0
            raise
        if status:
            break
        if shell.ended and number < len(commands):
            raise shell.error(command)
    try:
        if shell.ended:
            shell.find()  # another shell takes its place
        if instead is not None and not status:
            shell.leave()
            instead()
            return 0
        shell.power_off()
    except SwitchedError as switched:
        if not shell.ended or switched.action is not PowerAction.OFF:
            raise
    return status


class SwitchedError(ShellError):
    """The guest has been switched off, or is restarting."""

    def __init__(self, user: str, action: PowerAction) -> None:
        super().__init__(f"{user}: the guest went away ({action.value}) before all commands had run")
        self.action = action


class Shell:
    """The shell on ``machine``'s console; error messages begin with its ``user``.

    With the ``word`` of one that was at its prompt when the machine was saved, it goes on there, without ``find``.
    """

    def __init__(self, machine: Machine, user: str = "--exec", word: str | None = None) -> None:
        self._machine = machine
        self._user = user
        self._seconds = self._give_up = math.inf  # real time: the limit, and when it expires
        self._busy = False  # a command is running
        self._console = machine.console
        check(word is None or _WORD.fullmatch(word) is not None, "the prompt of the shell")
        #: What the prompt begins with.
        self.word = word = word or f"pyemu-{machine.chance.draw('shell', 3).hex()}"
        at_exit = f"{_cut(word)}:$?.".replace("'", '"')
        self._setup = f"_pyemu_ps1=$PS1; PS1='{_cut(word)}:$?# ' && trap 'echo \"{at_exit}\"' EXIT"
        # bash may put its bracketed-paste mark before it.
        self._own_prompt = re.compile(rb"(?:\x1b\[\?2004h)?%s:(\d+)(?:(\.)|# )" % word.encode())
        #: Whether the shell has exited, with the status of the last command.
        self.ended = False
        self._position = 0  # in what the console printed: nothing before it matters now

    # ---------------------------------------------------------------- what it does

    def wait(self) -> None:
        """Wait for the prompt of a shell or a login, and leave it alone; raises ShellError."""
        self._wait_for_prompt()

    def find(self) -> None:
        """Wait for a shell, log in if asked, and make it use our prompt; raises ShellError."""
        if self._wait_for_prompt() is _LOGIN:
            self._forget()
            self._console.sendline("root")
            if self._wait_for_prompt() is _LOGIN:
                raise ShellError(f"{self._user}: root cannot log in; the console ends with {self._ending()}")
        self.ended = False
        self._console.sendline(self._setup)
        if self._wait_for_status(_PROMPTLY) is None:
            raise ShellError(f"{self._user}: what looked like a shell is not; the console ends with {self._ending()}")

    def leave(self) -> None:
        """Give the shell its own prompt back, and wait for it."""
        self._forget()
        self._console.sendline("PS1=$_pyemu_ps1; unset _pyemu_ps1; trap - EXIT")
        self._wait_for_prompt()

    def interrupt(self) -> None:
        """End the command that was given up; ``find`` reports it if that fails."""
        for key in (_INTERRUPT, _QUIT):
            self._forget()
            self._console.send(key)
            if self._run(lambda: self._look(_PROMPT) is not None, _HEED):
                break

    def run(self, command: str) -> int:
        """Run ``command``, however long it takes, and return its exit status."""
        status = self._run_lines(command)
        if status is None:
            raise self.error(command)
        return status

    def error(self, command: str) -> ShellError:
        """Return the error for a shell that is gone because of ``command``."""
        return ShellError(f"{self._user} {command!r}: the shell has ended, or another one has taken its place")

    def capture(self, command: str) -> tuple[int, bytes]:
        """Run ``command``; return its exit status and what was printed from its start to its end.

        Its lines end in CR LF, as on the console. Raises ShellError, also if there is more than is kept.
        """
        start = self._console.printed
        mark = self.word.replace("-", "+")
        self._busy = True
        status = self._run_lines(f"echo {_cut(mark)}; eval {shlex.quote(command)}")
        if status is None:
            raise self.error(command)
        printed = self._console.since(start)
        for text in (printed, _KERNEL_LINE.sub(b"", printed)):
            _, begun, output = text.partition(mark.encode() + b"\r\n")
            prompt = self._own_prompt.search(output)
            if begun and prompt is not None:
                return status, output[: prompt.start()]
        raise ShellError(f"{self._user} {command!r}: its output is too long, or garbled; redirect it to a file")

    def give(self, command: str, data: bytes) -> int:
        """Run ``command``, which reads the lines ``data`` up to their end; return its exit status.

        They are typed once it reads, and not echoed. Raises ShellError.
        """
        start, mark = self._console.printed, self.word.replace("-", "=")
        self._busy = True
        line = f"stty -echo; echo {_cut(mark)}; {command}; _pyemu=$?; stty echo; (exit $_pyemu)"
        self._forget()
        for typed in _lines(line.encode(errors="surrogateescape")):
            if self._position != start:
                self._wait_for_status()
            self._forget()
            self._console.sendline(typed)
        while not self._run(lambda: mark.encode() in self._console.since(start), _NUDGE):
            if self._is_another_shell():
                raise self.error(command)
        self._console.send(data + _END_OF_INPUT)
        status = self._wait_for_status()
        if status is None:
            raise self.error(command)
        return status

    def limit(self, seconds: float) -> None:
        """Give up with a ShellError ``seconds`` of real time from now, whatever is being waited for."""
        self._seconds, self._give_up = seconds, time.monotonic() + seconds
        self._busy = False

    def power_off(self) -> None:
        """Switch the guest off, in an orderly way if possible; raises ShellError if it stays on, or restarts."""
        for command in ("poweroff", "sync; poweroff -f"):
            self._console.sendline(command)
            try:
                self._run(lambda: False, _POWER_OFF)
            except SwitchedError as switched:
                if switched.action is not PowerAction.OFF:
                    raise
                return
        raise ShellError(f"{self._user}: the guest cannot be switched off with poweroff")

    # ---------------------------------------------------------------- finding it

    def _wait_for_prompt(self) -> re.Pattern[bytes]:
        """Wait for the prompt of a shell or of a login, and return which it is."""
        silent, nudge = 0.0, _NUDGE
        while silent < _SILENT:
            shown = self._look(_PROMPT, _LOGIN, _PASSWORD, _ENTER)
            if shown is _PASSWORD:
                raise ShellError(
                    f"{self._user}: the guest asks for a password; pyemu can only log in where root needs none"
                )
            if shown is _ENTER:
                self._forget()
                self._console.sendline()
            elif not self._is_quiet(_NUDGE if shown is None else _QUIET):
                silent, nudge = 0.0, _NUDGE
            elif shown is not None:
                return shown
            else:
                silent += _NUDGE
                if silent >= nudge:  # ever less often, since something else may be reading
                    nudge *= 2
                    self._console.sendline()
        raise ShellError(f"{self._user}: the guest shows no shell; its console ends with {self._ending()}")

    def _look(self, *patterns: re.Pattern[bytes]) -> re.Pattern[bytes] | None:
        """Return which of ``patterns`` matches the end of what was printed since the last ``_forget``."""
        text = _TERMINAL.sub(b"", self._console.since(max(self._position, self._console.printed - _TAIL)))
        return next((pattern for pattern in patterns if pattern.search(text)), None)

    def _ending(self) -> str:
        text = _TERMINAL.sub(b"", self._console.since(self._console.printed - _TAIL))
        return repr(text.rstrip().rpartition(b"\n")[2].decode(errors="replace"))

    # ---------------------------------------------------------------- waiting

    def _run_lines(self, command: str) -> int | None:
        """Type ``command`` and wait for its end; None if our prompt is gone."""
        status = None
        for line in _lines(command.encode(errors="surrogateescape")):
            self._forget()
            self._console.sendline(line)
            status = self._wait_for_status()
        return status

    def _wait_for_status(self, seconds: float | None = None) -> int | None:
        """Wait for our prompt and return the exit status in it.

        Returns None if it does not come within ``seconds`` or, without a limit, if another shell's prompt is there.
        """
        looked, found = self._position, None

        def prompted() -> bool:
            nonlocal looked, found
            if looked != self._console.printed:
                start = max(self._position, looked - _TAIL)
                text = _KERNEL_LINE.sub(b"", self._console.since(start))
                looked = self._console.printed
                found = self._find_new_prompt(text if start == self._position else b"\n" + text)
            return found is not None

        try:
            while not self._run(prompted, seconds or _NUDGE):
                if seconds is not None or self._is_another_shell():
                    break
        except SwitchedError:
            if found is None or not found[2]:  # otherwise the shell's exit switched it off
                raise
        self._forget()
        if found is None:
            return None
        self.ended = bool(found[2])
        return int(found[1])

    def _find_new_prompt(self, text: bytes) -> re.Match[bytes] | None:
        """Find our prompt in what was printed since a line was typed, in linear time.

        Skips the prompt that is already there: a line editor redraws it when the window is resized.
        """
        line = text.find(b"\n")
        for prompt in self._own_prompt.finditer(text):
            start = prompt.start()
            if 0 <= line < start or text[max(0, start - 1) : start] != b"\r":
                return prompt
        return None

    def _is_another_shell(self) -> bool:
        """Whether another shell's prompt is there: Enter makes it appear again."""
        if self._look(_PROMPT, _LOGIN) is None or not self._is_quiet(_QUIET):
            return False
        prompt, printed = self._ending(), self._console.printed
        self._console.sendline()
        while not self._is_quiet(_QUIET):
            pass
        return self._look(_PROMPT, _LOGIN) is not None and self._ending() == prompt and self._console.printed > printed

    def _is_quiet(self, seconds: float) -> bool:
        """Wait for ``seconds``, or until something is printed; return whether nothing was."""
        printed = self._console.printed
        return not self._run(lambda: self._console.printed != printed, seconds)

    def _forget(self) -> None:
        self._position = self._console.printed

    def _run(self, done: Callable[[], bool], seconds: float) -> bool:
        """Run until ``done()``, at most ``seconds`` of guest time; return whether it was reached.

        Raises ShellError if the guest is switched off or reset.
        """
        machine = self._machine
        over: list[bool] = []
        end = machine.events.at(machine.clock.now() + round(seconds * 1e9), lambda: over.append(True))
        # --exec sets no limit: there a pause only means that the output waits for its reader. Otherwise it is refused.
        refuse = machine.paused and self._give_up < math.inf
        timeout = None if refuse else self._give_up - time.monotonic()
        ended = machine.run_until(lambda: done() or bool(over), timeout)
        end.cancel()
        if not ended and machine.power is None:
            what = "not finished after {:g} s, still running" if self._busy else "no shell after {:g} s"
            raise ShellError(f"{self._user}: {what.format(self._seconds)}; the console ends with {self._ending()}")
        if machine.power is not None:
            raise SwitchedError(self._user, machine.power.action)
        return not over or done()


def _cut(word: str) -> str:
    """Write ``word`` for the shell such that the echo of the typed line does not look like it."""
    return f"{word[:4]}''{word[4:]}"


def _lines(command: bytes) -> list[bytes]:
    """Return what to type for ``command``.

    It goes through eval, so that a missing quote is an error and not the beginning of a longer command.
    """
    if _PRINTABLE.fullmatch(command):
        return [b"eval '%s'" % command.replace(b"'", rb"'\''")]
    octal = _TO_OCTAL.sub(lambda match: b"\\0%03o" % ord(match[0]), command)
    pieces = [octal[start : start + _PIECE] for start in range(0, len(octal), _PIECE)]
    return [b"_pyemu=", *(b"_pyemu=$_pyemu'%s'" % piece for piece in pieces), b'eval "$(printf %b "$_pyemu")"']
