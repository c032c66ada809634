"""A shared directory beside a virtio disk with ext4, in the same guest: 1 GB of one file, and 10,000 small ones.

python -m tests.benchmarks.share [--files N] [--megabytes N] [--times N]

Seconds of real time and of the processor, and the ratios of either: below 1.0 the share is faster. The host's cache is
warm, the guest's is dropped before each reading. On a host whose disk is busy, TMPDIR=/dev/shm shows what pyemu costs.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click

from emu import Machine

DISK, SHARE = "/tmp/disk", "/mnt"
DROP = "echo 3 >/proc/sys/vm/drop_caches"
NUMBERS = "i=0; while [ $i -lt {files} ]; do i=$((i+1)); {what}; done"


def work(files: int, megabytes: int) -> dict[str, str]:
    """Return what is measured, and how: shell commands, of which each needs those before it, in a directory."""

    def each(what: str) -> str:
        return NUMBERS.format(files=files, what=what)

    return {
        f"write {megabytes} MB, and fsync": f"dd if=/dev/zero of=big bs=1M count={megabytes} conv=fsync 2>/dev/null",
        f"read {megabytes} MB": f"{DROP}; dd if=big of=/dev/null bs=1M 2>/dev/null",
        f"create {files} files": f"rm big; mkdir small; cd small; {each('echo $i >$i')}; sync",
        f"stat {files} files": f"cd small; {DROP}; {each('[ -s $i ]')}",
        f"read {files} files": f"cd small; {DROP}; {each('read -r line <$i')}",
        f"list {files} files (ls -l)": f"{DROP}; ls -l small >/dev/null",
        f"unlink {files} files": "rm -r small; sync",
    }


@click.command()
@click.option("--files", default=10_000, help="How many small files.")
@click.option("--megabytes", default=1024, help="The size of the big one.")
@click.option("--times", default=3, help="How often to measure each.")
def main(files: int, megabytes: int, times: int) -> None:
    """Print the table."""
    seconds: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        image, shared = Path(folder) / "disk.img", Path(folder) / "shared"
        shared.mkdir()
        with image.open("wb") as file:
            file.truncate((megabytes + 1024) << 20)
        with Machine(share=str(shared), disk=str(image), memory="512M") as machine:
            run = machine.console.run
            assert run(f"mkfs.ext4 -q -F /dev/vda && mkdir {DISK} && mount -t ext4 /dev/vda {DISK}").status == 0
            for _ in range(times):
                for name, command in work(files, megabytes).items():
                    for place in (DISK, SHARE):
                        began, worked = time.perf_counter(), time.process_time()
                        status, output = run(f"cd {place}; {command}; cd /", timeout=600)
                        assert status == 0, output
                        seconds[name][place].append((time.perf_counter() - began, time.process_time() - worked))
    print(f"{'medians':34}{'share':>9}{'disk':>9}{'ratio':>8}{'processor: share':>20}{'disk':>9}{'ratio':>8}")
    for name, places in seconds.items():
        line = f"{name:34}"
        for which, width in ((0, 8), (1, 19)):
            share, disk = (statistics.median(one[which] for one in places[place]) for place in (SHARE, DISK))
            line += f"{share:{width}.2f}s{disk:8.2f}s{share / disk:8.2f}"
        print(line)


if __name__ == "__main__":
    main()
