"""The same session over and over under the warp clock, alone and beside four busy processes: is it the same to the bit?

python -m tests.benchmarks.repeat [COUNT] [PYTHON ...]      COUNT runs of each kind, with each interpreter
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from emu import Machine, Trace, TraceFile, guest

__all__ = ["Run", "busy", "session"]

COMMANDS = (
    "i=0; while [ $i -lt 60 ]; do /bin/true; i=$((i+1)); done",
    "hackbench -g 2 -l 20",
    "arecord -q -D hw:0,0 -f S16_LE -c 2 -r 48000 -d 1 /tmp/in.wav & aplay -q -D hw:0,0 /root/tone.wav; wait",
    "md5sum /tmp/in.wav; dd if=/dev/urandom bs=512 count=3 2>/dev/null | md5sum; date; cat /proc/uptime",
    "dd if=/dev/urandom of=/dev/vda bs=4k count=100 2>/dev/null; sync",
    "cat /proc/interrupts; dmesg",
)
BUSY = 4
DISK_SIZE = 4 << 20


class Run(NamedTuple):
    """What a run was: guest time when it was over, and digests of all that it left."""

    guest_ns: int
    console: str
    sound: str
    disk: str
    trace: str


def session(folder: Path, **options: object) -> Run:
    """Boot, fork, compute, play and record, write to a disk, power off."""
    printed: list[bytes] = []
    sound, disk, trace = folder / "sound.wav", folder / "disk.img", folder / "trace.json"
    disk.write_bytes(bytes(DISK_SIZE))
    kernel, initrd = guest.files(lambda line: print(line, file=sys.stderr))
    with (
        TraceFile(trace) as file,
        Machine(
            kernel, initrd, clock="warp", audio=f"wav:{sound}", disk=str(disk), output=printed.append,
            trace=Trace(file), **options,  # type: ignore[arg-type]
        ) as machine,
    ):  # fmt: skip
        for command in COMMANDS:
            status, output = machine.console.run(command, timeout=600)
            if status:
                raise RuntimeError(f"{command}: status {status}: {output}")
        machine.console.sendline("poweroff")
        machine.run()
        guest_ns = machine.clock.now()
    contents = b"".join(printed), sound.read_bytes(), disk.read_bytes(), trace.read_bytes()
    return Run(guest_ns, *(hashlib.sha256(content).hexdigest()[:16] for content in contents))


@contextmanager
def busy(processes: int = BUSY) -> Iterator[None]:
    """Have so many processes compute meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main(count: int, interpreters: list[str]) -> None:
    """Print each outcome that was found, and how often."""
    found: dict[str, int] = {}

    def repeat(interpreter: str) -> None:
        for _ in range(count):
            command = [interpreter, "-m", "tests.benchmarks.repeat", "once"]
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[line] = found.get(line, 0) + 1

    for interpreter in interpreters:
        repeat(interpreter)
        with busy():
            repeat(interpreter)
    for line, times in found.items():
        print(f"{times} x {line}", end="")


if __name__ == "__main__":
    if sys.argv[1:] == ["once"]:
        with tempfile.TemporaryDirectory() as name:
            print(session(Path(name)))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2:] or [sys.executable])
