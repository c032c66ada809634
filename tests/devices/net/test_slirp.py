"""libslirp: what a guest would find on its network. Nothing here leaves the host's loopback."""

import socket
import struct
from collections.abc import Iterator
from random import Random

import pytest

from devices.errors import MissingPackageError, UsageError
from devices.net import libslirp
from devices.net.slirp import Forward, UserNetwork
from tests.devices.net.other_end import OtherEnd
from tests.left import leaves_nothing

MAC, GUEST, HOST = bytes.fromhex("525400707900"), bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2))
EVERYBODY = b"\xff" * 6
LOOPBACK = bytes((127, 0, 0, 1))


@pytest.fixture
def network() -> Iterator[UserNetwork]:
    network = UserNetwork()
    yield network
    network.close()


@pytest.fixture
def guest(network: UserNetwork) -> OtherEnd:
    return OtherEnd(network)


def arp(operation: int, target: bytes) -> bytes:
    return (
        EVERYBODY
        + MAC
        + b"\x08\x06"
        + struct.pack(">HHBBH", 1, 0x800, 6, 4, operation)
        + MAC
        + GUEST
        + bytes(6)
        + target
    )


def ip(protocol: int, target: bytes, payload: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + GUEST + target
    total = sum(struct.unpack(">10H", header)) % 0xFFFF ^ 0xFFFF
    return EVERYBODY + MAC + b"\x08\x00" + header[:10] + total.to_bytes(2, "big") + header[12:] + payload


def udp(target: bytes, port: int, data: bytes, source: int = 1000) -> bytes:
    return ip(17, target, struct.pack(">HHHH", source, port, 8 + len(data), 0) + data)


def ipv6(protocol: int, source: bytes, target: bytes, payload: bytes, checksum_at: int) -> bytes:
    pseudo = source + target + struct.pack(">II", len(payload), protocol)
    words = struct.unpack(f">{(len(pseudo) + len(payload) + 1) // 2}H", pseudo + payload + bytes(len(payload) % 2))
    checksum = (sum(words) % 0xFFFF ^ 0xFFFF).to_bytes(2, "big")
    head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 255) + source + target
    return EVERYBODY + MAC + b"\x86\xdd" + head + payload[:checksum_at] + checksum + payload[checksum_at + 2 :]


def answers(guest: OtherEnd, kind: bytes) -> list[bytes]:
    return [frame for frame in guest.received if frame[12:14] == kind]


def test_the_host_answers_for_its_address(guest: OtherEnd) -> None:
    guest.send(arp(1, HOST))
    guest.until(lambda: bool(answers(guest, b"\x08\x06")))
    [answer] = answers(guest, b"\x08\x06")
    assert answer[:6] == MAC
    assert answer[28:32] == HOST


def test_dhcp_offers_an_address_and_a_server_for_names(guest: OtherEnd) -> None:
    request = struct.pack(">BBBBIHH", 1, 1, 6, 0, 7, 0, 0) + bytes(16) + MAC.ljust(16, b"\0") + bytes(192)
    guest.send(udp(b"\xff" * 4, 67, request + bytes.fromhex("63825363 350101 ff"), source=68))
    guest.until(lambda: bool(answers(guest, b"\x08\x00")))
    [offer] = answers(guest, b"\x08\x00")
    assert offer[58:62] == GUEST
    assert bytes((3, 4)) + HOST in offer, "the router"
    assert bytes((6, 4, 10, 0, 2, 3)) in offer, "the server for names"


def test_a_guest_with_ipv6_is_told_its_prefix(guest: OtherEnd) -> None:
    """A router solicitation (RFC 4861), from no address as yet."""
    guest.send(ipv6(58, bytes(16), bytes.fromhex("ff02" + 13 * "00" + "02"), bytes((133, 0)) + bytes(6), 2))
    guest.until(lambda: any(bytes.fromhex("fec0") + bytes(14) in frame for frame in answers(guest, b"\x86\xdd")))


