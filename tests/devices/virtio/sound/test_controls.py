"""devices/virtio/sound/controls.py: what the driver reads and writes, what the host does, and the effect of both."""

import struct

import pytest

from devices.errors import UsageError
from tests.devices.virtio.fake_driver import VERSION_1
from tests.devices.virtio.sound.guest import (
    BAD_MSG,
    CHMAP_INFO,
    CTL_ENUM_ITEMS,
    CTL_INFO,
    CTL_NOTIFY,
    CTL_READ,
    CTL_TLV_COMMAND,
    CTL_TLV_READ,
    CTL_TLV_WRITE,
    CTL_WRITE,
    EVENTQ,
    JACK_INFO,
    NOT_SUPP,
    OK,
    PCM_INFO,
    RELEASE,
    Guest,
    status_of,
)

VOLUME, SWITCH, CAPTURE_VOLUME, CAPTURE_SWITCH = range(4)
NAMES = ["Master Playback Volume", "Master Playback Switch", "Capture Volume", "Capture Switch"]
OUTPUT, INPUT = 0, 1
VALUE = 1  # the mask of a notification


@pytest.fixture
def guest():
    return Guest()


def read(guest, control, room=516):
    reply = guest.request(struct.pack("<II", CTL_READ, control), room)
    assert status_of(reply[:4]) == OK
    return struct.unpack_from("<ii", reply, 4)


def write(guest, control, *values):
    """Write values in a structure of 512 bytes, as Linux does."""
    value = struct.pack(f"<{len(values)}i", *values).ljust(512, b"\0")
    return status_of(guest.request(struct.pack("<II", CTL_WRITE, control) + value))


def notification(control):
    return (CTL_NOTIFY, control | VALUE << 16)


# What they are.


@pytest.mark.parametrize(("size", "layout"), [(96, "<6I44s4x3I"), (92, "<6I44s3I")])
def test_infos(guest, size, layout):
    """Both layouts: as compilers align the structure, and as in the text of the specification."""
    reply = guest.query(CTL_INFO, 0, 4, size)
    assert (status_of(reply[:4]), len(reply)) == (OK, 4 + 4 * size)
    infos = [struct.unpack_from(layout, reply, 4 + i * size) for i in range(4)]
    roles, types, accesses = [2, 4, 3, 5], [1, 0, 1, 0], [0b10011, 0b11, 0b10011, 0b11]
    for number, info in enumerate(infos):
        name = NAMES[number].encode().ljust(44, b"\0")
        maximum = 1 if types[number] == 0 else 100
        assert info == (0, roles[number], types[number], accesses[number], 2, 0, name, 0, maximum, 0)


@pytest.mark.parametrize("size", [4, 24, 68, 72, 91])
def test_infos_that_are_cut_short(guest, size):
    whole = guest.query(CTL_INFO, 1, 1, 92)
    assert guest.query(CTL_INFO, 1, 1, size) == whole[: 4 + size]


@pytest.mark.parametrize("size", [97, 128])
def test_infos_with_room_to_spare(guest, size):
    whole = guest.query(CTL_INFO, 1, 1, 96)
    assert guest.query(CTL_INFO, 1, 1, size) == whole.ljust(4 + size, b"\0")


def test_a_driver_without_the_feature_has_no_controls(guest):
    guest.driver.reset()
    guest.driver.start(features=VERSION_1)
    for code in range(CTL_INFO, CTL_TLV_COMMAND + 1):
        assert status_of(guest.request(struct.pack("<IIII", code, 0, 1, 96), 600)) == NOT_SUPP
    guest.listen()
    guest.device.controls.set(NAMES[VOLUME], 3)
    assert guest.heard() == []


def test_a_driver_without_the_feature_is_not_told_what_the_last_one_would_be(guest):
    read(guest, VOLUME)
    guest.driver.reset()
    guest.driver.start(features=VERSION_1)
    guest.listen(2)
    guest.device.controls.set(NAMES[VOLUME], 3)
    assert guest.command(RELEASE) == OK
    assert guest.driver.completed(EVENTQ) == []


# Values.


def test_initially_everything_is_heard_unchanged(guest):
    assert [read(guest, number) for number in range(4)] == [(100, 100), (1, 1)] * 2
    for direction in (OUTPUT, INPUT):
        for channels in range(1, 9):
            assert guest.device.controls.gains(direction, channels) == [1.0] * channels


@pytest.mark.parametrize("control", range(4))
def test_what_is_written_can_be_read(guest, control):
    values = (1, 0) if control % 2 else (0, 77)
    assert write(guest, control, *values) == OK
    assert read(guest, control) == values
    assert guest.device.controls[NAMES[control]].values == values
    others = [number for number in range(4) if number != control]
    assert [read(guest, number) for number in others] == [(1, 1) if n % 2 else (100, 100) for n in others]


