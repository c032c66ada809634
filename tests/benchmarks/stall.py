"""Why sound stalls in other emulators but not here: when a period completes, and on which clock.

python -m tests.benchmarks.stall

A guest plays a sound whose frames are all different, on devices that complete its messages

- when they are played: ours
- at hand-off: as soon as they are queued, from an event soon after the notification
- a whole buffer at once, when its last period has been played

and on the clock that paces the sound, or on one that advances in steps of 4 ms (CLOCK_MONOTONIC_COARSE), or is 5 % slow
or fast. The faulty rules and clocks exist only here; the product has one clock, and no switch for this.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from devices.clint import ticks_from_ns
from devices.contracts import Clock, Event, Events, IrqLine
from devices.stimer import SupervisorTimer
from devices.virtio.sound.output import PreparedOutput
from devices.virtio.sound.prepared import StreamParams, Surroundings
from emu import guest
from emu.machine import Machine
from emu.shell import ShellError
from tests.guest.studio import Studio, aplay, studio

S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)
SECONDS = 2.0
#: After this many times the sound's duration, in guest time, it has stalled; and how long it may take in real time.
PATIENCE = 3.0
HOST_SECONDS = 20.0
#: What a hand-off takes; sooner, and the guest's buffer would spin on through gigabytes.
HAND_OFF_NS = 100_000

BUFFERS = {"aplay's own buffer": "", "8 periods of 1024": "--period-size=1024 --buffer-size=8192"}

_NS_PER_S = 1_000_000_000


# ---------------------------------------------------------------- faulty completion


class AtHandOff(PreparedOutput):
    """A message completes as soon as it is queued: what is played is whatever is there by then."""

    def _schedule(self, now: int) -> None:
        if self._fifo:
            self._event = self._events.at(now + HAND_OFF_NS, self._complete_due)

    def _complete_due(self) -> None:
        self._event = None
        now = self._clock.now()
        while self._fifo:
            self._advance(now, now)
        self._queue.signal()


class WholeBuffer(PreparedOutput):
    """A buffer's worth of messages completes all at once, when the last of them has been played."""

    def __init__(self, around: Surroundings, params: StreamParams) -> None:
        super().__init__(around, params)
        self._periods = params.buffer_bytes // params.period_bytes

    def _complete_due(self) -> None:
        self._event = None
        frames = sum(message.frames for message in list(self._fifo)[: self._periods])
        now = self._clock.now()
        if self._stopwatch.end_of(frames) > now:
            self._event = self._events.at(self._stopwatch.end_of(frames), self._complete_due)
            return
        for _ in range(min(self._periods, len(self._fifo))):
            self._advance(now, now)
        self._queue.signal()
        self._schedule(now)


COMPLETIONS: dict[str, type[PreparedOutput]] = {
    "when played (pyemu)": PreparedOutput,
    "at hand-off": AtHandOff,
    "a whole buffer at once": WholeBuffer,
}


# ---------------------------------------------------------------- faulty clocks


@dataclass(frozen=True)
class GuestTime:
    """A guest clock other than the sound's: what it shows at an instant, and when it shows that."""

    shown: Callable[[int], int]
    #: The first instant at which it shows a given time.
    instant: Callable[[int], int]


_STEP = 4_000_000

