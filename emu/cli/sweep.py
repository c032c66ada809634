"""``pyemu sweep``: one test, many cases, each in a machine of its own."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devices.errors import UsageError
from emu.cli.completion import complete_file
from emu.cli.reporting import debug_option, reporting
from emu.cli.signals import Signals
from emu.terminal.progress import Progress
from emu.terminal.terminal import say, show

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from emu.fleet import Outcome
    from emu.fleet.results import Results
    from emu.fleet.target import Target

__all__ = ["sweep_command"]

#: Failures that are told one by one.
_MOST_TOLD = 20

_EPILOG = """\b
Examples:
  pyemu sweep tests/sound.py:plays --matrix rate=8000,44100,48000 --matrix channels=1,2
      plays(machine, rate, channels) in six machines, each the default guest at its shell.
  pyemu boot --exec "modprobe my_driver" --save ready.pyemu
  pyemu sweep tests/driver.py:check --cases cases.csv --snapshot ready.pyemu -o results.jsonl --html results.html
      Each case goes on from there. If it is interrupted, the same command goes on where it was.
  pyemu sweep tests/driver.py:check --cases cases.csv --matrix seed=0,1,2 --check-repeat 1%
      Each case with three timings; one in a hundred is run twice, and must be the same to the bit.
  pyemu sweep tests/driver.py:check --cases cases.csv --dask tcp://scheduler:8786
      On the workers of a cluster.

\b
Exit status:
  0  all cases passed           1    some failed
  2  wrong usage                130  stopped by C-c
"""


def _share(_context: click.Context, _option: click.Parameter, text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{text} is no share of the cases; write it like 1%")
    return share


_FILE = click.Path(path_type=Path)


@click.command("sweep", epilog=_EPILOG, short_help="Run a test with many cases, each in a machine of its own.")
@click.argument("test", metavar="FILE.py:FUNCTION", shell_complete=complete_file)
@click.option(
    "--cases", type=_FILE, metavar="FILE", help="The cases: a JSON object per line, or .csv with names first."
)
@click.option(
    "--matrix", metavar="NAME=VALUE[,...]", multiple=True, help="Each of the values, with each case and other matrix."
)
@click.option("--case", "single", metavar="JSON", help="One case alone, as the line that repeats it has it.")
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="Machines at a time.  [default: one per core]")
@click.option("--dask", metavar="ADDRESS", help="Use the workers of a Dask scheduler instead, like tcp://host:8786.")
@click.option(
    "-o", "--output", type=_FILE, metavar="FILE.jsonl",
    help="Write each outcome to FILE as its case ends. If some are there already, only the other cases are run.",
)  # fmt: skip
@click.option("--junit", type=_FILE, metavar="FILE.xml", help="Write a JUnit report.")
@click.option(
    "--html", type=_FILE, metavar="FILE.html", help="Write a page with a grid of all cases, and each failure."
)
@click.option("--check-repeat", metavar="PERCENT", default="0", callback=_share,
              help="Run such a share of the cases once more; a difference is a failure.")  # fmt: skip
@click.option("--timeout", type=float, default=60.0, show_default=True, metavar="SECONDS",
              help="What a case may take, of real time.")  # fmt: skip
@click.option("--memory-limit", default="4G", show_default=True, metavar="SIZE", help="What a case's process may take.")
@click.option("--snapshot", type=_FILE, metavar="FILE", help="Where each machine begins: see pyemu boot --save.")
@click.option("--kernel", type=_FILE, metavar="FILE", help="Or a kernel, which each machine boots.")
@click.option("--initrd", type=_FILE, metavar="FILE", help="Its root file system.")
@click.option("--bios", type=_FILE, metavar="FILE", help="M-mode firmware.")
@click.option("-m", "--memory", metavar="SIZE", help="RAM, like 512M or 1G.")
@click.option("-a", "--append", metavar="TEXT", help="The kernel's command line, all of it.")
@click.option("--disk", "disks", multiple=True, metavar="FILE,snapshot", help="A disk, as with pyemu boot.")
@click.option("--audio", metavar="TEXT", help="A backend, as with pyemu boot.  [default: what machine.audio.frames is]")
@click.option("--clock", type=click.Choice(["warp", "host", "real"]), default="warp", show_default=True,
              help="As with pyemu boot.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, metavar="N",
              help="The source of all chance in cases that have no seed of their own.")  # fmt: skip
@debug_option
def sweep_command(
    *,
    test: str,
    cases: Path | None,
    matrix: tuple[str, ...],
    single: str | None,
    jobs: int | None,
    dask: str | None,
    output: Path | None,
    junit: Path | None,
    html: Path | None,
    check_repeat: float,
    timeout: float,
    memory_limit: str,
    seed: int,
    debug: bool,
    **hardware: Any,
) -> int:
    """Call FUNCTION(machine, **case) for each case, in a machine that is always the same at first.

    What it returns is written to the results, and what it raises is a failure. Each runs in a process of its own, so
    one that hangs or crashes is a failure like another. Machines begin at the shell of the default guest, with a
    snapshot there, or by booting a kernel. A case's "seed" is its machine's, too.
    """
    with reporting(debug), contextlib.ExitStack() as ended:
        ended.enter_context(Signals())
        import tempfile  # noqa: PLC0415

        from emu.fleet.job import Job, Limits  # noqa: PLC0415
        from emu.fleet.results import Results  # noqa: PLC0415
        from emu.fleet.sweep import sweep_job  # noqa: PLC0415
        from emu.fleet.target import Target  # noqa: PLC0415

        count, todo = _cases(cases, matrix, single)
        target = Target.parse(test)
        _check(target)
        job = Job.make(target, _options(hardware), Limits.of(timeout, memory_limit))
        if output is None:
            output = Path(ended.enter_context(tempfile.TemporaryDirectory(prefix="pyemu-"))) / "results.jsonl"
        results = ended.enter_context(Results(output, job.identity()))
        before = results.passed + results.failed
        if before:
            say(f"{before:,} outcomes are in {output}; going on with the others")
        executor = ended.enter_context(_executor(dask))
        new = (case for case in todo if results.is_new(case, case.get("seed", seed)))
        outcomes = sweep_job(job, new, executor, seed=seed, jobs=jobs, check_repeat=check_repeat)
        with contextlib.closing(outcomes):  # type: ignore[type-var]  # it is a generator
            _run(outcomes, results, count, alone=single is not None)
        if junit is not None:
            from emu.fleet.junit import write_junit  # noqa: PLC0415

            write_junit(junit, test, results.records(), results.passed + results.failed, results.failed)
        if html is not None:
            from emu.fleet.page import write_page  # noqa: PLC0415

            write_page(html, test, results.records(), output.parent)
        if not results.passed + results.failed:
            raise UsageError("there are no cases; name some with --cases or --matrix")
        return 1 if results.failed else 0


def _check(target: "Target") -> None:
    """Load the test here, too: whoever has mistyped something wants to know at once. Raises UsageError."""
    try:
        target.load()
    except UsageError:
        raise
    except Exception as error:
        what = " ".join(str(error).split())
        message = f"{target.place} cannot be imported: {type(error).__name__}: {what} (--debug shows where)"
        raise UsageError(message) from error


def _cases(path: Path | None, matrix: tuple[str, ...], single: str | None) -> tuple[int, Iterator[dict[str, Any]]]:
    """Return how many cases there are, and what yields them; raises UsageError."""
    from emu.fleet.cases import count_cases, matrix_of, parse_case, read_cases  # noqa: PLC0415

    points = matrix_of(matrix)
    if single is not None:
        if path is not None or points:
            raise UsageError("--case is one case alone; leave out --cases and --matrix")
        return 1, iter([parse_case(single)])
    if path is None and not points:
        raise UsageError("there are no cases; name some with --cases or --matrix")
    return count_cases(path, points), read_cases(path, points)


def _options(hardware: dict[str, Any]) -> dict[str, Any]:
    """Return Machine's arguments; raises UsageError."""
    snapshot = hardware.pop("snapshot")
    if snapshot is not None:
        if hardware["kernel"] is not None:
            raise UsageError("a snapshot has its own kernel; leave out --kernel")
        hardware["kernel"] = snapshot
    return {name: value for name, value in hardware.items() if value not in (None, ())}