@pytest.mark.parametrize(
    ("control", "values"),
    [
        (VOLUME, (101, 0)),
        (VOLUME, (0, 101)),
        (VOLUME, (-1, 0)),
        (CAPTURE_VOLUME, (0, -(1 << 31))),
        (SWITCH, (2, 0)),
        (CAPTURE_SWITCH, (1, (1 << 31) - 1)),
    ],
)
def test_what_is_out_of_range_is_refused(guest, control, values):
    before = read(guest, control)
    guest.listen()
    assert write(guest, control, *values) == BAD_MSG
    assert read(guest, control) == before
    assert guest.heard() == []


@pytest.mark.parametrize("code", range(CTL_ENUM_ITEMS, CTL_TLV_COMMAND + 1))
@pytest.mark.parametrize("control", [4, 5, 0x8000_0000, 0xFFFF_FFFF])
def test_controls_that_do_not_exist(guest, code, control):
    assert status_of(guest.request(struct.pack("<II", code, control) + bytes(512), 600)) == BAD_MSG


@pytest.mark.parametrize("length", range(8))
def test_incomplete_values(guest, length):
    assert status_of(guest.request(struct.pack("<II", CTL_WRITE, VOLUME) + bytes(length))) == BAD_MSG
    assert read(guest, VOLUME) == (100, 100)


def test_two_values_are_enough_and_more_are_ignored(guest):
    assert status_of(guest.request(struct.pack("<IIii", CTL_WRITE, VOLUME, 5, 6))) == OK
    assert read(guest, VOLUME, room=12) == (5, 6)
    assert write(guest, VOLUME, 7, 8, 1000) == OK
    assert read(guest, VOLUME) == (7, 8)


@pytest.mark.parametrize("room", [4, 8, 11])
def test_no_room_for_the_values(guest, room):
    assert status_of(guest.request(struct.pack("<II", CTL_READ, VOLUME), room)) == BAD_MSG


@pytest.mark.parametrize(("room", "size"), [(12, 12), (13, 13), (515, 515), (516, 516), (5000, 516)])
def test_a_value_fills_its_structure_and_nothing_else(guest, room, size):
    reply = guest.request(struct.pack("<II", CTL_READ, SWITCH), room)
    assert reply == struct.pack("<Iii", OK, 1, 1).ljust(size, b"\0")


def test_values_outlive_the_driver(guest):
    write(guest, VOLUME, 30, 40)
    guest.driver.reset()
    guest.driver.start()
    assert read(guest, VOLUME) == (30, 40)


# Metadata.


@pytest.mark.parametrize("control", [VOLUME, CAPTURE_VOLUME])
def test_decibels(guest, control):
    """ALSA's DB_SCALE: from -50 dB (which is silence) in steps of 0.5 dB, so that 100 is 0 dB."""
    reply = guest.request(struct.pack("<II", CTL_TLV_READ, control), 4100)
    assert reply == struct.pack("<IIIiI", OK, 1, 8, -5000, 50 | 0x10000)


@pytest.mark.parametrize("room", range(4, 22))
def test_as_much_metadata_as_fits(guest, room):
    whole = guest.request(struct.pack("<II", CTL_TLV_READ, VOLUME), 4100)
    assert guest.request(struct.pack("<II", CTL_TLV_READ, VOLUME), room) == whole[:room]


@pytest.mark.parametrize("control", [SWITCH, CAPTURE_SWITCH])
def test_a_switch_has_no_metadata(guest, control):
    assert status_of(guest.request(struct.pack("<II", CTL_TLV_READ, control), 4100)) == NOT_SUPP


@pytest.mark.parametrize("code", [CTL_ENUM_ITEMS, CTL_TLV_WRITE, CTL_TLV_COMMAND])
@pytest.mark.parametrize("control", range(4))
@pytest.mark.parametrize("payload", [0, 8, 65536 + 8, 100_000])
def test_what_no_control_has(guest, code, control, payload):
    assert status_of(guest.request(struct.pack("<II", code, control) + bytes(payload), 600)) == NOT_SUPP


# Notifications.


def test_the_driver_is_told_what_the_host_does(guest):
    read(guest, SWITCH)
    guest.listen(4)
    guest.device.controls.set(NAMES[SWITCH], 0)
    assert guest.heard() == [notification(SWITCH)]
    guest.device.controls.set(NAMES[SWITCH], (0, 0))
    assert guest.heard() == []
    assert read(guest, SWITCH) == (0, 0)


