"""Every sound in a guest: format x rate x channels x period x direction x kernel x seed, bit by bit.

python -m tests.benchmarks.matrix --sample 5% -o matrix.jsonl

Each case is a machine of its own, which goes on from a snapshot of its kernel (the default guest's, or Debian's own)
at its shell, and plays 0.2 s of noise, records as much, or both at once. All of them are 30,240; ``--sample`` takes a
share of them, always the same ones, and ``--only`` those that it names. Stopped, the same command goes on where it was.
A failure is printed with the line that repeats it alone. tests/benchmarks/MATRIX.md says what has been found.
"""

import contextlib
import hashlib
import itertools
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from devices.audio import Capture, PcmParams
from devices.audio.forwarding import ForwardingBackend
from devices.audio.pcm import FORMATS
from devices.errors import UsageError
from emu import Machine, guest
from emu.analysis import Sound, compare
from emu.arguments import GUEST_APPEND
from emu.fleet import Outcome, Target
from emu.fleet.cases import matrix_of
from emu.fleet.cluster import connect
from emu.fleet.job import Job, Limits, canonical
from emu.fleet.page import write_page
from emu.fleet.results import Results
from emu.fleet.sweep import sweep_job
from emu.guest import cache
from emu.snapshot.ready import ready
from emu.terminal.progress import Progress
from emu.terminal.terminal import say
from emu.testing.overlay import overlay
from tests.guest import debian
from tests.guest.studio import RATES, raw

#: What differs last differs most often; each kernel is a sweep of its own, and a seed needs a new machine.
POINTS: dict[str, tuple[Any, ...]] = {
    "kernel": ("default", "debian"),
    "seed": (0, 1, 2),
    "direction": ("play", "record", "both"),
    "period": (64, 256, 997, 4096),
    "channels": (1, 2, 8),
    "rate": RATES,
    "format": tuple(FORMATS),
}
#: A buffer has so many periods.
_PERIODS = 4
#: When a program has started, in guest time: two that start at once keep each other from short deadlines.
_STARTED_US = 30_000
#: ALSA's debug checks, all but stack traces, in kernels that have them.
_WATCH = "for file in /proc/asound/card0/pcm0?/xrun_debug; do test ! -e $file || echo 5 > $file; done"
_SUSPICION = re.compile(r"^.*(Lost interrupts\?.*)\n", re.MULTILINE)
#: Linux's own: the kernel, the period and the message of failures that are explained in MATRIX.md.
_LINUX = {
    "A": ("debian", 64, re.compile(r"status 1: arecord: pcm_read:\d+: read error: Input/output error")),
    "B": ("default", 64, re.compile(r"exact, but Lost interrupts\?")),
}
#: The most bytes of 0.2 s.
_MOST = max(RATES) // 5 * 8 * 8
#: Of a recording that is not what it should be, the most that is looked at: it comes through the console.
_READ = 200_000


def sounds(
    machine: Machine,
    kernel: str,
    seed: int,
    direction: str,
    period: int,
    channels: int,
    rate: int,
    format: str,  # noqa: A002
) -> None:
    """Play or record 0.2 s, or both at once; every bit must be as it was, and nothing added but silence at the end."""
    params = PcmParams(FORMATS[format], rate, channels)
    frames = rate // 5
    spoken = noise(1)[: frames * params.frame_size]
    even = len(spoken) + len(spoken) % 2  # arecord records so many bytes, in whole frames
    sent = noise(2)[: even - even % params.frame_size]
    options = f"-q -D hw:0,0 {raw(params)} -s {frames} --period-size={period} --buffer-size={_PERIODS * period}"
    play, record = f"aplay {options} /root/noise", f"arecord {options} > /tmp/heard"
    both = f"({record} & usleep {_STARTED_US}; {play}; played=$?; wait $! && exit $played)"
    command = {"play": play, "record": record, "both": both}
    with _listening(machine, sent) as heard:
        status, output = machine.console.run(f"{_WATCH}; {command[direction]}")
    suspicions, output = _SUSPICION.findall(output), _SUSPICION.sub("", output)
    assert (status, output) == (0, ""), f"status {status}: {' '.join(output.split())}"
    if direction != "record":
        assert [sound for sound, _ in heard.sounds] == [params], "what was played has other parameters"
        ((_, played),) = heard.sounds
        rest = played[len(spoken) :]
        assert played == spoken + params.silence(len(rest)), _told(played, spoken, params)
    if direction != "play":
        output = machine.console.run("md5sum < /tmp/heard").output
        assert output.split()[0] == hashlib.md5(sent).hexdigest(), _told(_recorded(machine), sent, params)
    assert not suspicions, f"exact, but {' '.join(suspicions)}"


