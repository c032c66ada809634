"""A build of one part of the guest: where it may write, how it reports, and how it runs commands."""

import contextlib
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devices.errors import PyemuError

__all__ = ["CommandError", "Job"]

_TAIL = 3
#: How long a command may take, when told to end, to remove unfinished files, as make and compilers do.
_GRACE_S = 2.0
_CHUNK = 64 << 10


class CommandError(PyemuError):
    """A command failed; `output` is everything that it printed."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


@dataclass(frozen=True, slots=True)
class Job:
    """A build in progress.

    Attributes:
        work: a directory to work in, which outlives an interrupted build.
        report: shows the user a line about the progress.
        lock: the file descriptor that holds the lock on this build. Every command inherits it, so the lock holds until
            the last of them is gone, even if Python was killed meanwhile.

    """

    work: Path
    report: Callable[[str], None]
    lock: int

    def run(
        self,
        *command: str | Path,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> str:
        """Run a command to its end and return what it printed; on_line gets each line as it comes.

        Raises CommandError if it fails. An exception raised meanwhile, for example by a signal handler, ends the
        command and everything that it has started.
        """
        arguments = [str(word) for word in command]
        printed = []
        with subprocess.Popen(  # noqa: S603 - the commands are ours
            arguments,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[self.lock],
            text=True,
            errors="replace",
            process_group=0,
        ) as process:
            try:
                for line in process.stdout or ():
                    printed.append(line)
                    on_line(line)
            except BaseException:
                _end(process)
                raise
        output = "".join(printed)
        if process.returncode != 0:
            log = self.work.with_suffix(".log")
            log.write_text(f"$ {shlex.join(arguments)}\n{output}")
            last = " / ".join(output.strip().splitlines()[-_TAIL:])
            raise CommandError(f"{arguments[0]} failed with status {process.returncode} (log: {log}): {last}", output)
        return output


def _end(process: subprocess.Popen[str]) -> None:
    """End the process group that ``process`` leads: everything that might still write into the job's directory."""
    assert process.stdout is not None
    output, give_up = process.stdout.fileno(), time.monotonic() + _GRACE_S
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(process.pid, signal.SIGTERM)
            while select.select([output], [], [], max(0.0, give_up - time.monotonic()))[0] and os.read(output, _CHUNK):
                pass  # until the last of them has closed its output
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # whatever is left; the group exists until its leader is waited for
