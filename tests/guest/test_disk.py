"""A file system on a virtio disk: what was synced is there."""

import hashlib
import os
import random
import subprocess
import threading

import pytest

from devices.virtio.disk import FileDisk


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    return path


def clean(image):
    done = subprocess.run(["/sbin/e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_file_system_survives_power_off_and_comes_back(boot, image):
    guest = boot(disks=[str(image)])
    guest.ok("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt")
    text = guest.ok("cp -a /bin/busybox /etc /mnt/ && cd /mnt && find . -type f | sort | xargs cat | md5sum; cd /")
    guest.machine.console.sendline("poweroff")
    guest.machine.run()
    guest.machine.close()
    clean(image)
    again = boot(disks=[f"{image},readonly"])
    found = again.ok("mount -t ext4 -o ro /dev/vda /mnt && cd /mnt && find . -type f | sort | xargs cat | md5sum")
    digest = next(word for word in text.split() if len(word) == 32 and word.isalnum())
    assert digest in found


def test_what_was_synced_is_there_after_the_plug_is_pulled(boot, image):
    guest = boot(disks=[str(image)])
    guest.ok("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt && echo precious > /mnt/file && sync")
    guest.machine.close()
    subprocess.run(["/sbin/e2fsck", "-fp", image], capture_output=True, check=False)  # replays the journal
    clean(image)
    assert (
        subprocess.run(["/sbin/debugfs", "-R", "cat file", image], capture_output=True, check=True).stdout
        == b"precious\n"
    )


class SlowDisk(FileDisk):
    """A disk that is not flushed before ``go``."""

    def __init__(self, path):
        super().__init__(os.open(path, os.O_RDWR), str(path))
        self.go = threading.Event()
        self.flushes = []

    def flush(self):
        self.flushes.append(self.go.wait())
        super().flush()


def test_the_guest_goes_on_while_the_hosts_disk_is_busy(boot, image):
    disk = SlowDisk(image)
    guest = boot(disks=[disk], clock="host")
    guest.ok("(dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync 2>/dev/null; echo done >/tmp/synced) &")
    guest.ok("sleep 0.2; dd if=/dev/vda of=/dev/null bs=4k skip=100 count=1 2>/dev/null; ! test -e /tmp/synced")
    assert disk.flushes == []
    disk.go.set()
    guest.ok("while ! test -e /tmp/synced; do sleep 0.05; done")
    assert disk.flushes == [True]


class ColdDisk(FileDisk):
    """A disk of which nothing is in the host's cache, and that is not read before ``go``."""

    def __init__(self, path):
        super().__init__(os.open(path, os.O_RDONLY), str(path), read_only=True)
        self.go = threading.Event()
        self.go.set()
        self.reads = []

    def read_cached(self, offset, size):
        return None

    def read(self, offset, size):
        self.reads.append(self.go.wait())
        return super().read(offset, size)


def test_the_guest_goes_on_while_the_hosts_disk_is_read(boot, image):
    data = random.Random(3).randbytes(4 << 20)
    image.write_bytes(data)
    disk = ColdDisk(image)
    guest = boot(disks=[disk], clock="host")
    guest.ok("true")  # the partitions have been looked for
    disk.go.clear()
    disk.reads.clear()
    guest.ok("(dd if=/dev/vda bs=1M 2>/dev/null | md5sum >/tmp/sum; touch /tmp/done) &")
    guest.ok("for i in 1 2 3; do sleep 0.1; done; ! test -e /tmp/done")
    assert disk.reads == []
    disk.go.set()
    assert hashlib.md5(data).hexdigest() in guest.ok("while ! test -e /tmp/done; do sleep 0.05; done; cat /tmp/sum")
    assert all(disk.reads)


def test_every_byte_both_ways(boot, image):
    data = random.Random(2).randbytes(16 << 20)
    image.write_bytes(data + bytes(16 << 20))
    guest = boot(disks=[str(image)])
    assert hashlib.md5(data).hexdigest() in guest.ok("dd if=/dev/vda bs=1M count=16 2>/dev/null | md5sum")
    guest.ok("dd if=/dev/vda of=/dev/vda bs=64k count=256 seek=256 2>/dev/null && sync")
    guest.machine.close()
    assert image.read_bytes() == data + data


def test_a_snapshot_leaves_the_image_unchanged(boot, image):
    before = image.read_bytes()
    guest = boot(disks=[f"{image},snapshot"])
    guest.ok("mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt && cp /bin/busybox /mnt && sync")
    guest.machine.close()
    assert image.read_bytes() == before


def test_a_read_only_disk_and_another(boot, image, tmp_path):
    other = tmp_path / "other.img"
    other.write_bytes(b"B" * (1 << 20))
    guest = boot(disks=[f"{image},readonly", str(other)])
    assert guest.run("dd if=/dev/zero of=/dev/vda bs=512 count=1 2>/dev/null")[0] != 0
    text = guest.ok("head -c 4 /dev/vdb; cat /sys/block/vdb/size /sys/block/vdb/serial")
    assert ("BBBB" in text, "2048" in text, "pyemu-disk1" in text) == (True, True, True)
