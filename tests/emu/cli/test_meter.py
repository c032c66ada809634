"""The meter: what it shows, and the real command on a real pseudo-terminal."""

import os
import re
import signal
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyte
import pytest

from devices.audio.pcm import FORMATS, PcmParams
from emu import Machine
from emu.cli.meter import Levels, Meter, describe
from emu.terminal.statusline import StatusLine
from tests.emu import asm, tiny
from tests.emu.terminal.test_terminal import Session
from tests.fakes import FakeClock

STEREO = PcmParams(FORMATS["S16"], 48000, 2)
COLUMNS, LINES = 100, 12


# ---------------------------------------------------------------- levels


def test_levels_are_the_peaks_of_the_newest_period():
    levels = Levels(FakeClock().now)
    assert levels.peaks() == []
    levels.record(0, STEREO, struct.pack("<4h", 32767, 32767, 32767, 32767))
    levels.record(0, STEREO, struct.pack("<4h", 0, -32768, 16384, 100))
    assert levels.peaks() == [0.5, 1.0]


def test_only_the_end_of_a_long_period_is_looked_at():
    levels = Levels(FakeClock().now)
    loud_then_quiet = np.zeros((48000, 2), "<i2")
    loud_then_quiet[:40000] = 30000
    levels.record(0, STEREO, loud_then_quiet.tobytes())
    assert levels.peaks() == [0.0, 0.0]


def test_what_is_over_is_silent():
    clock = FakeClock()
    levels = Levels(clock.now)
    levels.record(0, STEREO, bytes(4 * 48000))
    clock.advance(1_200_000_000)  # the next period may still be playing
    assert len(levels.peaks()) == 2
    clock.advance(200_000_000)
    assert levels.peaks() == []


# ---------------------------------------------------------------- the line


@pytest.fixture
def counters(tmp_path):
    with Machine(tiny.write_image(tmp_path / "Image", tiny.WAIT), memory="32M") as machine:
        return replace(machine.counters, guest_ns=62_500_000_000, real_ns=62_400_000_000, underruns=2, overruns=1)


def test_everything_is_on_one_line(counters):
    text = describe(counters, 0, [0.5, 1.0], 0.031, 80)
    assert text == (" 1:02.5  L  -6.0 dB ####-  R   0.0 dB #####  xruns 3  skew +0.100 s  cpu  3.1 %")


def test_bars_are_as_wide_as_there_is_room_and_go_first(counters):
    for columns in range(75, 150):
        assert len(describe(counters, 0, [0.5, 1.0], 0.031, columns)) <= columns
    assert "#" not in describe(counters, 0, [0.5, 1.0], 0.031, 70)


def test_silence_has_no_level_and_none_is_below_the_bar(counters):
    assert "silent  xruns" in describe(counters, 0, [], 0.0, 80)
    assert "M  -inf dB ----" in describe(counters, 0, [0.0], 0.0, 80)


def test_skew_counts_from_when_the_machine_began(counters):
    assert "skew +0.000 s" in describe(counters, 100_000_000, [], 0.0, 80)


# ---------------------------------------------------------------- the command


class Screen:
    """What a person sees of a Session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._seen = 0

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        termios.tcsetwinsize(self.session.slave, (lines, columns))

    def lines(self) -> list[str]:
        self._stream.feed(self.session.shown[self._seen :])
        self._seen = len(self.session.shown)
        return [line.rstrip() for line in self._screen.display]

    def wait_for_meter(self) -> None:
        self.session.wait_until(self.is_shown)

    def is_shown(self) -> bool:
        return re.match(r" \d+:\d\d\.\d  silent  xruns 0  skew .*  cpu .* %", self.lines()[-1]) is not None

    @property
    def is_whole(self) -> bool:
        """Whether the meter is gone without a trace, and all lines scroll."""
        self.lines()
        return not any("xruns" in line for line in self.lines()) and self._screen.margins in (None, (0, LINES - 1))


@pytest.fixture
def metered(tmp_path) -> Iterator[Callable[..., Screen]]:
    sessions = []

    def start(*code: asm.Item, arguments: tuple[str, ...] = ()) -> Screen:
        image = tiny.write_image(tmp_path / "Image", tiny.say("ready\r\n"), *code)
        session = Session(image, "--meter", *arguments, size=(LINES, COLUMNS))
        sessions.append(session)
        screen = Screen(session)
        screen.wait_for_meter()
        return screen

    yield start
    for one in sessions:
        one.close()


class Stub:
    """As much of a machine as the meter's thread sees."""

    def __init__(self):
        self.clock, self.audio, self.counters = FakeClock(), SimpleNamespace(taps=[]), SimpleNamespace(skew_ns=0)
        self.asked = threading.Event()

    def post(self, _draw):
        self.asked.set()


