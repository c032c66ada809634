"""Random messages by the thousand (a million by hand: tests/benchmarks/messages.py): each is answered correctly,
whatever came before, and nothing of them remains.
"""

import gc
import sys

import pytest

from tests.devices.virtio.sound.storm.storm import Storm


@pytest.mark.parametrize("seed", [1, 2])
def test_each_message_has_its_answer(seed):
    storm = Storm(seed)
    storm.run(8_000)
    # Some of it was nonsense, and some was valid.
    for kind in ("ok", "not ok", "played", "recorded", "returned", "refused", "heard", "broken", "stopped queue"):
        assert storm.counts[kind] > 0
    assert storm.counts["played"] > storm.counts["tx"] // 2
    assert storm.counts["recorded"] > storm.counts["rx"] // 2


def test_no_memory_is_kept():
    storm = Storm(3)
    blocks = []
    for _ in range(3):
        storm.run(4_000)
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    assert blocks[2] - blocks[1] < 1_000  # less than one for ten messages: caches, and the counts
