"""Hours of work for the guest, checking its kernel's log and every byte of its console; and what held its CPU up.

python -m tests.benchmarks.soak [FORKS [MINUTES]]
"""

import re
import sys
import time
from pathlib import Path

from emu import guest
from emu.machine import Machine
from tests.benchmarks.turns import Watch, install, show

COMPLAINTS = re.compile(rb"Oops|WARNING:|BUG:|panic|Bad rss|stall|Call Trace|segfault|unhandled|Lost interrupts")
#: Each round must print the same: a wrong byte anywhere shows up as a line with a different count.
MIXED = (
    "end=$(($(date +%s) + {seconds})); while [ $(date +%s) -lt $end ]; do hackbench -g 2 -l 60 | grep -c Time;"
    " dd if=/dev/zero bs=1M count=16 2>/dev/null | md5sum; cat /bin/busybox /usr/bin/aplay | gzip | gunzip | md5sum;"
    " i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; aplay -q -D hw:0,0 /root/tone.wav; echo played $?;"
    " done >/tmp/load 2>&1; sort /tmp/load | uniq -c; echo lo''ad-done"
)


def forks(machine: Machine, count: int) -> None:
    """Fork and exec ``count`` times, each child printing its number; every byte is compared."""
    start = time.perf_counter()
    output = bytearray()
    machine.console.output = output.extend
    machine.console.sendline(
        f"stty -echo; i=0; while [ $i -lt {count} ]; do i=$((i+1)); /bin/echo $i; done; echo en''d"
    )
    machine.run_until(lambda: output.endswith((b"end\r\n", b"# ", b"\x1b[6n")) and b"\r\nend\r\n" in output, 36000)
    machine.console.output = None
    expected = b"".join(b"%d\r\n" % number for number in range(1, count + 1)) + b"end\r\n"
    exact = expected in output
    print(f"{count} fork+exec in {time.perf_counter() - start:.0f} s, console {'exact' if exact else 'NOT EXACT'}")
    if not exact:
        raise SystemExit(1)


def mixed(machine: Machine, minutes: float) -> None:
    """Run many kinds of work for ``minutes``."""
    machine.console.sendline(MIXED.format(seconds=round(minutes * 60)))
    found = machine.console.expect(re.compile(rb"\n((?: *\d+ [^\n]*\n)*)load-done"), timeout=minutes * 60 + 600)
    print(found[1].decode())
    if len({line.split()[0] for line in found[1].splitlines()}) != 1:
        raise SystemExit("the rounds differ")


def main(count: int, minutes: float, image: Path, rootfs: Path) -> None:
    """Print what was done, and what the kernel said about it."""
    watch, late = Watch(), list[tuple[int, str]]()
    install(watch, late)
    with Machine(image, rootfs) as machine:
        machine.console.expect("\n# ")
        forks(machine, count)
        mixed(machine, minutes)
        machine.console.sendline("dmesg; echo dm''esg-done")
        log = machine.console.expect(re.compile(rb"(.*)dmesg-done", re.S)).group(1)
        print(f"exceptions handled: {machine.hart.traps}; sound: {machine.audio.played} frames")
    show("all of it", watch, late)
    found = [line for line in log.splitlines() if COMPLAINTS.search(line)]
    print("\n".join(line.decode(errors="replace") for line in found) or "no kernel complaints")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    arguments = [float(text) for text in sys.argv[1:]] + [10000, 30][len(sys.argv) - 1 :]
    main(int(arguments[0]), arguments[1], *guest.files(lambda line: print(line, file=sys.stderr)))
