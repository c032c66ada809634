"""Frames of a network card."""

import pytest

from devices.net import Wire
from devices.virtio.net import NetDevice
from emu.trace import Trace
from tests.devices.virtio.fake_driver import Driver
from tests.devices.virtio.test_net import MAC_ADDRESS, RECEIVE, TRANSMIT, Bench, header
from tests.fakes import FakeClock, FakeEvents

ETHERNET = bytes.fromhex("525400707900 020000000001")
IPV4 = bytes.fromhex("0800 4500 0028 0000 4000 4006 0000 0a000202 0a00020f 1f90 c000") + bytes(30)
LATER_PIECE = bytes.fromhex("0800 4500 0028 0000 0001 4011 0000 0a000202 0a00020f 1f90 c000") + bytes(30)
IPV6 = bytes.fromhex(
    "86dd 60000000 0010 1140 fec00000000000000000000000000002 fec00000000000000000000000000003 0035 1000"
)


class WatchedBench(Bench):
    """A card that is watched, and its driver."""

    def __init__(self, *, virtio: bool = False, features: int | None = None) -> None:
        self.records = []
        self.events = FakeEvents(FakeClock())
        self.wire = Wire()
        self.card = NetDevice(self.wire, MAC_ADDRESS)
        joints = Trace(self.records.append, ["net"] + ["virtio"] * virtio).joints(FakeClock())
        self.driver = Driver(joints.virtio(3, self.card), events=self.events)
        self.plug_in()
        self.driver.start(features)

    def told(self) -> list[tuple]:
        told = [(record.track, record.name, *record.detail.values()) for record in self.records]
        self.records.clear()
        return told


@pytest.fixture
def bench() -> WatchedBench:
    return WatchedBench()


def test_frames_of_both_directions_with_what_they_are(bench):
    bench.make_room(2000)
    bench.send_in(ETHERNET + IPV4)
    bench.driver.request(TRANSMIT, [header() + ETHERNET + b"\x08\x06" + bytes(46)])
    assert bench.told() == [
        ("eth0 received", "TCP", "10.0.2.2 port 8080", "10.0.2.15 port 49152", 68),
        ("eth0 sent", "ARP", "02:00:00:00:00:01", "52:54:00:70:79:00", 60),
    ]


@pytest.mark.parametrize(
    ("packet", "told"),
    [
        (IPV6, ("UDP", "fec0::2 port 53", "fec0::3 port 4096")),
        (LATER_PIECE, ("UDP", "10.0.2.2", "10.0.2.15")),
        (IPV4[:11] + b"\1" + IPV4[12:], ("ICMP", "10.0.2.2", "10.0.2.15")),
        (IPV4[:11] + b"\xfd" + IPV4[12:], ("protocol 253", "10.0.2.2", "10.0.2.15")),
        (IPV4[:2] + b"\x4f" + IPV4[3:22], ("TCP", "10.0.2.2", "10.0.2.15")),
        (IPV4[:20], ("IPv4", "02:00:00:00:00:01", "52:54:00:70:79:00")),
        (IPV6[:30], ("IPv6", "02:00:00:00:00:01", "52:54:00:70:79:00")),
        (b"\x88\xb5" + bytes(10), ("0x88b5", "02:00:00:00:00:01", "52:54:00:70:79:00")),
    ],
)
def test_what_a_frame_is_called(bench, packet, told):
    bench.driver.request(TRANSMIT, [header() + ETHERNET + packet])
    assert bench.told() == [("eth0 sent", *told, 12 + len(packet))]


def test_what_is_no_frame_or_has_no_room_is_lost(bench):
    bench.driver.request(TRANSMIT, [header() + bytes(5)])
    bench.driver.request(TRANSMIT, [header()[:7]])
    bench.make_room(50)
    bench.send_in(ETHERNET + IPV4)
    assert bench.told() == [("eth0 sent", "lost", 5), ("eth0 sent", "lost", 0), ("eth0 received", "lost", 0)]


def test_without_a_cable_all_that_is_sent_is_lost(bench):
    bench.card.link = False
    bench.driver.request(TRANSMIT, [header() + ETHERNET + IPV4])
    assert [name for _, name, *_ in bench.told()] == ["lost"]


def test_a_driver_without_version_1_has_a_shorter_header():
    bench = WatchedBench(features=0)
    bench.driver.request(TRANSMIT, [header()[:10] + ETHERNET + IPV4])
    assert bench.told()[0][1:3] == ("TCP", "10.0.2.2 port 8080")


def test_together_with_its_queues():
    bench = WatchedBench(virtio=True)
    bench.told()
    bench.driver.submit(RECEIVE, [], [2000])
    bench.driver.kick(RECEIVE)
    bench.send_in(ETHERNET + IPV4)
    assert [name for _, name, *_ in bench.told()] == ["TCP", "used"]
