"""Random requests about jacks, maps and controls: a defined answer to each, and a device that is still right."""

import random
import struct

import pytest

from tests.devices.virtio.sound.guest import BAD_MSG, CTL_TLV_COMMAND, EVENTQ, JACK_INFO, NOT_SUPP, OK, Guest

CODES = [1, 2, 0x100, 0x200, *range(0x300, 0x307)]
NUMBERS = [0, 0, 1, 2, 3, 4, 8, 9, 64, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]
SIZES = [0, 3, 4, 16, 17, 24, 68, 72, 92, 96, 97, 1000, 0x1_0000, 0xFFFF_FFFF]
ROOMS = [0, 1, 3, 4, 5, 11, 12, 20, 52, 100, 388, 516, 4096]


def random_request(rng: random.Random) -> bytes:
    """A request that is right in most of its fields."""
    code = rng.choice(CODES) if rng.random() < 0.95 else rng.getrandbits(32)
    fields = [rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(SIZES)]
    request = struct.pack("<IIII", code, *fields) + rng.choice([b"", bytes(504), rng.randbytes(rng.randrange(600))])
    return request[: rng.randrange(len(request) + 1)] if rng.random() < 0.1 else request


def check_reply(request: bytes, room: int, reply: bytes) -> None:
    """Check what holds for every reply, and the length of each kind."""
    if room < 4:
        assert reply == b""
        return
    (status,) = struct.unpack_from("<I", reply)
    assert status in {OK, BAD_MSG, NOT_SUPP}
    code = int.from_bytes(request[:4].ljust(4, b"\xff"), "little")
    expected = 4
    if status == OK and code in {0x001, 0x100, 0x200, 0x300}:
        _, _, count, size = struct.unpack_from("<IIII", request)
        expected = 4 + count * size
    elif status == OK and code == 0x302:
        expected = min(room, 516)
    elif status == OK and code == 0x304:
        expected = min(room, 20)
    assert len(reply) == expected <= room
    assert status != NOT_SUPP or code not in {0x001, 0x002, 0x100, 0x200, 0x300, 0x302, 0x303}


def fuzz(seed: int, messages: int) -> None:
    """Send random requests, with changes from the host's side and buffers for events in between."""
    rng = random.Random(seed)
    guest = Guest()
    device = guest.device
    for _ in range(messages):
        kind = rng.random()
        if kind < 0.03:
            device.jacks.plug(rng.choice(["line", "mic"]), connected=rng.random() < 0.5)
        elif kind < 0.06:
            control = rng.choice(list(device.controls))
            device.controls.set(control.name, rng.randrange(control.maximum + 1))
        elif kind < 0.09 and len(guest.driver.queues[EVENTQ].free) > 4:
            guest.driver.submit(EVENTQ, rng.choice([[], [], [b"??"]]), rng.choice([[8], [8], [0], [7], [4, 4], [90]]))
            guest.driver.kick(EVENTQ)
        elif kind < 0.091:
            guest.driver.reset()
            guest.driver.start()
        else:
            request, room = random_request(rng), rng.choice(ROOMS)
            check_reply(request, room, guest.request(request, room))
        for done in guest.driver.completed(EVENTQ):
            assert done.used_len == (8 if len(done.data) >= 8 else 0)
        for control in device.controls:
            assert all(0 <= value <= control.maximum for value in control.values)
    guest.listen(4)
    reply = guest.query(JACK_INFO, 0, 2, 24)
    assert [reply[20] == 1, reply[44] == 1] == [jack.connected for jack in device.jacks]
    assert struct.unpack_from("<I", reply, 12)[0] >> 8 == 0x010140  # of the register, remaps change the last byte


@pytest.mark.parametrize("seed", range(4))
def test_random_requests(seed):
    fuzz(seed, 4000)


def test_the_requests_are_not_all_nonsense():
    """A fuzzer that never gets past the first check would find nothing."""
    rng = random.Random(1)
    guest = Guest()
    accepted = set()
    for _ in range(4000):
        request = random_request(rng)
        reply = guest.request(request, 4096)
        if reply.startswith(struct.pack("<I", OK)):
            accepted.add(struct.unpack_from("<I", request)[0])
    assert accepted >= {0x001, 0x002, 0x100, 0x200, 0x300, 0x302, 0x303, CTL_TLV_COMMAND - 2}
