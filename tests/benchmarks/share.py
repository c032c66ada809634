"""A shared directory beside a virtio disk with ext4, in the same guest: 1 GB of one file, and 10,000 small ones.

python -m tests.benchmarks.share [--files N] [--megabytes N] [--times N] [--qemu PATH [--virtiofsd PATH]]

Seconds of real time and of the processor, and the ratios of either: below 1.0 the share is faster. The host's cache is
warm, the guest's is dropped before each reading. On a host whose disk is busy, TMPDIR=/dev/shm shows what pyemu costs.

With QEMU, the share is compared with its 9p instead of with the disk, each machine in a process of its own, under
Debian's kernel; with its virtiofsd, too, which has to be root, with that, under the default guest's kernel.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from emu import Machine, guest
from tests.benchmarks.process import Guest, pyemu, qemu
from tests.guest import debian

DISK, SHARE = "/tmp/disk", "/mnt"
DROP = "echo 3 >/proc/sys/vm/drop_caches"
#: What the promise is about, together.
TOGETHER = ("create", "stat", "read", "unlink")
#: How 9p is mounted: in large messages, and with what virtiofs has, too, the guest's cache.
NINE_P = "msize=1048576,cache=mmap"
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


Seconds = dict[str, dict[str, list[tuple[float, float]]]]


def beside_the_disk(files: int, megabytes: int, times: int, folder: Path) -> Seconds:
    """Measure the share and the disk of one machine, in turn."""
    seconds: Seconds = defaultdict(lambda: defaultdict(list))
    image, shared = folder / "disk.img", folder / "shared"
    shared.mkdir()
    with image.open("wb") as file:
        file.truncate((megabytes + 1024) << 20)
    with Machine(share=str(shared), disk=str(image), memory="512M") as machine:
        run = machine.console.run
        assert run(f"mkfs.ext4 -q -F /dev/vda && mkdir {DISK} && mount -t ext4 /dev/vda {DISK}").status == 0
        for _ in range(times):
            for name, command in work(files, megabytes).items():
                for which, place in (("share", SHARE), ("disk", DISK)):
                    began, worked = time.perf_counter(), time.process_time()
                    status, output = run(f"cd {place}; {command}; cd /", timeout=600)
                    assert status == 0, output
                    seconds[name][which].append((time.perf_counter() - began, time.process_time() - worked))
    return seconds


def beside_qemu(files: int, megabytes: int, times: int, folder: Path, program: str, daemon: str) -> Seconds:
    """Measure pyemu's share and QEMU's, in turn."""
    seconds: Seconds = defaultdict(lambda: defaultdict(list))
    ours, theirs = folder / "ours", folder / "theirs"
    ours.mkdir()
    theirs.mkdir()
    with ExitStack() as stack:
        if daemon:
            kernel, more = guest.files(print), []
            other = stack.enter_context(_virtiofsd(theirs, qemu(program, *kernel), daemon))
        else:
            kernel, more = debian.files(folder, print, "9pnet_virtio", "9p"), ["-a", debian.APPEND]
            other = stack.enter_context(_nine_p(theirs, qemu(program, *kernel, "-append", debian.APPEND)))
        own = stack.enter_context(Guest(pyemu(*kernel, *more, "--share", str(ours), "-m", "512M")))
        own.shell()
        machines = {"share": (own, own.processor), "QEMU": other}
        for _ in range(times):
            for name, command in work(files, megabytes).items():
                for which, (machine, processor) in machines.items():
                    worked = processor()
                    elapsed = machine.run(f"cd {SHARE}; {command}; cd /")
                    seconds[name][which].append((elapsed, processor() - worked))
    return seconds


#: A machine at its shell, and what tells the processor's time that it has taken.
Measured = tuple[Guest, Callable[[], float]]


@contextmanager
def _virtiofsd(shared: Path, command: list[str], daemon: str) -> Iterator[Measured]:
    """Provide QEMU with its virtiofsd."""
    socket = shared.with_suffix(".socket")
    options = ["-f", f"--socket-path={socket}", "-o", f"source={shared},sandbox=chroot,cache=auto"]
    with Guest([daemon, *options]) as server:
        while not socket.exists():
            time.sleep(0.1)
        options = [
            *("-m", "512M", "-object", "memory-backend-memfd,id=memory,size=512M,share=on"),
            *("-machine", "memory-backend=memory", "-global", "virtio-mmio.force-legacy=false"),
            *("-chardev", f"socket,id=fs,path={socket}", "-device", "vhost-user-fs-device,chardev=fs,tag=share"),
        ]
        with Guest([*command, *options]) as machine:
            machine.shell()
            yield machine, lambda: machine.processor() + server.processor()


@contextmanager
def _nine_p(shared: Path, command: list[str]) -> Iterator[Measured]:
    """Provide QEMU with its 9p."""
    options = [
        *("-m", "512M", "-global", "virtio-mmio.force-legacy=false"),
        *("-fsdev", f"local,id=fs,path={shared},security_model=none,multidevs=remap"),
        *("-device", "virtio-9p-device,fsdev=fs,mount_tag=share"),
    ]
    with Guest([*command, *options]) as machine:
        machine.shell()
        machine.run(f"mount -t 9p -o trans=virtio,version=9p2000.L,{NINE_P} share {SHARE}")
        yield machine, machine.processor


@click.command()
@click.option("--files", default=10_000, help="How many small files.")
@click.option("--megabytes", default=1024, help="The size of the big one.")
@click.option("--times", default=3, help="How often to measure each.")
@click.option("--qemu", "program", default="", help="The QEMU to compare with.")
@click.option("--virtiofsd", "daemon", default="", help="Its server of files, like /usr/lib/qemu/virtiofsd.")
def main(files: int, megabytes: int, times: int, program: str, daemon: str) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        if program:
            seconds, other = beside_qemu(files, megabytes, times, Path(folder), program, daemon), "QEMU"
        else:
            seconds, other = beside_the_disk(files, megabytes, times, Path(folder)), "disk"
    print(f"{'medians':34}{'share':>9}{other:>9}{'ratio':>8}{'processor: share':>20}{other:>9}{'ratio':>8}")
    medians = {
        name: [statistics.median(one[kind] for one in places[place]) for kind in (0, 1) for place in ("share", other)]
        for name, places in seconds.items()
    }
    small = [row for name, row in medians.items() if name.startswith(TOGETHER) and name.endswith("files")]
    medians[" + ".join(TOGETHER)] = [sum(column) for column in zip(*small, strict=True)]
    for name, (share, theirs, worked, they_worked) in medians.items():
        print(
            f"{name:34}{share:8.2f}s{theirs:8.2f}s{share / theirs:8.2f}"
            f"{worked:19.2f}s{they_worked:8.2f}s{worked / they_worked:8.2f}"
        )


if __name__ == "__main__":
    main()
