"""The machine's console from outside: what the guest has printed, and what it is given to read."""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from devices.errors import PyemuError, UsageError

__all__ = ["CommandResult", "Console", "ExpectError"]

#: Output kept for ``text``; a guest may print for ever.
_KEPT = 1 << 20
_CHUNK = 4096
#: A driver empties the receiver when it starts, losing what was sent before, so input waits for a driver that wants it.
#: How often to ask; after that the guest may be one that polls for input without ever enabling interrupts.
_KNOCKS = 500
#: No kernel line is longer.
_LONGEST_LINE = 1024
#: What a panicking kernel prints, wherever the cursor was and whatever comes before it; not its "end" line.
_PANIC = re.compile(rb"(?<!end )Kernel panic - not syncing: ?([^\r\n]{0,%d})\r?\n" % _LONGEST_LINE)


class ExpectError(PyemuError):
    """The guest did not print what was expected; the message ends with what it printed instead."""


class CommandResult(NamedTuple):
    """How a command ended, and all that it printed, with lines ending in a newline."""

    status: int
    output: str


class CommandShell(Protocol):
    """The guest's shell; see emu/shell.py."""

    ended: bool

    def limit(self, seconds: float) -> None:
        """Give up after this much real time."""
        ...

    def interrupt(self) -> None:
        """End the command that was given up."""
        ...

    def find(self) -> None:
        """Reach the shell, logging in if necessary."""
        ...

    def capture(self, command: str) -> tuple[int, bytes]:
        """Run a command; return its exit status and what it printed."""
        ...


class Line(Protocol):
    """A device from which the guest reads what is typed."""

    ready: Callable[[], None] | None

    def receive(self, data: bytes) -> int:
        """Take as much as there is room for; return how much."""
        ...


class SerialLine(Line, Protocol):
    """The UART, which accepts input even before a driver has started."""

    @property
    def listening(self) -> bool:
        """Whether a driver has started and wants to be told of input."""
        ...

    def take(self, size: int) -> bytes:
        """Take up to ``size`` bytes back, as firmware does for a guest that asks it for input."""
        ...

    def hold(self, held: bool) -> None:
        """Pause the guest's output, or let it continue; a polling driver is not paused."""
        ...


