"""The virtio network card (virtio 1.2 section 5.1): one queue for each direction, no control queue.

A frame is preceded by a 12-byte header. Where frames come from this very process, a driver need not verify their
checksums (F_GUEST_CSUM). What else a card may do for its driver is not offered. Segmentation is not needed: packets are
as large as the backend takes them (F_MTU). Checksums of what is sent (F_CSUM): the guest adds up 16 KiB about as fast
as Python does, within 10 % of a transfer, and to load numpy for that takes longer than DHCP. Pieces of a frame in
several buffers (F_MRG_RXBUF): with one buffer of whole pages for each frame, whose chain is handled once, receiving
takes 15 % less of the host's time.

| actor | threat | mitigation |
|---|---|---|
| guest | a header or a frame that is too short or too long, or asks for what was not offered | the frame is dropped |
| guest | a buffer too small for a frame, or of no bytes | the frame is dropped, and the buffer returned, empty |
| guest | floods | what the backend has no room for stays in the queue; some frames at a time |
| guest | never makes room | one frame waits here, the others outside |
| network | floods, frames of any length | some frames at a time; what is longer than MOST_FRAME is not delivered |
"""

import struct
from collections.abc import Callable, Sequence
from typing import TypedDict

from devices.net.base import HEADER, MOST_FRAME, NetBackend
from devices.state import U16, check
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Chain, Queue

__all__ = ["NetDevice", "NetState", "NetStats"]

# Feature bits (section 5.1.3).
F_GUEST_CSUM = 1 << 1
F_MTU = 1 << 3
F_MAC = 1 << 5
F_STATUS = 1 << 16
_VERSION_1 = 1 << 32

RECEIVE, TRANSMIT = 0, 1
#: Linux fills the first with buffers for the largest packet: 2.5 MiB of 20 KiB each, with libslirp's.
QUEUE_SIZES = (128, 256)

# struct virtio_net_hdr (section 5.1.6): flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
_HEADER = struct.Struct("<BBHHHHH")
#: Without the last field, which a driver does not have that knows no VERSION_1.
_SHORT_HEADER = 10
_NEEDS_CSUM, _DATA_VALID = 1, 2  # flags
_GSO_NONE = 0
#: The configuration space (section 5.1.4): mac, status, max_virtqueue_pairs, mtu.
_CONFIG = struct.Struct("<6sHHH")
_LINK_UP = 1

#: Bytes of frames that move before the guest has a turn, and what each frame counts for beside them, and each piece of
#: its buffer. Twice as much took 0.7 ms at times on a busy host, and saved no processor time.
AT_ONCE, A_FRAME, A_PIECE = 64 << 10, 16 << 10, 128


