"""The user's terminal: keys, and its mode on every way in and out, with the real command on a pseudo-terminal."""

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from emu.terminal.terminal import EscapeKeys, RawTerminal
from tests.emu import asm, tiny

ROOT = Path(__file__).parents[3]
_END = b"\0 the end \0"


class Session:
    """``pyemu boot`` in the foreground of a terminal of its own; ``master`` is the user's side.

    Its output goes there, too, unless it is given the file descriptor ``stdout``. What is waited for may take any time:
    pytest's timeout ends what never comes, and its report has what was ``shown``.
    """

    def __init__(
        self, image: Path, *arguments: str, size: tuple[int, int] = (24, 80), stdout: int | None = None
    ) -> None:
        self._stdout = stdout
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, size)
        self.before = termios.tcgetattr(self.slave)
        self.shown = b""
        reading, writing = os.pipe()
        self.leader = os.fork()
        if self.leader == 0:
            self._lead(writing, [sys.executable, "-m", "emu", "boot", str(image), *arguments])
        os.close(writing)
        self.pid = int(os.read(reading, 20))
        os.close(reading)

    def _lead(self, writing: int, command: list[str]) -> NoReturn:
        """Act as a shell: the terminal's session leader, with the command in a process group of its own."""
        os.setsid()
        os.close(os.open(os.ttyname(self.slave), os.O_RDWR))  # now it is the controlling terminal
        for fd in range(3):
            os.dup2(self.slave if self._stdout is None or fd != 1 else self._stdout, fd)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.chdir(ROOT)
            os.execv(command[0], command)
        os.write(writing, b"%d" % pid)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def wait_for(self, text: bytes) -> None:
        while text not in self.shown:
            self._read(0.05)

    def _read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            self.shown += os.read(self.master, 65536)

    def type(self, data: bytes) -> None:
        while data:
            _, writable, _ = select.select([], [self.master], [], 0.05)
            if writable:
                data = data[os.write(self.master, data[:256]) :]
            self._read(0)

    def is_raw(self) -> bool:
        iflag, oflag, _, lflag, *_ = termios.tcgetattr(self.slave)
        cooked = lflag & (termios.ECHO | termios.ICANON | termios.ISIG) or iflag & (termios.ICRNL | termios.IXON)
        return not cooked and not oflag & termios.OPOST

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def status(self) -> int:
        """Wait for the end, and for all that was written by then; return the exit status."""
        while True:
            pid, status = os.waitpid(self.leader, os.WNOHANG)
            if pid:
                self.leader = 0
                os.write(self.slave, _END)  # what is written to a terminal takes a moment to come out
                while not self.shown.endswith(_END):
                    self._read(0.02)
                self.shown = self.shown.removesuffix(_END)
                return os.waitstatus_to_exitcode(status)
            self._read(0.02)

    def wait_until(self, state: Callable[[], bool]) -> None:
        while not state():
            self._read(0.01)

    def is_stopped(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].startswith("T")

    def close(self) -> None:
        if self.leader:
            with contextlib.suppress(ProcessLookupError):  # it has ended, where nobody expected that
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.leader, 0)
        print(self.shown)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Start a Session that runs the given code, and wait for the guest's first word."""
    sessions = []

    def start(*code: asm.Item, arguments: tuple[str, ...] = ()) -> Session:
        image = tiny.write_image(tmp_path / "Image", tiny.say("ready\n"), *code)
        sessions.append(Session(image, *arguments))
        sessions[-1].wait_for(b"ready\n")
        return sessions[-1]

    yield start
    for one in sessions:
        one.close()


# ---------------------------------------------------------------- every way out


def test_raw_while_it_runs_and_restored_after_quitting(session):
    running = session(tiny.ECHO)
    assert running.is_raw()
    running.type(b"\x01x")
    assert running.status() == 0
    assert running.is_restored()


def test_quits_a_guest_that_never_looks_up(session):
    running = session(tiny.SPIN)
    running.type(b"\x01x")
    assert running.status() == 0
    assert running.is_restored()


def test_restored_after_power_off(session):
    running = session(tiny.ECHO)
    running.type(b"\x04")
    assert running.status() == 0
    assert running.is_restored()


