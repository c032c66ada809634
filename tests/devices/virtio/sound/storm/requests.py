"""Random control requests: most of them valid, so that streams get to run."""

import random
import struct

from devices.audio import PcmParams
from devices.audio.pcm import FORMATS
from tests.devices.virtio.sound.guest import (
    CTL_READ,
    CTL_TLV_READ,
    CTL_WRITE,
    FORMAT_CODES,
    JACK_REMAP,
    PCM_INFO,
    PREPARE,
    RATES,
    RELEASE,
    SET_PARAMS,
    START,
    STOP,
)
from tests.devices.virtio.sound.storm.replies import QUERIES, ReplyModel
from tests.devices.virtio.sound.test_stream import NEXT

__all__ = ["ODD", "any_request", "room_for", "set_params", "stream_command"]

COMMANDS = [SET_PARAMS, PREPARE, START, STOP, RELEASE]
CODES = [*QUERIES, JACK_REMAP, *COMMANDS, *range(0x301, 0x307)]
UNKNOWN = [0, 3, 0xFF, 0x106, 0x1FF, 0x307, 0xFFFF_FFFF]
#: The way to a running stream, which is where most happens.
ONWARD = {"new": SET_PARAMS, "set": PREPARE, "prepared": START, "stopped": START, "released": PREPARE}
#: Numbers at which something may break.
ODD = [*range(10), 15, 16, 63, 64, 100, 101, 255, 256, 4096, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]
ROOMS = [0, 1, 2, 3, 4, 5, 8, 11, 12, 20, 36, 100, 516, 600, 4096]


def any_request(rng: random.Random, model: ReplyModel) -> bytes:
    kind = rng.random()
    if kind < 0.6:
        request = stream_command(rng, model)
    elif kind < 0.75:
        request = _query(rng, model)
    elif kind < 0.95:
        values = [rng.randrange(3) if rng.random() < 0.8 else rng.choice(ODD) for _ in range(2)]
        request = struct.pack("<IIII", rng.choice([CTL_READ, CTL_WRITE, *CODES]), rng.randrange(5), *values)
        request += bytes(70_000 if rng.random() < 0.001 else rng.choice([0, 0, 504, 520]))
    else:
        request = struct.pack("<I", rng.choice(UNKNOWN)) + rng.randbytes(28)
    return _mutate(rng, request) if rng.random() < 0.12 else request


def _query(rng: random.Random, model: ReplyModel) -> bytes:
    code = rng.choice(list(QUERIES))
    total = len(model.items[code])
    first = rng.randrange(total)
    size = QUERIES[code] if rng.random() < 0.6 else rng.choice(ODD)
    return struct.pack("<IIII", code, first, rng.randrange(total - first + 1), size)


def stream_command(rng: random.Random, model: ReplyModel) -> bytes:
    number = rng.randrange(len(model.streams))
    state = model.streams[number].state
    code = rng.choice(COMMANDS) if rng.random() < 0.1 else rng.choice(list(NEXT[state]))
    if rng.random() < 0.7:
        if state == "running":
            return struct.pack("<IIII", PCM_INFO, number, 1, 32)
        code = ONWARD[state]
    if code != SET_PARAMS:
        return struct.pack("<II", code, number)
    pcm = PcmParams(rng.choice(list(FORMATS.values())), rng.choice(RATES), rng.choice([1, 2, 2, 3, 8]))
    period = rng.choice([1, 2, 7, 48, 480]) * pcm.frame_size
    request = set_params(number, pcm, period * rng.choice([1, 2, 3, 16]), period)
    if rng.random() < 0.15:
        at = 4 * rng.randrange(1, 5)
        odd = struct.pack("<I", rng.choice(ODD))
        request = request[:at] + odd + request[at + 4 :] if rng.random() < 0.5 else request[:20] + rng.randbytes(4)
    return request


def set_params(number: int, pcm: PcmParams, buffer: int, period: int) -> bytes:
    fields = (buffer, period, 0, pcm.channels, FORMAT_CODES[pcm.format.name], RATES.index(pcm.rate), 0)
    return struct.pack("<IIIIIBBBB", SET_PARAMS, number, *fields)


def _mutate(rng: random.Random, request: bytes) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return request[: rng.randrange(len(request) + 1)]
    if kind == 1:
        return request + rng.randbytes(rng.choice([1, 3, 4, 100]))
    at = rng.randrange(len(request) // 4) * 4
    if kind == 2:
        return request[:at] + struct.pack("<I", rng.choice(ODD)) + request[at + 4 :]
    return request[:at] + bytes([request[at] ^ 1 << rng.randrange(8)]) + request[at + 1 :]


def room_for(rng: random.Random, request: bytes) -> int:
    """How many bytes of reply to leave room for: mostly as many as there will be."""
    if rng.random() < 0.1:
        return rng.choice(ROOMS)
    code = int.from_bytes(request[:4], "little")
    if code in QUERIES and len(request) >= 16:
        _, count, size = struct.unpack_from("<III", request, 4)
        return int(min(4 + count * size, 8192))
    return {CTL_READ: 516, CTL_TLV_READ: 20}.get(code, 4)
