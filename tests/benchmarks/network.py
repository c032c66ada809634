"""The guest's network: how fast it is beside QEMU's, what it survives, and sound beside it; all of it on loopback.

python -m tests.benchmarks.network [speed] [proof] [sound] [--qemu PATH] [--pairs N]
"""

import contextlib
import hashlib
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from devices.net.slirp import UserNetwork
from emu import Machine, WavSink, guest
from tests.benchmarks.process import Guest, pyemu, qemu
from tests.guest.conftest import Booted
from tests.guest.internet import Lossy, digest, noise, serving
from tests.guest.test_sound import S16_STEREO, ramp, song_disk

MEGABYTE = 1 << 20
LEASE = "[ -e /etc/resolv.conf ] || udhcpc -i eth0 -fqn -s /usr/share/udhcpc/default.script >/dev/null 2>&1"
DOWN, UP = "to the guest (wget)", "from the guest (httpd, by a forwarded port)"
DOWN_CPU, UP_CPU = "CPU time, to the guest", "CPU time, from the guest"


def _serve(ports: "multiprocessing.Queue[int]") -> None:
    with serving() as port:
        ports.put(port)
        time.sleep(1e6)


@contextlib.contextmanager
def server() -> Iterator[int]:
    """A server in a process of its own, which takes no time from the machine's."""
    ports: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=_serve, args=(ports,), daemon=True)
    process.start()
    try:
        yield ports.get()
    finally:
        process.kill()
        process.join()


def free_port() -> int:
    """Find a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def zeros(listener: socket.socket, size: int) -> None:
    """Send zeros to whoever connects: no server's speed is in what is measured."""
    with listener.accept()[0] as client:
        client.recv(4096)
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // MEGABYTE):
            client.sendall(bytes(MEGABYTE))


def transfer(command: list[str], forwarded: int, megabytes: int, found: dict[str, list[float]]) -> None:
    """Boot, and move data in both directions; note MB/s of real time, and of CPU time."""
    size = megabytes * MEGABYTE
    with Guest(command) as machine, socket.create_server(("127.0.0.1", 0)) as listener:
        machine.shell()
        machine.run(LEASE)
        machine.run(f"dd if=/dev/zero of=/tmp/zeros bs=1M count={megabytes} 2>/dev/null; httpd -p 80 -h /tmp")
        sender = multiprocessing.Process(target=zeros, args=(listener, size), daemon=True)
        sender.start()
        before = machine.processor()
        seconds = machine.run(f"wget -q -O /dev/null http://10.0.2.2:{listener.getsockname()[1]}/")
        found[DOWN].append(size / seconds / 1e6)
        found[DOWN_CPU].append(size / (machine.processor() - before) / 1e6)
        sender.join()
        began, before, got = time.perf_counter(), machine.processor(), 0
        with socket.create_connection(("127.0.0.1", forwarded)) as client:
            client.sendall(b"GET /zeros HTTP/1.0\r\n\r\n")
            while data := client.recv(MEGABYTE):
                got += len(data)
        assert got > size
        found[UP].append(got / (time.perf_counter() - began) / 1e6)
        found[UP_CPU].append(got / (machine.processor() - before) / 1e6)


def speed(program: str, pairs: int, megabytes: int) -> None:
    """Print a table of TCP's speed, beside QEMU's user network: the same library, kernel and root file system."""
    image, rootfs = guest.files(lambda line: print(line, file=sys.stderr))
    ours, theirs = ({name: [] for name in (DOWN, UP, DOWN_CPU, UP_CPU)} for _ in range(2))
    for _ in range(pairs):
        port = free_port()
        transfer(pyemu(image, rootfs, "--net", f"user,forward=tcp::{port}-:80"), port, megabytes, ours)
        port = free_port()
        options = [
            *("-global", "virtio-mmio.force-legacy=false", "-device", "virtio-net-device,netdev=n"),
            *("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:80"),
        ]
        transfer(qemu(program, image, rootfs, *options), port, megabytes, theirs)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    print(f"MB/s, medians of {pairs} pairs of {megabytes} MiB, against {version}; ratios above 1.0: pyemu is faster")
    for name, our in ours.items():
        ratios = [a / b for a, b in zip(our, theirs[name], strict=True)]
        print(
            f"{name:46}{statistics.median(our):8.1f}{statistics.median(theirs[name]):8.1f}"
            f"{statistics.median(ratios):8.2f}  {min(ratios):.2f} - {max(ratios):.2f}"
        )