@pytest.mark.parametrize(("code", "words"), [
    (tiny.FAIL, b"failure"),
    (tiny.TRAP, b"no handler"),
    (tiny.panic("test"), b"kernel panicked: test"),
], ids=["failure", "machine error", "panic"])  # fmt: skip
def test_restored_after_an_error_which_is_a_line_of_its_own(session, code, words):
    running = session(code)
    assert running.status() == 1
    assert running.is_restored()
    assert words in running.shown.splitlines()[-1]
    assert running.shown.endswith(b"\r\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_restored_after_a_signal(session, number):
    running = session(tiny.SPIN)
    os.kill(running.pid, number)
    assert running.status() == 128 + number
    assert running.is_restored()


def test_a_sigcont_that_comes_last_makes_nothing_raw_again(monkeypatch):
    """``kill -CONT`` may come when the terminal has just been restored."""
    monkeypatch.setattr(RawTerminal, "_is_ours", lambda _terminal: True)
    master, slave = os.openpty()
    before, restore = termios.tcgetattr(slave), termios.tcsetattr
    with RawTerminal(slave) as terminal:
        assert termios.tcgetattr(slave) != before
        monkeypatch.setattr(termios, "tcsetattr", lambda *how: (restore(*how), terminal.resume()))
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_restored_after_a_timeout(session):
    running = session(tiny.SPIN, arguments=("--timeout", "1000"))
    os.kill(running.pid, signal.SIGALRM)  # as the timer does: it would not wait for a host that is busy
    assert running.status() == 124
    assert running.is_restored()


def test_never_touched_for_a_bad_file(tmp_path):
    running = Session(tmp_path / "nothing")
    assert running.status() == 2
    assert running.is_restored()
    running.close()


def test_still_raw_after_a_reset(session):
    running = session([tiny.say("again\n"), tiny.RESET])
    running.wait_for(b"again\nready\nagain\nready\n")
    running.type(b"\x01x")
    assert running.status() == 0
    assert running.is_restored()


@pytest.fixture
def unread_session(tmp_path: Path) -> Iterator[Session]:
    """A guest that prints without ever waiting, like a kernel's messages, into a full pipe."""
    image = tiny.write_image(tmp_path / "Image", "again", tiny.say("x" * 100), asm.j("again"))
    reading, writing = os.pipe()
    running = Session(image, stdout=writing)
    os.close(writing)
    held = [0]

    def is_full() -> bool:
        time.sleep(0.2)
        held.append(struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, bytes(4)))[0])
        return held[-1] == held[-2] > 0

    running.wait_until(is_full)
    yield running
    running.close()
    os.close(reading)


def test_quits_although_nobody_reads_what_the_guest_prints(unread_session):
    running = unread_session
    running.type(b"\x01x")
    assert running.status() == 0
    assert running.is_restored()


def test_the_monitor_works_although_nobody_reads_what_the_guest_prints(unread_session):
    """The machine pauses when it has printed a megabyte more."""
    running = unread_session
    running.type(b"\x01c")
    while b", paused\r\n" not in running.shown:
        running.shown = b""
        running.type(b"info clock\r")
        running.wait_for(b"guest time")
        running.wait_for(b"(pyemu) ")
    running.type(b"quit\r")
    assert running.status() == 0


# ---------------------------------------------------------------- stopping and going on


def test_stop_signal_restores_and_continuing_makes_it_raw_again(session):
    running = session(tiny.ECHO)
    os.kill(running.pid, signal.SIGTSTP)
    running.wait_until(running.is_stopped)
    assert running.is_restored()
    os.kill(running.pid, signal.SIGCONT)
    running.wait_until(running.is_raw)
    running.type(b"x")
    running.wait_for(b"x")
    running.type(b"\x01x")
    assert running.status() == 0
    assert running.is_restored()


def test_raw_again_after_a_stop_that_could_not_be_caught(session):
    running = session(tiny.ECHO)
    os.kill(running.pid, signal.SIGSTOP)
    running.wait_until(running.is_stopped)
    termios.tcsetattr(running.slave, termios.TCSANOW, running.before)  # as the user's shell does
    os.kill(running.pid, signal.SIGCONT)
    running.wait_until(running.is_raw)


def test_c_a_z_stops_it_and_continuing_goes_on(session):
    running = session(tiny.ECHO)
    running.type(b"\x01z")
    running.wait_until(running.is_stopped)
    assert running.is_restored()
    os.kill(running.pid, signal.SIGCONT)
    running.wait_until(running.is_raw)
    running.type(b"x")
    running.wait_for(b"x")


# ---------------------------------------------------------------- the window


def test_the_guest_has_the_size_of_the_window_and_hears_when_it_changes(session):
    running = session(tiny.SIZE)
    termios.tcsetwinsize(running.slave, (30, 100))
    running.wait_for(b"d\x1ed\x1e")
    termios.tcsetwinsize(running.slave, (41, 121))
    running.wait_for(b"y)y)")


# ---------------------------------------------------------------- keys and bytes


