"""What an idle guest costs: CPU usage, lateness of wake-ups, memory.

python -m tests.benchmarks.idle [SECONDS]
"""

import re
import statistics
import sys
import time
from pathlib import Path

from emu import guest
from emu.arguments import DEFAULT_MEMORY
from emu.machine import Machine
from emu.options import parse_size


def lateness(machine: Machine, count: int) -> list[int]:
    """Return how late (ns) each of ``count`` deadlines was met, 7 ms apart."""
    late: list[int] = []
    for number in range(1, count + 1):
        deadline = machine.clock.now() + number * 7_000_000
        machine.events.at(deadline, lambda deadline=deadline: late.append(machine.clock.now() - deadline))
    machine.run_until(lambda: len(late) == count)
    return late


def memory() -> tuple[float, float]:
    """Return the MiB of the whole process, and how many of them are the guest's RAM."""
    total = ram = size = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            size = int(match[2], 16) - int(match[1], 16)
        elif match := re.match(r"Rss: +(\d+) kB", line):
            total += int(match[1])
            ram += int(match[1]) if size == parse_size(DEFAULT_MEMORY) else 0
    return total / 1024, ram / 1024


def main(seconds: float, image: Path, rootfs: Path) -> None:
    """Print the figures."""
    with Machine(image, rootfs) as machine:
        machine.console.expect("\n# ")
        machine.run_for(1.0)
        start = time.process_time()
        machine.run_for(seconds)
        print(f"idle at the shell: {100 * (time.process_time() - start) / seconds:.2f} % of a core")
        late = sorted(lateness(machine, 500))
        median, most = statistics.median(late) / 1e3, late[495] / 1e3
        print(f"wakes {median:.0f} us after a deadline (median), {most:.0f} us (99 %), at least {late[0]} ns")
        machine.console.sendline(
            "for i in 1 2 3 4; do hackbench -g 4 -l 100; gzip < /bin/busybox | md5sum; done; echo en''d"
        )
        machine.console.expect("\nend")
        total, ram = memory()
        print(f"memory after work: {total:.0f} MiB, of which {ram:.0f} MiB are RAM the guest has touched")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, *guest.files(lambda line: print(line, file=sys.stderr)))