def proof() -> None:
    """Show that every byte arrives, whatever happens."""
    files = guest.files(lambda line: print(line, file=sys.stderr))
    with server() as port, Machine(*files, net="user") as machine:
        one = Booted(machine)
        one.ok(LEASE)
        url, began = f"http://10.0.2.2:{port}", time.perf_counter()
        size = 200 * MEGABYTE
        assert digest(size) in one.ok(f"wget -q -O - {url}/{size} | md5sum")
        print(f"200 MiB by HTTP: the hash is right ({time.perf_counter() - began:.1f} s with hashing)", flush=True)
        began = time.perf_counter()
        one.ok(
            "cd /tmp; n=0; while [ $n -lt 20 ]; do i=0; while [ $i -lt 50 ]; do "
            f"wget -q -O c$n.$i {url}/5000 & i=$((i+1)); done; wait; n=$((n+1)); done"
        )
        each = hashlib.md5(next(noise(5000))).hexdigest()
        assert "1000" in one.ok(f"md5sum c*.* | grep -c {each}").split()
        print(
            f"1,000 connections, 50 at once: each has its 5,000 bytes ({time.perf_counter() - began:.1f} s)", flush=True
        )
        status, _ = one.run(f"wget -q -O /dev/null {url}/{size}/{10 * MEGABYTE}")
        assert status == 1
        one.ok(f"wget -q -O /dev/null {url}/{MEGABYTE}")
        print("a server that dies in the middle: wget's status is 1, the next download works", flush=True)
    for mtu in (1500, 16_384):
        network = UserNetwork(mtu=mtu)
        with server() as port, contextlib.closing(network):
            lossy = Lossy(network)
            with Machine(*files, net=lossy) as machine:
                one, began = Booted(machine), time.perf_counter()
                one.ok(LEASE)
                assert digest(MEGABYTE) in one.ok(f"wget -q -O - http://10.0.2.2:{port}/{MEGABYTE} | md5sum")
                took = time.perf_counter() - began
                print(f"5 % lost, mtu {mtu}: 1 MiB is equal, {lossy.dropped} frames lost ({took:.1f} s)", flush=True)


def sound(seconds: int = 20) -> None:
    """Play in periods of 10 ms while the network is saturated."""
    files = guest.files(lambda line: print(line, file=sys.stderr))
    with server() as port, tempfile.TemporaryDirectory() as folder:
        frames, sink = ramp(seconds * 48000), WavSink(Path(folder) / "out.wav")
        disk = song_disk(Path(folder), S16_STEREO, frames)
        with Machine(*files, net="user", audio=sink, disks=[disk]) as machine:
            one = Booted(machine)
            one.ok(LEASE)
            one.ok("echo 7 > /proc/asound/card0/pcm0p/xrun_debug")
            one.ok(f"(while wget -q -O /dev/null http://10.0.2.2:{port}/{50 * MEGABYTE}; do :; done) & sleep 0.2")
            before, began = machine.counters, time.perf_counter()
            one.ok("aplay -q -D hw:0,0 --period-size=480 --buffer-size=1920 /dev/vda")
            now, took = machine.counters, time.perf_counter() - began
            complaints = one.complaints()
        played = sink.files[0].path.read_bytes().split(b"data", 1)[1][4:]
        exact = "bit-exact" if played.startswith(frames) else "NOT exact"
        rate = (now.net_received_bytes - before.net_received_bytes) / took / 1e6
        print(
            f"{seconds} s of sound in periods of 10 ms ({took:.1f} s), {rate:.0f} MB/s received meanwhile: {exact}, "
            f"{now.underruns} xruns, latest period {now.lateness_max_ns / 1e6:.2f} ms, {len(complaints)} complaints"
        )


@click.command()
@click.argument("what", nargs=-1, type=click.Choice(["speed", "proof", "sound"]))
@click.option("--qemu", "program", default="qemu-system-riscv64", help="The QEMU to compare with.")
@click.option("--pairs", default=5, help="How often to measure each.")
@click.option("--megabytes", default=64, help="How much to move each time.")
def main(what: tuple[str, ...], program: str, pairs: int, megabytes: int) -> None:
    """Print what was found; all of it by default."""
    for name in what or ("speed", "proof", "sound"):
        if name == "speed":
            speed(program, pairs, megabytes)
        elif name == "proof":
            proof()
        else:
            sound()


if __name__ == "__main__":
    main()
