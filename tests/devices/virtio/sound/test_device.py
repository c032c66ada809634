"""devices/virtio/sound/device.py: how the device describes itself, and its answer to every malformed request."""

import struct

import pytest

from devices.audio.pcm import FORMATS, PcmParams
from tests.devices.virtio.fake_driver import NEXT, RAM_BASE, WRITE
from tests.devices.virtio.sound.guest import (
    BAD_MSG,
    CHMAP_INFO,
    CONTROLQ,
    CTL_ENUM_ITEMS,
    CTL_INFO,
    CTL_TLV_COMMAND,
    CTL_WRITE,
    EVENTQ,
    FORMAT_CODES,
    IO_ERR,
    JACK_INFO,
    JACK_REMAP,
    NOT_SUPP,
    OK,
    PCM_INFO,
    PREPARE,
    RATES,
    RELEASE,
    RXQ,
    S16_STEREO,
    SECOND,
    SET_PARAMS,
    START,
    STOP,
    TXQ,
    Guest,
    noise,
    status_of,
)

U32_MAX = 0xFFFF_FFFF
STREAM_COMMANDS = [PREPARE, RELEASE, START, STOP]


@pytest.fixture
def guest():
    return Guest()


def query(guest, code, first, count, size, room=4096):
    return guest.request(struct.pack("<IIII", code, first, count, size), room)


# What it is.


def test_identity_and_queues(guest):
    assert guest.driver.read("DeviceID") == 25
    sizes = []
    for index in range(5):
        guest.driver.write("QueueSel", index)
        sizes.append(guest.driver.read("QueueNumMax"))
    assert sizes == [64, 64, 1024, 1024, 0]


def test_configuration_agrees_with_what_can_be_asked(guest):
    jacks, streams, chmaps, controls = struct.unpack("<IIII", guest.driver.config(0, 16))
    assert (jacks, streams, chmaps, controls) == (2, 2, 16, 4)
    for code, count, size in (
        (JACK_INFO, jacks, 24),
        (PCM_INFO, streams, 32),
        (CHMAP_INFO, chmaps, 24),
        (CTL_INFO, controls, 96),
    ):
        reply = query(guest, code, 0, count, size)
        assert (len(reply), reply[:4]) == (4 + count * size, struct.pack("<I", OK))
        assert status_of(query(guest, code, 0, count + 1, size)) == BAD_MSG


@pytest.mark.parametrize("size", [1, 2, 4])
def test_configuration_is_read_only(guest, size):
    before = guest.driver.config(0, 16)
    guest.driver.transport.write(0x104, size, 77)
    assert guest.driver.config(0, 16) == before


def test_pcm_info(guest):
    status, nid, features, formats, rates, direction, least, most, padding = struct.unpack(
        "<IIIQQBBB5s", query(guest, PCM_INFO, 0, 1, 32)
    )
    assert (status, nid, features, direction, least, most, padding) == (OK, 0, 0, 0, 1, 8, bytes(5))
    assert formats == sum(1 << code for code in FORMAT_CODES.values())
    assert rates == (1 << len(RATES)) - 1


def test_streams_of_both_directions_make_pairs():
    guest = Guest(streams=(3, 2))
    assert struct.unpack("<I", guest.driver.config(4, 4)) == (5,)
    infos = struct.iter_unpack("<IIQQBBB5s", query(guest, PCM_INFO, 0, 5, 32)[4:])
    assert [(info[0], info[4]) for info in infos] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("streams", [(0, 1), (1, 0), (0, 0)])
def test_a_direction_may_have_no_streams(streams):
    guest = Guest(streams=streams)
    assert struct.unpack("<I", guest.driver.config(4, 4)) == (sum(streams),)
    assert len(query(guest, PCM_INFO, 0, sum(streams), 32)) == 4 + 32 * sum(streams)
    for queue in (TXQ, RXQ):
        assert refused(message(guest, [struct.pack("<I", 0 if queue == RXQ else 1)], [8], queue))


@pytest.mark.parametrize(("code", "full"), [(JACK_INFO, 24), (PCM_INFO, 32), (CHMAP_INFO, 24)])
@pytest.mark.parametrize("size", [4, 6, 17, 23, 24, 31, 32, 33, 100])
def test_items_are_as_large_as_the_driver_wants(guest, code, full, size):
    items = [query(guest, code, first, 1, full)[4:] for first in (0, 1)]
    reply = query(guest, code, 0, 2, size)
    assert reply == struct.pack("<I", OK) + b"".join(item[:size].ljust(size, b"\0") for item in items)


def test_no_items_is_a_good_question(guest):
    assert query(guest, PCM_INFO, 1, 0, 32) == struct.pack("<I", OK)


# Malformed control requests.


