"""The machine's console from outside: what the guest has printed, and what it is given to read."""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypedDict, TypeVar

from devices.contracts import NEVER_NS, Event
from devices.errors import PyemuError, UsageError
from devices.state import U32, Moment, Ns, check, saved

__all__ = ["CommandResult", "Console", "ConsoleState", "ExpectError"]

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


_T = TypeVar("_T")


class ExpectError(PyemuError):
    """The guest did not print what was expected; the message ends with what it printed instead."""


class CommandResult(NamedTuple):
    """How a command ended, and all that it printed, with lines ending in a newline."""

    status: int
    output: str


class CommandShell(Protocol):
    """The guest's shell; see emu/shell.py."""

    ended: bool

    @property
    def word(self) -> str:
        """What its prompt begins with: all that another needs to go on at the prompt where this one is."""
        ...

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

    def give(self, command: str, data: bytes) -> int:
        """Run a command that reads lines of text, ``data``, up to their end; return its exit status."""
        ...


class Later(Protocol):
    """How to have something done soon, in guest time."""

    def __call__(self, action: Callable[[], None], moment: Moment | None = None, /) -> Event:
        """Have ``action`` done soon; or at ``moment``, at which a saved machine would have done it."""
        ...


class ConsoleState(TypedDict):
    """What was printed, what is typed and where; the word of the shell if it is at its prompt."""

    printed: Ns
    text: bytes
    seen: U32
    panic: str | None
    panic_seen: U32
    unsent: bytes
    flush: Moment | None
    input: bytes
    on_uart: bool
    waits_for_driver: bool
    knocks: U32
    knock: Moment | None
    interrupt: bool
    shell: str | None


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
        later: Later | None = None,
        shell: Callable[[str | None], CommandShell] | None = None,
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
        self._line: Line | None = None  # where to type: that, or
        self._other: Line | None = None
        self._unsent = bytearray()
        self._flush: Event | None = None
        self._input = bytearray()
        self._waits_for_driver = later is not None  # until a driver has started
        self._knocks = 0
        self._next_knock: Event | None = None
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
        status, output = self._use_shell(lambda shell: shell.capture(command), timeout)
        return CommandResult(status, output.decode(errors="replace").replace("\r\n", "\n"))

    def give(self, command: str, data: bytes, timeout: float = 60.0) -> int:
        """Run ``command``, which reads what is typed: lines of text, ``data``; return its exit status.

        They have less than 4 kB each, no control characters, and 60 kB in all, which is what Linux keeps of them for
        a program that is slow to read. Otherwise it is like ``run``.
        """
        return self._use_shell(lambda shell: shell.give(command, data), timeout)

    def _use_shell(self, use: Callable[[CommandShell], _T], timeout: float) -> _T:
        """Have ``use(shell)`` called with the guest's shell, at its prompt, and keep that for the next time."""
        assert self._new_shell is not None
        self._running = True
        shell, self._shell = self._shell, None
        try:
            (found := shell or self._new_shell(None)).limit(timeout)
            if self._interrupt:
                found.interrupt()
            if shell is None:
                found.find()
            self._interrupt = True
            result = use(found)
            self._interrupt = False
        finally:
            self._running = False
        self._shell = None if found.ended else found
        self._seen = len(self.text)
        return result

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
        self._line = self._other = line
        line.ready = self._feed
        self._waits_for_driver = False

    def print(self, data: bytes) -> None:
        """Take ``data``, which the guest has printed."""
        if not self._unsent and self._flush is None and self._later is not None:
            self._flush = self._later(self._flush_late)  # the guest may now compute for long
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

    # ---------------------------------------------------------------- for snapshots

    def state(self) -> ConsoleState:
        """Return its state, as it is between two turns of the machine; of a command that is running: nothing."""
        return {
            "printed": self.printed,
            "text": bytes(self.text),
            "seen": self._seen,
            "panic": self.panic,
            "panic_seen": self._panic_seen,
            "unsent": bytes(self._unsent),
            "flush": saved(self._flush),
            "input": bytes(self._input),
            "on_uart": self._line is self._uart,
            "waits_for_driver": self._waits_for_driver,
            "knocks": self._knocks,
            "knock": saved(self._next_knock),
            "interrupt": self._interrupt,
            "shell": None if self._shell is None else self._shell.word,
        }

    def restore(self, state: ConsoleState) -> None:
        """Become what ``state`` says, on the lines and with the ``output`` that it has.

        Raises UsageError for what no console can have printed or typed on.
        """
        text, seen = state["text"], max(state["seen"], state["panic_seen"])
        check(seen <= len(text) <= min(2 * _KEPT, state["printed"]), "what was printed")
        check(len(state["unsent"]) < _CHUNK, "what was printed")
        check(state["on_uart"] or self._other is not None, "the console's line")
        self.text, self.printed, self.panic = bytearray(text), state["printed"], state["panic"]
        self._seen, self._panic_seen = state["seen"], state["panic_seen"]
        self._unsent, self._flush = bytearray(state["unsent"]), self._resume(state["flush"], self._flush_late)
        self._input, self._line = bytearray(state["input"]), self._uart if state["on_uart"] else self._other
        self._waits_for_driver, self._knocks = state["waits_for_driver"], state["knocks"]
        self._next_knock = self._resume(state["knock"], self._knock)
        word, self._interrupt = state["shell"], state["interrupt"]
        self._shell = None if word is None or self._new_shell is None else self._new_shell(word)

    def _resume(self, moment: Moment | None, action: Callable[[], None]) -> Event | None:
        if moment is None or self._later is None:
            return None
        check(moment[0] < NEVER_NS, "a deadline")
        return self._later(action, moment)

    # ---------------------------------------------------------------- what is due

    def _flush_late(self) -> None:
        self._flush = None
        self.flush()

    def _feed(self) -> None:
        while self._input and self._line is not None:
            piece = bytes(self._input[:_CHUNK])
            taken = self._line.receive(piece)
            del self._input[:taken]
            if taken < len(piece):
                break

    def _knock(self) -> None:
        """Check whether a driver has started, and check again later if not."""
        self._next_knock = None
        self._knocks += 1
        if self._uart is not None and (self._uart.listening or self._knocks > _KNOCKS):
            self._waits_for_driver = False
        if not self._waits_for_driver:
            self._feed()
        elif self._later is not None:
            self._next_knock = self._later(self._knock)
