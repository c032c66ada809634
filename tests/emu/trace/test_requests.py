"""Control requests and events of a real sound device."""

import pytest

from tests.devices.virtio.sound.guest import BAD_MSG, CTL_READ, RELEASE, S16_STEREO, START, STOP
from tests.emu.trace.watched import WatchedGuest


@pytest.fixture
def guest() -> WatchedGuest:
    return WatchedGuest()


def test_control_requests_by_name_with_what_they_ask_and_the_answer(guest):
    guest.open(S16_STEREO, buffer=64, period=16)
    assert guest.command(STOP) == BAD_MSG
    guest.command(RELEASE)
    guest.request(b"??")
    guest.request((0x9999).to_bytes(4, "little"))
    guest.query(0x0100, 0, 1, 32)
    guest.request(CTL_READ.to_bytes(4, "little") + (3).to_bytes(4, "little"), room=64)
    told = [(record.name, *record.detail.values()) for record in guest.records if record.track == "snd control"]
    assert told == [
        ("PCM_SET_PARAMS", 0, "S16", 48000, 2, 64, 16, "OK"),
        ("PCM_PREPARE", 0, "OK"),
        ("PCM_STOP", 0, "BAD_MSG"),
        ("PCM_RELEASE", 0, "OK"),
        ("malformed", "BAD_MSG"),
        ("0x9999", "NOT_SUPP"),
        ("PCM_INFO", 0, 1, "OK"),
        ("CTL_READ", 3, "OK"),
    ]


def test_a_request_without_room_for_an_answer(guest):
    guest.request(START.to_bytes(4, "little"), room=2)
    assert guest.records[-1].detail["status"] == "none"


def test_an_event_is_reported(guest):
    guest.query(0x0001, 0, 2, 24)
    guest.listen()
    guest.device.jacks.plug("mic", connected=False)
    [event] = [record for record in guest.records if record.track == "snd events"]
    assert (event.name, event.detail) == ("JACK_DISCONNECTED", {"about": 1})
