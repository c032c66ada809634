"""devices/virtio/sound/jacks.py: what the driver learns about the jacks, and when."""

import struct

import pytest

from devices.errors import UsageError
from tests.devices.virtio.sound.guest import (
    BAD_MSG,
    EVENTQ,
    JACK_CONNECTED,
    JACK_DISCONNECTED,
    JACK_INFO,
    JACK_REMAP,
    OK,
    RELEASE,
    Guest,
    status_of,
)

LINE, MIC = 0, 1


@pytest.fixture
def guest():
    return Guest()


def infos(guest):
    """Ask for all jacks; return (nid, features, defconf, caps, connected) of each."""
    reply = guest.query(JACK_INFO, 0, 2, 24)
    assert status_of(reply[:4]) == OK
    assert [reply[at + 17 : at + 24] for at in (4, 28)] == [bytes(7)] * 2  # padding (5.14.6.4.1.1)
    return [struct.unpack_from("<IIIIB", reply, at) for at in (4, 28)]


def remap(guest, jack, association, sequence):
    return status_of(guest.request(struct.pack("<IIII", JACK_REMAP, jack, association, sequence)))


def test_a_green_line_out_and_a_pink_microphone_at_the_back(guest):
    line, mic = infos(guest)
    assert line == (0, 1, 0x01014010, 1 << 2 | 1 << 4, 1)
    assert mic == (0, 1, 0x01A19020, 1 << 2 | 1 << 5, 1)


def test_names_and_states_for_the_host(guest):
    guest.device.jacks.plug("mic", connected=False)
    assert {jack.name: jack.connected for jack in guest.device.jacks} == {"line": True, "mic": False}
    with pytest.raises(UsageError, match="line, mic"):
        guest.device.jacks.plug("phones", connected=True)


@pytest.mark.parametrize("number", [LINE, MIC])
def test_plugging(guest, number):
    name = ["line", "mic"][number]
    infos(guest)
    guest.listen(4)
    guest.device.jacks.plug(name, connected=False)
    assert guest.heard() == [(JACK_DISCONNECTED, number)]
    assert [info[4] for info in infos(guest)] == [number != LINE, number != MIC]
    guest.device.jacks.plug(name, connected=True)
    assert guest.heard() == [(JACK_CONNECTED, number)]


def test_only_changes_are_reported(guest):
    infos(guest)
    guest.listen(4)
    guest.device.jacks.plug("mic", connected=True)
    assert guest.heard() == []
    guest.device.jacks.plug("mic", connected=False)
    guest.device.jacks.plug("mic", connected=False)
    assert guest.heard() == [(JACK_DISCONNECTED, MIC)]


def test_a_driver_that_has_not_asked_hears_nothing(guest):
    guest.listen(4)
    guest.device.jacks.plug("mic", connected=False)
    assert guest.heard() == []
    assert infos(guest)[MIC][4] == 0
    guest.listen()
    assert guest.heard() == []  # it has been told
    guest.device.jacks.plug("mic", connected=True)
    assert guest.heard() == [(JACK_CONNECTED, MIC)]


def test_a_driver_hears_of_the_jacks_that_it_has_asked_for(guest):
    guest.query(JACK_INFO, LINE, 1, 24)
    guest.query(JACK_INFO, 0, 3, 24)  # is refused
    guest.query(JACK_INFO, 0, 2, 24, room=40)  # as well
    guest.listen(4)
    guest.device.jacks.plug("line", connected=False)
    guest.device.jacks.plug("mic", connected=False)
    assert guest.heard() == [(JACK_DISCONNECTED, LINE)]


def test_without_buffers_the_last_state_is_what_counts(guest):
    infos(guest)
    for _ in range(3):
        guest.device.jacks.plug("mic", connected=False)
        guest.device.jacks.plug("mic", connected=True)
        guest.device.jacks.plug("line", connected=True)
        guest.device.jacks.plug("line", connected=False)
    guest.listen(4)
    assert guest.heard() == [(JACK_DISCONNECTED, LINE)]


def test_changes_while_the_driver_sleeps(guest):
    """Linux resets the device and does not ask again when it wakes up."""
    infos(guest)
    guest.driver.reset()
    guest.device.jacks.plug("mic", connected=False)
    guest.driver.start()
    guest.listen(2)
    guest.device.jacks.plug("line", connected=False)
    assert guest.heard() == []  # it may as well be starting
    assert guest.command(RELEASE) == OK
    assert [done.data for done in guest.driver.completed(EVENTQ)] == [
        struct.pack("<II", JACK_DISCONNECTED, jack) for jack in (LINE, MIC)
    ]


@pytest.mark.parametrize(("association", "sequence"), [(1, 0), (2, 1), (15, 15)])
def test_remap(guest, association, sequence):
    before = infos(guest)
    assert remap(guest, MIC, association, sequence) == OK
    after = infos(guest)
    assert after[LINE] == before[LINE]
    assert after[MIC][2] == before[MIC][2] & ~0xFF | association << 4 | sequence
    assert after[MIC][:2] + after[MIC][3:] == before[MIC][:2] + before[MIC][3:]
    guest.driver.reset()
    guest.driver.start()
    assert infos(guest) == after


@pytest.mark.parametrize(
    ("jack", "association", "sequence"),
    [(2, 1, 0), (0xFFFF_FFFF, 1, 0), (0, 0, 0), (0, 16, 0), (0, 1, 16), (1, 0xFFFF_FFFF, 1), (1, 1, 1 << 31)],
)
def test_bad_remaps_change_nothing(guest, jack, association, sequence):
    before = infos(guest)
    assert remap(guest, jack, association, sequence) == BAD_MSG
    assert infos(guest) == before


@pytest.mark.parametrize(("size", "kept"), [(4, 4), (16, 16), (17, 17), (24, 24), (40, 24)])
def test_infos_of_other_sizes(guest, size, kept):
    whole = guest.query(JACK_INFO, MIC, 1, 24)
    reply = guest.query(JACK_INFO, 0, 2, size)
    assert len(reply) == 4 + 2 * size
    assert reply[4 + size :] == whole[4 : 4 + kept].ljust(size, b"\0")