@pytest.mark.parametrize(
    ("first", "count", "size", "room"),
    [
        (0, 17, 32, 4096),
        (16, 1, 32, 4096),
        (17, 0, 32, 4096),
        (U32_MAX, 1, 32, 4096),  # CVE-2026-3196: the sum does not fit 32 bits
        (1, U32_MAX, 32, 4096),
        (U32_MAX, 2, 32, 4096),
        (0, U32_MAX, 32, 4096),
        (0, 1, 0, 4096),
        (0, 1, 3, 4096),
        (0, 1, U32_MAX, 4096),
        (0, 1, 32, 35),
        (0, 1, 4093, 4096),
        (0, 1, 65536, 100_000),  # it would fit, but nothing is that large
    ],
)
@pytest.mark.parametrize("code", [JACK_INFO, PCM_INFO, CHMAP_INFO, CTL_INFO])
def test_bad_queries(guest, code, first, count, size, room):
    assert status_of(query(guest, code, first, count, size, room)) == BAD_MSG


@pytest.mark.parametrize("code", [0, 3, 0xFF, 0x106, 0x201, 0x2FF, 0x307, 0x1000, 0x8000, U32_MAX])
def test_unknown_requests(guest, code):
    assert status_of(guest.request(struct.pack("<II", code, 0), 16)) == NOT_SUPP


@pytest.mark.parametrize("room", range(4))
def test_without_room_for_a_status_nothing_is_done(guest, room):
    guest.open()
    assert guest.request(struct.pack("<II", START, 0), room) == b""
    assert guest.command(STOP) == BAD_MSG


@pytest.mark.parametrize("length", range(4))
def test_a_request_without_a_code(guest, length):
    assert status_of(guest.request(b"\1" * length)) == BAD_MSG


@pytest.mark.parametrize(
    ("code", "full"),
    [
        *[(code, 16) for code in (JACK_INFO, PCM_INFO, CHMAP_INFO, CTL_INFO, JACK_REMAP, CTL_WRITE)],
        *[(code, 8) for code in (*STREAM_COMMANDS, *range(CTL_ENUM_ITEMS, CTL_TLV_COMMAND + 1)) if code != CTL_WRITE],
        (SET_PARAMS, 24),
    ],
)
def test_a_request_that_ends_too_soon(guest, code, full):
    for length in range(4, full):
        assert status_of(guest.request(struct.pack("<I", code).ljust(length, b"\0"), 64)) == BAD_MSG


@pytest.mark.parametrize(("room", "used"), [(1, 0), (3, 0), (4, 4), (100, 4)])
def test_a_request_with_nothing_to_read(guest, room, used):
    done = guest.driver.request(CONTROLQ, [], [room])
    assert (done.used_len, done.data[:used]) == (used, struct.pack("<I", BAD_MSG)[:used])


def test_a_request_may_be_longer_than_it_needs_to_be(guest):
    assert guest.set_params() == OK
    assert status_of(guest.request(struct.pack("<II", PREPARE, 0) + bytes(1000), 1000)) == OK


def test_an_empty_chain(guest):
    assert guest.driver.request(CONTROLQ, [b""], [0]).used_len == 0
    assert guest.set_params() == OK


@pytest.mark.parametrize("code", STREAM_COMMANDS)
@pytest.mark.parametrize("stream", [2, 3, 0x8000_0000, U32_MAX])
def test_commands_to_a_stream_that_is_not_there(guest, code, stream):
    assert guest.command(code, stream) == BAD_MSG


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"stream": 2}, BAD_MSG),
        ({"stream": U32_MAX}, BAD_MSG),
        ({"period": 0}, BAD_MSG),
        ({"buffer": 0}, BAD_MSG),
        ({"buffer": 0, "period": 0}, BAD_MSG),
        ({"buffer": 63}, BAD_MSG),
        ({"buffer": 8, "period": 16}, BAD_MSG),
        ({"buffer": 36, "period": 18}, BAD_MSG),  # not whole frames
        ({"buffer": 64 << 20, "period": 16}, OK),
        ({"buffer": (64 << 20) + 16, "period": 16}, NOT_SUPP),
        ({"buffer": U32_MAX - 3, "period": U32_MAX - 3}, NOT_SUPP),
        ({"padding": 1}, BAD_MSG),
        ({"channels": 0}, BAD_MSG),
        ({"channels": 9}, NOT_SUPP),
        ({"channels": 255}, NOT_SUPP),
        ({"format": 25}, BAD_MSG),
        ({"format": 64}, BAD_MSG),
        ({"format": 255}, BAD_MSG),
        ({"rate": 16}, BAD_MSG),
        ({"rate": 255}, BAD_MSG),
    ]
    + [({"features": 1 << bit}, BAD_MSG) for bit in range(32)]
    + [({"format": code}, NOT_SUPP) for code in range(25) if code not in FORMAT_CODES.values()],
)
def test_set_params(guest, changes, status):
    assert guest.set_params(**changes) == status
    assert guest.command(PREPARE) == (OK if status == OK else BAD_MSG)


