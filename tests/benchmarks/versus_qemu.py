"""pyemu against QEMU: the same Image, rootfs and command line, alternating, as ratios (below 1.0: pyemu is faster).

python -m tests.benchmarks.versus_qemu [--qemu PATH] [--pairs N] [--seconds OF_SOUND]
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

import click

from emu import guest
from tests.benchmarks.process import Guest, pyemu, qemu

WORK = {
    "dd bs=1 count=200000 (system calls)": "dd if=/dev/zero of=/dev/null bs=1 count=200000 2>/dev/null",
    "hackbench -g 2 -l 60": "hackbench -g 2 -l 60 >/dev/null",
    "200 x /bin/true (static)": "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done",
    "200 x /usr/bin/env true (dynamic)": "i=0; while [ $i -lt 200 ]; do /usr/bin/env true; i=$((i+1)); done",
    "md5sum of 32 MiB": "dd if=/dev/zero bs=1M count=32 2>/dev/null | md5sum >/dev/null",
    "gzip of 8 MiB": "dd if=/dev/zero bs=1M count=8 2>/dev/null | gzip >/dev/null",
    "ash loop, 40000 additions": "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done",
}
INIT = "process start to 'Run /init'"
IDLE, SOUND = "idle", "48 kHz stereo into a WAV file"


def work(command: list[str], seconds: dict[str, list[float]]) -> None:
    """Boot once and do all the work once."""
    with Guest(command) as machine:
        machine.until(rb"Run /init")
        seconds[INIT].append(time.perf_counter() - machine.started)
        machine.shell()
        for name, line in WORK.items():
            seconds[name].append(machine.run(line))


def processor(command: list[str], seconds: float, shares: dict[str, list[float]]) -> None:
    """Boot once, idle at the shell, then play; note the share of a core that each took."""
    with Guest(command) as machine:
        machine.shell()
        time.sleep(2.0)  # /init is still busy for a moment
        for name, task in (
            (IDLE, lambda: time.sleep(seconds)),  # starting a program for that would cost more than idling
            (SOUND, lambda: machine.run(f"aplay -q -D hw:0,0 -f S16_LE -r 48000 -c 2 -d {seconds:.0f} /dev/zero")),
        ):
            began, before = time.perf_counter(), machine.processor()
            task()
            shares[name].append((machine.processor() - before) / (time.perf_counter() - began))


def table(ours: dict[str, list[float]], theirs: dict[str, list[float]], unit: str, scale: float = 1.0) -> None:
    """Print medians and ratios."""
    for (name, our), their in zip(ours.items(), theirs.values(), strict=True):
        ratios = [a / b for a, b in zip(our, their, strict=True)]
        print(
            f"{name:46}{scale * statistics.median(our):8.3f}{unit}{scale * statistics.median(their):8.3f}{unit}"
            f"{statistics.median(ratios):8.2f}{min(ratios):8.2f}-{max(ratios):.2f}"
        )


@click.command()
@click.option("--qemu", "program", default="qemu-system-riscv64", help="The QEMU to compare with.")
@click.option("--pairs", default=5, help="How often to measure each.")
@click.option("--seconds", default=60.0, help="How long to idle and to play; 0 skips both.")
def main(program: str, pairs: int, seconds: float) -> None:
    """Print the table."""
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    image, rootfs = guest.files(lambda line: print(line, file=sys.stderr))
    ours: dict[str, list[float]] = defaultdict(list)
    theirs: dict[str, list[float]] = defaultdict(list)
    our_share: dict[str, list[float]] = defaultdict(list)
    their_share: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        devices = [  # that pyemu has, and the guest uses: Linux wakes up for the entropy device, too
            *("-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"),
            *("-device", "virtio-sound-device,audiodev=sound"),
            *("-audiodev", f"wav,id=sound,path={folder}/qemu.wav,out.frequency=48000"),
        ]
        for _ in range(pairs):
            work(pyemu(image, rootfs), ours)
            work(qemu(program, image, rootfs), theirs)
        for _ in range(pairs if seconds else 0):
            processor(pyemu(image, rootfs, "--audio", f"wav:{folder}/pyemu.wav"), seconds, our_share)
            processor(qemu(program, image, rootfs, *devices), seconds, their_share)
    print(f"medians of {pairs} pairs, against {version}\n{'':46}{'pyemu':>9}{'QEMU':>9}{'ratio':>8}{'range':>14}")
    table(ours, theirs, "s")
    table(our_share, their_share, "%", 100)


if __name__ == "__main__":
    main()
