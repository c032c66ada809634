"""A file system on a virtio disk, through power-offs and kill -9: what was synced is there, and e2fsck is content.

python -m tests.benchmarks.disks [TIMES]
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from emu import guest
from tests.benchmarks.process import Guest, pyemu

UNPACK = "cd /mnt && mkdir -p t && cp -a /bin /etc /usr t/ && find t -type f | sort | xargs cat | md5sum"


def check(disk: Path) -> None:
    """Run e2fsck; raises if it reports anything."""
    done = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout)


def once(image: Path, rootfs: Path, disk: Path, *, kill: bool) -> float:
    """Make a file system, unpack, sync; then power off or kill the emulator, and look at what is left."""
    start = time.perf_counter()
    with Guest(pyemu(image, rootfs, "--disk", str(disk))) as machine:
        machine.shell()
        machine.run("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt")
        machine.type(UNPACK)
        digest = machine.until(rb"\n([0-9a-f]{32})  -")[1].decode()
        machine.until(rb":0# ")
        machine.run("cd /; sync")
        if kill:
            machine.type("cat /dev/urandom > /mnt/later")  # never synced
            time.sleep(0.3)
            os.kill(machine.pid, signal.SIGKILL)
        else:
            machine.type("poweroff")
        machine.wait()
    if kill:  # replay the journal, as any mount after a power cut does
        subprocess.run(["e2fsck", "-fp", disk], capture_output=True, check=False)
    check(disk)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["debugfs", "-R", f"rdump t {folder}", disk], capture_output=True, check=True)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
        total = hashlib.md5(usedforsecurity=False)
        for path in sorted(files, key=lambda path: str(path.relative_to(folder)).encode()):
            total.update(path.read_bytes())
    if total.hexdigest() != digest:
        raise RuntimeError("what was synced is not what is there")
    return time.perf_counter() - start


def main(times: int, image: Path, rootfs: Path) -> None:
    """Print how it went."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk.img"
        with disk.open("wb") as file:
            file.truncate(64 << 20)
        for number in range(times):
            seconds = once(image, rootfs, disk, kill=False)
            print(f"power-off {number + 1}: e2fsck clean, everything there ({seconds:.1f} s)")
        for number in range(max(1, times // 4)):
            seconds = once(image, rootfs, disk, kill=True)
            print(f"kill -9 {number + 1}: e2fsck clean, everything synced is there ({seconds:.1f} s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, *guest.files(lambda line: print(line, file=sys.stderr)))
