"""The sound device as its driver sees it: control requests with their answers, and events."""

from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import SoundDevice, wire
from emu.trace.between import watch_device, watch_queue
from emu.trace.record import Detail, Emit

__all__ = ["watch_sound"]


def _codes(prefix: str) -> dict[int, str]:
    return {code: name[len(prefix) :] for name, code in vars(wire).items() if name.startswith(prefix)}


_REQUESTS, _STATUSES, _EVENTS = _codes("R_"), _codes("S_"), _codes("EVT_")
_PARAMETERS = wire.PCM_SET_PARAMS.size


def watch_sound(device: VirtioDevice, emit: Emit) -> VirtioDevice:
    """Watch the control and event queues, if it is a sound device."""
    if device.device_id != SoundDevice.device_id:
        return device

    def answered(chain: Chain, written: int) -> None:
        code, detail = _describe_request(chain.readable.read(0, min(len(chain.readable), _PARAMETERS)))
        emit("snd", "snd control", code, {**detail, "status": _head(chain, written, _STATUSES)})

    def told(chain: Chain, written: int) -> None:
        subject = wire.EVENT.unpack(chain.writable.read(0, written))[1] if written == wire.EVENT.size else 0
        emit("snd", "snd events", _head(chain, written, _EVENTS), {"about": subject})

    watches = {wire.CONTROLQ: answered, wire.EVENTQ: told}

    def watch(index: int, queue: Queue) -> Queue:
        return watch_queue(queue, watches[index]) if index in watches else queue

    return watch_device(device, watch)


def _head(chain: Chain, written: int, names: dict[int, str]) -> str:
    """Name the code with which a reply or an event begins."""
    if written < wire.HDR.size:
        return "none"
    return _name(wire.HDR.unpack(chain.writable.read(0, wire.HDR.size))[0], names)


def _name(code: int, names: dict[int, str]) -> str:
    return names.get(code, f"{code:#x}")


def _describe_request(request: bytes) -> tuple[str, Detail]:
    """Say what a request is, from its first bytes, which may be anything."""
    if len(request) < wire.HDR.size:
        return "malformed", {}
    (code,) = wire.HDR.unpack_from(request)
    name = _name(code, _REQUESTS)
    if code == wire.R_PCM_SET_PARAMS and len(request) == _PARAMETERS:
        _, stream, buffer, period, _, channels, fmt, rate, _ = wire.PCM_SET_PARAMS.unpack(request)
        known = wire.PCM_FORMATS.get(fmt)
        return name, {
            "stream": stream,
            "format": f"#{fmt}" if known is None else known.name,
            "rate": wire.PCM_RATES[rate] if rate < len(wire.PCM_RATES) else f"#{rate}",
            "channels": channels,
            "buffer_bytes": buffer,
            "period_bytes": period,
        }
    if code in wire.QUERIES and len(request) >= wire.QUERY_INFO.size:
        _, first, count, _ = wire.QUERY_INFO.unpack_from(request)
        return name, {"first": first, "count": count}
    if len(request) >= wire.PCM_HDR.size:
        subject = "stream" if name.startswith("PCM") else "control" if name.startswith("CTL") else "jack"
        return name, {subject: wire.PCM_HDR.unpack_from(request)[1]}
    return name, {}
