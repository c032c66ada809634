"""The tables of nodes: like a dictionary in order of use, but nothing in them becomes large."""

import os
import stat
from collections import OrderedDict
from pathlib import Path
from random import Random

import pytest

from devices.virtio.fs import table
from devices.virtio.fs.table import Nodes, Spread
from devices.virtio.fs.tree import Node, Tree


@pytest.mark.parametrize("seed", range(5))
def test_nodes_are_in_the_order_of_their_use(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_SAME_AGE", 4)
    chance, nodes, model = Random(seed), Nodes(), OrderedDict[int, Node]()
    for number in range(1000):
        if chance.random() < 0.4:
            model[number] = Node(number, (1, number), 0)
            nodes.add(model[number])
        elif model:
            node = model[chance.choice(list(model))]
            if chance.random() < 0.5:
                nodes.use(node)
                model.move_to_end(node.id)
            else:
                nodes.remove(node)
                nodes.remove(node)  # which it is not one of any longer
                del model[node.id]
        assert list(nodes) == list(model.values())
        assert list(reversed(nodes)) == list(reversed(model.values()))
        assert len(nodes) == len(model)
        assert nodes.get(number) is model.get(number)
        assert not model or nodes.oldest() is next(iter(model.values()))
    assert len(nodes._ages) <= len(model) + 1, "what is empty is dropped"


def test_nothing_becomes_large() -> None:
    nodes, known = Nodes(), Spread[tuple[int, int], Node]()
    for number in range(50_000):
        node = Node(number, (64, 8 * number), 0)
        nodes.add(node)
        known.put(node.key, node)
    for part in (*nodes.parts(), *known.parts()):
        assert len(part) <= 1024
    known.remove((64, 8))
    known.remove((64, 8))
    assert (known.get((64, 8)), known.get((64, 16))) == (None, nodes.get(2))


def test_what_was_known_before_a_reset_is_freed_little_by_little(tmp_path: Path) -> None:
    """All at once, it took 0.1 s for 100,000 files; and a guest that resets for ever must not pile them up."""
    tree = Tree(os.open(tmp_path, os.O_RDONLY))
    status = tmp_path.stat()
    for begun_anew in range(4):
        for number in range(3000):
            file = os.stat_result((stat.S_IFREG, 3000 * begun_anew + number, status.st_dev, *status[3:]))
            tree.look_up(tree.root, b"%d" % number, file)
        assert sum(map(len, tree._gone)) <= (4 if begun_anew else 0)
        tree.clear()
        assert len(tree) == 0
        assert 6000 <= sum(map(len, tree._gone)) <= 9010
    tree.close()
