"""A network card as its driver sees it: each frame, by what it carries, from whom to whom, and what was lost."""

import struct
from ipaddress import ip_address

from devices.virtio.device import VirtioDevice
from devices.virtio.net import RECEIVE, NetDevice
from devices.virtio.queue import Buffer, Chain, Queue
from emu.trace.between import watch_device, watch_queue
from emu.trace.record import Detail, Emit

__all__ = ["watch_card"]

#: How much of a frame is looked at: Ethernet's header, IPv4's with all its options, ports.
_LONGEST = 14 + 60 + 4
#: Destination, source, type (IEEE 802.3).
_ETHERNET = struct.Struct(">6s6sH")
_IPV4, _IPV6 = 0x0800, 0x86DD
_TYPES = {_IPV4: "IPv4", 0x0806: "ARP", 0x8100: "VLAN", _IPV6: "IPv6"}
_PORTS = {6: "TCP", 17: "UDP"}
_PROTOCOLS = {1: "ICMP", 58: "ICMPv6", **_PORTS}
_FRAGMENT = 0x1FFF


def watch_card(device: VirtioDevice, number: int, emit: Emit) -> VirtioDevice:
    """Watch the queues of the network card ``device``, which the guest calls eth``number``."""
    assert isinstance(device, NetDevice)
    stats, lost = device.stats, device.stats.lost

    def watch(index: int, queue: Queue) -> Queue:
        track = f"eth{number} {'received' if index == RECEIVE else 'sent'}"

        def passed(chain: Chain, written: int) -> None:
            nonlocal lost
            before, lost = lost, stats.lost
            head, size = device.header_size, written if index == RECEIVE else len(chain.readable)
            buffer = chain.writable if index == RECEIVE else chain.readable
            name, detail = _describe(_start(buffer, head, size))
            detail["size"] = max(size - head, 0)
            emit("net", track, name if lost == before else "lost", detail)

        return watch_queue(queue, passed)

    return watch_device(device, watch)


def _start(buffer: Buffer, head: int, size: int) -> bytes:
    """Read where a frame begins; nothing if there is none."""
    return buffer.read(head, min(size - head, _LONGEST)) if size > head else b""


def _describe(frame: bytes) -> tuple[str, Detail]:
    """Say what a frame is, from its first bytes, which may be anything."""
    if len(frame) < _ETHERNET.size:
        return "malformed", {}
    to, source, kind = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    if kind == _IPV4 and len(packet) >= 20:
        length, protocol = (packet[0] & 15) * 4, packet[9]
        first = not int.from_bytes(packet[6:8], "big") & _FRAGMENT
        return _addresses(protocol, packet[12:16], packet[16:20], packet[length:] if first else b"")
    if kind == _IPV6 and len(packet) >= 40:
        return _addresses(packet[6], packet[8:24], packet[24:40], packet[40:])
    return _TYPES.get(kind, f"{kind:#06x}"), {"from": source.hex(":"), "to": to.hex(":")}


def _addresses(protocol: int, source: bytes, to: bytes, rest: bytes) -> tuple[str, Detail]:
    ends = [str(ip_address(source)), str(ip_address(to))]
    if protocol in _PORTS and len(rest) >= 4:
        ends = [f"{end} port {port}" for end, port in zip(ends, struct.unpack_from(">HH", rest), strict=True)]
    return _PROTOCOLS.get(protocol, f"protocol {protocol}"), {"from": ends[0], "to": ends[1]}
