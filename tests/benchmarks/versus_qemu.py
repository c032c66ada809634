"""pyemu beside QEMU: the same Image and rootfs, run in turn, as ratios (below 1.0: pyemu is quicker).

python -m tests.benchmarks.versus_qemu [PAIRS]
"""

import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from emu import guest
from tests.benchmarks.process import Guest, pyemu, qemu

WORK = {
    "dd bs=1 count=200000 (system calls)": "dd if=/dev/zero of=/dev/null bs=1 count=200000 2>/dev/null",
    "hackbench -g 2 -l 60": "hackbench -g 2 -l 60 >/dev/null",
    "300 x fork+exec": "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done",
    "md5sum of 32 MiB": "dd if=/dev/zero bs=1M count=32 2>/dev/null | md5sum >/dev/null",
    "gzip of 8 MiB": "dd if=/dev/zero bs=1M count=8 2>/dev/null | gzip >/dev/null",
    "ash loop, 40000 additions": "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done",
}
FIRST_LINE = "process start to the first line of userspace"


def measure(command: list[str], seconds: dict[str, list[float]]) -> None:
    """Boot once and do all the work once."""
    with Guest(command) as machine:
        machine.until(rb"Run /init[^\n]*\n[^\n]*\n")
        seconds[FIRST_LINE].append(time.perf_counter() - machine.started)
        machine.shell()
        for name, work in WORK.items():
            seconds[name].append(machine.run(work))


def main(pairs: int, image: Path, rootfs: Path) -> None:
    """Print the table."""
    ours: dict[str, list[float]] = defaultdict(list)
    theirs: dict[str, list[float]] = defaultdict(list)
    for _ in range(pairs):
        measure(pyemu(image, rootfs), ours)
        measure(qemu(image, rootfs), theirs)
    print(f"medians of {pairs} pairs\n{'':46}{'pyemu':>9}{'QEMU':>9}{'ratio':>8}{'range':>14}")
    for (name, our), their in zip(ours.items(), theirs.values(), strict=True):
        ratios = [a / b for a, b in zip(our, their, strict=True)]
        print(
            f"{name:46}{statistics.median(our):8.3f}s{statistics.median(their):8.3f}s"
            f"{statistics.median(ratios):8.2f}{min(ratios):8.2f}-{max(ratios):.2f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, *guest.files(lambda line: print(line, file=sys.stderr)))