@lru_cache
def noise(number: int) -> bytes:
    """Return noise in which no two stretches are alike, and none is silent."""
    return random.Random(number).randbytes(_MOST).replace(b"\0", b"\1").replace(b"\x80", b"\x81")


class _Listener(ForwardingBackend):
    """Hears each sound as the guest plays it; what it says is recorded."""

    def __init__(self, machine: Machine, said: bytes) -> None:
        super().__init__(machine.audio.backend)
        self._said = said
        self.sounds: list[tuple[PcmParams, bytearray]] = []

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        return _Said(params, self._said)

    def record(self, stream: int, params: PcmParams, data: bytes) -> None:
        if not self.sounds or self.sounds[-1][0] != params:
            self.sounds.append((params, bytearray()))
        self.sounds[-1][1].extend(data)


class _Said(Capture):
    def __init__(self, params: PcmParams, data: bytes) -> None:
        self._params, self._data = params, data

    def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data + self._params.silence(size - len(data))

    def skip(self, size: int) -> None:
        self._data = self._data[size:]


@contextlib.contextmanager
def _listening(machine: Machine, said: bytes) -> Iterator[_Listener]:
    """While entered, the machine has a listener before its own backend, which is there for a failure's picture."""
    listener = _Listener(machine, said)
    before = machine.audio.switch(listener)
    machine.audio.taps.append(listener)
    try:
        yield listener
    finally:
        machine.audio.switch(before)


def _recorded(machine: Machine) -> bytes:
    """Return what the guest has recorded, or the beginning of it."""
    return bytes.fromhex(machine.console.run(f"od -An -v -tx1 -N {_READ} /tmp/heard").output)


def _told(found: bytes | bytearray, wanted: bytes, params: PcmParams) -> str:
    """Say how sounds differ."""

    def frames(data: bytes | bytearray) -> Sound:
        data = data[: len(data) - len(data) % params.frame_size]
        silent = np.frombuffer(params.silence(len(data)), "i1")
        return Sound((np.frombuffer(bytes(data), "i1") ^ silent).reshape(-1, params.frame_size), params.rate, 8)

    return "\n".join([f"{len(found)} bytes for {len(wanted)}", *compare(frames(found), frames(wanted)).lines])


# ---------------------------------------------------------------- the sweep


def snapshot(kernel: str) -> Path:
    """Boot a kernel, with the noise in its root file system; it is kept."""
    kept = cache.directory() / "matrix" / f"{kernel}.cpio"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:  # others may be about to do the same
        folder = Path(name)
        noise_file = folder / "guest/root/noise"
        noise_file.parent.mkdir(parents=True)
        noise_file.write_bytes(noise(1))
        image, initrd = guest.files(say) if kernel == "default" else debian.files(folder, say)
        overlay(initrd, folder / "guest", folder / "whole").rename(kept)
    append = GUEST_APPEND if kernel == "default" else debian.APPEND
    return ready(image, kept, {"append": append}, say)


def cases(points: dict[str, Any], share: float) -> Iterator[dict[str, Any]]:
    """Yield a share of the cases: with a larger one, the same and more."""
    for values in itertools.product(*points.values()):
        case = dict(zip(points, values, strict=True))
        if int.from_bytes(hashlib.sha256(canonical(case).encode()).digest()[:8]) < share * 2**64:
            yield case


def _points(only: Iterable[str]) -> dict[str, Any]:
    points: dict[str, Any] = dict(POINTS)
    try:
        chosen = matrix_of(list(only))
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    for name, values in chosen.items():
        if not set(values) <= set(POINTS.get(name, ())):
            there_are = (f"{name}={','.join(map(str, values))}" for name, values in POINTS.items())
            raise click.UsageError(f"--only {name}: there are {'; '.join(there_are)}")
        points[name] = values
    return points