def test_a_machine_that_takes_another_ones_place_while_that_is_asked_is_asked_too():
    before, after = Stub(), Stub()

    class Unlucky(Meter):
        @property
        def _asked(self):
            return self.__dict__.get("asked")

        @_asked.setter
        def _asked(self, asked):
            if asked and self._machine is before:
                self.attach(after)
            self.__dict__["asked"] = asked

    with Unlucky(StatusLine(os.open(os.devnull, os.O_RDWR), lambda _data: None)) as meter:
        meter._line.handle_signals = lambda: None
        meter.attach(before)
        after.asked.wait()
    os.close(meter._line._fd)


def test_beside_the_guests_output(metered):
    screen = metered(tiny.ECHO)
    for number in range(40):
        screen.session.type(b"line %d\r\n" % number)
    screen.session.wait_for(b"line 39\r\n")
    screen.wait_for_meter()
    assert screen.lines()[-4:-1] == ["line 38", "line 39", ""]


@pytest.mark.parametrize("code", [tiny.SPIN, tiny.WAIT], ids=["computing", "waiting"])
@pytest.mark.parametrize("way", ["C-a x", "SIGTERM", "SIGINT", "SIGHUP"])
def test_gone_on_every_way_out(metered, code, way):
    screen = metered(code)
    if way == "C-a x":
        screen.session.type(b"\x01x")
    else:
        os.kill(screen.session.pid, getattr(signal, way))
    screen.session.status()
    assert screen.is_whole
    assert screen.session.is_restored()


@pytest.mark.parametrize("arguments", [(), ("--exec", "true")])
def test_gone_after_a_timeout(metered, arguments):
    screen = metered(tiny.SPIN, arguments=("--timeout", "1000", *arguments))
    os.kill(screen.session.pid, signal.SIGALRM)  # as the timer does
    assert screen.session.status() == 124
    assert screen.is_whole


def test_gone_after_an_error_which_is_shown_above(metered):
    screen = metered(tiny.until_typed(tiny.FAIL))
    screen.session.type(b"x")
    assert screen.session.status() == 1
    assert screen.is_whole
    assert "failure" in "".join(screen.lines())


@pytest.mark.parametrize("arguments", [(), ("--exec", "true")], ids=["keys", "exec"])
def test_gone_while_it_is_stopped_and_back_when_it_goes_on(metered, arguments):
    screen = metered(tiny.WAIT, arguments=arguments)
    os.kill(screen.session.pid, signal.SIGTSTP)
    screen.session.wait_until(screen.session.is_stopped)
    screen.session.wait_until(lambda: screen.is_whole)
    os.kill(screen.session.pid, signal.SIGCONT)
    screen.wait_for_meter()


def test_a_new_size(metered):
    screen = metered(tiny.ECHO)
    screen.resize(80, 20)
    screen.session.wait_until(lambda: len(screen.lines()) == 20 and screen.is_shown())
    screen.session.type(b"words\r\n" * 30)
    screen.session.wait_until(lambda: screen.lines()[-3:-1] == ["words", ""])
    assert sum("xruns" in line for line in screen.lines()) == 1


def test_after_a_reset_it_shows_the_next_machine(metered):
    screen = metered(tiny.until_typed(tiny.RESET))
    for machines in (2, 3):
        screen.session.type(b"x")
        screen.session.wait_until(lambda machines=machines: screen.session.shown.count(b"ready") == machines)
        screen.session.wait_until(lambda: b"skew" in screen.session.shown.rpartition(b"ready")[2])
        screen.wait_for_meter()
