"""Channel maps (virtio 1.3, 5.14.6.9): which channel of a frame goes where.

The device plays channels in a fixed order, so there is one map for each number of channels. The orders are those of
ALSA and its applications: stereo first, then the rear, then centre and subwoofer, then the sides, so that a map begins
like the smaller ones wherever they can agree.
"""

from collections.abc import Iterable

from devices.virtio.sound import wire

__all__ = ["MAPS", "channel_maps", "sides"]

# Positions (CHMAP_*).
_MONO, _FL, _FR, _RL, _RR, _FC, _LFE, _SL, _SR, _RC = range(2, 12)

#: Positions by number of channels.
MAPS = {
    1: (_MONO,),
    2: (_FL, _FR),
    3: (_FL, _FR, _LFE),  # 2.1
    4: (_FL, _FR, _RL, _RR),  # 4.0
    5: (_FL, _FR, _RL, _RR, _FC),  # 5.0
    6: (_FL, _FR, _RL, _RR, _FC, _LFE),  # 5.1
    7: (_FL, _FR, _RL, _RR, _FC, _LFE, _RC),  # 6.1
    8: (_FL, _FR, _RL, _RR, _FC, _LFE, _SL, _SR),  # 7.1
}

# How far each position belongs to the left and to the right; what lies between belongs half to each.
_SIDES = {
    **dict.fromkeys((_FL, _RL, _SL), (1.0, 0.0)),
    **dict.fromkeys((_FR, _RR, _SR), (0.0, 1.0)),
    **dict.fromkeys((_MONO, _FC, _LFE, _RC), (0.5, 0.5)),
}


def channel_maps(groups: Iterable[tuple[int, int]]) -> list[bytes]:
    """Describe the maps of all ``groups`` of streams, each a (hda_fn_nid, direction), to the driver.

    Linux fails on a group that has maps but no stream.
    """
    return [
        wire.CHMAP_INFO.pack(nid, direction, channels, bytes(positions))
        for nid, direction in groups
        for channels, positions in MAPS.items()
    ]


def sides(channels: int) -> list[tuple[float, float]]:
    """Return how far each channel belongs to the left and to the right; the two add up to 1."""
    return [_SIDES[position] for position in MAPS[channels]]