CLOCKS: dict[str, GuestTime] = {
    "exact": GuestTime(lambda now: now, lambda shown: shown),
    "4 ms steps": GuestTime(lambda now: now // _STEP * _STEP, lambda shown: -(-shown // _STEP) * _STEP),
    "5 % slow": GuestTime(lambda now: now * 19 // 20, lambda shown: -(-shown * 20 // 19)),
    "5 % fast": GuestTime(lambda now: now * 21 // 20, lambda shown: -(-shown * 20 // 21)),
}


class _ShownClock:
    def __init__(self, clock: Clock, time: GuestTime) -> None:
        self._clock, self._time = clock, time

    def now(self) -> int:
        return self._time.shown(self._clock.now())


class _ShownEvents:
    def __init__(self, events: Events, time: GuestTime) -> None:
        self._events, self._time = events, time

    def at(self, deadline: int, action: Callable[[], None]) -> Event:
        return self._events.at(self._time.instant(deadline), action)


@contextmanager
def faulty(completion: type[PreparedOutput], time: GuestTime) -> Iterator[Callable[[Machine], None]]:
    """Make machines created meanwhile faulty; yields what to do with one before it runs."""

    class Timer(SupervisorTimer):
        def __init__(self, clock: Clock, events: Events, line: IrqLine) -> None:
            super().__init__(_ShownClock(clock, time), _ShownEvents(events, time), line)

    def set_clock(machine: Machine) -> None:
        now = machine.clock.now
        machine._engine.time = lambda: ticks_from_ns(time.shown(now()))

    with (
        mock.patch("emu.machine.SupervisorTimer", Timer),
        mock.patch("devices.virtio.sound.device.PreparedOutput", completion),
    ):
        yield set_clock


# ---------------------------------------------------------------- outcomes


@dataclass(frozen=True)
class Outcome:
    """What became of a sound."""

    #: "" when aplay ended by itself, else "stall" (it did not) or "lockup" (nor could it be killed).
    end: str
    status: int | None
    seconds: float  # of sound's time
    lost: int  # frames
    repeated: int
    reordered: int
    underruns: int
    errors: int  # aplay's write errors

    @property
    def exact(self) -> bool:
        return str(self) == "exact"

    def __str__(self) -> str:
        faults = [f"{self.end} after {self.seconds:.0f} s"] if self.end else []
        faults += [f"status {self.status}"] if self.status else []
        for count, name in ((self.underruns, "underrun"), (self.errors, "write error")):
            faults += [f"{count} {name}{'s' if count > 1 else ''}"] if count else []
        counts = {"frames lost": self.lost, "frames repeated": self.repeated, "steps back": self.reordered}
        faults += [f"{count} {name}" for name, count in counts.items() if count]
        if not faults and not SECONDS <= self.seconds < 1.3 * SECONDS:
            faults = ["all frames"]
        return ", ".join([*faults, f"{self.seconds:.1f} s"]) if faults else "exact"


FRAMES = round(SECONDS * S16_STEREO.rate)
#: Each frame is its own number, from 1 on.
SONG = np.arange(1, FRAMES + 1, dtype="<u4").tobytes()


def outcome(guest: Studio, options: str) -> Outcome:
    """Play the song in a guest that may never come back, and say what became of it."""
    machine, tape = guest.machine, guest.tape
    guest.load(SONG)
    printed = machine.console.printed
    began = machine.clock.now()
    status: int | None = None
    end = ""
    machine.console.sendline(f"{aplay(S16_STEREO, len(SONG), options)}; echo ended''_$?")
    if wait(machine, b"ended_", PATIENCE * SECONDS):
        machine.run_for(0.01)
        status = int(machine.console.since(printed).partition(b"ended_")[2].split()[0])
        seconds = (machine.clock.now() - began) / _NS_PER_S
    else:
        seconds = (machine.clock.now() - began) / _NS_PER_S
        machine.console.send(b"\x03")
        end = "stall" if wait(machine, b"ended_", 3.0) else "lockup"
    text = machine.console.since(printed)
    heard = np.concatenate([np.frombuffer(bytes(sound.data), "<u4") for sound in tape.take()] or [np.zeros(0, "<u4")])
    heard = heard[heard != 0].astype(np.int64)
    different = len(np.unique(heard))
    return Outcome(
        end=end,
        status=status,
        seconds=seconds,
        lost=FRAMES - different,
        repeated=len(heard) - different,
        reordered=int(np.count_nonzero(np.diff(heard) < 0)),
        underruns=text.count(b"underrun!!!"),
        errors=text.count(b"write error"),
    )


def wait(machine: Machine, text: bytes, seconds: float) -> bool:
    """Wait for a text: up to ``seconds`` of guest time, in real time as long as a guest that never idles may take."""
    printed = machine.console.printed
    end = machine.clock.now() + round(seconds * _NS_PER_S)
    over = machine.events.at(end, lambda: None)
    machine.run_until(
        lambda: text in machine.console.since(printed) or machine.clock.now() >= end, timeout=HOST_SECONDS
    )
    over.cancel()
    return text in machine.console.since(printed)


def matrix(files: tuple[Path, Path], completion: str, clock: str) -> dict[str, Outcome | str]:
    """What becomes of the song with each buffer."""
    outcomes: dict[str, Outcome | str] = {}
    for name, options in BUFFERS.items():  # each in its own guest, which may be lost
        with (
            tempfile.TemporaryDirectory() as folder,
            faulty(COMPLETIONS[completion], CLOCKS[clock]) as set_clock,
        ):
            try:
                with studio(files, Path(folder), before=set_clock) as guest:
                    guest.excused = re.compile(b"")
                    outcomes[name] = outcome(guest, options)
            except ShellError as error:
                outcomes[name] = str(error)
    return outcomes


def table(files: tuple[Path, Path]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| a period completes | guest's clock | {' | '.join(BUFFERS)} |"
    yield "|---|---|" + "---|" * len(BUFFERS)
    for completion in COMPLETIONS:
        for clock in CLOCKS:
            outcomes = matrix(files, completion, clock)
            yield f"| {completion} | {clock} | {' | '.join(map(str, outcomes.values()))} |"


if __name__ == "__main__":
    for line in table(guest.files(lambda line: print(line, file=sys.stderr))):
        print(line, flush=True)