def test_every_byte_passes_unchanged_both_ways(session):
    running = session(tiny.ECHO)
    data = bytes(byte for byte in range(256) if byte not in (1, 4))
    running.type(data + b"\x01\x01" + b"end")
    running.wait_for(b"end")
    assert running.shown.endswith(data + b"\x01end")


@pytest.mark.parametrize(("arguments", "shown"), [((), b""), (("--clipboard",), b"\x1b]52;c;eA==\x07")])
def test_the_guest_may_set_the_title_but_not_the_clipboard(session, arguments, shown):
    running = session(tiny.say("\x1b]0;title\x07\x1b]52;c;eA==\x07end"), tiny.SPIN, arguments=arguments)
    running.wait_for(b"end")
    assert b"ready\n\x1b]0;title\x07" + shown + b"end" in running.shown


def test_paste_of_100_kb_loses_nothing(session):
    running = session(tiny.ECHO)
    data = b"".join(b"line %6d of what was pasted\r" % number for number in range(3200))
    running.shown = b""
    running.type(data + b"end")
    running.wait_for(b"end")
    assert running.shown == data + b"end"


def test_banner_and_help_name_the_keys(session):
    running = session(tiny.ECHO)
    assert running.shown.startswith(b"pyemu: C-a x quits, C-a h shows help\r\n")
    running.type(b"\x01h")
    running.wait_for(b"C-a C-a  send C-a to the guest\r\n")
    assert re.findall(rb"C-a (\S+) {2,}", running.shown) == [b"x", b"c", b"s", b"t", b"z", b"h", b"C-a"]
    assert running.shown.count(b"\r\n") == running.shown.count(b"\n") - 1  # except the guest's own line feed


def test_time_stamps_are_put_in_and_left_out_again(session):
    running = session(tiny.ECHO)
    running.type(b"\x01tone\r\ntwo\n")
    running.wait_for(b"two\n")
    running.type(b"\x01tthree\n")
    running.wait_for(b"three\n")
    stamp = rb"\[\d\d:\d\d:\d\d\.\d{3}\] "
    assert re.search(rb"ready\n%sone\r\n%stwo\nthree\n" % (stamp, stamp), running.shown)


# ---------------------------------------------------------------- the monitor


def test_what_is_typed_goes_to_the_monitor_until_c_a_c_comes_again(session):
    running = session(tiny.ECHO)
    running.shown = b""
    running.type(b"guest")
    running.wait_for(b"guest")
    running.type(b"\x01cjack\r")
    running.wait_for(b"mic: plugged\r\n(pyemu) ")
    running.type(b"nonsense\r")
    running.wait_for(b"error: there is no command 'nonsense'; help lists them\r\n(pyemu) ")
    running.shown = b""
    running.type(b"\x01cagain")
    running.wait_for(b"again")
    assert running.shown == b"\r\nagain"  # which the guest sent back, and nothing of the monitor's before it


def test_the_guest_runs_on_beside_the_monitor_unless_it_is_paused(session):
    running = session(tiny.ECHO)
    running.type(b"\x01cpause\r\x01cheld")
    time.sleep(0.2)
    assert b"held" not in running.shown
    running.type(b"\x01cresume\r\x04")  # C-d goes back to the guest too
    running.wait_for(b"held")
    running.type(b"go on")
    running.wait_for(b"go on")


def test_quit_in_the_monitor_ends_the_machine(session):
    running = session(tiny.SPIN)
    running.type(b"\x01cquit\r")
    assert running.status() == 0
    assert running.is_restored()
    assert running.shown.endswith(b"\r\n")


class TestEscapeKeys:
    @pytest.fixture
    def typed(self):
        """Type pieces; return what is sent, and which actions are called."""

        def run(*pieces: bytes) -> tuple[bytes, list[str]]:
            sent, called = bytearray(), []
            keys = EscapeKeys(sent.extend, {"x": lambda: called.append("x"), "h": lambda: called.append(f"h{sent!r}")})
            for piece in pieces:
                keys(piece)
            return bytes(sent), called

        return run

    def test_actions(self, typed):
        assert typed(b"\x01x") == (b"", ["x"])

    def test_what_was_typed_before_an_action_is_sent_before_it(self, typed):
        assert typed(b"ab\x01hcd") == (b"abcd", ["hbytearray(b'ab')"])

    def test_split_between_reads(self, typed):
        assert typed(b"a\x01", b"x", b"b") == (b"ab", ["x"])

    def test_doubled_is_one(self, typed):
        assert typed(b"\x01\x01x") == (b"\x01x", [])

    def test_other_keys_pass_with_their_prefix(self, typed):
        assert typed(b"\x01k\x01\x00") == (b"\x01k\x01\x00", [])