def test_datagrams_reach_the_hosts_loopback_and_come_back(guest: OtherEnd) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        guest.send(arp(1, HOST), udp(HOST, server.getsockname()[1], b"ping" * 1000))
        data, client = server.recvfrom(65536)
        assert data == b"ping" * 1000
        server.sendto(b"pong" * 4000, client)
        guest.until(lambda: any(frame.endswith(b"pong" * 4000) for frame in guest.received))


def test_datagrams_over_ipv6_reach_the_hosts_loopback_and_come_back(guest: OtherEnd) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no IPv6")
        own, host = (bytes.fromhex("fec0" + 12 * "00") + number for number in (b"\0\x15", b"\0\2"))
        here = bytes.fromhex("88 00 0000 20000000") + own + b"\2\1" + MAC  # a neighbour advertisement (RFC 4861)
        ping = struct.pack(">HHHH", 1000, server.getsockname()[1], 8 + 4000, 0) + b"ping" * 1000
        guest.send(ipv6(58, own, host, here, 2), ipv6(17, own, host, ping, 6))
        data, client = server.recvfrom(65536)
        assert data == b"ping" * 1000
        server.sendto(b"pong" * 4000, client)
        guest.until(lambda: any(frame.endswith(b"pong" * 4000) for frame in answers(guest, b"\x86\xdd")))


def test_a_forward_leads_to_the_guest() -> None:
    with socket.socket() as kept:  # until libslirp has the port, too: somebody else might get it
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        network = UserNetwork(forwards=[Forward("tcp", LOOPBACK, port, bytes(4), 22)])
    try:
        guest = OtherEnd(network)
        with socket.create_connection(("127.0.0.1", port)):
            guest.until(lambda: bool(answers(guest, b"\x08\x06")))
            assert answers(guest, b"\x08\x06")[0][38:42] == GUEST, "who has it?"
    finally:
        network.close()


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"tcp port {port} of .* cannot be forwarded: Address already in use"):
            UserNetwork(forwards=[Forward("tcp", LOOPBACK, port, bytes(4), 22)])


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise OSError("libslirp.so.0: cannot open shared object file")

    monkeypatch.setattr(libslirp.ctypes, "CDLL", missing)
    libslirp.load.cache_clear()
    with pytest.raises(MissingPackageError, match="sudo apt install libslirp0"):
        UserNetwork()
    libslirp.load.cache_clear()


def test_random_frames_do_it_no_harm(guest: OtherEnd) -> None:
    """Whatever a guest sends, the thread goes on: it answers afterwards."""
    chance = Random(1)
    kinds = [b"\x08\x00", b"\x08\x06", b"\x86\xdd", b"\x12\x34"]
    good = [arp(1, HOST), udp(HOST, 9, b"x" * 30), ip(1, HOST, b"\x08\0" + bytes(30)), ip(6, HOST, bytes(20))]
    for _ in range(2000):
        frame = bytearray(chance.choice([*good, EVERYBODY + MAC + chance.choice(kinds) + chance.randbytes(80)]))
        for _ in range(chance.choice([0, 1, 3])):
            frame[chance.randrange(14, len(frame))] = chance.getrandbits(8)
        if frame[12:14] == b"\x08\x00":  # stay on this host
            frame[30:34] = HOST
        elif frame[12:14] == b"\x86\xdd":
            frame[38:54] = bytes.fromhex("fec00000000000000000000000000002").ljust(16, b"\0")[: len(frame[38:54])]
        guest.send(bytes(frame[: chance.choice([14, 20, 34, len(frame), len(frame)])]))
    guest.received.clear()
    guest.send(arp(1, HOST))
    guest.until(lambda: any(frame[28:32] == HOST for frame in answers(guest, b"\x08\x06")))


def test_nothing_is_left_behind() -> None:
    UserNetwork().close()
    with leaves_nothing():
        for _ in range(3):
            network = UserNetwork()
            OtherEnd(network).send(arp(1, HOST))
            network.close()
            network.close()
