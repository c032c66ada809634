"""Tables of very many entries, in which nothing takes long: to enlarge one dictionary of 100,000 takes 10 ms."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from devices.virtio.fs.tree import Node

__all__ = ["Nodes", "Spread"]

_PARTS = 256
#: How many nodes are of the same age.
_SAME_AGE = 1024

_Key = TypeVar("_Key", int, tuple[int, int])
_Value = TypeVar("_Value")


class Spread(Generic[_Key, _Value]):
    """A dictionary that is made of many, none of which becomes large."""

    def __init__(self) -> None:
        self._parts: list[dict[_Key, _Value]] = [{} for _ in range(_PARTS)]

    def get(self, key: _Key) -> _Value | None:
        """Return what is there, if anything."""
        return self._parts[hash(key) % _PARTS].get(key)

    def put(self, key: _Key, value: _Value) -> None:
        """Put ``value`` there."""
        self._parts[hash(key) % _PARTS][key] = value

    def remove(self, key: _Key) -> None:
        """Have nothing there."""
        self._parts[hash(key) % _PARTS].pop(key, None)

    def parts(self) -> list[dict[_Key, _Value]]:
        """Return what it is made of."""
        return self._parts


class Nodes:
    """Nodes by their numbers, and in the order in which they were used last."""

    def __init__(self) -> None:
        self._by_number: Spread[int, Node] = Spread()
        self._ages: dict[int, dict[int, Node]] = {0: {}}  # oldest first, each in order
        self._age = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, number: int) -> "Node | None":
        """Return the node of this number, if there is one."""
        return self._by_number.get(number)

    def add(self, node: "Node") -> None:
        """Have another node, the one used last."""
        self._by_number.put(node.id, node)
        self._count += 1
        self._append(node)

    def use(self, node: "Node") -> None:
        """Note that one of them is used."""
        if node.age == self._age:
            newest = self._ages[self._age]
            newest[node.id] = newest.pop(node.id)
        else:
            self._take_out(node)
            self._append(node)

    def remove(self, node: "Node") -> None:
        """Have that node no longer, if it is one of them."""
        if self._by_number.get(node.id) is node:
            self._by_number.remove(node.id)
            self._count -= 1
            self._take_out(node)

    def oldest(self) -> "Node":
        """Return the one that was not used for the longest time; there must be one."""
        return next(node for nodes in self._ages.values() for node in nodes.values())

    def __iter__(self) -> "Iterator[Node]":
        return (node for nodes in self._ages.values() for node in nodes.values())

    def __reversed__(self) -> "Iterator[Node]":
        return (node for nodes in reversed(self._ages.values()) for node in reversed(nodes.values()))

    def parts(self) -> "list[dict[int, Node]]":
        """Return what it is made of."""
        return [*self._ages.values(), *self._by_number.parts()]

    def _append(self, node: "Node") -> None:
        newest = self._ages[self._age]
        if len(newest) == _SAME_AGE:
            self._age += 1
            newest = self._ages[self._age] = {}
        newest[node.id] = node
        node.age = self._age

    def _take_out(self, node: "Node") -> None:
        nodes = self._ages[node.age]
        del nodes[node.id]
        if not nodes and node.age != self._age:
            del self._ages[node.age]