def test_the_driver_is_told_of_its_own_writes(guest):
    """Before it has the reply, or along with it: Linux's applications learn of a change in no other way."""
    guest.listen(4)
    request = struct.pack("<IIii", CTL_WRITE, VOLUME, 1, 2)
    guest.driver.submit(0, [request], [4])
    guest.driver.kick(0)
    assert guest.heard() == [notification(VOLUME)]
    assert [status_of(done.data) for done in guest.driver.completed(0)] == [OK]
    write(guest, VOLUME, 1, 2)
    assert guest.heard() == []


def test_no_value_no_notification(guest):
    guest.listen(4)
    guest.query(CTL_INFO, 0, 4, 96)
    guest.device.controls.set(NAMES[VOLUME], 50)
    assert guest.heard() == []
    assert read(guest, VOLUME) == (50, 50)
    guest.device.controls.set(NAMES[VOLUME], 51)
    guest.device.controls.set(NAMES[CAPTURE_VOLUME], 51)
    assert guest.heard() == [notification(VOLUME)]


def test_a_driver_that_starts_has_no_values(guest):
    read(guest, VOLUME)
    guest.device.controls.set(NAMES[VOLUME], 50)
    guest.driver.reset()
    guest.driver.start()
    guest.listen(4)
    for level, code in enumerate((JACK_INFO, PCM_INFO, CHMAP_INFO, CTL_INFO)):
        guest.device.controls.set(NAMES[VOLUME], level)
        guest.query(code, 0, 1, 96)
        assert guest.heard() == []
    read(guest, VOLUME)
    guest.device.controls.set(NAMES[VOLUME], 51)
    assert guest.heard() == [notification(VOLUME)]


def test_without_buffers_one_notification_for_each_control(guest):
    for number in range(4):
        read(guest, number)
    for level in range(100):
        guest.device.controls.set(NAMES[VOLUME], level)
        guest.device.controls.set(NAMES[CAPTURE_SWITCH], level % 2)
    read(guest, VOLUME)  # one program reads; another may be waiting for the notification
    guest.listen(4)
    assert guest.heard() == [notification(VOLUME), notification(CAPTURE_SWITCH)]


def test_changes_while_the_driver_sleeps(guest):
    read(guest, VOLUME)
    guest.driver.reset()
    guest.device.controls.set(NAMES[VOLUME], 10)
    guest.driver.start()
    guest.listen()
    assert guest.heard() == []  # it may as well be starting
    guest.driver.submit(0, [struct.pack("<II", CTL_READ, VOLUME)], [516])
    guest.driver.kick(0)
    assert guest.heard() == [notification(VOLUME)]


# The host's side.


def test_the_host_sees_all_controls(guest):
    assert [control.name for control in guest.device.controls] == NAMES
    guest.device.controls.set("Master Playback Volume", (10, 20))
    assert guest.device.controls["Master Playback Volume"].values == (10, 20)


@pytest.mark.parametrize("values", [-1, 101, (1,), (1, 2, 3), (), (0, 101)])
def test_the_host_makes_a_mistake(guest, values):
    with pytest.raises(UsageError, match="from 0 to 100"):
        guest.device.controls.set("Master Playback Volume", values)
    with pytest.raises(UsageError, match="Capture Switch"):
        guest.device.controls.set("Bass", values)
    assert guest.device.controls["Master Playback Volume"].values == (100, 100)


def test_the_backend_hears_of_all_changes_and_of_nothing_else(guest):
    write(guest, VOLUME, 80, 0)
    write(guest, VOLUME, 80, 0)
    write(guest, VOLUME, 3, 400)
    guest.device.controls.set(NAMES[CAPTURE_SWITCH], 0)
    minus_10_db = pytest.approx(10**-0.5)
    assert guest.backend.gains == [
        ([1, 1], [1, 1]),
        ([minus_10_db, 0], [1, 1]),
        ([minus_10_db, 0], [0, 0]),
    ]


def test_gains_in_decibels(guest):
    controls = guest.device.controls
    controls.set(NAMES[VOLUME], (60, 1))  # -20 dB, -49.5 dB
    assert controls.gains(OUTPUT, 2) == pytest.approx([0.1, 10 ** (-49.5 / 20)])
    assert controls.gains(INPUT, 2) == [1, 1]
    controls.set(NAMES[CAPTURE_VOLUME], 0)
    assert controls.gains(INPUT, 2) == [0, 0]


def test_left_and_right_of_many_channels(guest):
    guest.device.controls.set(NAMES[SWITCH], (1, 0))
    assert guest.device.controls.gains(OUTPUT, 8) == [1, 0, 1, 0, 0.5, 0.5, 1, 0]
    assert guest.device.controls.gains(OUTPUT, 1) == [0.5]
    guest.device.controls.set(NAMES[SWITCH], 0)
    for channels in range(1, 9):
        assert guest.device.controls.gains(OUTPUT, channels) == [0] * channels
        assert guest.device.controls.gains(INPUT, channels) == [1] * channels
