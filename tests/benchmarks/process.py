"""A guest in its own process, driven through its serial line: pyemu and QEMU alike."""

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from emu.arguments import GUEST_APPEND

PROMPT = "pyemu-bench"
APPEND = GUEST_APPEND


class Guest:
    """A machine started by ``command``, from its first byte of output to its end; ``stderr`` is a file descriptor."""

    def __init__(self, command: list[str], stderr: int = subprocess.DEVNULL) -> None:
        self.started = time.perf_counter()
        # Python's compiled modules are kept, as for any user; a new session keeps the terminal's signals away.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.text = b""

    def until(self, pattern: bytes, timeout: float = 120.0) -> re.Match[bytes]:
        """Wait until the guest has printed ``pattern``, and drop everything up to its end."""
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while (match := re.search(pattern, self.text)) is None:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise RuntimeError(f"{pattern!r} did not come, but {self.text[-400:]!r}")
            self.text += data
        self.text = self.text[match.end() :]
        return match

    def type(self, line: str) -> None:
        """Type a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def shell(self) -> float:
        """Wait for the shell and set our own prompt; return the seconds since the process started."""
        self.until(rb"\n# ")
        seconds = time.perf_counter() - self.started
        self.type(f"PS1='{PROMPT}:$?# '")
        self.until(rf"{PROMPT}:0# ".encode())
        return seconds

    def run(self, command: str, timeout: float = 600.0) -> float:
        """Run a command in the shell; return the seconds it took, on the host's clock."""
        start = time.perf_counter()
        self.type(command)
        match = self.until(rf"{PROMPT}:(\d+)# ".encode(), timeout)
        if match[1] != b"0":
            raise RuntimeError(f"{command}: status {match[1].decode()}")
        return time.perf_counter() - start

    def processor(self) -> float:
        """Return the seconds of CPU time that all threads of the process have used so far, to the nanosecond."""
        clock = ctypes.c_int()
        if error := ctypes.CDLL(None).clock_getcpuclockid(self.pid, ctypes.byref(clock)):
            raise OSError(error, os.strerror(error))
        return time.clock_gettime(clock.value)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the process to end, and return its exit status."""
        return self._process.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()


def pyemu(image: Path, rootfs: Path, *options: str) -> list[str]:
    """Return the command for pyemu with the default memory."""
    return [sys.executable, "-m", "emu", "boot", str(image), str(rootfs), "-a", APPEND, *options]


def qemu(program: str, image: Path, rootfs: Path, *options: str) -> list[str]:
    """Return the command for QEMU with the same memory and command line."""
    machine = ["-M", "virt", "-m", "256M", "-nographic", "-kernel", str(image), "-initrd", str(rootfs)]
    return [program, *machine, "-append", APPEND, *options]
