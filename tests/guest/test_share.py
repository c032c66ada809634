"""Files of the host in the guest: a shared directory, and put and get."""

import hashlib
import os
import random
import threading

import pytest

from devices.errors import UsageError
from devices.virtio.fs import device
from emu import Machine
from emu.shell import ShellError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def test_the_default_guest_has_it_at_mnt(boot, folder):
    (folder / "hello").write_text("from the host\n")
    guest = boot(share=str(folder))
    assert "from the host" in guest.ok("cat /mnt/hello")
    guest.ok(
        "mkdir /mnt/d && echo from the guest >/mnt/d/new && cp /mnt/d/new /mnt/d/other && mv /mnt/d/new /mnt/d/file"
    )
    guest.ok("ln -s file /mnt/d/link && ln /mnt/d/file /mnt/d/hard && chmod 600 /mnt/d/file && rm /mnt/d/other")
    assert (folder / "d/link").read_text() == "from the guest\n"
    assert ((folder / "d/file").stat().st_nlink, (folder / "d/file").stat().st_mode & 0o777) == (2, 0o600)
    assert sorted(path.name for path in (folder / "d").iterdir()) == ["file", "hard", "link"]
    guest.ok("cd /mnt/d && echo more >>file && (exec 3<file; rm file hard; test $(wc -l <&3) = 2)")
    guest.ok("cd /; df /mnt; sync; umount /mnt")


def test_what_the_host_changes_is_seen(boot, folder):
    guest = boot(share=str(folder))
    for text in ("one\n", "another\n", "x\n"):
        (folder / "file").write_text(text)
        guest.ok("sleep 0.05")
        assert text.strip() in guest.ok("cat /mnt/file; wc -c /mnt/file")
    (folder / "file").rename(folder / "moved")
    guest.ok("sleep 0.05; ! test -e /mnt/file && cat /mnt/moved")


def test_a_tree_and_megabytes_both_ways(boot, folder):
    data = random.Random(1).randbytes(9 << 20)
    (folder / "data").write_bytes(data)
    guest = boot(share=str(folder))
    assert hashlib.md5(data).hexdigest() in guest.ok("md5sum /mnt/data")
    guest.ok(
        "cp -a /bin/busybox /usr/share/alsa /etc /mnt/data /tmp/ && cp -a /tmp/* /mnt/etc/ 2>/dev/null; mkdir /mnt/t"
    )
    guest.ok("tar cf - -C /tmp . | tar xf - -C /mnt/t && diff -r /tmp /mnt/t")
    assert (folder / "t/data").read_bytes() == data


def test_the_guest_goes_on_while_a_cold_file_is_read(boot, folder, monkeypatch):
    data = random.Random(4).randbytes(1 << 20)
    (folder / "cold").write_bytes(data)
    go, reads = threading.Event(), []

    def read(descriptor, offset, size):
        reads.append(go.wait())
        return os.pread(descriptor, size, offset)

    monkeypatch.setattr(device, "read_cached", lambda *_: None)
    monkeypatch.setattr(device, "read_ahead", read)
    guest = boot(share=str(folder), clock="host")
    guest.ok("(md5sum </mnt/cold >/tmp/sum; touch /tmp/done) &")
    guest.ok("for i in 1 2 3; do sleep 0.1; done; ! test -e /tmp/done")
    assert reads == []
    go.set()
    assert hashlib.md5(data).hexdigest() in guest.ok("while ! test -e /tmp/done; do sleep 0.05; done; cat /tmp/sum")
    assert all(reads)


def test_two_machines_on_one_directory_and_one_that_only_reads(boot, folder, tmp_path):
    (tmp_path / "own").mkdir()
    one, two = boot(share=str(folder)), boot(shares=[str(tmp_path / "own"), f"{folder},readonly,tag=theirs"])
    two.ok("mkdir /tmp/t && mount -t virtiofs theirs /tmp/t")
    one.ok("echo hello >/mnt/file")
    assert "hello" in two.ok("cat /tmp/t/file")
    assert "Read-only file system" in two.run("echo no >/tmp/t/file")[1]
    two.ok("echo mine >/mnt/file")
    assert "hello" in one.ok("cat /mnt/file")


def test_a_snapshot_goes_on_with_open_files(boot, folder, tmp_path):
    guest = boot(share=str(folder))
    guest.ok("echo 1 >/mnt/file; exec 5>>/mnt/file; cd /mnt")
    saved = tmp_path / "saved.pyemu"
    guest.machine.save(saved)
    guest.machine.close()
    with pytest.raises(UsageError, match="--share DIR,tag=share"):
        Machine(saved)
    with Machine(saved, share=str(folder)) as machine:
        assert machine.console.run("echo 2 >&5; cat file").output == "1\n2\n"
    (folder / "file").unlink()
    with Machine(saved, share=str(folder)) as machine:
        status, output = machine.console.run("echo 3 >&5; ls /mnt; touch /mnt/new")
        assert (status, "Stale" in output) == (0, True), output
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_put_and_get(boot, tmp_path):
    guest = boot()
    for data in (b"", b"x", random.Random(5).randbytes(200_000)):
        guest.machine.put(data, "/tmp/it's a file")
        assert guest.machine.get("/tmp/it's a file") == data
    (tmp_path / "script").write_text("#!/bin/sh\necho it runs\n")
    (tmp_path / "script").chmod(0o755)
    guest.machine.put(tmp_path / "script", "/tmp/script")
    assert guest.machine.console.run("/tmp/script; ls /tmp/*.pyemu").output.startswith("it runs\nls: ")
    with pytest.raises(ShellError, match="it is a directory"):
        guest.machine.put(b"", "/tmp")
    with pytest.raises(ShellError, match="no such file"):
        guest.machine.get("/tmp/nothing")
    with pytest.raises(ShellError, match="nonexistent directory"):
        guest.machine.put(b"", "/tmp/nothing/file")
    with pytest.raises(UsageError, match="nothing cannot be read"):
        guest.machine.put(tmp_path / "nothing", "/tmp/x")


def test_while_the_kernel_prints_on_the_console(boot):
    guest = boot()
    guest.machine.console.run("(while :; do echo something happens >/dev/kmsg; sleep 0.1; done) & echo $! >/tmp/pid")
    data = random.Random(6).randbytes(30_000)
    guest.machine.put(data, "/tmp/data")
    assert guest.machine.get("/tmp/data") == data
    guest.machine.console.run("kill $(cat /tmp/pid)")
