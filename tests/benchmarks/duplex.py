"""Sound in both directions on the host's clock: exactness, xruns, lateness, drift and CPU usage.

python -m tests.benchmarks.duplex [SECONDS [HARDSHIP ...]]

Periods last 10 ms; the buffer holds eight. A HARDSHIP is what the host has to do besides: "busy" (four processes that
compute), "stops" (this process is stopped for 5 to 250 ms, several times a second, from a seed) or "nice" (19). With
one, it is playing and recording only.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from devices.audio.periodlog import PeriodLog
from emu import guest
from emu.analysis import Period, describe_periods, read_log
from tests.guest.studio import S16_STEREO, Studio, Tape, aplay, arecord, studio

S16_EIGHT = PcmParams(FORMATS["S16"], 48000, 8)
S32_STEREO_384K = PcmParams(FORMATS["S32"], 384000, 2)
FATTEST_SECONDS = 20.0

_NS_PER_S = 1_000_000_000
_COMPLAINTS = re.compile(r"underrun!!!|overrun!!!|XRUN: |Unexpected hw_ptr|Lost interrupts|(?:read|write) error")


@dataclass(frozen=True)
class Job:
    """What to do at the same time."""

    params: PcmParams
    seconds: float
    play: bool = True
    record: bool = True
    busy: bool = False

    @property
    def frames(self) -> int:
        return round(self.seconds * self.params.rate)

    def __str__(self) -> str:
        what = " and ".join(["play"] * self.play + ["record"] * self.record)
        return f"{what} {self.seconds:.0f} s of {self.params}{', beside a busy loop' if self.busy else ''}"


def noise(params: PcmParams, frames: int, seed: int) -> bytes:
    """Return frames in which no two stretches are alike."""
    return np.random.default_rng(seed).bytes(frames * params.frame_size)


def command(job: Job) -> str:
    """Return the guest's command; its status says whether all of it was done."""
    period = job.params.rate // 100
    buffer = f"--period-size={period} --buffer-size={8 * period}"
    play = aplay(job.params, job.frames * job.params.frame_size, buffer)
    record = arecord(job.params, job.frames, buffer)
    if not job.record:
        return play
    return f"({record} & {play} && wait $!)" if job.play else record


def work(machine_guest: Studio, job: Job) -> tuple[float, str]:
    """Do the job; return the share of a core it took, and what was printed."""
    machine = machine_guest.machine
    if job.busy:
        machine_guest.ok("while :; do :; done &")
    began, processor = machine.clock.now(), time.process_time()
    _, text = machine_guest.run(command(job))
    share = (time.process_time() - processor) / ((machine.clock.now() - began) / _NS_PER_S)
    if job.busy:
        machine_guest.ok("kill $!")
    return share, text


def idle(machine_guest: Studio) -> float:
    """Return the share of a core that an idle guest takes."""
    start = time.process_time()
    machine_guest.machine.run_for(3.0)
    return (time.process_time() - start) / 3.0


def drift(periods: list[Period], params: PcmParams) -> float:
    """How much longer (ppm) the sound was in guest time than its frames say."""
    frames = sum(period.bytes for period in periods[1:]) // params.frame_size
    duration = periods[-1].due_ns - periods[0].due_ns
    return 1e6 * (duration * params.rate / (frames * _NS_PER_S) - 1)


def run(files: tuple[Path, Path], job: Job) -> None:
    """Do a job in its own guest, and print the outcome."""
    song, source = (noise(job.params, job.frames, seed) for seed in (1, 2))
    tape = Tape()
    tape.source = source
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio = PeriodLog(tape, folder / "log")
        room = (len(song) + 4096) // 4096 * 4096
        with studio(files, folder, audio=audio, clock="host", room=room, memory="512M") as machine_guest:
            machine_guest.excused = re.compile(b"")  # they are counted here
            machine_guest.ok("for i in p c; do echo 7 > /proc/asound/card0/pcm0$i/xrun_debug; done")
            machine_guest.load(song)
            base, before = idle(machine_guest), machine_guest.machine.clock.given_up
            share, text = work(machine_guest, job)
            given_up = (machine_guest.machine.clock.given_up - before) / _NS_PER_S
            complaints = [found[0] for line in text.splitlines() if (found := _COMPLAINTS.search(line))]
            heard = b"".join(bytes(sound.data) for sound in tape.take())
            recorded = machine_guest.recorded(job.params, job.frames)
        log = read_log(folder / "log")
    print(f"{job}: {100 * share:.1f} % of a core ({100 * base:.1f} % idle),", end=" ")
    print(f"{given_up:.3f} s given up,", end=" ")
    print(f"{len(complaints)} complaints {sorted(set(complaints)) or ''}")
    exact = {"playback": heard.startswith(song) and not any(heard[len(song) :]), "capture": recorded == source}
    for statistics in describe_periods(log):
        periods = [period for period in log if period.direction == statistics.direction]
        print(f"    {'bit-exact' if exact[statistics.direction] else 'NOT EXACT'}; {statistics}; ", end="")
        print(f"sound against guest time {drift(periods, job.params):+.3f} ppm", flush=True)


def stop_and_go_on(process: int, seed: int) -> None:
    """Stop ``process`` again and again, until it is gone."""
    rng = random.Random(seed)
    with contextlib.suppress(ProcessLookupError):
        while True:
            time.sleep(rng.uniform(0.05, 0.5))
            os.kill(process, signal.SIGSTOP)
            time.sleep(rng.uniform(0.005, 0.25))
            os.kill(process, signal.SIGCONT)


@contextlib.contextmanager
def hardship(names: list[str]) -> Iterator[None]:
    """Have the host do something else as well."""
    commands = []
    if "busy" in names:
        commands += [[sys.executable, "-c", "while True: pass"]] * 4
    if "stops" in names:
        code = f"from {__spec__.name} import stop_and_go_on; stop_and_go_on({os.getpid()}, 1)"
        commands.append([sys.executable, "-c", code])
    children = [subprocess.Popen(command) for command in commands]
    if "nice" in names:
        os.nice(19)
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def main(seconds: float, names: list[str], files: tuple[Path, Path]) -> None:
    """Print a paragraph for each job."""
    if names:
        with hardship(names):
            print(f"with {' and '.join(names)}: ", end="")
            run(files, Job(S16_STEREO, seconds))
        return
    for busy in (False, True):
        run(files, Job(S16_STEREO, seconds, record=False, busy=busy))
        run(files, Job(S16_STEREO, seconds, play=False, busy=busy))
        run(files, Job(S16_STEREO, seconds, busy=busy))
    run(files, Job(S16_EIGHT, min(seconds, 3 * FATTEST_SECONDS)))
    run(files, Job(S32_STEREO_384K, min(seconds, FATTEST_SECONDS)))


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 600.0,
        sys.argv[2:],
        guest.files(lambda line: print(line, file=sys.stderr)),
    )
