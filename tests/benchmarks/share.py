"""A shared directory beside a virtio disk with ext4, in the same guest: 1 GB of one file, and 10,000 small ones.

python -m tests.benchmarks.share [--files N] [--megabytes N] [--times N]

Seconds of real time, and the ratio: below 1.0 the share is faster. The host's cache is warm, the guest's is dropped
before each reading.
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
@click.option("--only", default="", help="Measure only the share, or the disk.")
def main(files: int, megabytes: int, times: int, only: str) -> None:
    """Print the table."""
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
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
                        if only and only != {DISK: "disk", SHARE: "share"}[place]:
                            continue
                        began = time.perf_counter()
                        status, output = run(f"cd {place}; {command}; cd /", timeout=600)
                        assert status == 0, output
                        seconds[name][place].append(time.perf_counter() - began)
    print(f"{'medians':34}{'share':>9}{'disk':>10}{'ratio':>9}")
    for name, places in seconds.items():
        share, disk = (statistics.median(places.get(place, [0.0])) for place in (SHARE, DISK))
        print(f"{name:34}{share:8.2f}s{disk:9.2f}s{share / disk if disk else 0:9.2f}")


if __name__ == "__main__":
    main()
