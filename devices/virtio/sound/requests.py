"""Control requests of a sound device (virtio 1.3, 5.14.6): their handlers' type, and the replies common to all."""

from collections.abc import Callable, Sequence

from devices.virtio.sound import wire

__all__ = ["BAD_MSG", "NOT_SUPP", "OK", "Handler", "query"]

#: Answers a request. Takes the bytes that the device looks at, never fewer than the code, and the room for the reply,
#: never less than a status. What it returns fits in that room.
Handler = Callable[[bytes, int], bytes]

#: The most that a reply may hold: nothing on offer is that large, and the driver must not choose the size.
_MAX_REPLY = 1 << 16

# Replies that consist of a status alone.
OK = wire.HDR.pack(wire.S_OK)
BAD_MSG = wire.HDR.pack(wire.S_BAD_MSG)
NOT_SUPP = wire.HDR.pack(wire.S_NOT_SUPP)


def query(request: bytes, room: int, items: Sequence[bytes]) -> bytes:
    """Reply to a request for information: as many items as requested, each of the size that the driver wants."""
    if len(request) < wire.QUERY_INFO.size:
        return BAD_MSG
    _, first, count, size = wire.QUERY_INFO.unpack_from(request)
    # Python's integers do not wrap (CVE-2026-3196).
    if first + count > len(items) or size < wire.INFO_HDR_SIZE or wire.HDR.size + count * size > min(room, _MAX_REPLY):
        return BAD_MSG
    return OK + b"".join(item[:size].ljust(size, b"\0") for item in items[first : first + count])