class NetStats:
    """What has passed since power-on, as the guest sees it; ``lost`` is what was dropped here, in both directions."""

    __slots__ = ("lost", "received", "received_bytes", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.sent = self.sent_bytes = self.received = self.received_bytes = self.lost = 0


class NetState(TypedDict):
    """The address and the largest packet that the driver was told; the link; a frame that waits for a buffer.

    What is on its way outside is lost: it is a network.
    """

    mac: bytes
    mtu: U16
    link: bool
    frame: bytes | None


class NetDevice(VirtioDevice):
    """A network card with the address ``mac``, whose cable leads to ``backend``."""

    device_id = 1
    features = F_GUEST_CSUM | F_MTU | F_MAC | F_STATUS
    queue_sizes = QUEUE_SIZES

    def __init__(self, backend: NetBackend, mac: bytes) -> None:
        self.backend = backend
        self.stats = NetStats()
        self.mac, self._mtu = mac, backend.mtu
        self._link = True
        self._queues: Sequence[Queue] = ()
        self._config_changed: Callable[[], None] = lambda: None
        self._header = bytes(_HEADER.size)
        self._frame: bytes | None = None  # it waits for a buffer
        self._blocked = False  # frames of the guest's wait for room

    # The other end of the cable.

    @property
    def link(self) -> bool:
        """Whether the cable is plugged in. To set it is to do so, or to pull it out."""
        return self._link

    @link.setter
    def link(self, up: bool) -> None:
        if up is not self._link:
            self._link = up
            self._config_changed()
            self.look()

    def look(self) -> None:
        """There are frames for the guest, or there is room for its own again."""
        if self._queues:
            self._receive(self._queues[RECEIVE])
            if self._blocked:
                self._queues[TRANSMIT].later()

    def look_later(self) -> None:
        """The same, after the guest has had a turn."""
        if self._queues:
            self._queues[RECEIVE].later()

    # The driver side.

    @property
    def header_size(self) -> int:
        """Bytes before each frame, as the driver has it."""
        return len(self._header)

    def config(self) -> bytes:
        """Return struct virtio_net_config; without a control queue there is one pair of queues."""
        return _CONFIG.pack(self.mac, _LINK_UP if self._link else 0, 1, self._mtu)

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        """Use these queues from now on."""
        self.reset()
        self._queues = queues
        if features & F_STATUS:
            self._config_changed = config_changed
        flags = _DATA_VALID if features & F_GUEST_CSUM and self.backend.verified else 0
        size = _HEADER.size if features & _VERSION_1 else _SHORT_HEADER
        self._header = _HEADER.pack(flags, _GSO_NONE, 0, 0, 0, 0, 1)[:size]

    def notify(self, index: int) -> None:
        """Look at the queue: there are buffers for what is received, or frames to send."""
        if self._queues:
            (self._transmit if index == TRANSMIT else self._receive)(self._queues[index])

    def reset(self) -> None:
        """Stop."""
        self._queues = ()
        self._config_changed = lambda: None
        self._frame = None
        self._blocked = False

    def state(self) -> NetState:
        """Return the state."""
        return {"mac": self.mac, "mtu": self._mtu, "link": self._link, "frame": self._frame}

    def restore(self, state: NetState) -> None:
        """Become what ``state`` says."""
        frame = state["frame"]
        check(len(state["mac"]) == len(self.mac), "the address of a network card")
        check(frame is None or (bool(self._queues) and len(frame) <= MOST_FRAME), "a frame")
        self.mac, self._mtu, self._link, self._frame = state["mac"], state["mtu"], state["link"], frame
        if self.backend.real_time:  # which knows nothing of that, and is waiting for the card, or the card for it
            for queue in self._queues:
                queue.later()

    # To the guest.

    def _receive(self, queue: Queue) -> None:
        """Deliver some frames; the rest wait for the guest's turn, or for its buffers."""
        fetch, left = self.backend.fetch, AT_ONCE
        while left > 0:
            frame = self._frame or fetch()
            self._frame = None
            if frame is None:
                break
            if not (self._link and queue.running and HEADER <= len(frame) <= MOST_FRAME):
                self.stats.lost += 1
            elif (chain := queue.pop()) is not None:
                left -= A_PIECE * (len(chain.readable.segments) + len(chain.writable.segments))
                self._deliver(queue, chain, frame)
            else:
                self._frame = frame
                break
            left -= len(frame) + A_FRAME
        else:
            queue.later()
        queue.signal()

    def _deliver(self, queue: Queue, chain: Chain, frame: bytes) -> None:
        data = self._header + frame
        if len(data) > len(chain.writable):
            self.stats.lost += 1
            queue.push(chain, 0)
            return
        chain.writable.write(0, data)
        queue.push(chain, len(data))
        self.stats.received += 1
        self.stats.received_bytes += len(frame)

    # From the guest.

    def _transmit(self, queue: Queue) -> None:
        """Send some of what is queued, as long as the backend has room."""
        backend, left = self.backend, AT_ONCE
        self._blocked = not backend.ready()
        if self._blocked:
            return
        for chain in queue.pop_all():
            self._send(chain)
            queue.push(chain, 0)
            left -= len(chain.readable) + A_FRAME
            if left <= 0:
                queue.later()
                break
            self._blocked = not backend.ready()
            if self._blocked:
                break
        queue.signal()

    def _send(self, chain: Chain) -> None:
        frame = self._frame_of(chain)
        if frame is None or not self._link:
            self.stats.lost += 1
            return
        self.stats.sent += 1
        self.stats.sent_bytes += len(frame)
        self.backend.transmit(frame)

    def _frame_of(self, chain: Chain) -> bytes | None:
        """Read a frame; None for one that cannot be."""
        size = len(chain.readable) - len(self._header)
        if not HEADER <= size <= MOST_FRAME:
            return None
        flags, gso_type = chain.readable.read(0, 2)
        if flags & _NEEDS_CSUM or gso_type != _GSO_NONE:  # which no driver asks for that was not offered it
            return None
        return chain.readable.read(len(self._header), size)
