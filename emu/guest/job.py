"""One build of a part of the guest: where it may write, how it reports, and how it runs commands."""

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devices.errors import PyemuError

__all__ = ["CommandError", "Job"]

_TAIL = 3


class CommandError(PyemuError):
    """A command failed; `output` is all that it printed."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


@dataclass(frozen=True, slots=True)
class Job:
    """A build in progress.

    Attributes:
        work: a directory to work in, which outlives an interrupted build.
        report: shows the user a line about what is going on.
        lock: the file descriptor that holds the lock on this build. Every command inherits it, so that the lock holds
            until the last of them is gone, even if Python was killed meanwhile.

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
        """Run a command to its end and return what it printed; on_line sees each line as it comes.

        Raises CommandError if it fails.
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
        ) as process:
            for line in process.stdout or ():
                printed.append(line)
                on_line(line)
        output = "".join(printed)
        if process.returncode != 0:
            log = self.work.with_suffix(".log")
            log.write_text(f"$ {shlex.join(arguments)}\n{output}")
            last = " / ".join(output.strip().splitlines()[-_TAIL:])
            raise CommandError(f"{arguments[0]} failed with status {process.returncode} (log: {log}): {last}", output)
        return output
