"""Sweeps at their size: how fast, how much beside the machines' own work, and what is left when processes are killed.

python -m tests.benchmarks.sweep PART [COUNT [SEED]]

    sound     COUNT (1000) cases from a snapshot, 0.2 s of sound each, bit-compared; what is beside the machines' work
    growth    the same with one process, and with two
    nothing   COUNT (100000) cases of a test that does nothing: cases per second, and this process's memory
    killed    pyemu sweep, killed COUNT (20) times at random moments: each case is there once
    dask      the sound on a scheduler and two workers, by TCP; and COUNT (20) times one worker is killed
    million   COUNT (100000) cases that do nothing, on a scheduler and two workers

The last two need Dask: pip install 'pyemu-riscv[cluster]'.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from emu import Machine, guest
from emu.arguments import GUEST_APPEND
from emu.fleet import sweep
from emu.fleet.cluster import connect
from tests.emu import tiny
from tests.emu.fleet.cluster import cluster

_RATES, _PERIODS = (8000, 44100, 48000), (64, 256, 1024)
_TONE = "TONE_FILE"  # the environment's name for it


def plays(machine: Machine, rate: int, channels: int, period: int, n: int) -> float:
    """Play 0.2 s, and compare it with what was to be played, and the silence that completes its last period.

    Returns the processor time that this took.
    """
    began = time.process_time()
    tone = Path(os.environ[_TONE]).read_bytes()[: rate // 5 * channels * 2]
    play = f"aplay -q -D hw:0,0 -t raw -f S16_LE -r {rate} -c {channels} --period-size={period}"
    status, output = machine.console.run(f"head -c {len(tone)} /root/tone.wav | {play}")
    assert status == 0, output
    played = machine.audio.frames.tobytes()
    assert played[: len(tone)] == tone
    assert not any(played[len(tone) :])
    return time.process_time() - began


def nothing(machine: Machine, n: int) -> int:
    """Do nothing."""
    return n


def slow(machine: Machine, n: int) -> None:
    """Take a while, for someone to be killed."""
    time.sleep(0.02)


def _cases(count: int) -> Iterator[dict[str, int]]:
    for n in range(count):
        yield {"n": n, "rate": _RATES[n % 3], "channels": 1 + n % 2, "period": _PERIODS[n // 6 % 3]}


def _processor(pid: int) -> float:
    """Return the processor time, in seconds, of a process and of all that it has started."""
    ticks, todo = 0, [pid]
    while todo:
        with contextlib.suppress(OSError):
            process = Path(f"/proc/{todo.pop()}")
            ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:15]))
            tasks = [(task / "children").read_text() for task in (process / "task").iterdir()]
            todo += map(int, " ".join(tasks).split())
    return ticks / os.sysconf("SC_CLK_TCK")


def _ready(folder: Path) -> Path:
    """Boot the default guest, and leave its snapshot and its tone in ``folder``."""
    kernel, initrd = guest.files()
    with Machine(kernel, initrd, append=GUEST_APPEND, clock="warp") as machine:
        machine.console.run("true")
        machine.save(folder / "ready.pyemu")
        data = machine.console.run("od -An -v -tx1 /root/tone.wav").output
    (folder / "tone.wav").write_bytes(bytes.fromhex(data))
    os.environ[_TONE] = str(folder / "tone.wav")
    return folder / "ready.pyemu"


def _all_passed(outcomes: Iterator[Any], count: int) -> tuple[float, float]:
    """Check that each case is there once; return how long they took, and the processor time of their machines."""
    seen, took, worked = bytearray(count), 0.0, 0.0
    for outcome in outcomes:
        if not outcome.passed:
            sys.exit(f"{outcome.case}: {outcome.error}\n{outcome.error.traceback}\n{outcome.repeat}")
        seen[outcome.case["n"]] += 1
        took += outcome.host_ns / 1e9
        worked += outcome.value or 0
    if seen.count(1) != count:
        sys.exit(f"{seen.count(0)} cases are lost, and {count - seen.count(0) - seen.count(1)} are there twice")
    return took, worked


def _measure(title: str, count: int, run: Callable[[Iterator[Any]], Iterator[Any]], workers: int) -> None:
    began, before, own = time.monotonic(), _processor(os.getpid()), time.process_time()
    took, worked = _all_passed(run(_cases(count)), count)
    wall, processor, own = time.monotonic() - began, _processor(os.getpid()) - before, time.process_time() - own
    print(
        f"{title}: {count} cases in {wall:.1f} s, {count / wall:.1f} cases/s; a case {1e3 * took / count:.1f} ms, "
        f"beside it {1e3 * (wall * workers - took) / count:.1f} ms ({100 * (wall * workers / took - 1):.1f} %); "
        f"processor time of its machine {1e3 * worked / count:.1f} ms, of all else "
        f"{1e3 * (processor - worked) / count:.1f} ms ({100 * (processor / worked - 1):.1f} %), "
        f"{1e3 * own / count:.2f} ms of that in this process",
        flush=True,
    )


def sound(count: int, folder: Path, jobs: tuple[int, ...] = (2,)) -> None:
    """Play; with each number of processes."""
    snapshot = _ready(folder)
    for number in jobs:
        run = partial(sweep, plays, snapshot=snapshot, jobs=number)
        _measure(f"{number} processes", count, run, number)


def _do_nothing(count: int, image: Path, executor: Executor | None = None) -> None:
    memory = [_memory()]
    began = time.monotonic()

    def watched() -> Iterator[Any]:
        numbers = ({"n": n} for n in range(count))
        for number, outcome in enumerate(sweep(nothing, numbers, executor, kernel=image, memory="16M")):
            if number % (count // 10) == count // 20:
                memory.append(_memory())
            yield outcome

    _all_passed(watched(), count)
    rate = count / (time.monotonic() - began)
    print(f"{count} cases, {rate:.0f} cases/s; memory of this process: {', '.join(map(str, memory))} MB", flush=True)


def _memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") >> 20


def killed(times: int, seed: int, folder: Path) -> None:
    """Kill ``pyemu sweep`` again and again."""
    chance, image, number = random.Random(seed), _image(folder), 100 * times
    for n in range(number):
        with (folder / "cases.jsonl").open("a") as file:
            file.write(f'{{"n": {n}}}\n')
    command = [
        *(sys.executable, "-m", "emu", "sweep", "tests.benchmarks.sweep:slow", "--cases", str(folder / "cases.jsonl")),
        *("--kernel", str(image), "-m", "16M", "-j", "2", "-o", str(folder / "results.jsonl")),
    ]
    for _ in range(times):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(0.5 + chance.random())
        process.kill()
        process.wait()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = (folder / "results.jsonl").read_text().splitlines()
    found = sorted(json.loads(line)["case"]["n"] for line in lines)
    print(f"killed {times} times, then: {done.stderr.splitlines()[-1]} (status {done.returncode})")
    if found != list(range(number)) or done.returncode:
        sys.exit("each case is to be there once")


@contextlib.contextmanager
def _dask(workers: int = 2) -> Iterator[tuple[Executor, list["subprocess.Popen[bytes]"]]]:
    """Start a scheduler and its workers, and connect to them; the scheduler is the first of the processes."""
    with cluster(workers) as started, connect(started.address) as executor:
        executor.client.wait_for_workers(workers, timeout=30)
        yield executor, [started.scheduler, *started.workers]


def dask(times: int, seed: int, folder: Path) -> None:
    """Play on a cluster; kill one of its two workers in the middle."""
    chance, snapshot, count = random.Random(seed), _ready(folder), 200
    with _dask() as (executor, _):
        _all_passed(sweep(plays, _cases(20), executor, snapshot=snapshot), 20)  # everybody has started
        _measure("Dask", count, partial(sweep, plays, executor=executor, snapshot=snapshot), 2)
    for _ in range(times):
        moment = chance.randrange(5, 35)
        with _dask() as (executor, (_, *workers)):
            outcomes = sweep(plays, _cases(40), executor, snapshot=snapshot)
            _all_passed(_killing(outcomes, moment, chance.choice(workers)), 40)
        print(f"killed after {moment} of 40 cases: each is there once", flush=True)


def _killing(outcomes: Iterator[Any], moment: int, victim: "subprocess.Popen[bytes]") -> Iterator[Any]:
    for number, outcome in enumerate(outcomes):
        if number == moment:
            victim.kill()
        yield outcome


def _image(folder: Path) -> Path:
    return tiny.write_image(folder / "Image", tiny.say("hello\n"), tiny.POWER_OFF)


def main(part: str, count: int | None = None, seed: int = 0) -> None:
    """Run a part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        match part:
            case "sound":
                sound(count or 1000, folder)
            case "growth":
                sound(count or 400, folder, (1, 2))
            case "nothing":
                _do_nothing(count or 100_000, _image(folder))
            case "killed":
                killed(count or 20, seed, folder)
            case "dask":
                dask(count or 20, seed, folder)
            case "million":
                with _dask() as (executor, _):
                    _do_nothing(count or 100_000, _image(folder), executor)
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""], *map(int, sys.argv[2:]))