def _executor(dask: str | None) -> "contextlib.AbstractContextManager[Executor | None]":
    if dask is None:
        return contextlib.nullcontext()
    from emu.fleet.cluster import connect  # noqa: PLC0415

    return connect(dask)


def _run(outcomes: "Iterator[Outcome]", results: "Results", count: int, *, alone: bool) -> None:
    """Write each outcome down, and tell of failures and of the time that is left."""
    before = results.passed + results.failed
    began = time.monotonic()
    told = 0
    with Progress("sweep") as progress:
        for outcome in outcomes:
            results.add(outcome)
            done = results.passed + results.failed
            if outcome.error is not None and told < _MOST_TOLD:
                told += 1
                progress.clear()
                _tell(outcome, everything=alone)
            rate = (done - before) / max(time.monotonic() - began, 1e-3)
            progress(done / max(count, done), _forecast(rate, count - done, results.failed))
    if results.failed > told:
        say(f"failures: {results.failed:,} in all")
    took = time.monotonic() - began
    done = results.passed + results.failed
    say(f"{done:,} case{'s' * (done != 1)}: {results.passed:,} passed, {results.failed:,} failed ({took:.1f} s)")


def _tell(outcome: "Outcome", *, everything: bool) -> None:
    from emu.fleet.job import canonical  # noqa: PLC0415

    say(f"failed: {canonical(outcome.case)}: {' '.join(str(outcome.error).split())[:300]}")
    if everything:
        assert outcome.error is not None
        texts = (outcome.error.traceback, outcome.output, outcome.console)
        show("".join(f"{text.rstrip()}\n" for text in texts if text))
    elif outcome.repeat:
        say(f"  to repeat it: {outcome.repeat}")


def _forecast(rate: float, left: int, failed: int) -> str:
    seconds = round(left / rate) if rate else 0
    minutes, seconds = divmod(max(seconds, 0), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    until = f", {clock} left" if left >= 0 else ""  # else nobody knows how many there are
    return f", {rate:.3g} cases/s{until}" + (f", {failed:,} failed" if failed else "")