@pytest.mark.parametrize("channels", range(1, 9))
def test_one_to_eight_channels(guest, channels):
    pcm = PcmParams(FORMATS["S24_3"], 5512, channels)
    assert guest.set_params(pcm, buffer=4 * pcm.frame_size, period=2 * pcm.frame_size) == OK


# Malformed I/O messages.


def message(guest, readable, writable, queue=TXQ):
    guest.driver.submit(queue, readable, writable)
    guest.driver.kick(queue)
    assert not guest.driver.completed(queue), "within the notification"
    guest.events.run_due()
    [done] = guest.driver.completed(queue)
    assert guest.driver.ack() == 1
    return done


def refused(done):
    return done.used_len == 8 and done.data[-8:] == struct.pack("<II", IO_ERR, 0)


@pytest.mark.parametrize("stream", [1, 2, 0x8000_0000, U32_MAX])
def test_a_message_for_no_stream(guest, stream):
    guest.open()
    assert refused(message(guest, [struct.pack("<I", stream), noise(1, 16)], [8]))


@pytest.mark.parametrize("length", range(4))
def test_a_message_without_a_header(guest, length):
    guest.open()
    assert refused(message(guest, [bytes(length)] if length else [], [8]))


@pytest.mark.parametrize("room", range(1, 8))
def test_a_message_without_room_for_a_status(guest, room):
    guest.open()
    done = message(guest, [bytes(20)], [room])
    assert (done.used_len, done.data) == (0, b"\xaa" * room)


def test_a_message_with_nothing_to_write_to(guest):
    guest.open()
    assert message(guest, [bytes(20)], []).used_len == 0


def test_a_status_lies_at_the_end_of_what_may_be_written(guest):
    guest.open()
    done = message(guest, [struct.pack("<I", 7)], [20])
    assert done.data == b"\xaa" * 12 + struct.pack("<II", IO_ERR, 0)


@pytest.mark.parametrize("size", [1, 3, 5, 17])
def test_a_message_that_is_not_whole_frames(guest, size):
    guest.open()
    assert refused(message(guest, [bytes(4 + size)], [8]))


def test_a_message_that_is_absurdly_long(guest):
    guest.open()
    ring = guest.driver.queues[TXQ]
    header, status = guest.driver.memory.allocate(4), guest.driver.memory.allocate(8)
    guest.driver.memory.store(header, bytes(4))
    ring.put_descriptor(0, header, 4, NEXT, 1)
    for index in range(1, 6):  # the same 4 MiB, again and again
        ring.put_descriptor(index, RAM_BASE, 4 << 20, NEXT, index + 1)
    ring.put_descriptor(6, status, 8, WRITE)
    ring.make_available(0)
    guest.driver.kick(TXQ)
    guest.events.run_due()
    assert guest.driver.memory.load(status, 8) == struct.pack("<II", IO_ERR, 0)


@pytest.mark.parametrize("commands", [[], [SET_PARAMS], [SET_PARAMS, PREPARE, RELEASE]])
def test_a_message_when_nothing_is_prepared(guest, commands):
    for command in commands:
        assert (guest.set_params() if command == SET_PARAMS else guest.command(command)) == OK
    assert refused(message(guest, [bytes(4), noise(1, 16)], [8]))


# The same for recording: CVE-2024-7730 wrote beyond messages that were too short.

TO_RECORD = struct.pack("<I", 1)


@pytest.mark.parametrize("room", range(1, 8))
def test_a_recording_without_room_for_a_status(guest, room):
    guest.open(stream=1)
    done = message(guest, [TO_RECORD], [room], RXQ)
    assert (done.used_len, done.data) == (0, b"\xaa" * room)


def test_a_recording_with_nothing_to_write_to(guest):
    guest.open(stream=1)
    assert message(guest, [TO_RECORD], [], RXQ).used_len == 0


@pytest.mark.parametrize("readable", [[], [b"\1"], [b"\1\0\0"], *([struct.pack("<I", n)] for n in (0, 2, U32_MAX))])
def test_a_recording_for_no_input_stream(guest, readable):
    guest.open(stream=1)
    done = message(guest, readable, [16, 8], RXQ)
    assert refused(done)
    assert done.data[:-8] == b"\xaa" * 16


@pytest.mark.parametrize("commands", [[], [SET_PARAMS], [SET_PARAMS, PREPARE, RELEASE]])
def test_a_recording_when_nothing_is_prepared(guest, commands):
    for command in commands:
        assert (guest.set_params(stream=1) if command == SET_PARAMS else guest.command(command, 1)) == OK
    assert refused(message(guest, [TO_RECORD], [16, 8], RXQ))


