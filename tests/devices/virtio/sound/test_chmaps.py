"""devices/virtio/sound/chmaps.py: one map for each supported number of channels, as in ALSA."""

import struct

import pytest

from devices.virtio.sound.chmaps import MAPS, channel_maps, sides
from tests.devices.virtio.sound.guest import BAD_MSG, CHMAP_INFO, OK, PCM_INFO, Guest, status_of

# CHMAP_* and the layouts that aplay and speaker-test use.
NAMES = ["NONE", "NA", "MONO", "FL", "FR", "RL", "RR", "FC", "LFE", "SL", "SR", "RC"]
LAYOUTS = ["MONO", "FL FR", "FL FR LFE", "FL FR RL RR", "FL FR RL RR FC", "FL FR RL RR FC LFE",
           "FL FR RL RR FC LFE RC", "FL FR RL RR FC LFE SL SR"]  # fmt: skip


def maps(guest):
    """Ask for all maps; return (nid, direction, positions) of each."""
    (count,) = struct.unpack("<I", guest.driver.config(8, 4))
    reply = guest.query(CHMAP_INFO, 0, count, 24)
    assert (status_of(reply[:4]), len(reply)) == (OK, 4 + 24 * count)
    found = []
    for at in range(4, len(reply), 24):
        nid, direction, channels, positions = struct.unpack_from("<IBB18s", reply, at)
        assert not any(positions[channels:])
        found.append((nid, direction, positions[:channels]))
    return found


def test_each_group_of_streams_has_a_map_for_each_number_of_channels():
    guest = Guest()
    (streams,) = struct.unpack("<I", guest.driver.config(4, 4))
    reply = guest.query(PCM_INFO, 0, streams, 32)
    expected = set()
    for at in range(4, len(reply), 32):
        nid, _, _, _, direction, least, most = struct.unpack_from("<IIQQBBB", reply, at)
        expected |= {(nid, direction, channels) for channels in range(least, most + 1)}
    offered = [(nid, direction, len(positions)) for nid, direction, positions in maps(guest)]
    assert sorted(offered) == sorted(expected)  # and no map twice


def test_layouts():
    guest = Guest()
    for _, _, positions in maps(guest):
        assert " ".join(NAMES[position] for position in positions) == LAYOUTS[len(positions) - 1]


def test_no_position_occurs_twice_and_all_are_defined():
    for channels, positions in MAPS.items():
        assert len(set(positions)) == len(positions) == channels <= 18
        assert all(1 < position < 37 for position in positions)


def test_groups():
    infos = channel_maps([(0, 0), (0, 1), (3, 0)])
    assert [struct.unpack_from("<IBB", info) for info in infos] == [
        (nid, direction, channels) for nid, direction in ((0, 0), (0, 1), (3, 0)) for channels in range(1, 9)
    ]
    assert channel_maps([]) == []


@pytest.mark.parametrize(("first", "count"), [(0, 9), (8, 1), (9, 0), (1, 0xFFFF_FFFF)])
def test_maps_that_are_not_there(first, count):
    guest = Guest()
    (total,) = struct.unpack("<I", guest.driver.config(8, 4))
    assert status_of(guest.query(CHMAP_INFO, first + total - 8, count, 24)) == BAD_MSG


@pytest.mark.parametrize("channels", MAPS)
def test_each_channel_is_left_right_or_between(channels):
    shares = sides(channels)
    assert len(shares) == channels
    assert all(left + right == 1 for left, right in shares)
    assert sum(left for left, _ in shares) == sum(right for _, right in shares)  # nothing leans to one side