class Console:
    """The other end of the serial line, or of another that ``type_on`` names.

    ``output`` gets what the guest prints, in order and soon. ``text`` is the newest part of it, as bytes, ``printed``
    the number of bytes in all; ``panic`` says why the kernel panicked, if what was printed is true (see emu/panic.py).
    """

    def __init__(
        self,
        run_until: Callable[[Callable[[], bool], float], bool],
        output: Callable[[bytes], None] | None = None,
        later: Callable[[Callable[[], None]], None] | None = None,
        shell: Callable[[], CommandShell] | None = None,
        check_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self.output = output
        self.text = bytearray()
        self.printed = 0
        self.panic: str | None = None
        self._run_until = run_until
        self._later = later
        self._new_shell = shell
        self._check_thread = check_thread
        self._shell: CommandShell | None = None
        self._interrupt = False  # run() has given up a command, which may still be running
        self._uart: SerialLine | None = None
        self._line: Line | None = None  # where to type
        self._unsent = bytearray()
        self._input = bytearray()
        self._waits_for_driver = later is not None  # until a driver has started
        self._knocks = 0
        self._seen = 0  # how far expect() has read in text
        self._panic_seen = 0  # where the last panic ends in text
        self._running = False  # run() is typing
        self._closed = False

    # ---------------------------------------------------------------- for people and tests

    def send(self, data: bytes | str) -> None:
        """Type ``data``; the guest gets it as fast as it reads, however much there is.

        Raises UsageError if the machine is closed, or runs on another thread.
        """
        self._check_thread()
        if self._closed:
            raise UsageError("the machine is closed; nobody reads what is typed")
        if not self._running:
            self._shell = None  # the shell may no longer be at its prompt
        self._input += data.encode() if isinstance(data, str) else data
        if not self._waits_for_driver:
            self._feed()
        elif not self._knocks:
            self._knock()

    def sendline(self, line: bytes | str = "") -> None:
        """Type a line."""
        self.send(line.encode() if isinstance(line, str) else line)
        self.send(b"\r")

    def expect(self, pattern: str | bytes | re.Pattern[bytes], timeout: float = 60.0) -> re.Match[bytes]:
        """Run the machine until the guest has printed ``pattern`` (a text, or a compiled regular expression).

        Searches what was printed since the last match. Raises ExpectError if the guest switches off first, or
        after ``timeout`` seconds of real time.
        """
        if isinstance(pattern, str | bytes):
            pattern = re.compile(re.escape(pattern.encode() if isinstance(pattern, str) else pattern))
        match, looked, printed = None, -1, -1

        def found() -> bool:
            """Search only when there is half as much again, or the guest pauses: each search goes through all of it."""
            nonlocal match, looked, printed
            paused, printed = printed == self.printed, self.printed
            if looked < printed and (paused or printed - looked >= (len(self.text) - self._seen) // 3):
                match, looked = pattern.search(self.text, self._seen), printed
            return match is not None

        self._run_until(found, timeout)
        match = match or pattern.search(self.text, self._seen)
        if match is None:
            rest = bytes(self.text[self._seen :][-300:]).decode(errors="replace")
            raise ExpectError(f"the guest did not print {pattern.pattern.decode(errors='replace')!r}, but: {rest!r}")
        self._seen = match.end()
        return match

    def run(self, command: str, timeout: float = 60.0) -> CommandResult:
        """Run ``command`` at the guest's shell; return its exit status, and what was printed meanwhile.

        The first call waits until the guest has booted and finds the shell (at ``login:``, as root without a password);
        so does a later call if the console was used for something else. The output contains neither echo nor prompt,
        but does contain kernel messages printed meanwhile. ``expect`` then searches what comes after it.

            status, output = machine.console.run("aplay /root/tone.wav")

        Raises ShellError if there is no shell, if the guest is switched off, or after ``timeout`` seconds of real time:
        the command may then still be running, and the next call interrupts it.
        """
        assert self._new_shell is not None
        self._running = True
        shell, self._shell = self._shell, None
        try:
            (found := shell or self._new_shell()).limit(timeout)
            if self._interrupt:
                found.interrupt()
            if shell is None:
                found.find()
            self._interrupt = True
            status, output = found.capture(command)
            self._interrupt = False
        finally:
            self._running = False
        self._shell = None if found.ended else found
        self._seen = len(self.text)
        return CommandResult(status, output.decode(errors="replace").replace("\r\n", "\n"))

    def since(self, position: int) -> bytes:
        """Return what was printed after the first ``position`` bytes, as far as it is kept."""
        return bytes(self.text[max(0, len(self.text) - self.printed + position) :])

    @property
    def pending(self) -> int:
        """How many typed bytes the guest has not had room for yet."""
        return len(self._input)

    # ---------------------------------------------------------------- for the machine

    def connect(self, uart: SerialLine) -> None:
        """Plug in the serial line: what is typed goes there."""
        self._uart = self._line = uart
        uart.ready = self._feed

    def type_on(self, line: Line) -> None:
        """Type on ``line`` instead, which takes nothing before its driver has started."""
        self._line = line
        line.ready = self._feed
        self._waits_for_driver = False

    def print(self, data: bytes) -> None:
        """Take ``data``, which the guest has printed."""
        if not self._unsent and self._later is not None:
            self._later(self.flush)  # the guest may now compute for long
        self._unsent += data
        if len(self._unsent) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Pass on what was printed since the last time."""
        if not self._unsent:
            return
        data = bytes(self._unsent)
        self._unsent.clear()
        self.text += data
        self.printed += len(data)
        for panic in _PANIC.finditer(self.text, max(self._panic_seen, len(self.text) - len(data) - _LONGEST_LINE)):
            self.panic = panic[1].decode(errors="replace")
            self._panic_seen = panic.end()
        if len(self.text) > 2 * _KEPT:
            dropped = len(self.text) - _KEPT
            del self.text[:dropped]
            self._seen = max(0, self._seen - dropped)
            self._panic_seen = max(0, self._panic_seen - dropped)
        if self.output is not None:
            self.output(data)

    def hold(self, held: bool) -> None:
        """Pause the guest's output, or let it continue, when ``output`` cannot keep pace.

        This is flow control: a program that prints waits in its write while the rest of the guest runs. It works only
        on the UART: for kernel messages, and on hvc0, Linux would wait in a busy loop with interrupts off.
        """
        if self._uart is not None:
            self._uart.hold(held)

    def close(self) -> None:
        """Pass on the rest, and take nothing more."""
        self._closed = True
        self.flush()

    def take(self, size: int) -> bytes:
        """Read what was typed as firmware does, from the UART: a guest that asks firmware for input reads there."""
        self._waits_for_driver = False
        self._line = self._uart
        self._feed()
        return b"" if self._uart is None else self._uart.take(size)

    def _feed(self) -> None:
        while self._input and self._line is not None:
            piece = bytes(self._input[:_CHUNK])
            taken = self._line.receive(piece)
            del self._input[:taken]
            if taken < len(piece):
                break

    def _knock(self) -> None:
        """Check whether a driver has started, and check again later if not."""
        self._knocks += 1
        if self._uart is not None and (self._uart.listening or self._knocks > _KNOCKS):
            self._waits_for_driver = False
        if not self._waits_for_driver:
            self._feed()
        elif self._later is not None:
            self._later(self._knock)
