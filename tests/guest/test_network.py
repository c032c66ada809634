"""The guest's network: by libslirp to the host's loopback, by a socket to another guest, by a wire to the test."""

import hashlib
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from devices.net.slirp import UserNetwork
from emu import Machine, WavSink, Wire
from tests.guest.conftest import Booted
from tests.guest.internet import Lossy, digest, serving
from tests.guest.test_sound import S16_STEREO, ramp, song_disk

MEGABYTE = 1 << 20
HOST = "10.0.2.2"


@contextmanager
def own_port() -> Iterator[int]:
    """A port that nobody else gets meanwhile, and where nobody listens but who reuses it."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.fixture(scope="module")
def port():
    with serving() as port:
        yield port


def test_it_is_up_at_the_first_prompt(guest_files):
    with Machine(*guest_files, net="user") as machine:
        machine.console.expect("# ")
        shown = machine.console.run("ip -4 addr show eth0; ip route; cat /etc/resolv.conf").output
        assert "inet 10.0.2.15/24" in shown
        assert "default via 10.0.2.2 dev eth0" in shown
        assert "nameserver 10.0.2.3" in shown
        assert machine.console.run("ping -c 1 10.0.2.2").status == 0
        assert machine.counters.net_lost == 0


def test_without_a_card_nothing_is_started(guest_files):
    with Machine(*guest_files, clock="warp") as machine:
        assert machine.console.run("ls /sys/class/net").output.split() == ["lo"]
        assert machine.console.run("ls /etc/resolv.conf || pidof udhcpc").status == 1


def test_a_download_has_every_byte(boot, port):
    guest = boot(clock="host", net="user")
    assert digest(20 * MEGABYTE) in guest.ok(f"wget -q -O - http://{HOST}:{port}/{20 * MEGABYTE} | md5sum")


def test_a_forwarded_port_leads_into_the_guest(boot):
    with own_port() as port:
        guest = boot(clock="host", net=f"user,forward=tcp:127.0.0.1:{port}-:80")
    guest.ok("mkdir /tmp/www; dd if=/dev/urandom of=/tmp/www/noise bs=1M count=8 2>/dev/null; httpd -h /tmp/www")
    got: list[bytes] = []

    def download() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/noise") as answer:
            got.append(answer.read())

    thread = threading.Thread(target=download)
    thread.start()
    guest.machine.run_until(lambda: not thread.is_alive())
    assert hashlib.md5(got[0]).hexdigest() in guest.ok("md5sum /tmp/www/noise")


def test_a_server_that_dies_is_an_error_and_no_hang(boot, port):
    guest = boot(clock="host", net="user")
    status, shown = guest.run(f"wget -O /dev/null http://{HOST}:{port}/{20 * MEGABYTE}/{MEGABYTE}")
    assert status == 1, shown
    with own_port() as nobody:
        assert guest.run(f"wget -q -O /dev/null http://{HOST}:{nobody}/1")[0] == 1, "nobody listens there"
    guest.ok(f"wget -q -O /dev/null http://{HOST}:{port}/{MEGABYTE}")


def test_names_are_those_that_the_host_knows(guest_files):
    """Where the host's network is one neighbour, in a namespace."""
    alone = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    if subprocess.run([*alone, "ip", "link"], check=False, capture_output=True).returncode:
        pytest.skip("this host allows no namespaces, or has no unshare and ip")
    command = [*alone, sys.executable, "-m", "tests.guest.namespace", *guest_files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digest(100_000) in done.stdout
    assert "bad address 'nowhere.test" in done.stdout


def test_frames_that_are_lost_are_sent_again(guest_files, port):
    network = UserNetwork()
    with ExitStack() as opened:
        opened.callback(network.close)
        lossy = Lossy(network)
        machine = opened.enter_context(Machine(*guest_files, net=lossy))
        guest = Booted(machine)
        guest.ok("[ -e /etc/resolv.conf ] || udhcpc -i eth0 -fqn -s /usr/share/udhcpc/default.script")
        assert digest(MEGABYTE // 4) in guest.ok(f"wget -q -O - http://{HOST}:{port}/{MEGABYTE // 4} | md5sum")
        assert lossy.dropped


def test_the_cable_is_pulled_out(boot, port):
    guest = boot(clock="host", net="user")
    guest.machine.monitor("link eth0 down")
    guest.machine.run_for(0.1)
    assert guest.ok("cat /sys/class/net/eth0/carrier").splitlines()[-2].strip() == "0"
    guest.machine.monitor("link eth0 up")
    guest.machine.run_for(0.1)
    guest.ok(f"wget -q -O /dev/null http://{HOST}:{port}/{MEGABYTE}")


def test_it_can_be_watched(boot, tmp_path):
    guest = boot(clock="host", net=f"user,log={tmp_path}/out.pcap")
    guest.ok("ping -c 2 10.0.2.2")
    data = (tmp_path / "out.pcap").read_bytes()
    assert data[:4] == struct.pack("<I", 0xA1B23C4D)
    assert data.count(bytes.fromhex("525400707900")) >= 8
    assert f"logged in {tmp_path}/out.pcap" in guest.machine.monitor("info net")


# ---------------------------------------------------------------- two guests


def test_two_guests_on_one_cable(guest_files, tmp_path):
    """Each has a thread of its own."""
    done = threading.Event()

    def serve() -> None:
        with Machine(*guest_files, net=f"socket:{tmp_path}/cable") as machine:
            machine.console.run("ip addr add 192.168.7.1/24 dev eth0; ip link set eth0 up; mkdir /tmp/www")
            machine.console.run("dd if=/dev/urandom of=/tmp/www/noise bs=64k count=16; httpd -h /tmp/www")
            hashes.append(machine.console.run("md5sum </tmp/www/noise").output)
            ready.set()
            machine.run_until(done.is_set)

    ready, hashes = threading.Event(), list[str]()
    thread = threading.Thread(target=serve)
    with Machine(*guest_files, net=f"socket:{tmp_path}/cable") as machine:
        thread.start()
        try:
            machine.console.run("ip addr add 192.168.7.2/24 dev eth0; ip link set eth0 up")
            assert machine.run_until(ready.is_set)
            got = machine.console.run("wget -q -O - http://192.168.7.1/noise | md5sum")
        finally:
            done.set()
            thread.join()
    assert got.output == hashes[0]


# ---------------------------------------------------------------- a wire to the test


class Neighbour:
    """A computer at the other end of a wire, which answers ARP and ping, and nothing else."""

    MAC, ADDRESS = bytes.fromhex("020000000001"), bytes((192, 168, 9, 1))

    def __init__(self) -> None:
        self.wire = Wire(self.answer)
        self.pings = 0

    def answer(self, frame: bytes) -> None:
        source = frame[6:12]
        if frame[12:14] == b"\x08\x06" and frame[38:42] == self.ADDRESS:
            head = source + self.MAC + frame[12:20]
            self.wire.send(head + b"\0\2" + self.MAC + self.ADDRESS + frame[22:32])
        elif frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 8:
            self.pings += 1
            icmp = bytearray(frame[34:])
            icmp[0:4] = bytes(4)
            total = sum(struct.unpack(f">{len(icmp) // 2}H", icmp)) % 0xFFFF ^ 0xFFFF
            icmp[2:4] = total.to_bytes(2, "big")
            self.wire.send(source + self.MAC + frame[12:26] + frame[30:34] + frame[26:30] + bytes(icmp))


PING = "ip addr add 192.168.9.2/24 dev eth0; ip link set eth0 up; ping -c 5 192.168.9.1"


def test_a_wire_to_the_test_repeats_itself(boot):
    runs = []
    for _ in range(2):
        neighbour = Neighbour()
        guest = boot(net=neighbour.wire)
        shown = guest.ok(PING)
        assert "5 packets received, 0% packet loss" in shown
        assert neighbour.pings == 5
        runs.append((shown, guest.machine.clock.now(), guest.machine.counters.net_received))
    assert runs[0] == runs[1]


def test_two_guests_in_step_repeat_themselves(boot):
    """Each runs for ten milliseconds of its own time, and then gets what the other has sent."""
    runs = []
    for _ in range(2):
        wires = [Wire(), Wire(mac=Neighbour.MAC)]
        guests = [boot(net=wire) for wire in wires]
        for number, guest in enumerate(guests):
            guest.ok(f"ip addr add 192.168.9.{number}/24 dev eth0; ip link set eth0 up")
        guests[0].machine.console.send("ping -c 2 192.168.9.1; echo all''sent\r")
        while b"allsent" not in guests[0].machine.console.text:
            for guest, wire, other in zip(guests, wires, reversed(wires), strict=True):
                guest.machine.run_for(0.01)
                for frame in wire.received():
                    other.send(frame)
        assert b"2 packets received, 0% packet loss" in guests[0].machine.console.text
        runs.append([(bytes(guest.machine.console.text), guest.machine.clock.now()) for guest in guests])
    assert runs[0] == runs[1]


def test_another_seed_shifts_its_timing(boot):
    neighbour = Neighbour()
    assert "5 packets received" in boot(net=neighbour.wire, seed=7).ok(PING)


def test_a_snapshot_goes_on_with_its_network_to_the_bit(boot, tmp_path):
    guest = boot(net=Neighbour().wire)
    guest.ok(PING)
    guest.machine.save(tmp_path / "saved.pyemu")

    def go_on(machine: Machine) -> tuple[str, int]:
        return machine.console.run("ping -c 3 192.168.9.1").output, machine.clock.now()

    straight = go_on(guest.machine)
    with Machine(tmp_path / "saved.pyemu", clock="warp", net=Neighbour().wire) as machine:
        assert go_on(machine) == straight
    assert "3 packets received" in straight[0]


def test_a_snapshots_network_has_new_connections_and_not_the_old_ones(boot, port, tmp_path):
    guest = boot(clock="host", net="user")
    guest.ok(f"wget -q -O /dev/null http://{HOST}:{port}/{200 * MEGABYTE} & sleep 0.2")
    guest.machine.save(tmp_path / "saved.pyemu")
    with Machine(tmp_path / "saved.pyemu", net="user") as machine:
        before = machine.counters.net_received_bytes
        machine.run_for(1.0)  # it waits for ever, or its next acknowledgment tells it that nobody knows the connection
        assert machine.counters.net_received_bytes < before + MEGABYTE
        assert machine.console.run(f"wget -q -O /dev/null http://{HOST}:{port}/{MEGABYTE}").status == 0


# ---------------------------------------------------------------- beside it


def test_sound_is_exact_while_the_network_is_busy(boot, port, tmp_path):
    """In periods of 10 ms, by the host's clock."""
    frames, sink = ramp(2 * 48000), WavSink(tmp_path / "out.wav")
    guest = boot(clock="host", net="user", audio=sink, disks=[song_disk(tmp_path, S16_STEREO, frames)])
    guest.ok(f"(while wget -q -O /dev/null http://{HOST}:{port}/{50 * MEGABYTE}; do :; done) & sleep 0.1")
    before = guest.machine.counters.net_received_bytes
    while guest.machine.counters.net_received_bytes <= before + MEGABYTE:
        guest.ok("aplay -q -D hw:0,0 --period-size=480 --buffer-size=1920 /dev/vda")
    assert guest.machine.counters.underruns == 0
    guest.machine.close()
    assert sink.files[0].path.read_bytes().split(b"data", 1)[1][4:].startswith(frames)