@click.command(help=re.sub(r"^(\w)", r"\b\n\1", __doc__, count=1))
@click.option("--sample", default="100%", metavar="PERCENT", help="Take such a share of the cases.")
@click.option("--only", multiple=True, metavar="NAME=VALUE[,...]", help="Take only these.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("matrix.jsonl"), show_default=True)
@click.option("--html", type=click.Path(path_type=Path), help="Write a page about it.")
@click.option("-j", "--jobs", type=int, help="Machines at a time.")
@click.option("--dask", metavar="ADDRESS", help="Use the workers of a Dask scheduler.")
@click.option("--check-repeat", type=float, default=0.0, help="Run such a share twice.")
@click.option("--count", is_flag=True, help="Only say how many cases there are.")
def main(
    sample: str, only: tuple[str, ...], output: Path, html: Path | None, jobs: int | None, dask: str | None,
    check_repeat: float, count: bool,
) -> None:  # fmt: skip
    points = _points(only)
    share = float(sample.removesuffix("%")) / 100
    total = sum(1 for _ in cases(points, share))
    say(f"{total:,} cases of {np.prod([len(values) for values in POINTS.values()]):,}")
    if count:
        return
    target = Target.parse("tests.benchmarks.matrix:sounds")
    made = {kernel: Job.make(target, {"kernel": snapshot(kernel)}, Limits.of(120, "4G")) for kernel in points["kernel"]}
    identity = hashlib.sha256("".join(job.identity() for job in made.values()).encode()).hexdigest()[:16]
    with contextlib.ExitStack() as ended:
        executor = None if dask is None else ended.enter_context(connect(dask))
        results = ended.enter_context(Results(output, identity))
        began, before = time.monotonic(), results.passed + results.failed
        for kernel, job in made.items():
            some = cases({**points, "kernel": (kernel,)}, share)
            new = (case for case in some if results.is_new(case, case["seed"]))
            _run(sweep_job(job, new, executor, jobs=jobs, check_repeat=check_repeat), results, total)
        took, new_ones = time.monotonic() - began, results.passed + results.failed - before
        print(f"{new_ones:,} cases in {took:.1f} s")
        if html is not None:
            write_page(html, "tests.benchmarks.matrix:sounds", results.records(), output.parent)
        sys.exit(1 if summary(results.records()) else 0)


def _run(outcomes: Iterator[Outcome], results: Results, total: int) -> None:
    """Write each outcome down, and show failures."""
    began, before = time.monotonic(), results.passed + results.failed
    with Progress("matrix") as progress:
        for outcome in outcomes:
            results.add(outcome)
            if outcome.error is not None:
                progress.clear()
                say(f"{canonical(outcome.case)}: {outcome.error}\n  to repeat it: {_only(outcome.case)}")
            done = results.passed + results.failed
            progress(done / total, f", {(done - before) / (time.monotonic() - began):.1f} cases/s")


def _only(case: dict[str, Any]) -> str:
    """Return the line that repeats a case, also with another pyemu, whose snapshots are others."""
    return f"python -m tests.benchmarks.matrix {' '.join(f'--only {name}={value}' for name, value in case.items())}"


def linux(record: dict[str, Any]) -> str | None:
    """Return the letter of what is wrong with Linux, if that is why a case has failed."""
    case, message = record["case"], record["error"]["message"]
    for letter, (kernel, period, pattern) in _LINUX.items():
        if (case["kernel"], case["period"]) == (kernel, period) and pattern.match(message):
            return letter
    return None


def summary(records: Iterable[dict[str, Any]]) -> int:
    """Print how many have failed, by each value of each name; return how many of them are not Linux's own."""
    counts: dict[str, Counter[Any]] = {name: Counter() for name in POINTS}
    failed: dict[str, Counter[Any]] = {name: Counter() for name in POINTS}
    reasons: Counter[str | None] = Counter()
    for record in records:
        for name, value in record["case"].items():
            counts[name][value] += 1
            failed[name][value] += not record["passed"]
        if not record["passed"]:
            reasons[linux(record)] += 1
    for name, values in POINTS.items():
        told = (f"{value} {failed[name][value]}/{counts[name][value]}" for value in values if counts[name][value])
        print(f"{name:9} failed: {', '.join(told)}")
    own = ", ".join(f"{letter} {reasons[letter]}" for letter in _LINUX)
    print(f"{counts['kernel'].total():,} cases: {reasons[None]:,} failed; and Linux's own: {own} (see MATRIX.md)")
    return reasons[None]


if __name__ == "__main__":
    main()
