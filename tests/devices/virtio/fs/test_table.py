"""The tables of nodes: like a dictionary in order of use, but nothing in them becomes large."""

from collections import OrderedDict
from random import Random

import pytest

from devices.virtio.fs import table
from devices.virtio.fs.table import Nodes, Spread
from devices.virtio.fs.tree import Node


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
    for part in (*nodes._by_number._parts, *nodes._ages.values(), *known._parts):
        assert len(part) <= 1024
    known.remove((64, 8))
    known.remove((64, 8))
    assert (known.get((64, 8)), known.get((64, 16))) == (None, nodes.get(2))