@pytest.mark.parametrize("writable", [[8], [1, 7], [3, 8], [9], [8, 2, 1]])
def test_a_recording_of_less_than_a_frame(guest, writable):
    guest.open(stream=1)
    guest.driver.submit(RXQ, [TO_RECORD], writable)
    guest.driver.kick(RXQ)
    guest.command(START, 1)
    assert not guest.driver.completed(RXQ), "within the notification"
    guest.events.run_due()
    [done] = guest.driver.completed(RXQ)
    assert done.used_len == 8
    assert done.data == b"\xaa" * (sum(writable) - 8) + struct.pack("<II", OK, 0)


def test_a_recording_that_is_absurdly_long(guest):
    guest.open(stream=1)
    ring = guest.driver.queues[RXQ]
    header = guest.driver.memory.allocate(4)
    guest.driver.memory.store(header, TO_RECORD)
    ring.put_descriptor(0, header, 4, NEXT, 1)
    status = guest.driver.memory.allocate(8)
    for index in range(1, 6):  # the same 4 MiB, again and again
        ring.put_descriptor(index, RAM_BASE + (8 << 20), 4 << 20, NEXT | WRITE, index + 1)
    ring.put_descriptor(6, status, 8, WRITE)
    ring.make_available(0)
    guest.driver.kick(RXQ)
    guest.events.run_due()
    assert guest.driver.memory.load(status, 8) == struct.pack("<II", IO_ERR, 0)


def test_a_message_in_the_queue_of_the_other_direction(guest):
    guest.open(stream=0)
    guest.open(stream=1)
    assert refused(message(guest, [struct.pack("<I", 0), bytes(16)], [16, 8], RXQ))
    assert refused(message(guest, [struct.pack("<I", 1), bytes(16)], [16, 8], TXQ))


def test_a_refused_message_is_returned_before_release_is_answered(guest):
    guest.open()
    guest.driver.submit(TXQ, [b"?"], [8])
    guest.driver.kick(TXQ)
    assert guest.command(RELEASE) == OK
    assert refused(guest.driver.completed(TXQ)[0])
    assert not guest.events.pending


def test_a_full_queue_of_nonsense_is_one_interrupt(guest):
    guest.open()
    for _ in range(512):
        guest.driver.submit(TXQ, [b"?"], [8])
    guest.driver.kick(TXQ)
    guest.events.run_due()
    assert guest.driver.irq.edges == 3  # two commands, and this
    assert len(guest.driver.completed(TXQ)) == 512


def test_a_refused_message_does_not_stop_the_ones_behind_it(guest):
    guest.open()
    guest.driver.submit(TXQ, [b"?"], [8])
    guest.submit(noise(1, 16))
    guest.driver.kick(TXQ)
    guest.command(START)
    guest.run(SECOND)
    assert [done.status for done in guest.done] == [IO_ERR, OK]


# Other queues.


def test_event_buffers_are_kept(guest):
    for _ in range(64):
        guest.driver.submit(EVENTQ, [], [8])
    guest.driver.kick(EVENTQ)
    guest.open()
    guest.send(noise(1, 16))
    guest.command(START)
    guest.run(SECOND)
    assert not guest.driver.completed(EVENTQ)


@pytest.mark.parametrize("index", [4, 5, 0xFFFF, U32_MAX])
def test_kicks_of_queues_that_are_not_there(guest, index):
    guest.driver.kick(index)
    assert guest.set_params() == OK


def test_more_than_a_queue_of_commands(guest):
    for _ in range(200):
        assert guest.set_params(S16_STEREO) == OK


def test_a_full_control_queue_is_answered_at_one_kick(guest):
    request = struct.pack("<II", RELEASE, 0)
    for _ in range(64):
        guest.driver.submit(CONTROLQ, [request], [4], indirect=True)
    guest.driver.kick(CONTROLQ)
    assert [status_of(done.data) for done in guest.driver.completed(CONTROLQ)] == [OK] * 64
    guest.driver.submit(CONTROLQ, [request], [4])
    assert guest.driver.wants_kick(CONTROLQ)


def test_a_kick_with_nothing_to_do_does_not_interrupt(guest):
    for index in range(4):
        guest.driver.kick(index)
    assert guest.driver.irq.edges == 0


@pytest.mark.parametrize("missing", range(4))
def test_a_driver_that_sets_up_three_queues(missing):
    guest = Guest()
    guest.driver.start(sizes=[0 if index == missing else 64 for index in range(4)])
    for index in range(4):
        guest.driver.kick(index)
    if missing != CONTROLQ:
        guest.open()
        guest.command(START)
        guest.close()
    guest.driver.reset()
