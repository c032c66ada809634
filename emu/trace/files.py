"""A share as its driver sees it: what is asked about which file, and the answer."""

import errno

from devices.virtio.device import VirtioDevice
from devices.virtio.fs import wire
from devices.virtio.queue import Chain, Queue
from emu.trace.between import watch_device, watch_queue
from emu.trace.record import Detail, Emit

__all__ = ["watch_share"]

#: How much of a request is looked at: its fields and a name.
_LONGEST = 512
#: Where the first name is, in what follows the header.
_NAMES = {
    wire.LOOKUP: 0, wire.UNLINK: 0, wire.RMDIR: 0, wire.SYMLINK: 0,
    wire.MKNOD: wire.MKNOD_IN.size, wire.MKDIR: wire.MKDIR_IN.size, wire.LINK: wire.LINK_IN.size,
    wire.RENAME: wire.RENAME_IN.size, wire.RENAME2: wire.RENAME2_IN.size, wire.CREATE: wire.CREATE_IN.size,
}  # fmt: skip
_TRANSFERS = frozenset({wire.READ, wire.WRITE, wire.READDIR, wire.READDIRPLUS})


def watch_share(device: VirtioDevice, emit: Emit) -> VirtioDevice:
    """Watch the queues of a share, which ``device`` is."""

    def answered(chain: Chain, written: int) -> None:
        name, detail = _describe(chain.readable.read(0, min(len(chain.readable), _LONGEST)))
        emit("virtio", "share requests", name, {**detail, "status": _status(chain, written)})

    def watch(index: int, queue: Queue) -> Queue:  # noqa: ARG001
        return watch_queue(queue, answered)

    return watch_device(device, watch)


def _describe(request: bytes) -> tuple[str, Detail]:
    """Say what a request is, from its first bytes, which may be anything."""
    if len(request) < wire.IN_HEADER.size:
        return "malformed", {}
    opcode, _, node, *_ = wire.IN_HEADER.unpack_from(request)
    body = request[wire.IN_HEADER.size :]
    detail: Detail = {"node": node}
    if opcode in _NAMES:
        detail["name"] = body[_NAMES[opcode] :].partition(b"\0")[0].decode(errors="replace")
    if opcode in _TRANSFERS and len(body) >= wire.READ_IN.size:
        _, detail["offset"], detail["size"] = wire.READ_IN.unpack_from(body)
    return wire.OPCODES.get(opcode, f"#{opcode}"), detail


def _status(chain: Chain, written: int) -> str:
    """Name the error in an answer."""
    if written < wire.OUT_HEADER.size:
        return "none"
    _, error, _ = wire.OUT_HEADER.unpack(chain.writable.read(0, wire.OUT_HEADER.size))
    return "OK" if not error else errno.errorcode.get(-error, str(error))
